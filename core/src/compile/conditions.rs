//! Conditions of routes, parsed once: regular expressions are built when a route changes and never else.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use http::{HeaderName, Method};
use regex::{Regex, RegexBuilder};

use crate::{
    diagnostic::Diagnostic,
    name::{RegistryName, RuleName},
    path::{EncodedSlash, normalise},
    resource::{HeaderMatch, MAX_PATTERN, PathMatch, Route, RouteMatch, ValueMatch},
    table::{CompiledHeader, CompiledMatch, CompiledPath, CompiledValue},
};

/// A route whose conditions are parsed.
#[derive(Clone, Debug)]
pub(super) struct ParsedRoute {
    /// What the registry says now.
    declared: Arc<Route>,
    /// What is in force: an older one where the newest is faulty.
    pub(super) route: Arc<Route>,
    /// The registry that says it.
    pub(super) registry: RegistryName,
    /// One per rule of `route`.
    pub(super) rules: Vec<ParsedRule>,
    /// What is wrong with `declared`.
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Parsed routes by registry and name.
pub(super) type ParsedRoutes = HashMap<(RegistryName, RuleName), ParsedRoute, RandomState>;

/// The parsed part of one rule.
#[derive(Clone, Debug)]
pub(super) struct ParsedRule {
    /// `route/rule`.
    pub(super) name: RuleName,
    /// None when it is faulty and there is no older one: it then applies to nothing.
    pub(super) matches: Option<Arc<[CompiledMatch]>>,
}

impl ParsedRoute {
    /// Whether it is what a registry says now as another one was.
    pub(super) fn is_said_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.declared, &other.declared) && self.registry == other.registry
    }

    /// Parses a route, or takes it from `old`, the routes until now.
    pub(super) fn new(registry: &RegistryName, route: &Arc<Route>, old: &ParsedRoutes) -> Self {
        let before = old.get(&(registry.clone(), route.name.clone()));
        if let Some(before) = before.filter(|before| before.declared == *route) {
            return before.clone();
        }
        let mut diagnostics = Vec::new();
        let mut rules = Vec::with_capacity(route.rules.len());
        for rule in &route.rules {
            let name = joined_name(route.name.as_str(), rule.name.as_str());
            let matches: Result<Vec<_>, String> = rule.matches.iter().map(parse_match).collect();
            let matches = matches.map_err(|fault| {
                diagnostics.push(Diagnostic::error(format_args!("{registry}/{name}"), fault));
            });
            rules.push(ParsedRule { name, matches: matches.ok().map(Into::into) });
        }
        match before {
            Some(before) if !diagnostics.is_empty() && before.is_good() => {
                let message = "the route is faulty: its last good form stays in force";
                diagnostics.push(Diagnostic::warning(format_args!("{registry}/{}", route.name), message));
                Self { declared: route.clone(), diagnostics, ..before.clone() }
            }
            _ => Self {
                declared: route.clone(),
                route: route.clone(),
                registry: registry.clone(),
                rules,
                diagnostics,
            },
        }
    }
}

impl ParsedRoute {
    /// The key in [`ParsedRoutes`].
    pub(super) fn key(&self) -> (RegistryName, RuleName) {
        (self.registry.clone(), self.declared.name.clone())
    }

    /// Whether every rule of what is in force has a meaning.
    fn is_good(&self) -> bool {
        self.rules.iter().all(|rule| rule.matches.is_some())
    }
}

/// `first/second` as a rule name; cut where it would be too long.
pub(super) fn joined_name(first: &str, second: &str) -> RuleName {
    let whole = format!("{first}/{second}");
    let length = whole.len().min(253);
    whole.get(..length).and_then(|text| RuleName::new(text).ok()).unwrap_or_else(unnamed)
}

/// Stands in where no name can be made.
fn unnamed() -> RuleName {
    RuleName::new("unnamed").expect("a plain word is a rule name")
}

fn parse_match(condition: &RouteMatch) -> Result<CompiledMatch, String> {
    let path = condition.path.as_ref().map(|path| {
        Ok::<_, String>(match path {
            PathMatch::Exact(path) => CompiledPath::Exact(canonical(path)?.into_owned()),
            PathMatch::Prefix(prefix) => {
                CompiledPath::Prefix(canonical(prefix)?.trim_end_matches('/').to_owned())
            }
            PathMatch::Regex(pattern) => CompiledPath::Regex(whole(pattern)?),
        })
    });
    let method = condition.method.as_ref().map(|method| parse_method(method));
    let headers: Result<_, _> = condition.headers.iter().map(parse_header).collect();
    Ok(CompiledMatch { path: path.transpose()?, method: method.transpose()?, headers: headers? })
}

/// A path in the form in which requests are compared with it.
fn canonical(path: &str) -> Result<Cow<'_, str>, String> {
    normalise(path, EncodedSlash::Keep).map_err(|_| format!("\"{path}\" is not a path"))
}

fn parse_header(header: &HeaderMatch) -> Result<CompiledHeader, String> {
    let name = HeaderName::from_bytes(header.name.as_bytes());
    let name = name.map_err(|_| format!("\"{}\" is not a header name", header.name))?;
    let value = match &header.value {
        ValueMatch::Exact(value) => CompiledValue::Exact(value.clone()),
        ValueMatch::Prefix(prefix) => CompiledValue::Prefix(prefix.clone()),
        ValueMatch::Regex(pattern) => CompiledValue::Regex(whole(pattern)?),
        ValueMatch::Present(wanted) => CompiledValue::Present(*wanted),
    };
    Ok(CompiledHeader { name, value })
}

/// A method by its name.
pub(super) fn parse_method(text: &str) -> Result<Method, String> {
    Method::from_bytes(text.as_bytes()).map_err(|_| format!("\"{text}\" is not a method"))
}

/// A pattern that a route may match by, as it is.
///
/// # Errors
/// Says why it is none: it is no regular expression, or too large a one.
pub fn checked_pattern(pattern: &str) -> Result<String, String> {
    whole(pattern).map(|_| pattern.to_owned())
}

/// A regular expression that must match from the first byte to the last.
fn whole(pattern: &str) -> Result<Regex, String> {
    // Alone first: "a)|(b" must not become valid by being wrapped.
    let build = |text: &str| RegexBuilder::new(text).size_limit(MAX_PATTERN).build();
    let fault = |error: regex::Error| format!("the regular expression \"{pattern}\" is not valid: {error}");
    build(pattern).map_err(fault)?;
    build(&format!("^(?:{pattern})$")).map_err(fault)
}
