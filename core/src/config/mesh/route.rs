//! `[[route]]`: how requests to a service are routed.

use std::{collections::BTreeMap, time::Duration};

use super::{MeshFile, common};
use crate::{
    config::{Fault, Located, Section, Value},
    name::{RuleName, ServiceName},
    path::EncodedSlash,
    resource::{
        Backend, DEFAULT_CONNECT_TIMEOUT, Endpoint, HeaderMatch, MAX_ATTEMPTS, MAX_BACKENDS, MAX_WEIGHT,
        PathMatch, Resource, Retries, Route, RouteMatch, RouteRule, ValueMatch,
    },
};

pub(super) fn read(section: &Section<'_>) -> Option<Located<Resource>> {
    let name: Option<RuleName> = section.require("name", "a name, such as name = \"reviews\"");
    let service: Option<ServiceName> =
        section.require("service", "whose callers it applies to, such as service = \"reviews.default\"");
    let rules = section.sections("rule");
    if rules.is_empty() && !section.has("rule") {
        let fault = Fault::error(section.place(), "a route has at least one rule");
        section.report_missing(fault.expected("expected `[[route.rule]]`"));
    }
    let read: Vec<Option<RouteRule>> =
        rules.iter().enumerate().map(|(index, section)| rule(section, index)).collect();
    let read: Option<Vec<RouteRule>> = read.into_iter().collect();
    check_names(&rules, read.as_deref());
    let route = Route { name: name?, service: service?, rules: read? };
    Some(Located { value: Resource::Route(route.into()), place: section.key_place("name") })
}

fn rule(section: &Section<'_>, index: usize) -> Option<RouteRule> {
    let name: Option<RuleName> = match section.get("name") {
        Some(value) => crate::config::Readable::read(&value),
        None => RuleName::new(&index.to_string()).ok(),
    };
    let matches = section.list("match", |value| {
        route_match(&Section::open(value, "a condition, such as { path = { prefix = \"/\" } }")?)
    });
    let backends = backends(section);
    let request_timeout = section.read_or("request_timeout", Duration::ZERO);
    let connect_timeout =
        section.get("connect_timeout").map_or(Some(DEFAULT_CONNECT_TIMEOUT), |value| positive(&value));
    let retries = section.section("retries").map_or(Some(Retries::default()), |section| retries(&section));
    Some(RouteRule {
        name: name?,
        matches: matches?,
        backends: backends?,
        request_timeout,
        connect_timeout: connect_timeout?,
        retries: retries?,
    })
}

fn positive(value: &Value<'_>) -> Option<Duration> {
    let duration: Duration = crate::config::Readable::read(value)?;
    if duration.is_zero() {
        value.reject("a connection cannot be made in no time", "expected a duration above 0, such as \"1s\"");
        return None;
    }
    Some(duration)
}

fn retries(section: &Section<'_>) -> Option<Retries> {
    let default = Retries::default();
    let attempts = section
        .get("attempts")
        .map_or(Some(u64::from(default.attempts)), |value| value.integer(0..=u64::from(MAX_ATTEMPTS)));
    let on_gateway_error = section.read_or("on_gateway_error", default.on_gateway_error);
    let all_methods = section.read_or("all_methods", default.all_methods);
    Some(Retries { attempts: u8::try_from(attempts?).ok()?, on_gateway_error, all_methods })
}

fn route_match(section: &Section<'_>) -> Option<RouteMatch> {
    let path = section.section("path").map(|section| path_match(&section));
    let method = section.get("method").map(|value| common::method(&value));
    let headers = section.list("headers", |value| {
        header_match(&Section::open(
            value,
            "a header condition, such as { name = \"x-canary\", exact = \"yes\" }",
        )?)
    });
    // An inner none is a fault that was reported.
    Some(RouteMatch {
        path: path.map_or(Some(None), |path| path.map(Some))?,
        method: method.map_or(Some(None), |method| method.map(Some))?,
        headers: headers?,
    })
}

fn path_match(section: &Section<'_>) -> Option<PathMatch> {
    match common::exactly_one(section, &["exact", "prefix", "regex"])? {
        ("exact", value) => common::path(&value, EncodedSlash::Keep).map(PathMatch::Exact),
        ("prefix", value) => common::path(&value, EncodedSlash::Keep).map(PathMatch::Prefix),
        (_, value) => common::pattern(&value).map(PathMatch::Regex),
    }
}

fn header_match(section: &Section<'_>) -> Option<HeaderMatch> {
    let name = section.require_value("name", "a header's name, such as name = \"x-canary\"");
    let name = name.and_then(|value| {
        value.parse("a header's name, such as \"x-canary\"", |text| {
            http::HeaderName::from_bytes(text.as_bytes()).map(|name| name.as_str().to_owned())
        })
    });
    let value = match common::exactly_one(section, &["exact", "prefix", "regex", "present"])? {
        ("exact", value) => ValueMatch::Exact(value.text("a header's value")?.to_owned()),
        ("prefix", value) => ValueMatch::Prefix(value.text("how the value begins")?.to_owned()),
        ("regex", value) => ValueMatch::Regex(common::pattern(&value)?),
        (_, value) => ValueMatch::Present(value.boolean()?),
    };
    Some(HeaderMatch { name: name?, value })
}

fn backends(section: &Section<'_>) -> Option<Vec<Backend>> {
    let Some(value) = section.get("backends") else { return Some(Vec::new()) };
    let elements = value.list()?;
    let expected = "a backend, such as { subset = { version = \"v1\" }, weight = 90 }";
    let read: Vec<Option<Backend>> =
        elements.iter().map(|element| backend(&Section::open(element, expected)?)).collect();
    let backends: Vec<Backend> = read.into_iter().collect::<Option<_>>()?;
    if backends.is_empty() {
        value.reject(
            "`backends` is empty",
            "expected at least one; leave the key out to mean the service itself",
        );
        return None;
    }
    if backends.len() > MAX_BACKENDS {
        value.reject("there are too many backends", format!("expected at most {MAX_BACKENDS}"));
        return None;
    }
    if backends.iter().all(|backend| backend.weight == 0) {
        let expected =
            "expected at least one weight above 0; leave `backends` out to mean the service itself";
        value.reject("the weights add up to 0", expected);
        return None;
    }
    Some(backends)
}

fn backend(section: &Section<'_>) -> Option<Backend> {
    let service: Option<ServiceName> = section.read("service");
    let subset = section.read_or("subset", BTreeMap::new());
    let weight = section.get("weight").map_or(Some(1), |value| value.integer(0..=u64::from(MAX_WEIGHT)));
    Some(Backend { service, subset, weight: u32::try_from(weight?).ok()? })
}

/// Rule names are unique within their route, the indices of unnamed ones included.
fn check_names(sections: &[Section<'_>], rules: Option<&[RouteRule]>) {
    let rules = rules.unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let Some(before) = rules[..index].iter().position(|before| before.name == rule.name) else {
            continue;
        };
        let place = |index: usize| sections[index].key_place("name");
        let fault = Fault::error(place(index), format!("rule `{}` is defined twice", rule.name));
        sections[index].report(fault.related(place(before), "first defined here"));
    }
}

/// Subsets of services of this very file to which none of its endpoints belongs: probably a slip, but endpoints may
/// come later.
pub(super) fn unknown_subsets(file: &MeshFile) -> Vec<Fault> {
    let mut faults = Vec::new();
    for Located { value, place } in &file.resources {
        let Resource::Route(route) = value else { continue };
        let backends =
            route.rules.iter().flat_map(|rule| rule.backends.iter().map(move |backend| (rule, backend)));
        for (rule, backend) in backends.filter(|(_, backend)| !backend.subset.is_empty()) {
            let service = backend.service.as_ref().unwrap_or(&route.service);
            let endpoints: Vec<&Endpoint> = endpoints_of(file, service);
            let belongs = |endpoint: &&Endpoint| {
                backend.subset.iter().all(|(key, text)| endpoint.labels.get(key) == Some(text.as_str()))
            };
            if !endpoints.is_empty() && !endpoints.iter().any(belongs) {
                let subset =
                    backend.subset.iter().map(|(key, text)| format!("{key} = {text:?}")).collect::<Vec<_>>();
                let message = format!(
                    "rule `{}` routes to {{ {} }}, and no endpoint of `{service}` in this file has these labels",
                    rule.name,
                    subset.join(", "),
                );
                faults.push(Fault::warning(place.clone(), message));
            }
        }
    }
    faults
}

fn endpoints_of<'f>(file: &'f MeshFile, service: &ServiceName) -> Vec<&'f Endpoint> {
    let endpoint = |located: &'f Located<Resource>| match &located.value {
        Resource::Endpoint(endpoint) if endpoint.service == *service => Some(&**endpoint),
        _ => None,
    };
    file.resources.iter().filter_map(endpoint).collect()
}
