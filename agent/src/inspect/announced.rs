//! Whether what this host announces at its hub is in force: the hub may have taken it, and still it may be left out of what
//! the hub relays, or be hidden by a service of the same name.

use std::sync::Arc;

use weft_core::{
    flow::RegistryStatus,
    merge::Snapshot,
    name::{InstanceName, PortName, ServiceName},
    resource::{Endpoint, ResourceKey},
    table::{Destination, Table},
};

use crate::{admin::pages::endpoints_of, view::Announcement};

/// How long it may take from the hub's word that it has an announcement until it is relayed, in seconds.
const RELAYED_WITHIN: u64 = 10;

/// Says in its row why an announcement that the hub has is not in force: what it relays is what `relay` says. `now` is in
/// seconds since 1970.
pub(super) fn judge(
    row: &mut Announcement,
    relay: &RegistryStatus,
    snapshot: &Snapshot,
    table: &Table,
    now: u64,
) {
    let has_settled = row.since_s.is_some_and(|since| now.saturating_sub(since) >= RELAYED_WITHIN);
    if row.fault.is_some() || !has_settled {
        return;
    }
    row.fault = why_not(row, relay, snapshot, table).map(|why| format!("not in force: {why}"));
}

fn why_not(row: &Announcement, relay: &RegistryStatus, snapshot: &Snapshot, table: &Table) -> Option<String> {
    let service = ServiceName::new(&row.service).ok()?;
    let port = PortName::new(&row.port).ok()?;
    let instance = InstanceName::new(&row.instance).ok()?;
    let is_it = |it: &&Arc<Endpoint>| it.port_name == port && it.instance == instance;
    let relayed = snapshot.partitions.iter().find_map(|(registry, partition)| {
        let endpoints = &partition.services.get(&service)?.endpoints;
        Some((registry, endpoints.iter().find(is_it)?))
    });
    let Some((registry, endpoint)) = relayed else {
        let keys = [
            ResourceKey::Endpoint(service.clone(), port, instance).describe(),
            ResourceKey::Service(service).describe(),
            format!("{}/{}", row.service, row.instance),
        ];
        let told = left_out(&keys, relay, snapshot);
        return Some(told.unwrap_or_else(|| "the hub has it and does not relay it".to_owned()));
    };
    // What another registry of the join tells of the same application stands for it too.
    let has_it = |destination: &Destination| {
        let known = endpoints_of(destination);
        known.iter().any(|(upstream, _)| upstream.endpoint.address == endpoint.address)
    };
    let called = table.hosts.get(&row.service);
    if called.is_some_and(|called| has_it(called)) {
        return None;
    }
    let own = table.destinations().find(|it| it.key.registry == *registry && it.key.service == service);
    Some(match (own.filter(|own| has_it(own)), called) {
        (Some(_), Some(called)) => format!("callers of {service} find {}, which has the name", called.key),
        _ => "it is left out of its service: `weft endpoints --explain` says why".to_owned(),
    })
}

/// What is said at one of the places where it was left out.
fn left_out(places: &[String], relay: &RegistryStatus, snapshot: &Snapshot) -> Option<String> {
    let mut states = relay.scopes.iter().filter_map(|it| snapshot.scopes.get(&it.scope));
    states.find_map(|state| {
        let mut origins = state.faulty.iter().filter_map(|name| state.origins.get(name));
        let fault =
            origins.find_map(|origin| origin.faults.iter().find(|fault| places.contains(&fault.place)))?;
        Some(fault.message.clone())
    })
}
