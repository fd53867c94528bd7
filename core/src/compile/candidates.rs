//! The endpoints that may serve a service, before they are sorted into sets: each under the port of the service that it
//! serves, once, and with how near it is.
//!
//! Only a joined service has work here beyond a copy. Its registries are of different platforms, which name ports as they
//! like and may tell of the same workload (a Nomad job that is registered in Consul too). One workload is one endpoint, or
//! it would get two shares of the requests and two verdicts on its health.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::{join::Prefer, unit::Group};
use crate::{
    diagnostic::Diagnostic,
    locality::Locality,
    merge::ServiceEntry,
    name::{PortName, RegistryName},
    resource::{Address, Endpoint, Health, Service, ServicePort},
    table::DISTANCES,
};

/// One endpoint that may be called.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The port of the service that it serves, in the words of the registry that names the service.
    pub(super) port: PortName,
    /// Whose it is.
    pub(super) registry: RegistryName,
    /// The position of the registry in the join.
    pub(super) rank: usize,
    /// How many better tiers there may be.
    pub(super) tier: u8,
    pub(super) endpoint: Arc<Endpoint>,
}

/// What decides an endpoint's tier.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiers<'a> {
    /// What the service's join prefers.
    pub(super) prefer: &'a Prefer,
    /// Where this process runs; unknown means that nothing is near.
    pub(super) here: &'a Locality,
    /// Whether the service itself asks for the nearest.
    pub(super) nearest: bool,
}

impl Tiers<'_> {
    fn of(&self, registry: &RegistryName, endpoint: &Endpoint) -> u8 {
        let nearest = self.nearest || *self.prefer == Prefer::Nearest;
        self.at(registry, if nearest { distance(self.here, &endpoint.locality) } else { 0 })
    }

    fn at(&self, registry: &RegistryName, distance: u8) -> u8 {
        self.prefer.position(registry).saturating_mul(DISTANCES).saturating_add(distance)
    }

    /// Puts first those that their registry means for this zone, wherever they run. As kube-proxy has it: where a healthy one is
    /// meant for no zone in particular, or none for this one, all are as they would be without.
    fn allot(&self, registry: &RegistryName, found: &mut [Candidate]) {
        let zone = self.here.zone();
        let healthy = || found.iter().filter(|it| it.endpoint.health == Health::Healthy);
        let mut meant = healthy().map(|it| it.endpoint.labels.are_for_zone(zone));
        if zone.is_empty() || !meant.clone().all(|it| it.is_some()) || !meant.any(|it| it == Some(true)) {
            return;
        }
        for candidate in found {
            let Endpoint { labels, locality, .. } = &*candidate.endpoint;
            let is_ours = labels.are_for_zone(zone) == Some(true);
            let distance = if is_ours { 0 } else { distance(self.here, locality).max(1) };
            candidate.tier = self.at(registry, distance);
        }
    }
}

/// 0 in the same zone, 1 in the same region, 2 elsewhere. Zones of one name are the same where the region of either is
/// unknown: a platform may tell zones alone, and what is known of those says more than nothing.
fn distance(here: &Locality, there: &Locality) -> u8 {
    let same_zone = !here.zone().is_empty() && here.zone() == there.zone();
    let regions = [here.region(), there.region()];
    if regions.contains(&"") {
        return if same_zone { 0 } else { 2 };
    }
    match (regions[0] == regions[1], same_zone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// Adds the endpoints of one registry's part of a service to `found`.
pub(super) fn of_registry(
    group: &Group,
    (rank, registry): (usize, &RegistryName),
    endpoints: impl Iterator<Item = Arc<Endpoint>>,
    tiers: Tiers<'_>,
    found: &mut Vec<Candidate>,
) {
    let mut ports: Vec<(PortName, PortName)> = Vec::new();
    let before = found.len();
    found.extend(endpoints.map(|endpoint| {
        let known = ports.iter().find(|(own, _)| *own == endpoint.port_name).map(|(_, port)| port.clone());
        let port = known.unwrap_or_else(|| {
            let port = canonical_port(group, registry, &endpoint.port_name);
            ports.push((endpoint.port_name.clone(), port.clone()));
            port
        });
        let tier = tiers.of(registry, &endpoint);
        Candidate { port, registry: registry.clone(), rank, tier, endpoint }
    }));
    tiers.allot(registry, &mut found[before..]);
}

/// What the registry that names the service calls a port of this registry's: the same name, else the port of the same
/// number, else the only one. What is none of these keeps its name, under which the service has no port.
fn canonical_port(group: &Group, registry: &RegistryName, own: &PortName) -> PortName {
    let mut declared = group.entries().filter_map(|(name, entry)| Some((name, entry.service.as_deref()?)));
    let Some((_, named)) = declared.next().filter(|(first, _)| *first != registry) else {
        return own.clone();
    };
    let Some((_, service)) = declared.find(|(name, _)| *name == registry) else { return own.clone() };
    corresponding(service, own, named).map_or_else(|| own.clone(), |port| port.name.clone())
}

/// The port of `named` that stands for the port called `own` of `service`.
fn corresponding<'s>(service: &Service, own: &PortName, named: &'s Service) -> Option<&'s ServicePort> {
    let same_name = named.ports.iter().find(|port| port.name == *own);
    let number = service.ports.iter().find(|port| port.name == *own).map(|port| port.number);
    let same_number = || named.ports.iter().find(|port| Some(port.number) == number);
    let only = || match (named.ports.as_slice(), service.ports.as_slice()) {
        ([only], [_]) => Some(only),
        _ => None,
    };
    same_name.or_else(same_number).or_else(only)
}

/// Keeps one of those that are the same workload: the most authoritative registry's. What another registry knows of it
/// counts too: it is unhealthy wherever any says so or said so last, and unconfirmed only where no other knows it ready; it has the labels of all, is where
/// the first says that knows, and as near as the nearest of them.
pub(super) fn once(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::with_capacity(candidates.len());
    let mut at: HashMap<(PortName, Address), usize, RandomState> = HashMap::default();
    for candidate in candidates {
        let address = (candidate.port.clone(), candidate.endpoint.address.clone());
        let same = at.get(&address).map(|&index| (index, &kept[index]));
        match same.filter(|(_, first)| is_same(first, &candidate)) {
            Some((index, first)) => {
                let tier = first.tier.min(candidate.tier);
                let told = together(&first.endpoint, &candidate.endpoint);
                if told != *first.endpoint {
                    kept[index].endpoint = told.into();
                }
                kept[index].tier = tier;
            }
            None => {
                at.entry(address).or_insert(kept.len());
                kept.push(candidate);
            }
        }
    }
    kept
}

/// Whether two registries tell of one workload: the same application by address, and nothing that contradicts it.
fn is_same(first: &Candidate, other: &Candidate) -> bool {
    first.rank != other.rank && first.endpoint.identity == other.endpoint.identity
}

/// What two registries say of one workload.
fn together(first: &Endpoint, other: &Endpoint) -> Endpoint {
    let of_both = || other.labels.iter().chain(first.labels.iter()).collect();
    let is_more = other.labels.iter().any(|(key, _)| first.labels.get(key).is_none());
    let is_somewhere = first.locality != Locality::default();
    Endpoint {
        health: both(first.health, other.health),
        labels: if is_more { of_both() } else { first.labels.clone() },
        locality: if is_somewhere { first.locality.clone() } else { other.locality.clone() },
        ..first.clone()
    }
}

fn both(first: Health, other: Health) -> Health {
    match (first, other) {
        (Health::Unconfirmed, known) | (known, Health::Unconfirmed) => known,
        (first, other) => first.max(other),
    }
}

/// What the registries of a joined service say differently of its ports: the first one's word stands.
pub(super) fn contradictions(group: &Group) -> Vec<Diagnostic> {
    let mut declared =
        group.entries().filter_map(|(name, entry)| Some((name, entry, entry.service.as_deref()?)));
    let Some((first, _, named)) = declared.next() else { return Vec::new() };
    let mut diagnostics = Vec::new();
    for (registry, entry, service) in declared {
        for port in &service.ports {
            let Some(stands) = corresponding(service, &port.name, named) else {
                let message = format!(
                    "registry \"{registry}\" says that it has a port {}:{}, which registry \"{first}\" does not know: \
                     its endpoints there are not used",
                    port.name, port.number
                );
                diagnostics.push(Diagnostic::warning(&group.key, message));
                continue;
            };
            if stands.number != port.number && !is_instances(entry, service, port) {
                let message = format!(
                    "registry \"{registry}\" says that callers find port {} at {}, registry \"{first}\" says at {}, which \
                     stands",
                    port.name, port.number, stands.number
                );
                diagnostics.push(Diagnostic::warning(&group.key, message));
            }
            if stands.protocol != port.protocol {
                let words = |protocol| format!("{protocol:?}").to_lowercase();
                let message = format!(
                    "registry \"{registry}\" says that port {} speaks {}, registry \"{first}\" says {}, which stands",
                    stands.name,
                    words(port.protocol),
                    words(stands.protocol)
                );
                diagnostics.push(Diagnostic::warning(&group.key, message));
            }
        }
    }
    diagnostics
}

/// Whether a port's number is no more than where instances listen: a registry that knows services by their instances alone
/// has no other word for it, and where these listen is no word on how callers call the service.
fn is_instances(entry: &ServiceEntry, service: &Service, port: &ServicePort) -> bool {
    let listens = |endpoint: &Arc<Endpoint>| {
        endpoint.port_name == port.name && endpoint.address.socket().port() == port.number
    };
    !service.declared && entry.endpoints.iter().any(listens)
}
