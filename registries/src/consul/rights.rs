//! What our token may do, as Consul itself decides it.
//!
//! `/v1/internal/acl/authorize` is what Consul's own interface for people asks. It answers for any token, anonymous ones
//! too, which no list's header tells apart from an empty catalog. With access control off it answers 401; a token that
//! nobody knows gets 403.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use weft_core::registry::{RegistryError, Right};

use super::client::Client;

/// How many rights one question may ask for: Consul takes 64.
const AT_ONCE: usize = 60;
/// What reading intentions needs.
const INTENTIONS: &str = "service_prefix \"\" intentions = \"read\"";
/// What reading KV needs.
const KEYS: &str = "key_prefix \"weft/\" read";

/// Whether Consul controls access, and what our token sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Everybody sees everything.
    Open,
    /// What a token sees: all services, all nodes, and some services that were asked for one by one.
    Token {
        /// Whether all services.
        services: bool,
        /// Whether all nodes, without which no instance on them is seen.
        nodes: bool,
        /// What is lacking to see all configuration; nothing where nobody asks for it.
        lacking: Vec<&'static str>,
        /// Those of the services asked for that are seen.
        seen: Vec<String>,
    },
}

impl Sight {
    /// Whether all there is, is seen, as far as the server tells.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Open => true,
            Self::Token { services, nodes, lacking, .. } => *services && *nodes && lacking.is_empty(),
        }
    }

    /// The rights that are lacking to see all configuration.
    pub(super) fn lacking(&self) -> &[&'static str] {
        match self {
            Self::Open => &[],
            Self::Token { lacking, .. } => lacking,
        }
    }

    /// Whether all instances of a service are seen that was asked for.
    pub(super) fn sees(&self, service: &str) -> bool {
        match self {
            Self::Open => true,
            Self::Token { nodes, seen, .. } => *nodes && seen.iter().any(|name| name == service),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decision {
    #[serde(default)]
    allow: bool,
}

/// Asks what is seen, in all and of `services`.
pub(super) async fn sight(
    client: &Client,
    services: &[String],
    configuration: bool,
) -> Result<Sight, RegistryError> {
    let mut asked = vec![question("service", "read", ""), question("node", "read", "")];
    asked.push(question("intention", "read", ""));
    asked.push(question("key", "read", "weft/"));
    asked.extend(services.iter().map(|name| question("service", "read", name)));
    let mut allowed = Vec::with_capacity(asked.len());
    for some in asked.chunks(AT_ONCE) {
        match decide(client, some).await? {
            Some(decisions) => allowed.extend(decisions),
            None => return Ok(Sight::Open),
        }
    }
    let [all_services, nodes, intentions, keys, each @ ..] = &allowed[..] else {
        return Err(RegistryError::Malformed("Consul did not answer for every right".into()));
    };
    let seen = services.iter().zip(each).filter(|(_, allowed)| **allowed).map(|(name, _)| name.clone());
    let needed = [(INTENTIONS, *intentions), (KEYS, *keys)];
    let lacking = needed.into_iter().filter(|(_, given)| configuration && !given).map(|(name, _)| name);
    Ok(Sight::Token {
        services: *all_services,
        nodes: *nodes,
        lacking: lacking.collect(),
        seen: seen.collect(),
    })
}

/// The rights that following needs, each with whether it is given. Empty without access control.
pub(super) async fn rights(client: &Client, configuration: bool) -> Result<Vec<Right>, RegistryError> {
    let peering = ("peering = \"read\"", question("peering", "read", ""), "what the peer exports");
    let mut wanted = vec![
        ("service_prefix \"\" read", question("service", "read", ""), "services, their instances and checks"),
        ("node_prefix \"\" read", question("node", "read", ""), "the addresses and checks of nodes"),
    ];
    if !client.peer().is_empty() {
        wanted.push(peering);
    }
    if configuration {
        let intentions = question("intention", "read", "");
        wanted.push((INTENTIONS, intentions, "intentions, as policies"));
        wanted.push((KEYS, question("key", "read", "weft/"), "routes and policies in KV"));
    }
    let asked: Vec<Value> = wanted.iter().map(|(_, question, _)| question.clone()).collect();
    let Some(decisions) = decide(client, &asked).await? else { return Ok(Vec::new()) };
    let rights = wanted.into_iter().zip(decisions).map(|((name, _, needed_for), given)| Right {
        name: name.into(),
        given: Some(given),
        needed_for: needed_for.into(),
    });
    Ok(rights.collect())
}

fn question(resource: &str, access: &str, segment: &str) -> Value {
    json!({ "Resource": resource, "Access": access, "Segment": segment })
}

/// Consul's decisions, in the order of the questions; none when it controls no access.
async fn decide(client: &Client, asked: &[Value]) -> Result<Option<Vec<bool>>, RegistryError> {
    let path = client.placed("/v1/internal/acl/authorize");
    let answer = client.send(Method::POST, &path, &Value::from(asked)).await?;
    if answer.status.as_u16() == 401 && answer.said().contains("ACL support disabled") {
        return Ok(None);
    }
    let answer = answer.ok()?;
    let decisions: Vec<Decision> = answer.json()?;
    if decisions.len() != asked.len() {
        return Err(answer.malformed("it does not answer for every right"));
    }
    Ok(Some(decisions.into_iter().map(|decision| decision.allow).collect()))
}
