//! Who may call whom, by intentions as Consul decides and by the policies that they become.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use weft_core::{
    identity::{SpiffeId, TrustDomain},
    resource::{Action, Operation, Resource},
};

use super::super::{
    bearers::Bearers,
    entries::{Intentions, Permission, Source},
    intentions::{self, Callers},
};

/// A request: who asks, how, for what, and whether it has a header.
type Request = (&'static str, &'static str, &'static str, bool);

fn requests() -> Vec<Request> {
    let mut all = Vec::new();
    for who in ["a", "b", "c"] {
        for method in ["GET", "POST"] {
            for path in ["/", "/admin", "/admin/x", "/b"] {
                all.extend([(who, method, path, true), (who, method, path, false)]);
            }
        }
    }
    all
}

/// Consul's own decision: the first intention that fits, and in it the first permission that fits.
fn by_intentions(sources: &[&Source], request: Request, by_default: bool) -> bool {
    let found =
        sources.iter().find(|it| it.name == request.0).or_else(|| sources.iter().find(|it| it.name == "*"));
    let Some(source) = found else { return by_default };
    if source.permissions.is_empty() {
        return source.action == "allow";
    }
    let fits = |permission: &&Permission| {
        let http = permission.http.clone().unwrap_or_default();
        let (_, method, path, header) = request;
        (http.path_exact.is_empty() || http.path_exact == path)
            && path.starts_with(&http.path_prefix)
            && (http.path_regex.is_empty() || path == "/b")
            && (http.methods.is_empty() || http.methods.iter().any(|it| it == method))
            && (http.header.is_empty() || header)
    };
    source.permissions.iter().find(fits).map_or(by_default, |it| it.action == "allow")
}

/// The mesh's decision by policies.
fn by_policies(policies: &[Resource], request: Request) -> bool {
    let identity = SpiffeId::parse(&format!("spiffe://test.mesh/ns/default/sa/{}", request.0)).unwrap();
    let fits = |operation: &Operation| {
        let path = |wanted: &String| match wanted.strip_suffix('*') {
            Some(prefix) => request.2.starts_with(prefix),
            None => wanted == request.2,
        };
        (operation.methods.is_empty() || operation.methods.iter().any(|it| it == request.1))
            && (operation.paths.is_empty() || operation.paths.iter().any(path))
    };
    let mut allowed = true;
    for resource in policies {
        let Resource::Policy(policy) = resource else { panic!("{resource:?}") };
        let hit = policy.rules.iter().any(|rule| {
            (rule.from.is_empty() || rule.from.iter().any(|it| it.matches(&identity)))
                && (rule.to.is_empty() || rule.to.iter().any(fits))
        });
        match policy.action {
            Action::Deny if hit => return false,
            Action::Deny => {}
            Action::Allow => allowed = hit,
        }
    }
    allowed
}

fn permission() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        Just(json!({})),
        Just(json!({ "PathPrefix": "/admin" })),
        Just(json!({ "PathExact": "/admin" })),
        Just(json!({ "PathExact": "/b", "Methods": ["GET"] })),
        Just(json!({ "PathRegex": "/b" })),
        Just(json!({ "PathPrefix": "/", "Header": [{ "Name": "x", "Present": true }] })),
    ];
    (path, any::<bool>())
        .prop_map(|(http, allow)| json!({ "Action": if allow { "allow" } else { "deny" }, "HTTP": http }))
}

fn source(name: &'static str, layer_7: bool) -> impl Strategy<Value = Option<Value>> {
    let plain = any::<bool>()
        .prop_map(move |allow| json!({ "Name": name, "Action": if allow { "allow" } else { "deny" } }));
    let permitted = prop::collection::vec(permission(), 1..4)
        .prop_map(move |it| json!({ "Name": name, "Permissions": it }));
    let any_of = if layer_7 { prop_oneof![plain, permitted].boxed() } else { plain.boxed() };
    prop::option::of(any_of)
}

fn entry(name: &'static str, layer_7: bool) -> impl Strategy<Value = Option<Intentions>> {
    let sources = (source("a", layer_7), source("b", layer_7), source("*", layer_7));
    let made = sources.prop_map(move |(a, b, all)| {
        let sources: Vec<Value> = [all, a, b].into_iter().flatten().collect();
        serde_json::from_value(json!({ "Name": name, "Sources": sources })).unwrap()
    });
    prop::option::of(made)
}

fn check(entries: [Option<Intentions>; 2], by_default: bool, exact: bool) -> Result<(), TestCaseError> {
    let all: BTreeMap<String, Intentions> =
        entries.into_iter().flatten().map(|it| (it.name.clone(), it)).collect();
    let Some(sources) = intentions::of("web", &all) else { return Ok(()) };
    let domain = TrustDomain::new("test.mesh").unwrap();
    let bearers = Bearers::default();
    let callers = Callers { bearers: &bearers, trust_domain: Some(&domain), allowed_by_default: by_default };
    let (policies, _) = intentions::policies("web", &sources, false, callers);
    for request in requests() {
        let (consul, mesh) = (by_intentions(&sources, request, by_default), by_policies(&policies, request));
        prop_assert!(consul || !mesh, "{:?} is allowed by {:?}, not by {:?}", request, policies, sources);
        prop_assert!(
            !exact || consul == mesh,
            "{:?} is refused by {:?}, not by {:?}",
            request,
            policies,
            sources
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn callers_are_allowed_as_consul_allows_them(
        own in entry("web", false), all in entry("*", false), by_default in any::<bool>(),
    ) {
        check([own, all], by_default, true)?;
    }

    #[test]
    fn no_request_is_allowed_that_consul_denies(
        own in entry("web", true), all in entry("*", true), by_default in any::<bool>(),
    ) {
        check([own, all], by_default, false)?;
    }
}
