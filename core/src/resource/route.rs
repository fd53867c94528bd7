//! Routes: which endpoints a request goes to, and for how long it may take.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::name::{RuleName, ServiceName};

/// How long a connection may take to be made (TCP, TLS and hello) when its route does not say.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The routing of one service: rules in order, the first that matches decides. What matches none goes to the service
/// itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Unique within its registry.
    pub name: RuleName,
    /// The service whose callers it applies to.
    pub service: ServiceName,
    /// At least one.
    pub rules: Vec<RouteRule>,
}

/// What a route is left with behind another one for the same service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// Whether nothing is left of it.
    pub is_whole: bool,
    /// What is not used and why, for a person: follows on the route's name.
    pub message: String,
}

impl Route {
    /// What of `later`, a route of the same registry for the same service, never gets a request because this one, which comes
    /// before it by name, has taken them all; none where each of its rules may get some.
    #[must_use]
    pub fn hides(&self, later: &Self) -> Option<Hidden> {
        let taken = |rule: &&RouteRule| self.rules.iter().any(|own| own.takes_all_of(rule));
        let names: Vec<&str> = later.rules.iter().filter(taken).map(|rule| rule.name.as_str()).collect();
        let is_whole = names.len() == later.rules.len();
        let what = match (is_whole, names.as_slice()) {
            (_, []) => return None,
            (true, _) => "is not used".to_owned(),
            (false, [one]) => format!("its rule {one} is not used"),
            (false, several) => format!("its rules {} are not used", several.join(", ")),
        };
        let message = format!(
            "{what}: the route {} of the same registry is for {} too, comes before it by name, and takes those requests",
            self.name, self.service
        );
        Some(Hidden { is_whole, message })
    }
}

impl RouteRule {
    /// Whether every request that meets the conditions of `other` meets those of this one, as far as they are written alike.
    fn takes_all_of(&self, other: &Self) -> bool {
        let takes_all = self.matches.is_empty() || self.matches.iter().any(RouteMatch::takes_all);
        takes_all || (!other.matches.is_empty() && other.matches.iter().all(|it| self.matches.contains(it)))
    }
}

impl RouteMatch {
    fn takes_all(&self) -> bool {
        let any_path = match &self.path {
            None => true,
            Some(PathMatch::Prefix(prefix)) => prefix.trim_end_matches('/').is_empty(),
            Some(PathMatch::Exact(_) | PathMatch::Regex(_)) => false,
        };
        any_path && self.method.is_none() && self.headers.is_empty()
    }
}

/// One rule of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRule {
    /// For logs; unique within its route.
    pub name: RuleName,
    /// Alternatives: one must match. None at all matches everything.
    pub matches: Vec<RouteMatch>,
    /// Where to, by weight. None at all means the service itself.
    pub backends: Vec<Backend>,
    /// From the end of the request, or of what the caller sends of it, to the end of the response's head, over all
    /// tries; zero, as when its route does not say, means no limit.
    pub request_timeout: Duration,
    /// Until a connection is made.
    pub connect_timeout: Duration,
    /// What is tried again beyond what is always safe to retry.
    pub retries: Retries,
}

/// Conditions that must hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteMatch {
    /// The normalised path, without the query.
    pub path: Option<PathMatch>,
    /// An upper-case method.
    pub method: Option<String>,
    /// Headers, all of which must match.
    pub headers: Vec<HeaderMatch>,
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// A prefix of whole segments: `/a` matches `/a` and `/a/b`, not `/ab` (Gateway API's `PathPrefix`).
    Prefix(String),
    /// A regular expression over the whole path.
    Regex(String),
}

/// A condition on one header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Lower case.
    pub name: String,
    /// What its value must be.
    pub value: ValueMatch,
}

/// A condition on a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueMatch {
    /// The whole value.
    Exact(String),
    /// How it begins.
    Prefix(String),
    /// A regular expression over the whole value.
    Regex(String),
    /// That it is there (`true`) or not (`false`).
    Present(bool),
}

/// One destination of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The service; none means the route's own.
    pub service: Option<ServiceName>,
    /// Labels that endpoints must carry; empty means all of them.
    pub subset: BTreeMap<String, String>,
    /// Relative share of requests.
    pub weight: u32,
}

/// What is tried again beyond what is always safe (never dispatched, refused in the hello, REFUSED_STREAM, GOAWAY
/// above the last stream): idempotent requests that failed before a response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Tries after the first, 0 to 10. Counts the always safe ones too.
    pub attempts: u8,
    /// Whether a 502, 503 or 504 of an idempotent request is tried again.
    pub on_gateway_error: bool,
    /// Whether requests of every method count as idempotent: the user's word.
    pub all_methods: bool,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 2, on_gateway_error: false, all_methods: false }
    }
}
