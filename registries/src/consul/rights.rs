//! What our token may do, as Consul itself decides it.
//!
//! `/v1/internal/acl/authorize` is what Consul's own interface for people asks. It answers for any token, anonymous ones
//! too, which no list's header tells apart from an empty catalog. With access control off it answers 401; a token that
//! nobody knows gets 403.

use std::collections::BTreeSet;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use weft_core::{
    name::ServiceName,
    registry::{RegistryError, Right},
};

use super::{client::Client, known::Name, settings::ConsulSettings};
use crate::http_client::Call;

/// Where Consul says what a token may do.
const AUTHORIZE: &str = "/v1/internal/acl/authorize";
/// How many rights one question may ask for: Consul takes 64.
const AT_ONCE: usize = 60;
/// What reading all services needs.
const SERVICES: &str = "service_prefix \"\" read";
/// What reading all nodes needs.
const NODES: &str = "node_prefix \"\" read";
/// What reading intentions needs.
const INTENTIONS: &str = "service_prefix \"\" intentions = \"read\"";
/// What reading KV needs.
const KEYS: &str = "key_prefix \"weft/\" read";
/// What reading the default of intentions needs.
const AGENT: &str = "agent_prefix \"\" read";

/// Whether Consul controls access, and what our token sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Everybody sees everything.
    Open,
    /// What a token sees: all or not, and some services and nodes that were asked for one by one.
    Token {
        /// What is lacking to see all there is.
        lacking: Vec<&'static str>,
        /// Those of the services asked for that are seen.
        services: BTreeSet<Name>,
        /// Those of the nodes asked for that are seen.
        nodes: BTreeSet<Name>,
    },
}

impl Sight {
    /// Whether all there is, is seen, as far as the server tells.
    pub(super) fn is_whole(&self) -> bool {
        self.lacking().next().is_none()
    }

    /// The rights that are lacking to see all there is.
    pub(super) fn lacking(&self) -> impl Iterator<Item = &'static str> {
        let lacking = match self {
            Self::Open => &[][..],
            Self::Token { lacking, .. } => lacking,
        };
        lacking.iter().copied()
    }

    /// Whether who has the other sees all that there is as far as who has this one.
    pub(super) fn lacks_the_same(&self, other: &Self) -> bool {
        (self == &Self::Open) == (other == &Self::Open) && self.lacking().eq(other.lacking())
    }

    /// The first right that is lacking to see all configuration.
    pub(super) fn lacking_for_configuration(&self) -> Option<&'static str> {
        self.lacking().find(|right| [INTENTIONS, KEYS].contains(right))
    }

    /// Whether all instances are seen of a service that was asked for: those on these nodes, which were asked for too, or
    /// on any where nobody knows which.
    pub(super) fn sees(&self, service: &Name, on: &BTreeSet<Name>) -> bool {
        match self {
            Self::Open => true,
            Self::Token { lacking, services, nodes } => {
                let all = !lacking.contains(&NODES);
                let each = !on.is_empty() && on.iter().all(|node| nodes.contains(node));
                services.contains(service) && if on.is_empty() { all } else { each }
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decision {
    #[serde(default)]
    allow: bool,
}

/// What a token may know of itself without a right, as far as it is asked for.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TokenSelf {
    #[serde(default)]
    policies: Option<Vec<PolicyName>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PolicyName {
    name: String,
}

/// Asks what is seen, in all and of some services and nodes.
pub(super) async fn sight(
    client: &Client,
    services: BTreeSet<&Name>,
    nodes: BTreeSet<&Name>,
    configuration: bool,
) -> Result<Sight, RegistryError> {
    let all = [("service", "", SERVICES), ("node", "", NODES)];
    let configured = [("intention", "", INTENTIONS), ("key", "weft/", KEYS)];
    let needed: Vec<_> = all.into_iter().chain(configured.into_iter().filter(|_| configuration)).collect();
    let mut asked: Vec<Value> =
        needed.iter().map(|(resource, segment, _)| question(resource, "read", segment)).collect();
    asked.extend(services.iter().map(|name| question("service", "read", name)));
    asked.extend(nodes.iter().map(|name| question("node", "read", name)));
    let mut allowed = Vec::with_capacity(asked.len());
    for some in asked.chunks(AT_ONCE) {
        match decide(client, some).await? {
            Some(decisions) => allowed.extend(decisions),
            None => return Ok(Sight::Open),
        }
    }
    let mut allowed = allowed.into_iter();
    let lacking = needed.iter().zip(allowed.by_ref()).filter(|(_, given)| !given).map(|(right, _)| right.2);
    let lacking = lacking.collect();
    let mut seen = |names: BTreeSet<&Name>| {
        let answered = names.into_iter().zip(allowed.by_ref());
        answered.filter(|(_, given)| *given).map(|(name, _)| name.clone()).collect()
    };
    Ok(Sight::Token { lacking, services: seen(services), nodes: seen(nodes) })
}

/// The rights that following needs, each with whether it is given. Empty without access control.
pub(super) async fn rights(client: &Client, settings: &ConsulSettings) -> Result<Vec<Right>, RegistryError> {
    let peering = ("peering = \"read\"", question("peering", "read", ""), "what the peer exports");
    let mut wanted = vec![
        (SERVICES, question("service", "read", ""), "services, their instances and checks"),
        (NODES, question("node", "read", ""), "the addresses and checks of nodes"),
    ];
    if !client.peer().is_empty() {
        wanted.push(peering);
    }
    if settings.configuration {
        let intentions = question("intention", "read", "");
        wanted.push((INTENTIONS, intentions, "intentions, as policies"));
        wanted.push((KEYS, question("key", "read", "weft/"), "routes and policies in KV"));
        if settings.default_intention.is_none() {
            wanted.push((AGENT, question("agent", "read", ""), "the agent's `default_intention_policy`"));
        }
    }
    let asked: Vec<Value> = wanted.iter().map(|(_, question, _)| question.clone()).collect();
    let Some(decisions) = decide(client, &asked).await? else { return Ok(Vec::new()) };
    let rights = wanted.into_iter().zip(decisions).map(|((name, _, needed_for), given)| Right {
        name: name.into(),
        given: Some(given),
        needed_for: needed_for.into(),
        optional: name == AGENT,
    });
    let mut rights: Vec<Right> = rights.collect();
    let missing_all = rights.iter().any(|right| right.given == Some(false) && !right.optional);
    // A right to all is given also where a rule for one takes that one away: then the lists say so.
    if !missing_all && client.peer().is_empty() {
        rights.extend(taken_away(client).await?);
    }
    Ok(rights)
}

/// The rights to announce instances of these services at the agent that is asked, each with whether it is given. Empty
/// without access control.
pub(super) async fn to_announce(
    client: &Client,
    services: &[ServiceName],
) -> Result<Vec<Right>, RegistryError> {
    let mut rights = Vec::with_capacity(services.len());
    for some in services.chunks(AT_ONCE) {
        let asked: Vec<Value> =
            some.iter().map(|service| question("service", "write", service.label())).collect();
        // The agent registers where it is itself, whichever datacenter is followed.
        let Some(decisions) = decide_at(client, AUTHORIZE, &asked).await? else { return Ok(Vec::new()) };
        rights.extend(some.iter().zip(decisions).map(|(service, given)| Right {
            name: format!("service \"{}\" write", service.label()),
            given: Some(given),
            needed_for: format!("announcing instances of {service}"),
            optional: false,
        }));
    }
    Ok(rights)
}

/// What a rule for some takes away of what the token may do for all. Which ones these are, Consul tells nobody who may not
/// read its rules.
async fn taken_away(client: &Client) -> Result<Option<Right>, RegistryError> {
    let mut shortened = Vec::new();
    for (path, what) in [("/v1/catalog/services", "service"), ("/v1/catalog/nodes", "node")] {
        if client.read(path).await?.filtered {
            shortened.push(what);
        }
    }
    if shortened.is_empty() {
        return Ok(None);
    }
    let kinds = shortened.join(" and ");
    let rules = match policies(client).await?.as_slice() {
        [] => "a rule of the token's".to_owned(),
        policies => format!("a rule of the token's policies ({})", policies.join(", ")),
    };
    Ok(Some(Right {
        name: format!("{kinds} read, of each: {rules} denies some"),
        given: Some(false),
        needed_for: "what it hides is missing from lists and kept as it was".into(),
        optional: false,
    }))
}

/// The names of the token's policies, for a person; none where it has none or Consul does not tell.
async fn policies(client: &Client) -> Result<Vec<String>, RegistryError> {
    let answer = client.ask(Call::get(client.placed("/v1/acl/token/self"))).await?;
    if !answer.status.is_success() {
        return Ok(Vec::new());
    }
    let token: TokenSelf = answer.json()?;
    Ok(token.policies.into_iter().flatten().map(|policy| crate::names::quoted(&policy.name)).collect())
}

fn question(resource: &str, access: &str, segment: &str) -> Value {
    json!({ "Resource": resource, "Access": access, "Segment": segment })
}

/// Consul's decisions, in the order of the questions; none when it controls no access.
async fn decide(client: &Client, asked: &[Value]) -> Result<Option<Vec<bool>>, RegistryError> {
    decide_at(client, &client.placed(AUTHORIZE), asked).await
}

async fn decide_at(client: &Client, path: &str, asked: &[Value]) -> Result<Option<Vec<bool>>, RegistryError> {
    let answer = client.send(Method::POST, path, &Value::from(asked)).await?;
    if answer.status.as_u16() == 401 && answer.said().contains("ACL support disabled") {
        return Ok(None);
    }
    if answer.said().contains("must be bootstrapped") {
        // So says a server that was started again and has not heard of tokens yet. It has its lists all the same.
        let said = answer.told();
        return Err(RegistryError::Unreachable(format!("{said}: the server knows no tokens, or none yet")));
    }
    let answer = answer.ok()?;
    let decisions: Vec<Decision> = answer.json()?;
    if decisions.len() != asked.len() {
        return Err(answer.malformed("it does not answer for every right"));
    }
    Ok(Some(decisions.into_iter().map(|decision| decision.allow).collect()))
}
