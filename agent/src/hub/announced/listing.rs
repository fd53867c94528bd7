//! Announcements as origins of a registry: one for each service. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_core::{
    name::{NameError, OriginName, ServiceName},
    registry::OriginFault,
    resource::{Endpoint, Health, Resource, Service, ServicePort},
};

use super::stored::{Kept, Stored};
use crate::hub::records::{ANNOUNCED, AnnouncementRecord, OwnerRecord};

/// All that is said of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) origin: OriginName,
    pub(super) resources: Vec<Resource>,
    pub(super) faults: Vec<OriginFault>,
}

/// What the records say; of nodes that are doubted, and of what the store has lost, that they are unhealthy.
///
/// Whose a service is decides what of it is left out; where nobody says, its oldest record does. That one decides what its
/// ports are too. A contradiction leaves the later one out, by name: two hubs that share a store may have taken both.
pub(super) fn listing(stored: &Stored, doubted: &BTreeSet<String>) -> Result<Vec<Listed>, NameError> {
    let mut services: BTreeMap<&str, (Vec<_>, Vec<OriginFault>)> = BTreeMap::new();
    let kept = stored.kept().map(|(key, kept)| (key, kept, doubted.contains(&kept.record.node)));
    for (key, Kept { record, .. }, is_doubted) in
        kept.chain(stored.lost().map(|(key, kept)| (key, kept, true)))
    {
        services.entry(service_of(key)).or_default().0.push((record, is_doubted));
    }
    for (key, why) in stored.unreadable() {
        let Some(key) = key.strip_prefix(ANNOUNCED) else { continue };
        let (records, faults) = services.entry(service_of(key)).or_default();
        // What else is announced goes on; where nothing is, it is not known to be nothing.
        let keeps_last_good = records.is_empty();
        faults.push(OriginFault { message: why.clone(), place: key.to_owned(), keeps_last_good });
    }
    let named = services.into_iter().filter_map(|(name, said)| Some((name.parse().ok()?, said)));
    named
        .map(|(name, (records, faults)): (ServiceName, _)| {
            listed(&name, stored.owner(&name.to_string()), records, faults)
        })
        .collect()
}

/// The service whose announcement has this key.
pub(super) fn service_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(service, _)| service)
}

fn listed(
    name: &ServiceName,
    owner: Option<&OwnerRecord>,
    mut records: Vec<(&AnnouncementRecord, bool)>,
    mut faults: Vec<OriginFault>,
) -> Result<Listed, NameError> {
    let origin = OriginName::new(&name.to_string())?;
    if records.is_empty() {
        return Ok(Listed { origin, resources: Vec::new(), faults });
    }
    records.sort_by_key(|(record, _)| (record.since, &record.node, &record.instance.endpoint.instance));
    let first = records.first().and_then(|(record, _)| record.instance.endpoint.identity.clone());
    let owner = owner.map(|owner| owner.identity.clone()).or(first);
    let mut ports: Vec<ServicePort> = Vec::new();
    let mut endpoints = Vec::new();
    for (record, is_doubted) in records {
        let instance = &record.instance;
        let mut leave_out = |why: String| {
            let message = format!("node {} announces {why}; it is left out", record.node);
            let place = format!("{name}/{}", instance.endpoint.instance);
            faults.push(OriginFault { message, place, keeps_last_good: false });
        };
        if instance.endpoint.identity != owner {
            let text = |it: &Option<_>| it.as_ref().map(ToString::to_string).unwrap_or_default();
            let (ours, theirs) = (text(&instance.endpoint.identity), text(&owner));
            leave_out(format!("`{name}` as {ours}, and it was announced as {theirs} before"));
            continue;
        }
        match ports.iter().find(|port| port.name == instance.port.name || port.number == instance.port.number)
        {
            Some(port) if *port != instance.port => {
                let (own, said) = (described(&instance.port), described(port));
                leave_out(format!("`{name}` with port {own}, and it was announced with {said} before"));
                continue;
            }
            Some(_) => {}
            None => ports.push(instance.port.clone()),
        }
        let health = if is_doubted { Health::Unhealthy } else { instance.endpoint.health };
        endpoints.push(Resource::Endpoint(Arc::new(Endpoint { health, ..instance.endpoint.clone() })));
    }
    let service = Service { name: name.clone(), ports, hosts: Vec::new(), nearest: false, declared: false };
    let resources = [Resource::Service(Arc::new(service))].into_iter().chain(endpoints).collect();
    Ok(Listed { origin, resources, faults })
}

fn described(port: &ServicePort) -> String {
    format!("{} ({}, {:?})", port.name, port.number, port.protocol)
}
