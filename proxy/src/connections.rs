//! What an operator sees of pools and endpoints.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use serde::Serialize;
use weft_core::{
    identity::SpiffeId,
    name::{InstanceName, ServiceKey},
    resource::Health,
    table::{Table, Upstream},
};

use crate::clock::milliseconds;

/// One pooled connection to another agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionInfo {
    /// The local workload's identity.
    pub source: SpiffeId,
    /// The serial number of our certificate on it.
    pub own_serial: String,
    /// The called service.
    pub service: ServiceKey,
    /// The instance.
    pub instance: InstanceName,
    /// The other agent's address.
    pub address: SocketAddr,
    /// Who answered.
    pub peer: SpiffeId,
    /// The serial number of its certificate.
    pub peer_serial: String,
    /// Requests under way.
    pub streams: u32,
    /// Whether it takes new requests: `open`, `replaceable`, `retired` or `dead`.
    pub state: &'static str,
    /// How long it is open.
    pub age: Duration,
}

/// What is known of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointInfo {
    /// The service.
    pub service: ServiceKey,
    /// The instance.
    pub instance: InstanceName,
    /// The application's address.
    pub address: SocketAddr,
    /// What its registry says.
    pub health: Health,
    /// Requests and connections under way.
    pub in_flight: u32,
    /// Failures in a row.
    pub failures: u32,
    /// How long it is left alone yet; zero when it is not.
    pub ejected_for: Duration,
}

/// Every endpoint that a rule of `table` can choose, once.
pub(crate) fn endpoints(table: &Table) -> Vec<EndpointInfo> {
    let now = milliseconds(Instant::now());
    let ports = table.destinations().flat_map(|destination| &destination.ports);
    let targets = ports.flat_map(|port| port.rules.iter()).flat_map(|rule| &rule.targets);
    let mut seen = HashSet::new();
    let endpoints =
        targets.flat_map(|target| target.endpoints.all.iter().map(|upstream| (&target.service, upstream)));
    let fresh = endpoints.filter(|(_, upstream)| seen.insert(Arc::as_ptr(upstream)));
    let mut all: Vec<_> = fresh.map(|(service, upstream)| info(service, upstream, now)).collect();
    all.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
    all
}

fn info(service: &ServiceKey, upstream: &Upstream, now: u64) -> EndpointInfo {
    let (endpoint, state) = (&upstream.endpoint, upstream.state.peek());
    let left = state.map_or(0, |state| state.ejected_until.load(Relaxed).saturating_sub(now));
    EndpointInfo {
        service: service.clone(),
        instance: endpoint.instance.clone(),
        address: endpoint.address.socket(),
        health: endpoint.health,
        in_flight: state.map_or(0, |state| state.in_flight.load(Relaxed)),
        failures: state.map_or(0, |state| state.failures.load(Relaxed)),
        ejected_for: Duration::from_millis(left),
    }
}
