//! `[[policy]]`: who may call what.

use super::common;
use crate::{
    config::{Fault, Located, Port, Readable, Section, Value},
    identity::{SpiffeId, TrustDomain},
    name::{Namespace, RuleName, ServiceName},
    path::EncodedSlash,
    resource::{Action, Operation, Policy, PolicyRule, PolicyTarget, PrincipalMatch, Resource},
};

const ACTIONS: [(&str, Action); 2] = [("allow", Action::Allow), ("deny", Action::Deny)];

pub(super) fn read(section: &Section<'_>) -> Option<Located<Resource>> {
    let name: Option<RuleName> = section.require("name", "a name, such as name = \"only-web\"");
    let target = target(section);
    let action = section
        .require_value("action", "action = \"allow\" or \"deny\"")
        .and_then(|value| value.word(&ACTIONS));
    let sections = section.sections("rule");
    let rules: Vec<Option<PolicyRule>> = sections.iter().map(rule).collect();
    if let (true, Some(action)) = (sections.is_empty(), action) {
        let effect = match action {
            Action::Allow => "an allow policy without rules allows nobody",
            Action::Deny => "a deny policy without rules denies nobody",
        };
        section.report_missing(Fault::warning(section.key_place("action"), effect));
    }
    let rules: Option<Vec<PolicyRule>> = rules.into_iter().collect();
    let policy = Policy { name: name?, target: target?, action: action?, rules: rules? };
    Some(Located { value: Resource::Policy(policy.into()), place: section.key_place("name") })
}

fn target(section: &Section<'_>) -> Option<PolicyTarget> {
    let expected = "\"mesh\", { service = \"…\" } or { identity = \"…\" }";
    let value = section.require_value("target", expected)?;
    if value.as_text().is_some() {
        return value.word(&[("mesh", PolicyTarget::Mesh)]);
    }
    let section = Section::open(&value, expected)?;
    match common::exactly_one(&section, &["service", "identity"])? {
        ("service", value) => ServiceName::read(&value).map(PolicyTarget::Service),
        (_, value) => SpiffeId::read(&value).map(PolicyTarget::Identity),
    }
}

fn rule(section: &Section<'_>) -> Option<PolicyRule> {
    let name = section.get("name").map(|value| RuleName::read(&value));
    let from = section.list("from", super::read_principal);
    let to = section.list("to", |value| {
        operation(&Section::open(value, "an operation, such as { methods = [\"GET\"] }")?)
    });
    Some(PolicyRule { name: name.map_or(Some(None), |name| name.map(Some))?, from: from?, to: to? })
}

pub(super) fn principal(section: &Section<'_>) -> Option<PrincipalMatch> {
    let trust_domain = section.get("trust_domain").map(|value| TrustDomain::read(&value));
    if let Some(value) = section.get("namespace") {
        let namespace = Namespace::read(&value);
        let identity = section.get("identity");
        if identity.is_some() {
            let fault = Fault::error(section.key_place("identity"), "`identity` beside `namespace`");
            section.report(fault.expected("an identity names its namespace itself"));
        }
        if trust_domain.is_none() {
            let fault = Fault::error(section.place(), "a namespace is one of a trust domain");
            section.report_missing(fault.expected("expected `trust_domain` beside `namespace`"));
        }
        return Some(PrincipalMatch::Namespace(trust_domain??, namespace?.to_string()));
    }
    match common::exactly_one(section, &["identity", "trust_domain"])? {
        ("identity", value) => SpiffeId::read(&value).map(PrincipalMatch::Identity),
        _ => trust_domain?.map(PrincipalMatch::TrustDomain),
    }
}

fn operation(section: &Section<'_>) -> Option<Operation> {
    let methods = section.list("methods", common::method);
    let paths = section.list("paths", path);
    let ports = section.list("ports", |value| Port::read(value).map(|Port(port)| port));
    Some(Operation { methods: methods?, paths: paths?, ports: ports? })
}

/// A path, or a prefix that ends in `*`: ports with rules on paths refuse encoded slashes, so none stands here.
fn path(value: &Value<'_>) -> Option<String> {
    let path = common::path(value, EncodedSlash::Refuse)?;
    if path[..path.len() - 1].contains('*') {
        value.reject("`*` stands only at the end of a path", "expected a path such as \"/api/*\"");
        return None;
    }
    Some(path)
}
