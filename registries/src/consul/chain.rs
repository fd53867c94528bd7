//! Routers, splitters and resolvers of a service, read as one route. Pure.
//!
//! A call is decided by the service's router, then spread by the splitter of where it goes, then found by the resolver.
//! Here these become rules with weighted backends. Where a condition or a rewriting cannot be said, the rule is left out,
//! so that nothing is sent where it does not belong; where only a refinement cannot be said (a header that is set, a
//! failover), the rule stands without it. Both are told by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft_core::{
    name::{DEFAULT_NAMESPACE, RuleName, ServiceName},
    registry::OriginFault,
    resource::{
        Backend, DEFAULT_CONNECT_TIMEOUT, MAX_ATTEMPTS, MAX_BACKENDS, Resource, Retries, Route, RouteRule,
    },
};

use super::{
    conditions::matches,
    duration::duration,
    entries::{Destination, Redirect, Resolver, Router, RouterRoute, Splitter},
    expression,
};
use crate::names;

/// How many services may be passed on the way to an instance.
const MAX_DEPTH: usize = 8;
/// A hundredth of a percent is the least share.
const SHARES: f64 = 100.0;

/// Everything that routes are made of, by service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chains {
    /// Resolvers.
    pub resolvers: BTreeMap<String, Resolver>,
    /// Splitters.
    pub splitters: BTreeMap<String, Splitter>,
    /// Routers.
    pub routers: BTreeMap<String, Router>,
}

/// Where a part of the calls ends.
#[derive(Clone, Debug)]
struct Target {
    service: String,
    subset: BTreeMap<String, String>,
    share: f64,
    connect_timeout: Option<Duration>,
    request_timeout: Option<Duration>,
}

impl Chains {
    /// The services that have a route.
    pub fn services(&self) -> impl Iterator<Item = &String> {
        let mut names: Vec<_> =
            self.resolvers.keys().chain(self.splitters.keys()).chain(self.routers.keys()).collect();
        names.sort();
        names.dedup();
        names.into_iter()
    }

    /// The route of a service, and what of it cannot be said. `serves` tells whether instances of a service are known.
    #[must_use]
    pub fn route(&self, service: &str, serves: impl Fn(&str) -> bool) -> (Vec<Resource>, Vec<OriginFault>) {
        let mut faults = Vec::new();
        let name = match names::service_name(service, DEFAULT_NAMESPACE) {
            Ok(name) => name,
            Err(fault) => return (Vec::new(), vec![fault]),
        };
        let mut rules = Vec::new();
        let routes = self.routers.get(service).map_or(&[][..], |router| &router.routes);
        for (index, route) in routes.iter().enumerate() {
            let place = format!("service-router {service}, route {index}");
            match self.rule(service, route, index, &place, &mut faults) {
                Ok(rule) => rules.push(rule),
                Err(why) => faults.push(names::fault(&place, format!("left out: {why}"))),
            }
        }
        let place = format!("service-resolver {service}");
        match self.backends(service, "", &name) {
            Ok((backends, targets)) => {
                let mut rule = plain_rule("default");
                rule.backends = backends;
                timeouts(&mut rule, &targets);
                rules.push(rule);
            }
            Err(why) => {
                if self.splitters.contains_key(service) {
                    let calls =
                        if routes.is_empty() { "all calls" } else { "calls that its router says nothing of" };
                    let effect =
                        format!("{calls} go to all instances of {service}, without a share for anyone");
                    let message = format!("left out, because {why}: {effect}");
                    faults.push(names::fault(&format!("service-splitter {service}"), message));
                }
                faults.push(names::fault(&place, why));
            }
        }
        self.told_of_resolvers(service, &mut faults);
        self.told_of_absent(service, &rules, serves, &mut faults);
        let Ok(route_name) = RuleName::new(service) else { return (Vec::new(), faults) };
        if rules.is_empty() {
            return (Vec::new(), faults);
        }
        (vec![Resource::Route(Route { name: route_name, service: name, rules }.into())], faults)
    }

    /// What the service's route is for and leads to, where that has no instances: Consul counts such names for services too,
    /// here they are none.
    fn told_of_absent(
        &self,
        service: &str,
        rules: &[RouteRule],
        serves: impl Fn(&str) -> bool,
        faults: &mut Vec<OriginFault>,
    ) {
        if !serves(service) {
            let message = "no instance of it is known: it cannot be called by this name, and its route counts for nobody";
            faults.push(names::fault(&self.entry_of(service, service), message));
        }
        let backends = rules.iter().flat_map(|rule| &rule.backends).filter_map(|it| it.service.as_ref());
        let absent: BTreeSet<&str> = backends.map(ServiceName::label).filter(|name| !serves(name)).collect();
        for name in absent {
            let message = format!("it leads to {name}, of which no instance is known: these calls fail");
            faults.push(names::fault(&self.entry_of(service, name), message));
        }
    }

    /// The entry by which calls of a service are led to another one; of itself, its first one.
    fn entry_of(&self, service: &str, target: &str) -> String {
        let redirects =
            |resolver: &Resolver| resolver.redirect.as_ref().is_some_and(|it| it.service == target);
        let splits = |splitter: &Splitter| splitter.splits.iter().any(|it| it.service == target);
        if let Some((name, _)) = self.resolvers.iter().find(|(_, resolver)| redirects(resolver)) {
            format!("service-resolver {name}")
        } else if let Some((name, _)) = self.splitters.iter().find(|(_, splitter)| splits(splitter)) {
            format!("service-splitter {name}")
        } else if self.routers.contains_key(service) {
            format!("service-router {service}")
        } else if self.splitters.contains_key(service) {
            format!("service-splitter {service}")
        } else {
            format!("service-resolver {service}")
        }
    }

    /// What of the service's own entries is not taken over.
    fn told_of_resolvers(&self, service: &str, faults: &mut Vec<OriginFault>) {
        let mut told = |kind: &str, what: &str| faults.push(names::fault(&format!("{kind} {service}"), what));
        if let Some(resolver) = self.resolvers.get(service) {
            if !resolver.failover.is_empty() {
                told("service-resolver", "Failover is not taken over: joins of registries fail over");
            }
            let timeouts = [
                ("ConnectTimeout", &resolver.connect_timeout),
                ("RequestTimeout", &resolver.request_timeout),
            ];
            for why in timeouts.into_iter().filter_map(|(key, text)| timeout(key, text).err()) {
                told("service-resolver", &why);
            }
            if resolver.load_balancer.is_some() {
                told("service-resolver", "LoadBalancer is not taken over");
            }
            if resolver.subsets.values().any(|subset| subset.only_passing) {
                told("service-resolver", "OnlyPassing is not taken over: warnings count by their weight");
            }
        }
        let splits = self.splitters.get(service).map_or(&[][..], |splitter| &splitter.splits);
        if splits.iter().any(|split| split.request_headers.is_some() || split.response_headers.is_some()) {
            told("service-splitter", "headers that a split sets are not taken over");
        }
    }

    fn rule(
        &self,
        service: &str,
        route: &RouterRoute,
        index: usize,
        place: &str,
        faults: &mut Vec<OriginFault>,
    ) -> Result<RouteRule, String> {
        let mut rule = plain_rule(&index.to_string());
        if let Some(http) = route.r#match.as_ref().and_then(|conditions| conditions.http.as_ref()) {
            rule.matches = matches(http)?;
        }
        let own = names::service_name(service, DEFAULT_NAMESPACE).map_err(|fault| fault.message)?;
        let default = Destination::default();
        let destination = route.destination.as_ref().unwrap_or(&default);
        if !destination.prefix_rewrite.is_empty() {
            return Err("PrefixRewrite cannot be said".into());
        }
        if is_elsewhere(&destination.namespace) || is_elsewhere(&destination.partition) {
            return Err("another namespace or partition cannot be named".into());
        }
        let to = if destination.service.is_empty() { service } else { &destination.service };
        let (backends, targets) = self.backends(to, &destination.service_subset, &own)?;
        rule.backends = backends;
        timeouts(&mut rule, &targets);
        refine(&mut rule, destination, place, faults);
        Ok(rule)
    }

    /// The backends of calls to a service and subset, as seen by the route of `own`.
    fn backends(
        &self,
        service: &str,
        subset: &str,
        own: &ServiceName,
    ) -> Result<(Vec<Backend>, Vec<Target>), String> {
        let mut targets = Vec::new();
        self.targets(service, subset, 100.0, 0, &mut targets)?;
        targets.retain(|target| target.share > 0.0);
        if targets.len() > MAX_BACKENDS {
            return Err("it has too many backends".into());
        }
        let mut backends = Vec::with_capacity(targets.len());
        for target in &targets {
            let name = names::service_name(&target.service, DEFAULT_NAMESPACE)
                .map_err(|fault| format!("{}: {}", fault.place, fault.message))?;
            let weight = shares(target.share);
            backends.push(Backend {
                service: (name != *own).then_some(name),
                subset: target.subset.clone(),
                weight,
            });
        }
        // All of it to the service itself is what a rule without backends says.
        let itself = |backend: &Backend| backend.service.is_none() && backend.subset.is_empty();
        if backends.len() == 1 && backends.iter().all(itself) {
            backends.clear();
        }
        Ok((backends, targets))
    }

    fn targets(
        &self,
        service: &str,
        subset: &str,
        share: f64,
        depth: usize,
        found: &mut Vec<Target>,
    ) -> Result<(), String> {
        if depth > MAX_DEPTH || found.len() > MAX_BACKENDS {
            return Err("its splitters and resolvers lead in a circle, or too far".into());
        }
        if subset.is_empty()
            && let Some(splitter) = self.splitters.get(service)
        {
            for split in &splitter.splits {
                if !(0.0..=100.0).contains(&split.weight) {
                    return Err(format!("the splitter of {service} has a weight beyond 0 to 100"));
                }
                let next = if split.service.is_empty() { service } else { &split.service };
                let part = share * split.weight / 100.0;
                // Of the splitter's own service the resolver comes next, of another one its splitter.
                if next == service {
                    self.resolve(next, &split.service_subset, part, depth + 1, found)?;
                } else {
                    self.targets(next, &split.service_subset, part, depth + 1, found)?;
                }
            }
            return Ok(());
        }
        self.resolve(service, subset, share, depth, found)
    }

    fn resolve(
        &self,
        service: &str,
        subset: &str,
        share: f64,
        depth: usize,
        found: &mut Vec<Target>,
    ) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err("its resolvers lead in a circle, or too far".into());
        }
        let default = Resolver::default();
        let resolver = self.resolvers.get(service).unwrap_or(&default);
        if let Some(redirect) = &resolver.redirect {
            if leads_away(redirect) {
                return Err(format!("{service} is redirected to another cluster, which a route cannot name"));
            }
            let next = if redirect.service.is_empty() { service } else { &redirect.service };
            if next != service {
                return self.resolve(next, &redirect.service_subset, share, depth + 1, found);
            }
        }
        let subset = if subset.is_empty() { &resolver.default_subset } else { subset };
        let labels = match resolver.subsets.get(subset) {
            Some(chosen) if !chosen.filter.is_empty() => expression::labels(&chosen.filter)
                .map_err(|why| format!("the subset {subset} of {service} cannot be said: {why}"))?,
            None if !subset.is_empty() => return Err(format!("{service} has no subset {subset}")),
            _ => BTreeMap::new(),
        };
        found.push(Target {
            service: service.to_owned(),
            subset: labels,
            share,
            connect_timeout: timeout("ConnectTimeout", &resolver.connect_timeout).unwrap_or_default(),
            request_timeout: timeout("RequestTimeout", &resolver.request_timeout).unwrap_or_default(),
        });
        Ok(())
    }
}

fn shares(percents: f64) -> u32 {
    // At least one: a part that is asked for is never none. Percents are at most 100, so this cannot be cut.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let shares = (percents * SHARES).round().clamp(1.0, 100.0 * SHARES) as u32;
    shares
}

fn leads_away(redirect: &Redirect) -> bool {
    let elsewhere = [&redirect.datacenter, &redirect.peer, &redirect.sameness_group];
    elsewhere.iter().any(|name| !name.is_empty())
        || is_elsewhere(&redirect.namespace)
        || is_elsewhere(&redirect.partition)
}

fn is_elsewhere(name: &str) -> bool {
    !name.is_empty() && name != "default"
}

fn plain_rule(name: &str) -> RouteRule {
    RouteRule {
        name: RuleName::new(name).expect("digits or a word"),
        matches: Vec::new(),
        backends: Vec::new(),
        request_timeout: Duration::ZERO,
        connect_timeout: DEFAULT_CONNECT_TIMEOUT,
        retries: Retries::default(),
    }
}

/// Timeouts stand on a rule here, and on services there: the longest stands.
fn timeouts(rule: &mut RouteRule, targets: &[Target]) {
    let connect = targets.iter().filter_map(|target| target.connect_timeout).max();
    rule.connect_timeout = connect.unwrap_or(DEFAULT_CONNECT_TIMEOUT);
    rule.request_timeout =
        targets.iter().filter_map(|target| target.request_timeout).max().unwrap_or_default();
}

/// A timeout of an entry; none for zero, which means "not said".
///
/// # Errors
/// Says that it cannot be read.
fn timeout(key: &str, text: &str) -> Result<Option<Duration>, String> {
    let read = if text.is_empty() { Ok(Duration::ZERO) } else { duration(text) };
    let read = read.map_err(|()| format!("{key} is {}, which is no duration", names::quoted(text)))?;
    Ok(Some(read).filter(|read| !read.is_zero()))
}

fn refine(rule: &mut RouteRule, destination: &Destination, place: &str, faults: &mut Vec<OriginFault>) {
    let mut told = |what: &str| faults.push(names::fault(place, what));
    match timeout("RequestTimeout", &destination.request_timeout) {
        Ok(Some(timeout)) => rule.request_timeout = timeout,
        Ok(None) => {}
        Err(why) => told(&why),
    }
    if timeout("IdleTimeout", &destination.idle_timeout) != Ok(None) {
        told("IdleTimeout is not taken over");
    }
    if destination.request_headers.is_some() || destination.response_headers.is_some() {
        told("headers that it sets are not taken over");
    }
    if destination.num_retries > 0 {
        let most = u32::from(MAX_ATTEMPTS);
        if destination.num_retries > most {
            told("NumRetries is cut to 10");
        }
        rule.retries.attempts = u8::try_from(destination.num_retries.min(most)).unwrap_or(MAX_ATTEMPTS);
    }
    let gateway = |status: &u16| matches!(status, 502..=504);
    let words = ["gateway-error", "5xx", "retriable-status-codes"];
    rule.retries.on_gateway_error = destination.retry_on_status_codes.iter().any(gateway)
        || destination.retry_on.iter().any(|word| words.contains(&word.as_str()));
    if !destination.retry_on_status_codes.iter().all(gateway) {
        told("RetryOnStatusCodes: only 502, 503 and 504 are tried again");
    }
    let always = ["connect-failure", "refused-stream", "reset"];
    let known = |word: &String| words.contains(&word.as_str()) || always.contains(&word.as_str());
    if !destination.retry_on.iter().all(known) {
        told("RetryOn: only failed connections, resets and gateway errors are tried again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_that_is_none_is_told() {
        let mut chains = Chains::default();
        for (text, timeout, faults) in [("1.5s", 1500, 0), ("soon", 0, 1)] {
            let resolver = Resolver { request_timeout: text.into(), ..Resolver::default() };
            chains.resolvers.insert("web".into(), resolver);
            let (resources, told) = chains.route("web", |_| true);
            let [Resource::Route(route)] = &resources[..] else { panic!("{resources:?}") };
            assert_eq!(
                (route.rules[0].request_timeout.as_millis(), told.len()),
                (timeout, faults),
                "{told:?}"
            );
        }
    }

    #[test]
    fn a_name_without_instances_is_told_by_the_entry_that_leads_to_it() {
        let redirect = |service: &str| Resolver {
            redirect: Some(Redirect { service: service.into(), ..Redirect::default() }),
            ..Resolver::default()
        };
        let mut chains = Chains::default();
        chains.resolvers.insert("web".into(), redirect("next"));
        chains.resolvers.insert("old".into(), redirect("web"));
        chains.resolvers.insert("api".into(), redirect("web"));
        let told = |service: &str, known: &[&str]| {
            let (_, faults) = chains.route(service, |name| known.contains(&name));
            faults.iter().map(|it| format!("{}: {}", it.place, it.message)).collect::<Vec<_>>()
        };
        assert_eq!(told("web", &["web", "next"]), Vec::<String>::new());
        let [absent] = &told("web", &["web"])[..] else { panic!("one fault") };
        assert!(absent.starts_with("\"service-resolver web\": it leads to next"), "{absent}");
        let [absent] = &told("api", &["api", "web"])[..] else { panic!("one fault") };
        assert!(
            absent.starts_with("\"service-resolver web\": it leads to next"),
            "through another: {absent}"
        );
        let [nameless] = &told("old", &["web", "next"])[..] else { panic!("one fault") };
        assert!(nameless.starts_with("\"service-resolver old\": no instance of it"), "{nameless}");
    }
}
