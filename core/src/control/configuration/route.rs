//! Routes.

use std::time::Duration;

use crate::{
    control::{
        ControlError,
        error::{named, narrow},
        message::{self, TextMatchKind},
    },
    name::{RuleName, ServiceName},
    resource::{
        Backend, DEFAULT_CONNECT_TIMEOUT, HeaderMatch, PathMatch, Retries, Route, RouteMatch, RouteRule,
        ValueMatch,
    },
};

pub(in crate::control) fn write_route(route: &Route) -> message::Route {
    message::Route {
        name: route.name.to_string(),
        service: route.service.to_string(),
        rules: route.rules.iter().map(write_rule).collect(),
    }
}

fn write_rule(rule: &RouteRule) -> message::RouteRule {
    message::RouteRule {
        name: rule.name.to_string(),
        matches: rule.matches.iter().map(write_match).collect(),
        backends: rule.backends.iter().map(write_backend).collect(),
        request_timeout: Some(write_duration(rule.request_timeout)),
        connect_timeout: Some(write_duration(rule.connect_timeout)),
        attempts: rule.retries.attempts.into(),
        on_gateway_error: rule.retries.on_gateway_error,
        all_methods: rule.retries.all_methods,
    }
}

fn write_match(condition: &RouteMatch) -> message::RouteMatch {
    message::RouteMatch {
        path: condition.path.as_ref().map(|path| match path {
            PathMatch::Exact(text) => text_match(TextMatchKind::Exact, text),
            PathMatch::Prefix(text) => text_match(TextMatchKind::Prefix, text),
            PathMatch::Regex(text) => text_match(TextMatchKind::Regex, text),
        }),
        method: condition.method.clone().unwrap_or_default(),
        headers: condition.headers.iter().map(write_header).collect(),
    }
}

fn write_header(header: &HeaderMatch) -> message::HeaderMatch {
    let value = match &header.value {
        ValueMatch::Exact(text) => text_match(TextMatchKind::Exact, text),
        ValueMatch::Prefix(text) => text_match(TextMatchKind::Prefix, text),
        ValueMatch::Regex(text) => text_match(TextMatchKind::Regex, text),
        ValueMatch::Present(true) => text_match(TextMatchKind::Present, ""),
        ValueMatch::Present(false) => text_match(TextMatchKind::Absent, ""),
    };
    message::HeaderMatch { name: header.name.clone(), value: Some(value) }
}

fn text_match(kind: TextMatchKind, text: &str) -> message::TextMatch {
    message::TextMatch { kind: kind.into(), text: text.to_owned() }
}

fn write_backend(backend: &Backend) -> message::Backend {
    let label = |(key, value): (&String, &String)| message::Label { key: key.clone(), value: value.clone() };
    message::Backend {
        service: backend.service.as_ref().map_or(String::new(), ToString::to_string),
        subset: backend.subset.iter().map(label).collect(),
        weight: backend.weight,
    }
}

fn write_duration(duration: Duration) -> message::Duration {
    message::Duration { seconds: duration.as_secs(), nanoseconds: duration.subsec_nanos() }
}

pub(in crate::control) fn read_route(route: message::Route) -> Result<Route, ControlError> {
    Ok(Route {
        name: named("route", RuleName::new(&route.name))?,
        service: named("route's service", ServiceName::new(&route.service))?,
        rules: route.rules.into_iter().map(read_rule).collect::<Result<_, _>>()?,
    })
}

fn read_rule(rule: message::RouteRule) -> Result<RouteRule, ControlError> {
    Ok(RouteRule {
        name: named("route rule", RuleName::new(&rule.name))?,
        matches: rule.matches.into_iter().map(read_match).collect::<Result<_, _>>()?,
        backends: rule.backends.into_iter().map(read_backend).collect::<Result<_, _>>()?,
        request_timeout: read_duration(rule.request_timeout, Duration::ZERO)?,
        connect_timeout: read_duration(rule.connect_timeout, DEFAULT_CONNECT_TIMEOUT)?,
        retries: Retries {
            attempts: narrow("retry attempts", rule.attempts)?,
            on_gateway_error: rule.on_gateway_error,
            all_methods: rule.all_methods,
        },
    })
}

fn read_match(condition: message::RouteMatch) -> Result<RouteMatch, ControlError> {
    let path = |path: message::TextMatch| match path.kind() {
        TextMatchKind::Exact => Ok(PathMatch::Exact(path.text)),
        TextMatchKind::Prefix => Ok(PathMatch::Prefix(path.text)),
        TextMatchKind::Regex => Ok(PathMatch::Regex(path.text)),
        _ => Err(ControlError::Value { field: "path match", value: path.kind.into() }),
    };
    Ok(RouteMatch {
        path: condition.path.map(path).transpose()?,
        method: Some(condition.method).filter(|method| !method.is_empty()),
        headers: condition.headers.into_iter().map(read_header).collect::<Result<_, _>>()?,
    })
}

fn read_header(header: message::HeaderMatch) -> Result<HeaderMatch, ControlError> {
    let value = header.value.ok_or(ControlError::Missing("the header's condition"))?;
    let value = match value.kind() {
        TextMatchKind::Exact => ValueMatch::Exact(value.text),
        TextMatchKind::Prefix => ValueMatch::Prefix(value.text),
        TextMatchKind::Regex => ValueMatch::Regex(value.text),
        TextMatchKind::Present => ValueMatch::Present(true),
        TextMatchKind::Absent => ValueMatch::Present(false),
        TextMatchKind::Unspecified => {
            return Err(ControlError::Value { field: "header match", value: value.kind.into() });
        }
    };
    Ok(HeaderMatch { name: header.name, value })
}

fn read_backend(backend: message::Backend) -> Result<Backend, ControlError> {
    let service = Some(backend.service).filter(|service| !service.is_empty());
    Ok(Backend {
        service: service.map(|name| named("backend", ServiceName::new(&name))).transpose()?,
        subset: backend.subset.into_iter().map(|label| (label.key, label.value)).collect(),
        weight: backend.weight,
    })
}

fn read_duration(duration: Option<message::Duration>, default: Duration) -> Result<Duration, ControlError> {
    let Some(duration) = duration else { return Ok(default) };
    if duration.nanoseconds >= 1_000_000_000 {
        return Err(ControlError::Value { field: "nanoseconds", value: duration.nanoseconds.into() });
    }
    Ok(Duration::new(duration.seconds, duration.nanoseconds))
}
