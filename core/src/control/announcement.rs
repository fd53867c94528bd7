//! Local instances to the words by which a node announces them at its hub, and back.
//!
//! The form is that of discovery: an event that replaces an origin. The origin's name is the announcement's key, and it
//! holds one service with one port and one endpoint of that port. Why the instance is not healthy is its only fault.

use bytes::Bytes;

use super::{
    ControlError,
    discovery::{Relayed, encode_replace, read_event},
};
use crate::{
    name::RegistryName,
    registry::{Event, LocalInstance, OriginFault, Scope},
    resource::{Endpoint, Resource, Service},
};

/// The longest encoded announcement, in bytes.
pub const MAX_ANNOUNCEMENT: usize = 32 * 1024;

/// What an announcement is called: service, port name and instance.
#[must_use]
pub fn announcement_key(endpoint: &Endpoint) -> String {
    format!("{}/{}/{}", endpoint.service, endpoint.port_name, endpoint.instance)
}

/// Encodes what is announced.
#[must_use]
pub fn encode_announcement(instance: &LocalInstance) -> Bytes {
    let service = Service {
        name: instance.endpoint.service.clone(),
        ports: vec![instance.port.clone()],
        hosts: Vec::new(),
        nearest: false,
        declared: false,
    };
    let resources = [Resource::Service(service.into()), Resource::Endpoint(instance.endpoint.clone().into())];
    let place = announcement_key(&instance.endpoint);
    let note = OriginFault { message: instance.note.clone(), place: place.clone(), keeps_last_good: false };
    let faults = if instance.note.is_empty() { Vec::new() } else { vec![note] };
    encode_replace(&place, &resources, &faults).event
}

/// Reads what is announced.
///
/// # Errors
/// Names the first rule that it breaks.
pub fn read_announcement(encoded: &Bytes) -> Result<LocalInstance, ControlError> {
    if encoded.len() > MAX_ANNOUNCEMENT {
        return Err(ControlError::Length { field: "announcement", length: encoded.len() });
    }
    // The scope is the hub's to choose; here it only has to have a name.
    let name =
        RegistryName::new("announced").map_err(|fault| ControlError::Name { field: "registry", fault })?;
    let Relayed::Event(Event::Replace { origin, resources, faults, .. }) =
        read_event(&Scope::whole(name), encoded)?
    else {
        return Err(ControlError::Missing("the announced instance"));
    };
    let [Resource::Service(service), Resource::Endpoint(endpoint)] = &resources[..] else {
        return Err(ControlError::Missing("the announced service with its one endpoint"));
    };
    let [port] = &service.ports[..] else {
        return Err(ControlError::Missing("the announced service's one port"));
    };
    let belongs = endpoint.service == service.name && endpoint.port_name == port.name;
    if !belongs || origin.as_str() != announcement_key(endpoint) {
        return Err(ControlError::Missing("the announcement under its own key"));
    }
    if resources.iter().any(|resource| resource.check().is_err()) {
        return Err(ControlError::Missing("an announcement that means something"));
    }
    let note = faults.into_iter().next().map(|fault| fault.message).unwrap_or_default();
    let note = note.chars().take(512).collect();
    Ok(LocalInstance { endpoint: Endpoint::clone(endpoint), port: port.clone(), note })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        merge::testing::{endpoint, service},
        resource::Health,
    };

    fn instance() -> LocalInstance {
        let endpoint = Endpoint { health: Health::Unhealthy, ..endpoint("reviews", 1) };
        LocalInstance { endpoint, port: service("reviews").ports.remove(0), note: "GET /: status 500".into() }
    }

    #[test]
    fn what_is_announced_is_read_as_it_was_written() {
        assert_eq!(read_announcement(&encode_announcement(&instance())), Ok(instance()));
        let healthy = LocalInstance { note: String::new(), ..instance() };
        assert_eq!(read_announcement(&encode_announcement(&healthy)), Ok(healthy));
    }

    #[test]
    fn what_is_no_announcement_is_refused() {
        let own = endpoint("reviews", 1);
        let key = announcement_key(&own);
        let service = || Resource::Service(service("reviews").into());
        let endpoint = |endpoint: Endpoint| Resource::Endpoint(endpoint.into());
        let mut two_ports = crate::merge::testing::service("reviews");
        two_ports.ports.push(two_ports.ports[0].clone());
        for (key, resources) in [
            (&*key, vec![]),
            (&key, vec![service()]),
            (&key, vec![endpoint(own.clone())]),
            (
                &key,
                vec![
                    service(),
                    endpoint(own.clone()),
                    endpoint(crate::merge::testing::endpoint("reviews", 2)),
                ],
            ),
            (&key, vec![service(), endpoint(crate::merge::testing::endpoint("reviews", 2))]),
            (&key, vec![service(), endpoint(crate::merge::testing::endpoint("bank", 1))]),
            ("another", vec![service(), endpoint(own.clone())]),
            (&key, vec![Resource::Service(two_ports.into()), endpoint(own.clone())]),
        ] {
            let encoded = encode_replace(key, &resources, &[]).event;
            assert!(read_announcement(&encoded).is_err(), "{key} {resources:?}");
        }
        assert!(read_announcement(&Bytes::from_static(b"\x1a\0")).is_err(), "an event that replaces nothing");
        let long = LocalInstance { note: "x".repeat(MAX_ANNOUNCEMENT), ..instance() };
        assert!(matches!(read_announcement(&encode_announcement(&long)), Err(ControlError::Length { .. })));
    }
}
