//! Short words for tests.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    identity::SpiffeId,
    locality::Locality,
    name::{InstanceName, ServiceName},
    registry::Version,
    resource::{AppProtocol, Service, ServicePort, TlsMode},
};

pub(crate) fn scope(registry: &str) -> Scope {
    Scope::whole(RegistryName::new(registry).unwrap())
}

pub(crate) fn reset(scope: &Scope) -> Event {
    Event::Reset { scope: scope.clone() }
}

pub(crate) fn ready(scope: &Scope) -> Event {
    Event::Ready { scope: scope.clone(), completeness: Completeness::Full }
}

pub(crate) fn commit(scope: &Scope) -> Event {
    Event::Commit { scope: scope.clone(), resume: None, age: Duration::ZERO }
}

pub(crate) fn replace(scope: &Scope, origin: &str, version: &str, resources: Vec<Resource>) -> Event {
    Event::Replace {
        scope: scope.clone(),
        origin: OriginName::new(origin).unwrap(),
        version: Version(version.into()),
        resources,
        faults: Vec::new(),
    }
}

pub(crate) fn service(name: &str) -> Service {
    Service {
        name: name.parse().unwrap(),
        ports: vec![ServicePort { name: "http".parse().unwrap(), number: 80, protocol: AppProtocol::Http }],
        hosts: Vec::new(),
        nearest: false,
        declared: true,
    }
}

pub(crate) fn endpoint(service: &str, number: u8) -> Endpoint {
    let service: ServiceName = service.parse().unwrap();
    let identity = format!("spiffe://demo.mesh/ns/{}/sa/{}", service.namespace(), service.label());
    Endpoint {
        instance: InstanceName::new(&format!("{}-{number}", service.label())).unwrap(),
        port_name: "http".parse().unwrap(),
        address: ([10, 0, 0, number], 8080).into(),
        mesh_address: Some(([10, 0, 0, number], 15008).into()),
        identity: Some(SpiffeId::parse(&identity).unwrap()),
        said_by: Default::default(),
        tls: TlsMode::Required,
        labels: Default::default(),
        weight: 1,
        locality: Locality::default(),
        health: Health::Healthy,
        service,
    }
}

/// A service with so many endpoints.
pub(crate) fn origin_of_endpoints(name: &str, count: u8) -> Vec<Resource> {
    let endpoints = (1..=count).map(|number| Resource::Endpoint(Arc::new(endpoint(name, number))));
    [Resource::Service(Arc::new(service(name)))].into_iter().chain(endpoints).collect()
}
