//! One compiled service: its endpoint sets, its routes and the destination made of them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    conditions::{ParsedRoute, ParsedRoutes},
    endpoints::subset,
    join::{Join, canonical, members},
};
use crate::{
    diagnostic::Diagnostic,
    merge::{ServiceEntry, Snapshot},
    name::{PortName, RegistryName, RuleName, ServiceKey},
    resource::{Backend, DEFAULT_CONNECT_TIMEOUT, Retries, RouteRule, Service, ServicePort},
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
}

impl Group {
    pub(super) fn new(snapshot: &Snapshot, joins: &[Join], key: &ServiceKey) -> Self {
        let members = members(joins, key).into_iter();
        let entries = members.filter_map(|key| Some((key.registry.clone(), snapshot.service(&key)?.clone())));
        Self { key: key.clone(), entries: entries.collect() }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&RegistryName, &Arc<ServiceEntry>)> {
        self.entries.iter().map(|(registry, entry)| (registry, entry))
    }

    /// The declarations, most authoritative first.
    pub(super) fn services(&self) -> Box<[(RegistryName, Arc<Service>)]> {
        self.entries()
            .filter_map(|(registry, entry)| Some((registry.clone(), entry.service.clone()?)))
            .collect()
    }

    /// The routes of the most authoritative registry that has any.
    pub(super) fn routes(&self, old: &ParsedRoutes) -> Box<[ParsedRoute]> {
        let Some((registry, entry)) = self.entries().find(|(_, entry)| !entry.routes.is_empty()) else {
            return Box::default();
        };
        entry.routes.iter().map(|route| ParsedRoute::new(registry, route, old)).collect()
    }
}

/// One compiled service.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// The declarations, most authoritative first; none while there are only endpoints or routes.
    pub(super) services: Box<[(RegistryName, Arc<Service>)]>,
    pub(super) sets: PortSets,
    pub(super) routes: Box<[ParsedRoute]>,
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
            if !unit.sets.is_empty() || !unit.routes.is_empty() {
                let message =
                    "there are endpoints or routes for it, but nothing declares the service and its ports";
                diagnostics.push(Diagnostic::warning(key, message));
            }
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
        let destination = Destination { key: key.clone(), ports: ports.collect() };
        for (name, _) in unit.sets.iter().filter(|(name, _)| destination.port_named(name).is_none()) {
            let message = format!("there are endpoints for its port \"{name}\", which it does not declare");
            diagnostics.push(Diagnostic::warning(key, message));
        }
        (Some(Arc::new(destination)), diagnostics)
    }

    /// The services that routes name as backends.
    pub(super) fn backends<'b>(&'b self, routes: &'b [ParsedRoute]) -> impl Iterator<Item = ServiceKey> + 'b {
        routes.iter().flat_map(move |parsed| {
            let backends = parsed.route.rules.iter().flat_map(|rule| &rule.backends);
            let services = backends.filter_map(|backend| backend.service.clone());
            services.map(|service| {
                canonical(self.joins, &ServiceKey { registry: parsed.registry.clone(), service })
            })
        })
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
        let Some(service) = &backend.service else {
            return Ok((own_key.clone(), subset(&own.set(&port.name), &backend.subset)));
        };
        let key = canonical(self.joins, &ServiceKey { registry: registry.clone(), service: service.clone() });
        let unit = if key == *own_key { Some(own) } else { (self.unit)(&key) };
        let Some((unit, port)) = unit.and_then(|unit| Some((unit, unit.corresponding_port(port)?))) else {
            return Err(key);
        };
        Ok((key, subset(&unit.set(port), &backend.subset)))
    }
}

fn own_target(key: &ServiceKey, unit: &Unit, port: &ServicePort) -> Target {
    Target { service: key.clone(), cumulative_weight: 1, endpoints: unit.set(&port.name) }
}

/// Diagnostics of services, kept only where there are any.
pub(super) type Noted = BTreeMap<ServiceKey, Vec<Diagnostic>>;
