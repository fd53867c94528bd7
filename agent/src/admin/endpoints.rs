//! Every endpoint that any registry tells of, whether calls go to it or not, and why not.
//!
//! What is told comes from the snapshot, what is done with it from the table: an endpoint that the compiler leaves out is
//! in the first alone, and that is exactly the one that somebody asks about.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use weft_core::{
    flow,
    merge::{ServiceEntry, Snapshot},
    name::{InstanceName, PortName, RegistryName, ServiceKey},
    registry::Scope,
    resource::{Address, Endpoint, Health, IdentityFrom},
    table::{EndpointSet, Table, Upstream},
};
use weft_registries::checked::Findings;

use super::pages::{endpoints_of, sorted};
use crate::view;

/// What an endpoint is found by in the table.
type Key<'a> = (&'a RegistryName, &'a str, &'a PortName, &'a InstanceName);

/// Endpoints in force by their services and addresses: two registries may tell of one workload.
type Workloads<'a> = HashMap<(&'a str, &'a Address), &'a Arc<Upstream>>;

/// When each scope was last confirmed.
type Confirmed = BTreeMap<Scope, SystemTime>;

/// Every endpoint, by registry, service, port and instance. `clock` is the time on the clock of
/// [`EndpointState::ejected_until`], in milliseconds.
///
/// [`EndpointState::ejected_until`]: weft_core::table::EndpointState::ejected_until
#[must_use]
pub fn endpoints(
    (snapshot, table, status): (&Snapshot, &Table, &flow::Status),
    findings: &Findings,
    clock: u64,
    now: SystemTime,
) -> Vec<view::Endpoint> {
    let (used, same) = used(table, clock);
    let scopes = status.registries.iter().flat_map(|registry| &registry.scopes);
    let confirmed: Confirmed = scopes.filter_map(|it| Some((it.scope.clone(), it.committed_at?))).collect();
    let mut rows = Vec::new();
    for (registry, partition) in &snapshot.partitions {
        let mut services: Vec<_> = partition.services.iter().collect();
        services.sort_by_key(|(name, _)| *name);
        for (name, entry) in services {
            let key = ServiceKey { registry: registry.clone(), service: name.clone() };
            let age_s = age_s(&key, entry, &confirmed, now);
            for endpoint in &entry.endpoints {
                let upstream = used.get(&(registry, name.as_str(), &endpoint.port_name, &endpoint.instance));
                let mut row = row(&key, entry, endpoint, upstream, age_s, clock);
                let twin = same.get(&(name.as_str(), &endpoint.address)).filter(|_| upstream.is_none());
                if let Some(twin) = twin.filter(|twin| twin.endpoint.identity == endpoint.identity) {
                    let Upstream { registry, endpoint, .. } = &***twin;
                    row.reason =
                        Some(format!("the same as {registry}'s {}, which is called", endpoint.instance));
                }
                check(&mut row, &key, endpoint, findings, now);
                rows.push(row);
            }
        }
    }
    rows
}

/// An endpoint that is in force.
#[derive(Clone, Copy)]
struct Used<'a> {
    upstream: &'a Arc<Upstream>,
    /// Whether none of those that it stands among is better, nor a first choice.
    last_resort: bool,
}

/// The endpoints in force, by their names and by their addresses.
fn used(table: &Table, clock: u64) -> (HashMap<Key<'_>, Used<'_>>, Workloads<'_>) {
    let (mut used, mut same) = (HashMap::new(), HashMap::new());
    let is_ejected = |upstream: &Upstream| {
        upstream.state.peek().is_some_and(|state| state.ejected_until.load(Ordering::Relaxed) > clock)
    };
    let stands_in = |set: &EndpointSet| {
        let first = set.all.iter().take(set.first_choice);
        first.filter(|upstream| upstream.endpoint.weight > 0).all(|upstream| is_ejected(upstream))
    };
    for (upstream, set) in sorted(table).flat_map(|destination| endpoints_of(destination)) {
        let endpoint = &upstream.endpoint;
        let best = set.all.first().map(|best| best.endpoint.health);
        let is_stand_by = endpoint.health == Health::Healthy && endpoint.weight == 0;
        let last_resort =
            best == Some(endpoint.health) && (set.first_choice == 0 || (is_stand_by && stands_in(set)));
        let key = (&upstream.registry, endpoint.service.as_str(), &endpoint.port_name, &endpoint.instance);
        used.insert(key, Used { upstream, last_resort });
        same.insert((endpoint.service.as_str(), &endpoint.address), upstream);
    }
    (used, same)
}

/// Seconds since the registry last said that this is so: of the oldest part that speaks of the service.
fn age_s(key: &ServiceKey, entry: &ServiceEntry, confirmed: &Confirmed, now: SystemTime) -> Option<u64> {
    let scopes = entry.origins.iter();
    let scopes = scopes.map(|origin| Scope { registry: key.registry.clone(), part: origin.part.clone() });
    let oldest = scopes.filter_map(|scope| confirmed.get(&scope)).min()?;
    Some(now.duration_since(*oldest).unwrap_or_default().as_secs())
}

fn row(
    key: &ServiceKey,
    entry: &ServiceEntry,
    endpoint: &Endpoint,
    used: Option<&Used<'_>>,
    age_s: Option<u64>,
    clock: u64,
) -> view::Endpoint {
    let state = used.and_then(|used| used.upstream.state.peek());
    let ejected_until = state.map_or(0, |state| state.ejected_until.load(Ordering::Relaxed));
    let ejected_for_s = (ejected_until > clock).then(|| (ejected_until - clock) as f64 / 1e3);
    let reason = match used {
        None => Some(left_out(entry, endpoint)),
        Some(_) => spared(endpoint, ejected_for_s),
    };
    view::Endpoint {
        registry: key.registry.to_string(),
        service: key.service.to_string(),
        port: endpoint.port_name.to_string(),
        instance: endpoint.instance.to_string(),
        address: endpoint.address.socket(),
        mesh_address: endpoint.mesh_address.as_ref().map(|address| address.socket()),
        identity: endpoint.identity.as_ref().map(ToString::to_string),
        identity_from: endpoint.identity.as_ref().map(|_| rule_text(endpoint.identity_from).to_owned()),
        tls: format!("{:?}", endpoint.tls).to_lowercase(),
        labels: endpoint.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        weight: endpoint.weight,
        locality: endpoint.locality.to_string(),
        health: format!("{:?}", endpoint.health).to_lowercase(),
        in_flight: state.map_or(0, |state| state.in_flight.load(Ordering::Relaxed)),
        ejected_for_s,
        eligible: reason.is_none(),
        reason,
        last_resort: ejected_for_s.is_none() && used.is_some_and(|used| used.last_resort),
        age_s,
    }
}

/// What its check found is a better reason than what the check made of its registry's words.
fn check(
    row: &mut view::Endpoint,
    key: &ServiceKey,
    endpoint: &Endpoint,
    findings: &Findings,
    now: SystemTime,
) {
    let Endpoint { service, port_name, instance, .. } = endpoint;
    let found = (key.registry.clone(), service.clone(), port_name.clone(), instance.clone());
    let Some(finding) = findings.of(&found).filter(|_| endpoint.health == Health::Unhealthy) else { return };
    let since = now.duration_since(finding.since).unwrap_or_default().as_secs();
    row.reason = Some(format!("its check fails for {since} s: {}: {}", finding.question, finding.reason));
}

/// Why the compiler has no use for an endpoint.
fn left_out(entry: &ServiceEntry, endpoint: &Endpoint) -> String {
    if let Some(reason) = endpoint.unusable() {
        return reason.into();
    }
    match &entry.service {
        None => "nothing declares its service and the service's ports".into(),
        Some(service) if !service.ports.iter().any(|port| port.name == endpoint.port_name) => {
            format!("its service has no port `{}`", endpoint.port_name)
        }
        Some(_) => "a join leaves it out: `weft status` says why".into(),
    }
}

/// Why calls go elsewhere while they can.
fn spared(endpoint: &Endpoint, ejected_for_s: Option<f64>) -> Option<String> {
    if let Some(seconds) = ejected_for_s {
        return Some(format!("calls to it failed: taken out for {seconds:.0} s more"));
    }
    match endpoint.health {
        Health::Healthy if endpoint.weight == 0 => Some("a stand-by, as its weight is 0".into()),
        Health::Healthy => None,
        Health::Draining => Some("its registry says that it is finishing".into()),
        Health::Unhealthy => Some("its registry says that it is unhealthy".into()),
        Health::Unconfirmed => Some("its registry no longer mentions it, and may have been unable to".into()),
    }
}

fn rule_text(from: IdentityFrom) -> &'static str {
    match from {
        IdentityFrom::Declared => "declared in a file",
        IdentityFrom::Platform => "the platform's account",
        IdentityFrom::Metadata => "the instance's record",
        IdentityFrom::ServiceRule => "a rule for the service",
        IdentityFrom::RegistryRule => "the rule of the registry",
    }
}
