//! Weft's own objects, `MeshRoute` and `MeshPolicy`, as routes and policies. Pure.
//!
//! What they mean is decided by the reader of files alone: an object is written as such a file and read like one, so that
//! every form has one meaning. An object speaks for its namespace: a route is for callers of a service in it, a policy
//! protects a service in it. What concerns all of the mesh, or an identity, counts in the root namespace only.
//!
//! A policy that makes no sense may have been there to deny. Unless what it said before stands, calls of what it is for are
//! denied until it is mended: of a service, or in the root namespace of an identity or of all of the mesh.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use weft_core::{
    config::{Fault, SourceFile, read_mesh},
    identity::{SpiffeId, TrustDomain},
    name::{RuleName, ServiceName},
    registry::OriginFault,
    resource::{Policy, PolicyTarget, Resource, Route},
};

use super::{
    compact::Key,
    objects::{Condition, Configured, Kind, Meta, Place},
};
use crate::withheld;

/// The condition that says whether an object counts as it is written.
pub(super) const ACCEPTED: &str = "Accepted";
/// The condition that says whether there is all that a route names, as Gateway API has it.
pub(super) const RESOLVED: &str = "ResolvedRefs";
/// The longest message of a condition, in characters; Kubernetes takes 32768.
const MAX_MESSAGE: usize = 1024;

/// The names of keys that objects write otherwise than files.
const OTHER_NAMES: [(&str, &str); 8] = [
    ("request_timeout", "requestTimeout"),
    ("connect_timeout", "connectTimeout"),
    ("on_gateway_error", "onGatewayError"),
    ("all_methods", "allMethods"),
    ("trust_domain", "trustDomain"),
    ("[[route.rule]]", "rules"),
    ("[[policy.rule]]", "rules"),
    ("`match`", "`matches`"),
];

/// Where objects stand for more than their namespace, and whose identities are meant where none is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ground<'a> {
    pub(super) root_namespace: &'a str,
    pub(super) trust_domain: &'a TrustDomain,
}

/// What an object came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) resources: Vec<Resource>,
    pub(super) faults: Vec<OriginFault>,
    /// Why it does not count as it is written; none when it does.
    pub(super) refusal: Option<String>,
}

/// How an object was understood: its conditions `Accepted` and, where it makes sense, `ResolvedRefs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) place: Place,
    pub(super) name: String,
    /// The version of the object that it is about.
    pub(super) resource_version: String,
    /// Whether somebody has said already, and otherwise, how the object was understood as it is.
    pub(super) is_disputed: bool,
    pub(super) conditions: Vec<Condition>,
}

/// Whether an object counts as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement<'a> {
    /// It does, but for what is said here.
    Accepted { but: String },
    /// It makes no sense.
    Invalid(&'a str),
    /// Another one leaves nothing of it.
    Conflicted(String),
}

/// The services that an object names and that are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// Whom it is for.
    pub(super) target: Option<String>,
    /// Whom it sends calls to.
    pub(super) backends: Vec<String>,
}

impl Missing {
    fn condition(self) -> Condition {
        let lacks = |several: &[String]| {
            let plural = if several.len() > 1 { "s" } else { "" };
            format!("this cluster has no service{plural} {}", several.join(", "))
        };
        match self {
            Self { target: None, backends } if backends.is_empty() => condition(RESOLVED, true, RESOLVED, ""),
            Self { target: None, backends } => {
                condition(RESOLVED, false, "BackendNotFound", &lacks(&backends))
            }
            Self { target: Some(target), mut backends } => {
                backends.retain(|backend| *backend != target);
                backends.insert(0, target);
                let message = format!(
                    "{}: it has no effect unless another registry has the service that it is for",
                    lacks(&backends)
                );
                condition(RESOLVED, false, "TargetNotFound", &message)
            }
        }
    }
}

impl Verdict {
    /// None where the object says so already. The time of a change is left to who writes it. `missing` is none where
    /// nobody looked.
    pub(super) fn new(
        kind: Kind,
        meta: &Meta,
        said: &[Condition],
        judgement: &Judgement<'_>,
        missing: Option<Missing>,
    ) -> Option<Self> {
        let accepted = match judgement {
            Judgement::Accepted { but } => condition(ACCEPTED, true, "Accepted", but),
            Judgement::Invalid(why) => condition(ACCEPTED, false, "Invalid", why),
            Judgement::Conflicted(why) => condition(ACCEPTED, false, "Conflicted", why),
        };
        let resolved = missing.map(Missing::condition);
        let mut conditions = said.to_vec();
        let (mut is_news, mut is_disputed) = (false, false);
        for mut wanted in [Some(accepted), resolved].into_iter().flatten() {
            wanted.observed_generation = meta.generation;
            let before = conditions.iter().position(|condition| condition.kind == wanted.kind);
            let before = before.map(|at| conditions.remove(at));
            if let Some(before) = before.as_ref().filter(|before| before.status == wanted.status) {
                wanted.last_transition_time.clone_from(&before.last_transition_time);
            }
            let is_other = before.as_ref() != Some(&wanted);
            is_news |= is_other;
            is_disputed |=
                is_other && before.is_some_and(|before| before.observed_generation == meta.generation);
            conditions.push(wanted);
        }
        is_news.then(|| Self {
            place: Place::all(kind, Some(&meta.namespace)),
            name: meta.name.clone(),
            resource_version: meta.resource_version.clone(),
            is_disputed,
            conditions,
        })
    }
}

fn condition(kind: &str, is_so: bool, reason: &str, message: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: if is_so { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.chars().take(MAX_MESSAGE).collect(),
        ..Condition::default()
    }
}

impl Meaning {
    /// The route that it is.
    pub(super) fn route(&self) -> Option<&Route> {
        self.resources.iter().find_map(|resource| match resource {
            Resource::Route(route) => Some(&**route),
            _ => None,
        })
    }

    /// The service that it is for.
    pub(super) fn target(&self) -> Option<&ServiceName> {
        self.resources.iter().find_map(|resource| match resource {
            Resource::Route(route) => Some(&route.service),
            Resource::Policy(policy) => match &policy.target {
                PolicyTarget::Service(service) => Some(service),
                _ => None,
            },
            _ => None,
        })
    }

    /// The services that calls are sent to, beside the route's own.
    pub(super) fn backends(&self) -> impl Iterator<Item = &ServiceName> {
        let routes = self.resources.iter().filter_map(|resource| match resource {
            Resource::Route(route) => Some(route),
            _ => None,
        });
        let backends = routes.flat_map(|route| &route.rules).flat_map(|rule| &rule.backends);
        backends.filter_map(|backend| backend.service.as_ref())
    }
}

/// `spec` of a `MeshRoute`, and the route of a file that it is.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RouteSpec {
    #[serde(skip_deserializing)]
    name: String,
    service: String,
    #[serde(rename(deserialize = "rules", serialize = "rule"))]
    rules: Vec<RouteRule>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all(deserialize = "camelCase"))]
struct RouteRule {
    name: Option<String>,
    #[serde(rename(deserialize = "matches", serialize = "match"))]
    matches: Option<Vec<RouteMatch>>,
    backends: Option<Vec<Backend>>,
    request_timeout: Option<String>,
    connect_timeout: Option<String>,
    retries: Option<Retries>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RouteMatch {
    path: Option<Alternatives>,
    method: Option<String>,
    headers: Option<Vec<Alternatives>>,
}

/// A condition, of which the reader of files judges which fields go together.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Alternatives {
    name: Option<String>,
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<String>,
    present: Option<bool>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Backend {
    service: Option<String>,
    subset: Option<BTreeMap<String, String>>,
    weight: Option<i64>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all(deserialize = "camelCase"))]
struct Retries {
    attempts: Option<i64>,
    on_gateway_error: Option<bool>,
    all_methods: Option<bool>,
}

/// `spec` of a `MeshPolicy`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicySpec {
    target: Target,
    action: String,
    rules: Option<Vec<Rule>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Target {
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing)]
    mesh: Option<bool>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: Option<String>,
    from: Option<Vec<Caller>>,
    to: Option<Vec<Operation>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all(deserialize = "camelCase"))]
struct Caller {
    identity: Option<String>,
    trust_domain: Option<String>,
    namespace: Option<String>,
    /// Of the namespace beside it, or of the policy's own.
    #[serde(skip_serializing)]
    service_account: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    methods: Option<Vec<String>>,
    paths: Option<Vec<String>>,
    ports: Option<Vec<i64>>,
}

/// The policy of a file.
#[derive(Serialize)]
struct FilePolicy {
    name: String,
    action: String,
    target: Value,
    rule: Vec<Rule>,
}

#[derive(Serialize)]
struct RouteFile {
    route: [RouteSpec; 1],
}

#[derive(Serialize)]
struct PolicyFile {
    policy: [FilePolicy; 1],
}

/// What an object means.
pub(super) fn convert(kind: Kind, key: &Key, object: &Configured, ground: &Ground<'_>) -> Meaning {
    let place = format!("{}/{key}", kind.plural());
    let namespace = object.metadata.namespace.as_str();
    let name = format!("{}.{namespace}", object.metadata.name);
    let text = match kind {
        Kind::Policies => policy_text(&object.spec, name.clone(), namespace, ground),
        _ => route_text(&object.spec, name.clone(), namespace),
    };
    let read = text.and_then(|text| {
        let outcome = read_mesh(&SourceFile::new(&place, text));
        let faults: Vec<&Fault> = outcome.faults.iter().filter(|fault| fault.is_error()).collect();
        match (outcome.value, faults.first()) {
            (Some(file), None) => Ok((file, outcome.faults)),
            (_, first) => Err(first.map_or_else(|| "it means nothing".into(), |fault| told(fault))),
        }
    });
    match read {
        Ok((file, warnings)) => Meaning {
            resources: file.resources.into_iter().map(|located| located.value).collect(),
            faults: warnings.iter().map(|fault| at(&place, told(fault), false)).collect(),
            refusal: None,
        },
        Err(why) => {
            let denial =
                (kind == Kind::Policies).then(|| denial(&object.spec, name, namespace, ground)).flatten();
            let denied = denial.as_ref().map(|denial| match denial.target {
                PolicyTarget::Service(_) => "of its service",
                PolicyTarget::Identity(_) => "of its identity",
                PolicyTarget::Mesh => "of everything",
            });
            let effect = denied.map(|denied| format!(", else calls {denied} are denied")).unwrap_or_default();
            let refusal = format!("{why}; what it said before stands{effect}");
            Meaning {
                resources: denial.map(Into::into).map(Resource::Policy).into_iter().collect(),
                faults: vec![at(&place, refusal.clone(), true)],
                refusal: Some(refusal),
            }
        }
    }
}

/// The fault of an object that could not even be read as JSON of its kind is told by who reads it; the one of `spec` here.
fn parse<'j, T: Deserialize<'j>>(spec: &'j RawValue) -> Result<T, String> {
    serde_json::from_str(spec.get()).map_err(|error| {
        // Where in the text is of no use: nobody wrote this text.
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        format!("spec: {}", said.chars().take(200).flat_map(char::escape_debug).collect::<String>())
    })
}

fn route_text(spec: &RawValue, name: String, namespace: &str) -> Result<String, String> {
    let mut route: RouteSpec = parse(spec)?;
    route.name = name;
    route.service = own_service(&route.service, namespace)?;
    for backend in route.rules.iter_mut().filter_map(|rule| rule.backends.as_mut()).flatten() {
        if let Some(service) = &mut backend.service {
            *service = whole_name(service, namespace);
        }
    }
    written(&RouteFile { route: [route] })
}

fn policy_text(
    spec: &RawValue,
    name: String,
    namespace: &str,
    ground: &Ground<'_>,
) -> Result<String, String> {
    let PolicySpec { target, action, rules } = parse(spec)?;
    let mut rules = rules.unwrap_or_default();
    for caller in rules.iter_mut().filter_map(|rule| rule.from.as_mut()).flatten() {
        complete(caller, namespace, ground.trust_domain);
    }
    let is_wide = target.mesh == Some(true) || target.identity.is_some();
    if is_wide && namespace != ground.root_namespace {
        let root = ground.root_namespace;
        return Err(format!(
            "spec.target: only policies of the namespace {root} concern more than a service"
        ));
    }
    let target = match target {
        Target { mesh: Some(true), service: None, identity: None } => Value::from("mesh"),
        Target { mesh: Some(_), .. } => {
            return Err("spec.target.mesh: expected `true`, and nothing beside it".into());
        }
        Target { service, identity, mesh: None } => {
            let service = service.map(|service| own_service(&service, namespace)).transpose()?;
            serde_json::to_value(Target { service, identity, mesh: None })
                .map_err(|error| error.to_string())?
        }
    };
    let action = match action.as_str() {
        "Allow" => "allow".to_owned(),
        "Deny" => "deny".to_owned(),
        _ => return Err("spec.action: expected \"Allow\" or \"Deny\"".into()),
    };
    written(&PolicyFile { policy: [FilePolicy { name, action, target, rule: rules }] })
}

/// An account is an identity, and a namespace is one of our trust domain where none is named.
fn complete(caller: &mut Caller, namespace: &str, trust_domain: &TrustDomain) {
    if let Some(account) = caller.service_account.take() {
        let namespace = caller.namespace.take().unwrap_or_else(|| namespace.to_owned());
        let domain = caller.trust_domain.take().unwrap_or_else(|| trust_domain.to_string());
        caller.identity.get_or_insert_with(|| format!("spiffe://{domain}/ns/{namespace}/sa/{account}"));
    } else if caller.namespace.is_some() {
        caller.trust_domain.get_or_insert_with(|| trust_domain.to_string());
    }
}

fn whole_name(service: &str, namespace: &str) -> String {
    if service.contains('.') { service.to_owned() } else { format!("{service}.{namespace}") }
}

/// A service of the object's own namespace: whoever may write there decides for it, and for no other.
fn own_service(service: &str, namespace: &str) -> Result<String, String> {
    let whole = whole_name(service, namespace);
    if whole.split_once('.').is_some_and(|(_, of)| of == namespace) {
        Ok(whole)
    } else {
        Err(format!("the service {} is none of the namespace {namespace}", crate::names::quoted(service)))
    }
}

fn written(file: &impl Serialize) -> Result<String, String> {
    toml::to_string(file).map_err(|error| error.to_string())
}

/// Denies everything to what a policy is for, as far as that much of it can be read.
fn denial(spec: &RawValue, name: String, namespace: &str, ground: &Ground<'_>) -> Option<Policy> {
    let spec: Value = serde_json::from_str(spec.get()).ok()?;
    let said = |key: &str| spec.get("target")?.get(key);
    let target = if let Some(service) = said("service") {
        let service = own_service(service.as_str()?, namespace).ok()?;
        PolicyTarget::Service(ServiceName::new(&service).ok()?)
    } else if namespace != ground.root_namespace {
        // It would count for nothing more if it did make sense.
        return None;
    } else {
        let identity = said("identity").and_then(|identity| SpiffeId::parse(identity.as_str()?).ok());
        // Whom else it is for cannot be read.
        identity.map_or(PolicyTarget::Mesh, PolicyTarget::Identity)
    };
    Some(withheld::denial(RuleName::new(&name).ok()?, target))
}

fn at(place: &str, message: String, keeps_last_good: bool) -> OriginFault {
    OriginFault { message, place: place.to_owned(), keeps_last_good }
}

/// A fault in the words of objects.
fn told(fault: &Fault) -> String {
    let parts = [&fault.message, &fault.expected, &fault.help];
    let parts: Vec<&str> = parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    OTHER_NAMES.into_iter().fold(parts.join("; "), |text, (file, object)| text.replace(file, object))
}

#[cfg(test)]
mod tests;
