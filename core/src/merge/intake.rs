//! Checks and tidies what an origin says before anybody sees it.

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdSet;

use super::{Limits, order, snapshot::Origin};
use crate::{
    intern::Pool,
    name::{HostName, PortName, RegistryName, ServiceKey, ServiceName},
    registry::OriginFault,
    resource::{Endpoint, Resource, Service, ServicePort, TlsMode},
};

/// The fault of an endpoint of which its registry says that it is called in plaintext, where that was not so before.
pub const STAYS_IN_TLS: &str = "TLS was required here before and stays so: a lost tag is no leave for plaintext, `weft registry allow-plaintext` is";

/// Services whose port was once seen to require TLS on every endpoint.
pub type RequiredTls = OrdSet<(ServiceKey, PortName)>;

/// The rules by which a registry's words are taken in.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// Of what each followed registry may speak; one that is missing here may speak of anything.
    pub(super) limits: BTreeMap<RegistryName, Limits>,
    /// Through which followed registry others come.
    pub(super) relays: BTreeMap<RegistryName, RegistryName>,
    /// Ports whose endpoints stay in TLS whatever the registry says now: a lost tag is never a downgrade.
    pub(super) required_tls: RequiredTls,
    pool: Pool,
}

impl Intake {
    pub(super) fn new(limits: BTreeMap<RegistryName, Limits>) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The origin as it stands after `words`, of which equal resources are those of `old`.
    pub(super) fn origin(
        &mut self,
        registry: &RegistryName,
        words: Origin,
        old: Option<&Arc<Origin>>,
    ) -> Origin {
        let Origin { name, version, resources, mut faults, mut made_sense, unconfirmed_since: _ } = words;
        let mut resources = resources.into_vec();
        resources.retain(|resource| {
            let fault = resource.check().err();
            faults.extend(fault.map(|rule| OriginFault {
                message: format!("refused: {rule}"),
                place: resource.key().describe(),
                keeps_last_good: true,
            }));
            made_sense &= fault.is_none();
            fault.is_none()
        });
        let keeps = |old: &&Arc<Origin>| !made_sense && (old.made_sense || resources.is_empty());
        if let Some(old) = old.filter(keeps) {
            let mut resources = with_health(&old.resources, &resources);
            // Of what it may speak may have been narrowed since.
            resources.retain_mut(|resource| self.admit(registry, resource, &mut faults));
            let resources = resources.into_boxed_slice();
            let made_sense = old.made_sense;
            return Origin { name, version, resources, faults, made_sense, unconfirmed_since: None };
        }
        let old = old.map_or(&[][..], |old| &old.resources);
        for resource in &resources {
            let Resource::Service(service) = resource else { continue };
            let before = old.binary_search_by(|known| order::compare(known, resource)).ok();
            self.hold_renamed(registry, service, before.map(|at| &old[at]));
        }
        resources.retain_mut(|resource| self.admit(registry, resource, &mut faults));
        let resources = self.tidy(resources, &mut faults, old);
        Origin { name, version, resources, faults, made_sense, unconfirmed_since: None }
    }

    /// Resources from disk: what a registry may say may have been narrowed since.
    pub(super) fn restored(
        &mut self,
        registry: &RegistryName,
        resources: Box<[Resource]>,
        faults: &mut Vec<OriginFault>,
    ) -> Box<[Resource]> {
        let mut resources = resources.into_vec();
        resources.retain_mut(|resource| self.admit(registry, resource, faults));
        self.tidy(resources, faults, &[])
    }

    /// Sorts, keeps one resource per key, shares texts and keeps the very resources of `old` where they are equal.
    fn tidy(
        &mut self,
        mut resources: Vec<Resource>,
        faults: &mut Vec<OriginFault>,
        old: &[Resource],
    ) -> Box<[Resource]> {
        resources.sort_by(order::compare);
        resources.dedup_by(|later, first| {
            let twice = order::compare(later, first).is_eq();
            if twice && later != first {
                let message = format!(
                    "{} is declared twice in this origin; the first one stands",
                    first.key().describe()
                );
                faults.push(OriginFault { message, place: first.key().describe(), keeps_last_good: false });
            }
            twice
        });
        for resource in &mut resources {
            match old.binary_search_by(|known| order::compare(known, resource)) {
                Ok(at) if old[at] == *resource => *resource = old[at].clone(),
                _ => self.share(resource),
            }
        }
        resources.into_boxed_slice()
    }

    /// Holds ports to TLS that come under new names: one with the number of a port that was TLS only and is gone, or all
    /// where none has such a number and none of those ports is left.
    fn hold_renamed(&mut self, registry: &RegistryName, service: &Service, before: Option<&Resource>) {
        let held = self.held(&ServiceKey { registry: registry.clone(), service: service.name.clone() });
        if held.is_empty() {
            return;
        }
        let before = match before {
            Some(Resource::Service(before)) => &before.ports[..],
            _ => &[],
        };
        let is_in = |ports: &[ServicePort], name: &PortName| ports.iter().any(|port| port.name == *name);
        let is_held = |name: &PortName| held.iter().any(|(_, held)| held == name);
        let gone = before.iter().filter(|port| is_held(&port.name) && !is_in(&service.ports, &port.name));
        let numbers: Vec<u16> = gone.map(|port| port.number).collect();
        let new: Vec<_> = service.ports.iter().filter(|port| !is_in(before, &port.name)).collect();
        let is_moved = |port: &ServicePort| numbers.contains(&port.number);
        let some_moved = new.iter().any(|port| is_moved(port));
        let none_is_left = held.iter().all(|(_, name)| !is_in(&service.ports, name));
        let renamed = new.iter().filter(|port| is_moved(port) || (!some_moved && none_is_left));
        let key = &held[0].0;
        self.required_tls.extend(renamed.map(|port| (key.clone(), port.name.clone())));
    }

    /// The ports of a service that stay in TLS.
    fn held(&self, service: &ServiceKey) -> Vec<(ServiceKey, PortName)> {
        if self.required_tls.is_empty() {
            return Vec::new();
        }
        let first = (
            service.clone(),
            PortName::new("0").expect("a digit is a port name, and no other comes before it"),
        );
        let from = self.required_tls.range(first..);
        from.take_while(|(held, _)| held == service).cloned().collect()
    }

    /// Whether the registry may say this; a port that was once TLS only stays so.
    fn admit(&self, registry: &RegistryName, resource: &mut Resource, faults: &mut Vec<OriginFault>) -> bool {
        let limits = self.limits_of(registry);
        let service = match &*resource {
            Resource::Service(service) => Some(&service.name),
            Resource::Endpoint(endpoint) => Some(&endpoint.service),
            Resource::Route(route) => Some(&route.service),
            // Whose words count where is decided when all are known; nobody's may be missed that shut somebody out.
            Resource::Policy(_) => None,
        };
        if let Some(service) = service
            && limits.is_some_and(|limits| !limits.admit_service(service))
        {
            // A word for the service alone: of its endpoints there may be thousands.
            if !matches!(resource, Resource::Endpoint(_)) {
                faults.push(not_owned(registry, service, resource.key().describe()));
            }
            return false;
        }
        if let Resource::Service(service) = resource
            && let Some(limits) = limits
        {
            // A host name that reads as another service's is that name.
            let is_foreign = |host: &HostName| service_of(host).filter(|name| !limits.admit_service(name));
            if let Some(name) = service.hosts.iter().find_map(is_foreign) {
                faults.push(not_owned(registry, &name, format!("a host of service `{}`", service.name)));
                Arc::make_mut(service).hosts.retain(|host| is_foreign(host).is_none());
            }
        }
        let Resource::Endpoint(endpoint) = resource else { return true };
        if let Some(identity) = &endpoint.identity
            && limits.is_some_and(|limits| !limits.admit_identity(identity))
        {
            let message =
                format!("endpoint refused: registry \"{registry}\" may not name the identity {identity}");
            faults.push(OriginFault { message, place: resource.key().describe(), keeps_last_good: false });
            return false;
        }
        if endpoint.tls == TlsMode::Off && !self.required_tls.is_empty() {
            let service = ServiceKey { registry: registry.clone(), service: endpoint.service.clone() };
            if self.required_tls.contains(&(service, endpoint.port_name.clone())) {
                Arc::make_mut(endpoint).tls = TlsMode::Required;
                let message = STAYS_IN_TLS.into();
                faults.push(OriginFault {
                    message,
                    place: resource.key().describe(),
                    keeps_last_good: false,
                });
            }
        }
        true
    }

    /// Whether a service may be the registry's own.
    pub(super) fn may_own(&self, registry: &RegistryName, service: &ServiceName) -> bool {
        self.limits_of(registry).is_none_or(|limits| limits.admit_service(service))
    }

    pub(super) fn limits_of(&self, registry: &RegistryName) -> Option<&Limits> {
        self.limits.get(self.relays.get(registry).unwrap_or(registry))
    }

    fn share(&mut self, resource: &mut Resource) {
        match resource {
            Resource::Service(service) => self.share_service(Arc::make_mut(service)),
            Resource::Endpoint(endpoint) => self.share_endpoint(Arc::make_mut(endpoint)),
            Resource::Route(_) | Resource::Policy(_) => {}
        }
    }

    fn share_service(&mut self, service: &mut Service) {
        service.name.intern(&mut self.pool);
        for port in &mut service.ports {
            port.name.intern(&mut self.pool);
        }
        service.ports.shrink_to_fit();
        service.hosts.shrink_to_fit();
    }

    fn share_endpoint(&mut self, endpoint: &mut Endpoint) {
        endpoint.service.intern(&mut self.pool);
        endpoint.port_name.intern(&mut self.pool);
        endpoint.locality.intern(&mut self.pool);
        endpoint.labels.intern(&mut self.pool);
        if let Some(identity) = &mut endpoint.identity {
            identity.intern(&mut self.pool);
        }
    }
}

/// Resources with the health that endpoints among them have in newer words: a fault in these is no reason not to hear who
/// can be called. Whoever looks after endpoints says the good ones once more when he finds one of them changed.
fn with_health(good: &[Resource], newer: &[Resource]) -> Vec<Resource> {
    let mut resources = good.to_vec();
    for resource in newer {
        let Resource::Endpoint(newer) = resource else { continue };
        let Ok(at) = good.binary_search_by(|known| order::compare(known, resource)) else { continue };
        if let Resource::Endpoint(known) = &mut resources[at]
            && known.address == newer.address
            && known.health != newer.health
        {
            Arc::make_mut(known).health = newer.health;
        }
    }
    resources
}

fn not_owned(registry: &RegistryName, service: &ServiceName, place: String) -> OriginFault {
    let message = format!("refused: registry \"{registry}\" may not own the service {service}");
    OriginFault { message, place, keeps_last_good: false }
}

/// The service that a host name is of by its form: `web.default`, the mesh's own `web.default.mesh`, or `web.default.svc`
/// with or without a cluster's domain.
fn service_of(host: &HostName) -> Option<ServiceName> {
    let text = host.as_str();
    let name = text.strip_suffix(".mesh").filter(|name| name.contains('.')).unwrap_or(text);
    let mut labels = name.splitn(4, '.');
    let (label, namespace) = (labels.next()?, labels.next());
    match (namespace, labels.next()) {
        (Some(namespace), Some("svc")) => ServiceName::new(&format!("{label}.{namespace}")).ok(),
        _ => ServiceName::new(name).ok(),
    }
}
