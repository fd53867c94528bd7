//! Routes: which endpoints a request goes to, and for how long it may take.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

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

/// What of a route never gets a request, because others of its registry for its service, which come before it, have taken
/// them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden<'a> {
    /// Whether nothing is left of it.
    pub is_whole: bool,
    /// The others, as they come.
    pub by: Vec<&'a RuleName>,
    /// What is not used and why, for a person: follows on the route's name.
    pub message: String,
}

/// What is hidden of each of one registry's routes for one service, in the order of their names; none of one all of whose
/// rules may get some requests. As far as conditions are written alike.
#[must_use]
pub fn hidden<'a>(routes: &[&'a Route]) -> Vec<Option<Hidden<'a>>> {
    // Which route has taken what, and all that there is.
    let (mut taken, mut all): (HashMap<&RouteMatch, usize>, _) = (HashMap::new(), None);
    let mut found = Vec::with_capacity(routes.len());
    for (place, route) in routes.iter().enumerate() {
        let (mut by, mut names) = (BTreeSet::new(), Vec::new());
        for rule in &route.rules {
            let takers = match all {
                Some(first) => Some(vec![first]),
                None if rule.matches.is_empty() => None,
                None => rule.matches.iter().map(|it| taken.get(it).copied()).collect(),
            };
            if let Some(takers) = takers {
                by.extend(takers);
                names.push(rule.name.as_str());
            }
        }
        let others: Vec<_> = by.into_iter().map(|place| &routes[place].name).collect();
        found.push((!names.is_empty()).then(|| route.hidden_by(others, &names)));
        for rule in &route.rules {
            for conditions in &rule.matches {
                taken.entry(conditions).or_insert(place);
            }
            let takes_all = rule.matches.is_empty() || rule.matches.iter().any(RouteMatch::takes_all);
            all = all.or(takes_all.then_some(place));
        }
    }
    found
}

impl Route {
    fn hidden_by<'a>(&self, by: Vec<&'a RuleName>, rules: &[&str]) -> Hidden<'a> {
        let is_whole = rules.len() == self.rules.len();
        let what = match (is_whole, rules) {
            (true, _) => "is not used".to_owned(),
            (false, [one]) => format!("its rule {one} is not used"),
            (false, several) => format!("its rules {} are not used", several.join(", ")),
        };
        let names: Vec<_> = by.iter().map(|name| name.as_str()).collect();
        let (routes, come) = match names.len() {
            1 => ("the route", "is for {} too, comes before it by name, and takes those requests"),
            _ => ("the routes", "are for {} too, come before it by name, and take those requests"),
        };
        let come = come.replace("{}", &self.service.to_string());
        let message = format!("{what}: {routes} {} of the same registry {come}", names.join(", "));
        Hidden { is_whole, by, message }
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Hash)]
pub struct RouteMatch {
    /// The normalised path, without the query.
    pub path: Option<PathMatch>,
    /// An upper-case method.
    pub method: Option<String>,
    /// Headers, all of which must match.
    pub headers: Vec<HeaderMatch>,
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
pub struct HeaderMatch {
    /// Lower case.
    pub name: String,
    /// What its value must be.
    pub value: ValueMatch,
}

/// A condition on a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
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
