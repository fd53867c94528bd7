//! One compiled service: its endpoint sets, its routes and the destination made of them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    conditions::{ParsedRoute, ParsedRoutes},
    endpoints::subset,
    join::{Join, canonical, members},
};
use crate::{
    diagnostic::Diagnostic,
    merge::{Departed, ServiceEntry, Snapshot},
    name::{PortName, RegistryName, RuleName, ServiceKey, ServiceName},
    resource::{Backend, DEFAULT_CONNECT_TIMEOUT, Retries, Route, RouteRule, Service, ServicePort, hidden},
    table::{CompiledRouteRule, Destination, DestinationPort, EndpointSet, Place, Target},
};

/// The endpoint sets of a service, by port name.
pub(super) type PortSets = Box<[(PortName, Arc<EndpointSet>)]>;

/// Everything that registries say about one service, joined ones together.
pub(super) struct Group {
    /// The key that stands for all.
    pub(super) key: ServiceKey,
    /// What each registry says, most authoritative first.
    entries: Vec<(RegistryName, Arc<ServiceEntry>)>,
    /// Routes of registries that rank before all of these and have no service of that name, most authoritative first.
    above: Vec<(RegistryName, Arc<ServiceEntry>)>,
    /// Those of these registries whose own instances are gone, and whose service keeps its names.
    departed: Vec<(RegistryName, Arc<Departed>)>,
}

impl Group {
    /// `ranked` are all registries, most authoritative first.
    pub(super) fn new(
        snapshot: &Snapshot,
        joins: &[Join],
        ranked: &[RegistryName],
        key: &ServiceKey,
    ) -> Self {
        let entry = |key: ServiceKey| {
            let entry = snapshot.service(&key)?.clone();
            Some((key.registry, entry))
        };
        let mut departed = Vec::new();
        let all = members(joins, key);
        let keeps_names = |key: &ServiceKey| snapshot.departed(key).is_some_and(|gone| !gone.is_withdrawn);
        let is_declared = |key| snapshot.service(key).is_some_and(|entry| entry.service.is_some());
        let goes_on = all.iter().any(|key| is_declared(key) || keeps_names(key));
        let member = |key: ServiceKey| {
            let gone = snapshot.departed(&key).filter(|gone| !gone.is_withdrawn || goes_on);
            let Some(gone) = gone else { return entry(key) };
            departed.push((key.registry.clone(), gone.clone()));
            let said = snapshot.service(&key).map(|entry| ServiceEntry::clone(entry)).unwrap_or_default();
            let service = said.service.or_else(|| Some(gone.service.clone()));
            let kept = ServiceEntry { service, ..said };
            Some((key.registry, Arc::new(kept)))
        };
        let entries: Vec<_> = all.into_iter().filter_map(member).collect();
        let before = ranked.iter().position(|registry| entries.iter().any(|(member, _)| member == registry));
        let above = ranked[..before.unwrap_or_default()].iter();
        let above = above.map(|registry| ServiceKey { registry: registry.clone(), ..key.clone() });
        let above = above.filter(|key| !keeps_names(key));
        let routing =
            |(_, entry): &(_, Arc<ServiceEntry>)| entry.service.is_none() && !entry.routes.is_empty();
        let above = above.filter_map(entry).filter(routing).collect();
        Self { key: key.clone(), entries, above, departed }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&RegistryName, &Arc<ServiceEntry>)> {
        self.entries.iter().map(|(registry, entry)| (registry, entry))
    }

    /// What is kept of the service of a registry whose own instances are gone.
    pub(super) fn departed(&self, registry: &RegistryName) -> Option<&Departed> {
        self.departed.iter().find(|(of, _)| of == registry).map(|(_, departed)| &**departed)
    }

    /// The declarations, most authoritative first.
    pub(super) fn services(&self) -> Box<[(RegistryName, Arc<Service>)]> {
        self.entries()
            .filter_map(|(registry, entry)| Some((registry.clone(), entry.service.clone()?)))
            .collect()
    }

    /// The routes of the most authoritative registry that has any, and which others are not used. `owner` is the measure of a
    /// joined service: who comes after it takes no calls away to another service.
    /// `before` is what the service had: what its own routes hide of each other is worked out when these change.
    pub(super) fn routes(&self, owner: Option<&RegistryName>, old: &ParsedRoutes, before: &Unit) -> Routes {
        let said = self.above.iter().chain(&self.entries).filter(|(_, entry)| !entry.routes.is_empty());
        if said.clone().next().is_none() {
            return Routes::default();
        }
        let service = &self.key.service;
        let owner = self.entries().position(|(registry, _)| Some(registry) == owner).unwrap_or_default();
        let after: Vec<_> = self.entries().skip(owner + 1).map(|(registry, _)| registry).collect();
        let counts = |registry: &RegistryName, route: &Route| {
            !after.contains(&registry) || !leads_away(route, service)
        };
        let counting = |(registry, entry): &&(RegistryName, Arc<ServiceEntry>)| {
            entry.routes.iter().any(|route| counts(registry, route))
        };
        let winner = said.clone().find(counting);
        let used: Vec<Arc<Route>> = winner.map_or_else(Vec::new, |(registry, entry)| {
            entry.routes.iter().filter(|route| counts(registry, route)).cloned().collect()
        });
        let overruled = said.flat_map(|(registry, entry)| entry.routes.iter().map(move |it| (registry, it)));
        let overruled = overruled.filter_map(|(registry, route)| {
            let lost = |message| Diagnostic::warning(format_args!("{registry}/{}", route.name), message);
            if !counts(registry, route) {
                let (owner, _) = self.entries.get(owner)?;
                return Some(lost(format!(
                    "is not used: it leads calls for {service} to another service, and {registry} is joined after \
                     {owner}, whose service it is"
                )));
            }
            let (winner, _) = winner.filter(|(winner, _)| winner != registry)?;
            let lost = lost(format!(
                "is not used: the routes of {winner} are for {service} too, and {winner} ranks before"
            ));
            let first = used.first();
            Some(first.into_iter().fold(lost, |lost, first| lost.and_at(format_args!("{winner}/{}", first.name))))
        });
        let overruled = overruled.collect();
        let Some((winner, _)) = winner else { return Routes { overruled, ..Routes::default() } };
        let routes: Box<[_]> = used.iter().map(|route| ParsedRoute::new(winner, route, old)).collect();
        let is_said = |(now, before): (&ParsedRoute, &ParsedRoute)| now.is_said_as(before);
        let is_same = routes.len() == before.routes.len() && routes.iter().zip(&before.routes).all(is_said);
        let hidden = match is_same {
            true => before.hidden.clone(),
            false => hidden_routes(winner, &used).into(),
        };
        Routes { overruled, routes, hidden }
    }
}

/// Whether any share of a service's calls goes to another one by this route.
fn leads_away(route: &Route, service: &ServiceName) -> bool {
    let backends = route.rules.iter().flat_map(|rule| &rule.backends);
    backends.filter_map(|backend| backend.service.as_ref()).any(|to| to != service)
}

/// Which of one registry's routes for one service, in the order of their names, get no requests, or not all, because others
/// before them take these.
#[must_use]
pub fn hidden_routes(registry: &RegistryName, routes: &[Arc<Route>]) -> Vec<Diagnostic> {
    if routes.len() < 2 {
        return Vec::new();
    }
    let all: Vec<&Route> = routes.iter().map(|route| &**route).collect();
    let told = all.iter().zip(hidden(&all)).filter_map(|(route, hidden)| {
        let hidden = hidden?;
        let lost = Diagnostic::warning(format_args!("{registry}/{}", route.name), hidden.message);
        Some(hidden.by.iter().fold(lost, |lost, by| lost.and_at(format_args!("{registry}/{by}"))))
    });
    told.collect()
}

/// The routes of a service.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) routes: Box<[ParsedRoute]>,
    /// Those of other registries that are not used.
    pub(super) overruled: Vec<Diagnostic>,
    /// What these hide of each other.
    pub(super) hidden: Arc<[Diagnostic]>,
}

/// One compiled service.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// The declarations, most authoritative first; none while there are only endpoints or routes.
    pub(super) services: Box<[(RegistryName, Arc<Service>)]>,
    pub(super) sets: PortSets,
    pub(super) routes: Box<[ParsedRoute]>,
    /// What these hide of each other.
    pub(super) hidden: Arc<[Diagnostic]>,
    /// Where its destination stands; none while nothing declares the service.
    pub(super) place: Option<Place>,
}

impl Unit {
    /// The endpoints behind a port.
    fn set(&self, port: &PortName) -> Arc<EndpointSet> {
        let found = self.sets.iter().find(|(name, _)| name == port);
        found.map_or_else(Arc::default, |(_, set)| set.clone())
    }

    /// The port of this service that stands for another's port: the same name, else the same number, else the first.
    fn corresponding_port(&self, port: &ServicePort) -> Option<&PortName> {
        let ports = || self.services.first().map(|(_, service)| service.ports.iter()).into_iter().flatten();
        let same_name = ports().find(|own| own.name == port.name);
        let found = same_name.or_else(|| ports().find(|own| own.number == port.number));
        found.or_else(|| ports().next()).map(|port| &port.name)
    }
}

/// Builds destinations out of units.
pub(super) struct Linker<'a> {
    pub(super) joins: &'a [Join],
    /// All registries, most authoritative first.
    pub(super) ranked: &'a [RegistryName],
    /// Registries whose services nobody may call yet.
    pub(super) held: &'a [RegistryName],
    /// Finds a service by the key that stands for it.
    pub(super) unit: &'a dyn Fn(&ServiceKey) -> Option<&'a Unit>,
    /// The name of the rule that every port ends with.
    pub(super) default_name: &'a RuleName,
}

impl Linker<'_> {
    /// The destination of one service; none while nothing declares it.
    pub(super) fn destination(
        &self,
        key: &ServiceKey,
        unit: &Unit,
    ) -> (Option<Arc<Destination>>, Vec<Diagnostic>) {
        let mut diagnostics: Vec<_> =
            unit.routes.iter().flat_map(|route| route.diagnostics.clone()).collect();
        let Some((_, service)) = unit.services.first() else {
            diagnostics.extend(self.undeclared(key, unit));
            return (None, diagnostics);
        };
        let ports = service.ports.iter().map(|port| {
            Arc::new(DestinationPort {
                service: key.clone(),
                name: port.name.clone(),
                number: port.number,
                protocol: port.protocol,
                rules: self.rules(key, unit, port, &mut diagnostics),
            })
        });
        let is_held = unit.services.iter().all(|(declarer, _)| self.held.contains(declarer));
        let destination = Destination { key: key.clone(), ports: ports.collect(), is_held };
        for (name, _) in unit.sets.iter().filter(|(name, _)| destination.port_named(name).is_none()) {
            let message = format!("there are endpoints for its port \"{name}\", which it does not declare");
            diagnostics.push(Diagnostic::warning(key, message));
        }
        (Some(Arc::new(destination)), diagnostics)
    }

    /// What is idle because its registry does not declare the service.
    fn undeclared(&self, key: &ServiceKey, unit: &Unit) -> Option<Diagnostic> {
        if unit.sets.is_empty() && unit.routes.is_empty() {
            return None;
        }
        let owner = self.candidates(&key.registry, &key.service).find(|it| self.declared(it).is_some());
        let place = |registry| self.ranked.iter().position(|ranked| ranked == registry);
        match owner.filter(|_| unit.sets.is_empty()) {
            None => {
                let message =
                    "there are endpoints or routes for it, but nothing declares the service and its ports";
                Some(Diagnostic::warning(key, message))
            }
            // They count there.
            Some(owner) if place(&key.registry) < place(&owner.registry) => None,
            Some(owner) => {
                let message = format!(
                    "its routes are not used: the service is one of {}, which ranks before {}",
                    owner.registry, key.registry
                );
                Some(Diagnostic::warning(key, message).and_at(owner))
            }
        }
    }

    /// What a registry may mean by a service's name: its own service, else as callers find the name.
    fn candidates<'b>(
        &'b self,
        registry: &'b RegistryName,
        service: &'b ServiceName,
    ) -> impl Iterator<Item = ServiceKey> + 'b {
        let others = self.ranked.iter().filter(move |other| *other != registry);
        let registries = std::iter::once(registry).chain(others);
        registries.map(move |registry| {
            canonical(self.joins, &ServiceKey { registry: registry.clone(), service: service.clone() })
        })
    }

    /// A service, if anything declares it.
    pub(super) fn declared(&self, key: &ServiceKey) -> Option<&Unit> {
        (self.unit)(key).filter(|unit| !unit.services.is_empty())
    }

    fn rules(
        &self,
        key: &ServiceKey,
        unit: &Unit,
        port: &ServicePort,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Arc<[Arc<CompiledRouteRule>]> {
        let mut rules = Vec::new();
        for parsed in &*unit.routes {
            for (rule, ready) in parsed.route.rules.iter().zip(&parsed.rules) {
                let Some(matches) = &ready.matches else { continue };
                let targets = if rule.backends.is_empty() {
                    vec![own_target(key, unit, port)]
                } else {
                    self.targets(key, unit, port, parsed, rule, diagnostics)
                };
                rules.push(Arc::new(CompiledRouteRule {
                    name: ready.name.clone(),
                    matches: matches.clone(),
                    targets,
                    request_timeout: (!rule.request_timeout.is_zero()).then_some(rule.request_timeout),
                    connect_timeout: rule.connect_timeout,
                    retries: rule.retries,
                }));
            }
        }
        rules.push(Arc::new(CompiledRouteRule {
            name: self.default_name.clone(),
            matches: Arc::default(),
            targets: vec![own_target(key, unit, port)],
            request_timeout: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            retries: Retries::default(),
        }));
        rules.into()
    }

    /// The targets of a rule. One whose endpoints are missing keeps its share, which then fails and is seen: quietly
    /// giving it to the others is what a split is there to prevent.
    fn targets(
        &self,
        own_key: &ServiceKey,
        own: &Unit,
        port: &ServicePort,
        parsed: &ParsedRoute,
        rule: &RouteRule,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Vec<Target> {
        let mut total = 0_u32;
        let mut exists = false;
        let mut targets = Vec::with_capacity(rule.backends.len());
        for backend in &rule.backends {
            total = total.saturating_add(backend.weight);
            let target = self.target(own_key, own, port, &parsed.registry, backend);
            exists |= target.is_ok();
            let (service, endpoints) = target.unwrap_or_else(|service| {
                let place = format_args!("{}/{}/{}", parsed.registry, parsed.route.name, rule.name);
                let message = format!("its backend {service} is not declared: that share of requests fails");
                let diagnostic = Diagnostic::error(place, message);
                if !diagnostics.contains(&diagnostic) {
                    diagnostics.push(diagnostic);
                }
                (service, Arc::default())
            });
            targets.push(Target { service, cumulative_weight: total, endpoints });
        }
        if exists { targets } else { Vec::new() }
    }

    fn target(
        &self,
        own_key: &ServiceKey,
        own: &Unit,
        port: &ServicePort,
        registry: &RegistryName,
        backend: &Backend,
    ) -> Result<(ServiceKey, Arc<EndpointSet>), ServiceKey> {
        let Some(service) = backend.service.as_ref().filter(|service| **service != own_key.service) else {
            return Ok((own_key.clone(), subset(&own.set(&port.name), &backend.subset)));
        };
        let found = self.candidates(registry, service).find_map(|key| {
            let unit = self.declared(&key)?;
            Some((key, unit))
        });
        let target = found.and_then(|(key, unit)| Some((key, unit, unit.corresponding_port(port)?)));
        match target {
            Some((key, unit, port)) => Ok((key, subset(&unit.set(port), &backend.subset))),
            None => Err(ServiceKey { registry: registry.clone(), service: service.clone() }),
        }
    }
}

/// The services that routes name as backends, beside their own.
pub(super) fn backends<'a>(
    key: &'a ServiceKey,
    routes: &'a [ParsedRoute],
) -> impl Iterator<Item = &'a ServiceName> {
    let rules = routes.iter().flat_map(|parsed| &parsed.route.rules);
    let named = rules.flat_map(|rule| &rule.backends).filter_map(|backend| backend.service.as_ref());
    named.filter(|service| **service != key.service)
}

fn own_target(key: &ServiceKey, unit: &Unit, port: &ServicePort) -> Target {
    Target { service: key.clone(), cumulative_weight: 1, endpoints: unit.set(&port.name) }
}

/// Diagnostics of services, kept only where there are any.
pub(super) type Noted = BTreeMap<ServiceKey, Vec<Diagnostic>>;
