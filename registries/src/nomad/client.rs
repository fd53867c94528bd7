//! Nomad's API: bytes to objects. Every request is made with the token as it is now, and every answer is bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use futures_core::future::BoxFuture;
use http::{HeaderName, StatusCode};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use weft_core::registry::RegistryError;

use super::{
    objects::{
        Allocation, Check, Elements, Node, Policy, PolicyStub, TokenSelf, Variable, VariableStub,
        WholeAllocation,
    },
    settings::NomadSettings,
};
use crate::{
    credential::Credential,
    http_client::{Answer, Call, HttpClient},
    shared::Text,
};

/// How many allocations are asked for at once: with the events of their tasks they take some kilobytes each.
const PAGE: u32 = 200;
/// The most pages that are read, against a server that never comes to an end.
const MAX_PAGES: u32 = 10_000;

/// How long a node may take to answer what the server passes on to it.
const NODE: Duration = Duration::from_secs(3);
/// The most policies of a token that are read.
const MAX_POLICIES: usize = 100;

/// Asks one region of a cluster.
#[derive(Clone)]
pub(super) struct Client {
    http: HttpClient,
    credential: Credential,
    region: Option<String>,
}

/// A list with the index at which it was true.
#[derive(Debug)]
pub(super) struct Indexed<T> {
    pub(super) value: T,
    pub(super) index: u64,
}

/// The answer of a server that may know what it is asked for, or not.
type Found<T> = Result<Option<T>, RegistryError>;

impl Client {
    pub(super) fn new(settings: &NomadSettings) -> Result<Self, RegistryError> {
        Ok(Self {
            http: HttpClient::new(&settings.server)?,
            credential: settings.credential.clone(),
            region: settings.region.clone(),
        })
    }

    /// The services of a namespace, or of all of them (`*`), by name; 200 with nothing at all for who may read nothing.
    pub(super) async fn services(&self, namespace: &str) -> Result<Indexed<Elements>, RegistryError> {
        self.list("/v1/services", &[("namespace", namespace)]).await
    }

    /// The same, when it is another than at `index`, or after `wait_s` seconds.
    pub(super) async fn services_after(
        &self,
        namespace: &str,
        index: u64,
        wait_s: u64,
    ) -> Result<Indexed<Elements>, RegistryError> {
        self.wait("/v1/services", &[("namespace", namespace)], index, wait_s).await
    }

    /// The instances of a service as they stand there: each is read alone, for one that is wrong says nothing of others.
    pub(super) async fn service(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Vec<serde_json::Value>, RegistryError> {
        let path = format!("/v1/service/{}", escaped(name));
        Ok(self.list(&path, &[("namespace", namespace)]).await?.value)
    }

    /// Shows every allocation of a namespace, or of all of them, to `take`, some at a time.
    pub(super) async fn allocations(
        &self,
        namespace: &str,
        mut take: impl FnMut(Allocation),
    ) -> Result<(), RegistryError> {
        let mut token = String::new();
        let page = PAGE.to_string();
        for _ in 0..MAX_PAGES {
            let mut query = vec![("namespace", namespace), ("per_page", &page)];
            if !token.is_empty() {
                query.push(("next_token", &token));
            }
            let answer = self.get("/v1/allocations", &query).await?.ok()?;
            known_leader(&answer)?;
            answer.json::<Vec<Allocation>>()?.into_iter().for_each(&mut take);
            match answer.text("x-nomad-nexttoken") {
                Some(next) if !next.is_empty() && next != token => token = next.to_owned(),
                _ => return Ok(()),
            }
        }
        Err(RegistryError::Malformed("GET /v1/allocations: the list has no end".into()))
    }

    /// One allocation as lists show it.
    pub(super) async fn allocation(&self, id: &str) -> Found<Allocation> {
        let query = [("namespace", "*"), ("prefix", id)];
        let found: Indexed<Vec<Allocation>> = self.list("/v1/allocations", &query).await?;
        Ok(found.value.into_iter().find(|allocation| allocation.id == id))
    }

    /// One allocation with what its tasks have been given.
    pub(super) async fn whole_allocation(&self, id: &str) -> Found<WholeAllocation> {
        found(self.get(&format!("/v1/allocation/{}", escaped(id)), &[]).await?)
    }

    /// The results of an allocation's checks, which its node keeps; none when neither server nor node knows it.
    pub(super) async fn checks(&self, allocation: &str) -> Found<BTreeMap<String, Check>> {
        let path = format!("/v1/client/allocation/{}/checks", escaped(allocation));
        let call = self.call(&path, &[]).await?.within(NODE);
        let answer = self.http.send(call).await?;
        if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            // Said alike of each: what is told of all of them is told once.
            let said = format!("GET /v1/client/allocation/…/checks: {}: {}", answer.status, answer.said());
            return Err(RegistryError::Denied(said));
        }
        let found: Option<Option<_>> = found(answer)?;
        Ok(found.map(Option::unwrap_or_default))
    }

    /// The same, of whatever allocation.
    pub(super) fn asking_for_checks(
        &self,
    ) -> impl Fn(Text) -> BoxFuture<'static, Found<BTreeMap<String, Check>>> + use<> {
        let client = self.clone();
        move |allocation| {
            let client = client.clone();
            Box::pin(async move { client.checks(&allocation).await })
        }
    }

    /// A node.
    pub(super) async fn node(&self, id: &str) -> Found<Node> {
        found(self.get(&format!("/v1/node/{}", escaped(id)), &[]).await?)
    }

    /// The variables below a path, as far as they may be read.
    pub(super) async fn variables(
        &self,
        namespace: &str,
        prefix: &str,
    ) -> Result<Indexed<Vec<VariableStub>>, RegistryError> {
        self.list("/v1/vars", &[("namespace", namespace), ("prefix", prefix)]).await
    }

    /// The same, when any variable is another than at `index`, or after `wait_s` seconds.
    pub(super) async fn variables_after(
        &self,
        namespace: &str,
        prefix: &str,
        index: u64,
        wait_s: u64,
    ) -> Result<Indexed<Vec<VariableStub>>, RegistryError> {
        self.wait("/v1/vars", &[("namespace", namespace), ("prefix", prefix)], index, wait_s).await
    }

    /// A variable.
    pub(super) async fn variable(&self, namespace: &str, path: &str) -> Found<Variable> {
        found(self.get(&variable_path(path), &[("namespace", namespace)]).await?)
    }

    /// Whether a variable may be read, which need not exist.
    pub(super) async fn may_read_variable(&self, namespace: &str, path: &str) -> Result<bool, RegistryError> {
        let answer = self.get(&variable_path(path), &[("namespace", namespace)]).await?;
        if answer.status == StatusCode::NOT_FOUND { Ok(true) } else { allowed(answer) }
    }

    /// Whether nodes may be read.
    pub(super) async fn may_read_nodes(&self) -> Result<bool, RegistryError> {
        allowed(self.get("/v1/nodes", &[("per_page", "1")]).await?)
    }

    /// Whether the services of a namespace may be read, which need not exist.
    pub(super) async fn may_read_services(&self, namespace: &str) -> Result<bool, RegistryError> {
        allowed(self.get("/v1/services", &[("namespace", namespace)]).await?)
    }

    /// The names of all namespaces of which something may be read.
    pub(super) async fn namespaces(&self) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Named {
            #[serde(rename = "Name")]
            name: String,
        }
        let names: Indexed<Vec<Named>> = self.list("/v1/namespaces", &[]).await?;
        Ok(names.value.into_iter().map(|named| named.name).collect())
    }

    /// Whether there is such a namespace. Nomad tells who may read nothing of it that there is none, or that it is denied.
    pub(super) async fn has_namespace(&self, namespace: &str) -> Result<bool, RegistryError> {
        let answer = self.get(&format!("/v1/namespace/{}", escaped(namespace)), &[]).await?;
        if answer.status == StatusCode::NOT_FOUND { Ok(false) } else { allowed(answer).map(|_| true) }
    }

    /// The namespaces, or patterns of them, that the token's own policies name, but for the one of all (`*`). None where
    /// there are no tokens, or where it may not read its policies.
    pub(super) async fn ruled_namespaces(&self) -> Result<BTreeSet<String>, RegistryError> {
        let mut ruled = BTreeSet::new();
        let answer = self.get("/v1/acl/policies", &[]).await?;
        let policies: Vec<PolicyStub> = told(answer)?.unwrap_or_default();
        for PolicyStub { name } in policies.into_iter().take(MAX_POLICIES) {
            let answer = self.get(&format!("/v1/acl/policy/{}", escaped(&name)), &[]).await?;
            let rules = told::<Policy>(answer)?.unwrap_or_default().rules_json.unwrap_or_default();
            ruled.extend(rules.namespaces.unwrap_or_default().into_iter().map(|namespace| namespace.name));
        }
        ruled.remove("*");
        Ok(ruled)
    }

    /// Waits until there is anybody who answers, whatever it is.
    pub(super) async fn await_answer(&self) -> Result<(), RegistryError> {
        self.http.first_answer(self.call("/v1/regions", &[]).await?).await.map(drop)
    }

    /// The regions of the cluster; open to all.
    pub(super) async fn regions(&self) -> Result<Vec<String>, RegistryError> {
        self.get("/v1/regions", &[]).await?.ok()?.json()
    }

    /// Whose token it is; none where there are no tokens.
    pub(super) async fn who(&self) -> Found<TokenSelf> {
        let answer = self.get("/v1/acl/token/self", &[]).await?;
        if answer.status == StatusCode::BAD_REQUEST && answer.said().contains("ACL support disabled") {
            return Ok(None);
        }
        answer.ok()?.json().map(Some)
    }

    /// Tells a token that nobody knows from one that lacks a right, which Nomad refuses in the same words: none that is
    /// known is refused to know of itself. The token of a workload is a signed text and no token there: of one of those this
    /// tells nothing.
    ///
    /// # Errors
    /// That the token is not known.
    pub(super) async fn check_token(&self) -> Result<(), RegistryError> {
        let token = self.credential.token().await?;
        if token.is_none_or(|token| token.secret().contains('.')) {
            return Ok(());
        }
        let answer = self.get("/v1/acl/token/self", &[]).await?;
        // What does not even look like a token is taken for a workload's that is broken.
        let is_unreadable = answer.status.is_server_error() && answer.said().contains("parse signed token");
        if answer.status == StatusCode::FORBIDDEN || is_unreadable {
            let message =
                "the token is not known to this server: it was revoked, has expired or is of another cluster";
            return Err(RegistryError::Denied(message.into()));
        }
        Ok(())
    }

    /// Begins to follow events, from `index` on.
    pub(super) async fn events(
        &self,
        topics: &[&str],
        namespace: &str,
        index: u64,
    ) -> Result<http::Response<Incoming>, RegistryError> {
        let index = index.to_string();
        let mut query = vec![("namespace", namespace), ("index", index.as_str())];
        query.extend(topics.iter().map(|topic| ("topic", *topic)));
        self.http.open(self.call("/v1/event/stream", &query).await?).await
    }

    /// The longest line of events that is read.
    pub(super) fn max_line(&self) -> usize {
        self.http.server().max_answer
    }

    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Indexed<T>, RegistryError> {
        indexed(&self.get(path, query).await?.ok()?)
    }

    async fn wait<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        index: u64,
        wait_s: u64,
    ) -> Result<Indexed<T>, RegistryError> {
        let (index, wait) = (index.to_string(), format!("{wait_s}s"));
        let query = [query, &[("index", &index), ("wait", &wait)]].concat();
        // The server adds up to a sixteenth of the wait.
        let within = Duration::from_secs(wait_s + wait_s / 16 + 10);
        let call = self.call(path, &query).await?.within(within);
        indexed(&self.http.send(call).await?.ok()?)
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, RegistryError> {
        self.http.send(self.call(path, query).await?).await
    }

    async fn call(&self, path: &str, query: &[(&str, &str)]) -> Result<Call, RegistryError> {
        let mut path = path.to_owned();
        let region = self.region.as_deref().map(|region| ("region", region));
        for (number, (key, value)) in query.iter().copied().chain(region).enumerate() {
            // Writing to a string does not fail.
            let _ = write!(path, "{}{key}={}", if number == 0 { '?' } else { '&' }, escaped(value));
        }
        let call = Call::get(path);
        Ok(match self.credential.token().await? {
            Some(token) => call.header(HeaderName::from_static("x-nomad-token"), token.secret(), true),
            None => call,
        })
    }
}

fn indexed<T: DeserializeOwned>(answer: &Answer) -> Result<Indexed<T>, RegistryError> {
    known_leader(answer)?;
    let index = answer.number("x-nomad-index").unwrap_or_default();
    Ok(Indexed { value: answer.json()?, index })
}

/// What a server without a leader knows may be long out of date.
fn known_leader(answer: &Answer) -> Result<(), RegistryError> {
    match answer.text("x-nomad-knownleader") {
        Some("false") => Err(RegistryError::Unreachable("the server knows of no leader".into())),
        _ => Ok(()),
    }
}

fn found<T: DeserializeOwned>(answer: Answer) -> Found<T> {
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    answer.ok()?.json().map(Some)
}

/// An answer, where the server gives one to this asker.
fn told<T: DeserializeOwned>(answer: Answer) -> Found<T> {
    if answer.status.is_client_error() && answer.status != StatusCode::TOO_MANY_REQUESTS {
        return Ok(None);
    }
    answer.ok()?.json().map(Some)
}

fn variable_path(path: &str) -> String {
    let parts: Vec<String> = path.split('/').map(escaped).collect();
    format!("/v1/var/{}", parts.join("/"))
}

fn allowed(answer: Answer) -> Result<bool, RegistryError> {
    match answer.ok() {
        Ok(_) => Ok(true),
        Err(RegistryError::Denied(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A value within a path or a query, whatever it is.
fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
