//! Shares of a route that fail because nobody is left to take them.
//!
//! A share is never given to others in silence (a split is there to prevent that), so that it fails is told.

use std::collections::BTreeMap;

use super::unit::Unit;
use crate::{
    diagnostic::Diagnostic,
    name::ServiceKey,
    resource::{Backend, RouteRule},
    table::{CompiledRouteRule, Destination, DestinationPort, Target},
};

/// What of a service's routes leads to nobody, where others could take calls. `is_declared` says whether a service is: of
/// one that is not it is told elsewhere.
pub(super) fn failing(
    unit: &Unit,
    destination: &Destination,
    is_declared: impl Fn(&ServiceKey) -> bool,
) -> Vec<Diagnostic> {
    let mut told = Vec::new();
    for port in &*destination.ports {
        // In the order in which they were compiled, and the default last.
        let said = unit.routes.iter().flat_map(|parsed| {
            let rules = parsed.route.rules.iter().zip(&parsed.rules);
            rules.filter(|(_, ready)| ready.matches.is_some()).map(move |(rule, _)| (parsed, rule))
        });
        for ((parsed, rule), compiled) in said.zip(port.rules.iter()) {
            let place = format_args!("{}/{}/{}", parsed.registry, parsed.route.name, rule.name);
            let failing = of_rule(port, rule, compiled, &is_declared);
            told.extend(failing.map(|message| Diagnostic::warning(place, message)));
        }
    }
    told
}

fn of_rule<'a>(
    port: &'a DestinationPort,
    rule: &'a RouteRule,
    compiled: &'a CompiledRouteRule,
    is_declared: &'a impl Fn(&ServiceKey) -> bool,
) -> impl Iterator<Item = String> + 'a {
    let total = compiled.targets.last().map_or(0, |target| target.cumulative_weight);
    let is_there = |target: &Target| !target.endpoints.all.is_empty();
    let all = || compiled.targets.iter().chain(port.rules.last().into_iter().flat_map(|it| &it.targets));
    let shares = rule.backends.iter().zip(&compiled.targets);
    let failing = shares.filter(move |(backend, target)| backend.weight > 0 && !is_there(target));
    let told = failing.filter(move |(_, target)| all().any(is_there) && is_declared(&target.service));
    told.map(move |(backend, target)| message(port, backend, target, total))
}

fn message(port: &DestinationPort, backend: &Backend, target: &Target, total: u32) -> String {
    let share = (1000.0 * f64::from(backend.weight) / f64::from(total.max(1))).round() / 10.0;
    let subset = labels(&backend.subset);
    format!(
        "nobody is left of {}{subset} for port {}: that share of requests, {share} %, fails",
        target.service, port.name
    )
}

fn labels(subset: &BTreeMap<String, String>) -> String {
    let labels: Vec<_> = subset.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    if labels.is_empty() { String::new() } else { format!(" with {}", labels.join(", ")) }
}
