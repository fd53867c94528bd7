//! Questions to Consul's HTTP API, and what its headers say of each answer.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};
use weft_core::registry::RegistryError;

use super::{
    access::{Access, TOKEN},
    settings::ConsulSettings,
};
use crate::http_client::{Answer, Call, HttpClient};

/// What Consul adds to a wait to spread its answers, as a part of it, and what the network may take.
const LATE: Duration = Duration::from_secs(10);
/// How old an answer may be, in milliseconds, that another server than the leader gave. Ours are the leader's, so that
/// this is only about servers that were told to answer otherwise.
const MAX_LAST_CONTACT: u64 = 10_000;

/// A client of one server. Clones are one.
#[derive(Clone)]
pub(super) struct Client {
    http: HttpClient,
    access: Arc<Access>,
    /// `dc=…&peer=…`, to be added to every question about the catalog.
    place: Arc<str>,
    /// The peer; empty for none.
    peer: Arc<str>,
    /// The datacenter that is named, which may be another than the server's.
    datacenter: Option<Box<str>>,
}

/// What decides about callers that no intention mentions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum DefaultIntention {
    /// Whether they may call.
    Said(bool),
    /// Access control's default.
    #[default]
    Unsaid,
    /// Access control's default, as far as we may read.
    Unreadable,
}

/// An answer about the catalog.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// The state's index; none where the answer has none, or 0, which means nothing can be waited for.
    pub(super) index: Option<u64>,
    /// Whether the server says that it left something out for want of rights.
    pub(super) filtered: bool,
    /// Whether access control refuses what no rule allows.
    pub(super) default_deny: bool,
    /// Whether there is nothing at this path.
    absent: bool,
    answer: Answer,
}

impl Reading {
    /// The body; a path where there is nothing has an empty list.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, RegistryError> {
        match self.absent {
            true => serde_json::from_str("[]").map_err(|error| self.answer.malformed(error)),
            false => self.answer.json(),
        }
    }
}

/// What `/v1/agent/self` says, as far as it is asked for.
#[derive(Deserialize)]
struct AgentSelf {
    #[serde(rename = "DebugConfig", default)]
    debug_config: DebugConfig,
}

#[derive(Default, Deserialize)]
struct DebugConfig {
    #[serde(rename = "DefaultIntentionPolicy", default)]
    default_intention_policy: String,
}

/// Makes a text one part of a path or a query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Client {
    /// Reads the certificates that the settings name.
    pub(super) fn new(settings: &ConsulSettings, access: Arc<Access>) -> Result<Self, RegistryError> {
        let peer_name = settings.peer.clone().unwrap_or_default();
        let datacenter = settings.datacenter.iter().map(|name| format!("dc={}", encoded(name)));
        let peer = settings.peer.iter().map(|name| format!("peer={}", encoded(name)));
        let place = datacenter.chain(peer).collect::<Vec<_>>().join("&");
        Ok(Self {
            http: HttpClient::new(&settings.server)?,
            access,
            place: place.into(),
            peer: peer_name.into(),
            datacenter: settings.datacenter.as_deref().map(Into::into),
        })
    }

    /// The peer whose services are followed; empty for none.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// Reads a path of the catalog, without waiting.
    pub(super) async fn read(&self, path: &str) -> Result<Reading, RegistryError> {
        self.reading(Call::get(self.placed(path))).await
    }

    /// The same of a peer: of who may not see peers, Consul thinks for twelve seconds before it says so.
    pub(super) async fn read_peer(&self, path: &str) -> Result<Reading, RegistryError> {
        self.reading(Call::get(self.placed(path)).within(Duration::from_secs(20))).await
    }

    /// Waits at most `wait` until what a path says has an index above `index`.
    pub(super) async fn wait(
        &self,
        path: &str,
        index: u64,
        wait: Duration,
    ) -> Result<Reading, RegistryError> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joint}index={index}&wait={}ms", wait.as_millis());
        self.reading(Call::get(self.placed(&path)).within(wait + wait / 16 + LATE)).await
    }

    /// Whether the cluster has a leader, as the server that is asked knows without asking others.
    ///
    /// # Errors
    /// That it has none, or that another datacenter does not answer: what is read then may be old.
    pub(super) async fn check_leader(&self) -> Result<(), RegistryError> {
        if self.datacenter.is_some() {
            let nothing = format!("/v1/catalog/nodes?filter={}", encoded("Node == \"\""));
            self.read(&nothing).await?;
        }
        // This is asked of the own cluster alone.
        let call = Call::get("/v1/status/leader").within(Duration::from_secs(5));
        let answer = self.http.first_answer(call).await?.ok()?;
        if answer.json::<String>()?.is_empty() { Err(leaderless()) } else { Ok(()) }
    }

    /// What the agent that is asked says of callers that no intention mentions.
    pub(super) async fn default_intention(&self) -> Result<DefaultIntention, RegistryError> {
        let answer = self.ask(Call::get("/v1/agent/self")).await?;
        // Whatever else goes wrong is no word about it: what it says must not depend on the moment.
        if [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&answer.status) {
            return Ok(DefaultIntention::Unreadable);
        }
        let known: AgentSelf = answer.ok()?.json()?;
        Ok(match known.debug_config.default_intention_policy.as_str() {
            "allow" => DefaultIntention::Said(true),
            "" => DefaultIntention::Unsaid,
            // Whatever else there may be one day is nobody's permission.
            _ => DefaultIntention::Said(false),
        })
    }

    /// Gives back what was given at a login.
    pub(super) async fn log_out(&self) {
        self.access.log_out(&self.http).await;
    }

    /// Asks anything with the token, and yields the answer whatever its status.
    pub(super) async fn ask(&self, call: Call) -> Result<Answer, RegistryError> {
        let token = self.access.token(&self.http).await?;
        let with = |call: Call, token: &Option<crate::credential::Token>| match token {
            Some(token) => call.header(TOKEN, token.secret(), true),
            None => call,
        };
        let answer = self.http.send(with(call.clone(), &token)).await?;
        // Another token of a login may do what this one may: only one that has ended is worth a login.
        if !is_refusal(&answer) || (self.access.logs_in() && !is_unknown(&answer)) {
            return Ok(answer);
        }
        // The token may have been renewed since it was read, or has ended where we can get another one.
        match self.access.another(&self.http, token.as_ref()).await? {
            Some(renewed) => self.http.send(with(call, &Some(renewed))).await,
            None => Ok(answer),
        }
    }

    /// Asks by a method with a body of JSON.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<Answer, RegistryError> {
        self.ask(Call::new(method, path).body("application/json", body.to_string())).await
    }

    /// A path with the datacenter and the peer.
    pub(super) fn placed(&self, path: &str) -> String {
        match (self.place.is_empty(), path.contains('?')) {
            (true, _) => path.to_owned(),
            (false, true) => format!("{path}&{}", self.place),
            (false, false) => format!("{path}?{}", self.place),
        }
    }

    async fn reading(&self, call: Call) -> Result<Reading, RegistryError> {
        let answer = self.ask(call).await?;
        if is_refusal(&answer) {
            // A server that passed the question on may answer 500 with the other's refusal in its text.
            return Err(RegistryError::Denied(answer.told()));
        }
        // So KV says that there are no keys; that it can be waited for tells it from a path that is unknown.
        let absent = answer.status == StatusCode::NOT_FOUND && answer.number("x-consul-index").is_some();
        if !answer.status.is_success() && !absent {
            return Err(self.fault(&answer));
        }
        // Answers of the streaming kind always say that there is no leader, and are not asked for here.
        let streaming = answer.text("x-consul-query-backend") == Some("streaming");
        let leaderless_answer = answer.text("x-consul-knownleader") == Some("false");
        let old = answer.number("x-consul-lastcontact").is_some_and(|age| age > MAX_LAST_CONTACT);
        if !streaming && (leaderless_answer || old) {
            return Err(leaderless());
        }
        Ok(Reading {
            index: answer.number("x-consul-index").filter(|index| *index != 0),
            default_deny: answer.text("x-consul-default-acl-policy") == Some("deny"),
            absent,
            filtered: answer.text("x-consul-results-filtered-by-acls") == Some("true"),
            answer,
        })
    }

    /// What an answer means that is none. Consul does not say which datacenter it has no way to.
    fn fault(&self, answer: &Answer) -> RegistryError {
        match &self.datacenter {
            Some(datacenter) if answer.said().contains("No path to datacenter") => {
                let said = answer.told();
                RegistryError::Unreachable(format!("{said}: it knows no server of {datacenter:?} that lives"))
            }
            _ => answer.fault(),
        }
    }
}

/// Whether an answer refuses the token or what it may do.
pub(super) fn is_refusal(answer: &Answer) -> bool {
    let refused = [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED].contains(&answer.status);
    let said = || {
        let text = answer.said();
        text.contains("ACL not found") || text.contains("Permission denied")
    };
    refused || (answer.status == StatusCode::INTERNAL_SERVER_ERROR && said())
}

/// Whether an answer says that the token itself is not known, or not any more.
fn is_unknown(answer: &Answer) -> bool {
    answer.status == StatusCode::UNAUTHORIZED || answer.said().contains("ACL not found")
}

fn leaderless() -> RegistryError {
    RegistryError::Unreachable("Consul has no leader: what it answers may be old".into())
}
