//! Announcements as origins of a registry: one for each service. Pure.

use std::{collections::BTreeMap, sync::Arc};

use weft_core::{
    name::{NameError, OriginName, ServiceName},
    registry::OriginFault,
    resource::{Endpoint, Health, Resource, Service, ServicePort},
};

use crate::hub::records::AnnouncementRecord;

/// All that is said of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) origin: OriginName,
    pub(super) resources: Vec<Resource>,
    pub(super) faults: Vec<OriginFault>,
}

/// What the records say; of those that are doubted, that they are unhealthy.
///
/// The oldest record of a service decides whose it is and what its ports are. A contradiction leaves the later one out,
/// by name: two hubs that share a store may have taken both.
pub(super) fn listing<'a>(
    records: impl Iterator<Item = (&'a AnnouncementRecord, bool)>,
) -> Result<Vec<Listed>, NameError> {
    let mut services: BTreeMap<&ServiceName, Vec<_>> = BTreeMap::new();
    for (record, doubted) in records {
        services.entry(&record.instance.endpoint.service).or_default().push((record, doubted));
    }
    services.into_iter().map(|(name, records)| listed(name, records)).collect()
}

fn listed(name: &ServiceName, mut records: Vec<(&AnnouncementRecord, bool)>) -> Result<Listed, NameError> {
    records.sort_by_key(|(record, _)| (record.since, &record.node, &record.instance.endpoint.instance));
    let mut ports: Vec<ServicePort> = Vec::new();
    let (mut endpoints, mut faults) = (Vec::new(), Vec::new());
    let owner = records.first().and_then(|(record, _)| record.instance.endpoint.identity.clone());
    for (record, doubted) in records {
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
        let health = if doubted { Health::Unhealthy } else { instance.endpoint.health };
        endpoints.push(Resource::Endpoint(Arc::new(Endpoint { health, ..instance.endpoint.clone() })));
    }
    let service = Service { name: name.clone(), ports, hosts: Vec::new(), nearest: false };
    let resources = [Resource::Service(Arc::new(service))].into_iter().chain(endpoints).collect();
    Ok(Listed { origin: OriginName::new(&name.to_string())?, resources, faults })
}

fn described(port: &ServicePort) -> String {
    format!("{} ({}, {:?})", port.name, port.number, port.protocol)
}
