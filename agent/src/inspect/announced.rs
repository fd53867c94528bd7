//! Whether what this host announces at its hub is in force: the hub may have taken it, and still it may be left out of what
//! the hub relays, or be hidden by a service of the same name.

use std::sync::Arc;

use weft_core::{
    merge::Snapshot,
    name::ServiceName,
    resource::Endpoint,
    table::{Destination, Table},
};

use crate::{admin::pages::endpoints_of, view::Announcement};

/// How long it may take from the hub's word that it has an announcement until it is relayed, in seconds.
const RELAYED_WITHIN: u64 = 10;

/// Says in its row why an announcement that the hub has is not in force. `now` is in seconds since 1970.
pub(super) fn judge(row: &mut Announcement, snapshot: &Snapshot, table: &Table, now: u64) {
    let has_settled = row.since_s.is_some_and(|since| now.saturating_sub(since) >= RELAYED_WITHIN);
    if row.fault.is_some() || !has_settled {
        return;
    }
    row.fault = why_not(row, snapshot, table).map(|why| format!("not in force: {why}"));
}

fn why_not(row: &Announcement, snapshot: &Snapshot, table: &Table) -> Option<String> {
    let service = ServiceName::new(&row.service).ok()?;
    let is_it =
        |it: &&Arc<Endpoint>| it.port_name.as_str() == row.port && it.instance.as_str() == row.instance;
    let relayed = snapshot.partitions.iter().find_map(|(registry, partition)| {
        let endpoints = &partition.services.get(&service)?.endpoints;
        Some((registry, endpoints.iter().find(is_it)?))
    });
    let Some((registry, endpoint)) = relayed else {
        let told = left_out(row, snapshot);
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

/// What is said of it where it was left out.
fn left_out(row: &Announcement, snapshot: &Snapshot) -> Option<String> {
    let place = format!("{}/{}", row.service, row.instance);
    let endpoint = format!("port `{}` of instance `{}` of service `{}`", row.port, row.instance, row.service);
    let whole = format!("service `{}`", row.service);
    let states = snapshot.scopes.values();
    let mut faults = states.flat_map(|state| {
        let origins = state.faulty.iter().filter_map(|name| state.origins.get(name));
        origins.flat_map(|origin| &origin.faults)
    });
    let fault =
        faults.find(|fault| fault.place == place || fault.place == endpoint || fault.place == whole)?;
    Some(fault.message.clone())
}
