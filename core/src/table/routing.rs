//! Compiled routing: conditions are parsed, regular expressions built and weights summed before any request comes.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Method};
use regex::Regex;

use super::EndpointSet;
use crate::{
    name::{RuleName, ServiceKey},
    resource::Retries,
};

/// One rule: conditions and what follows from them.
#[derive(Debug)]
pub struct CompiledRouteRule {
    /// `route/rule`, for logs and metrics; `default` for the rule every port ends with.
    pub name: RuleName,
    /// Alternatives; none at all matches everything. Shared by all tables until the route itself changes.
    pub matches: Arc<[CompiledMatch]>,
    /// Where to, with cumulative weights; none when no backend exists (an answer of 503).
    pub targets: Vec<Target>,
    /// From the end of the request to the end of the response's head, over all tries; none means no limit.
    pub request_timeout: Option<Duration>,
    /// Until a connection is made.
    pub connect_timeout: Duration,
    /// What is tried again.
    pub retries: Retries,
}

/// One weighted destination of a rule.
#[derive(Debug, Clone)]
pub struct Target {
    /// The service whose endpoints these are.
    pub service: ServiceKey,
    /// Weights of all targets up to and with this one.
    pub cumulative_weight: u32,
    /// Whom to choose from.
    pub endpoints: Arc<EndpointSet>,
}

/// Conditions that must hold together.
#[derive(Debug, Default)]
pub struct CompiledMatch {
    /// On the normalised path.
    pub path: Option<CompiledPath>,
    /// On the method.
    pub method: Option<Method>,
    /// On headers.
    pub headers: Vec<CompiledHeader>,
}

/// A condition on the normalised path, without the query.
#[derive(Debug)]
pub enum CompiledPath {
    /// The whole path.
    Exact(String),
    /// Whole segments from the front; stored without a final slash.
    Prefix(String),
    /// The whole path; anchored when built.
    Regex(Regex),
}

/// A condition on one header.
#[derive(Debug)]
pub struct CompiledHeader {
    /// Which header.
    pub name: HeaderName,
    /// What its value must be.
    pub value: CompiledValue,
}

/// A condition on a value.
#[derive(Debug)]
pub enum CompiledValue {
    /// The whole value.
    Exact(String),
    /// How it begins.
    Prefix(String),
    /// The whole value; anchored when built.
    Regex(Regex),
    /// There or not there.
    Present(bool),
}

impl CompiledRouteRule {
    /// Whether the rule applies to a request.
    #[must_use]
    pub fn applies(&self, path: &str, method: &Method, headers: &HeaderMap) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|m| m.holds(path, method, headers))
    }

    /// Whether the rule applies to opaque bytes: only one without conditions does.
    #[must_use]
    pub fn applies_to_bytes(&self) -> bool {
        self.matches.is_empty()
    }

    /// The target for a random number: `draw` is uniform in `0..total weight`.
    #[must_use]
    pub fn target(&self, draw: impl FnOnce(u32) -> u32) -> Option<&Target> {
        match self.targets.as_slice() {
            [] => None,
            [only] => (only.cumulative_weight > 0).then_some(only),
            [.., last] if last.cumulative_weight == 0 => None,
            targets @ [.., last] => {
                let point = draw(last.cumulative_weight);
                targets.iter().find(|target| point < target.cumulative_weight)
            }
        }
    }
}

impl CompiledMatch {
    fn holds(&self, path: &str, method: &Method, headers: &HeaderMap) -> bool {
        self.path.as_ref().is_none_or(|condition| condition.holds(path))
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.headers.iter().all(|condition| condition.holds(headers))
    }
}

impl CompiledPath {
    fn holds(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == path,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

impl CompiledHeader {
    fn holds(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        let mut any_text = |test: &dyn Fn(&str) -> bool| values.any(|value| value.to_str().is_ok_and(test));
        match &self.value {
            CompiledValue::Present(wanted) => headers.contains_key(&self.name) == *wanted,
            CompiledValue::Exact(wanted) => any_text(&|value| value == wanted),
            CompiledValue::Prefix(prefix) => any_text(&|value| value.starts_with(prefix.as_str())),
            CompiledValue::Regex(regex) => any_text(&|value| regex.is_match(value)),
        }
    }
}
