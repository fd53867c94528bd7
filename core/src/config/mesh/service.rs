//! `[[service]]`: a service with its ports and endpoints.

use super::endpoint;
use crate::{
    config::{Fault, Located, Port, Section},
    name::{HostName, PortName, ServiceName},
    resource::{AppProtocol, Resource, Service, ServicePort},
};

/// The words for what an application speaks.
pub(super) const PROTOCOLS: [(&str, AppProtocol); 4] = [
    ("http", AppProtocol::Http),
    ("http2", AppProtocol::Http2),
    ("grpc", AppProtocol::Grpc),
    ("tcp", AppProtocol::Tcp),
];

/// The service and its endpoints; empty when it has a fault.
pub(super) fn read(section: &Section<'_>) -> Vec<Located<Resource>> {
    let name: Option<ServiceName> = section.require("name", "a service, such as name = \"reviews.default\"");
    let hosts: Option<Vec<HostName>> =
        section.get("hosts").map_or(Some(Vec::new()), |hosts| hosts_of(&hosts));
    let nearest = section.read_or("nearest", false);
    let ports = ports(section);
    let endpoints = section.sections("endpoint");
    // Endpoints are read even for a service that has a fault, so that theirs are told in the same run.
    let name_or_any = name.clone().or_else(|| ServiceName::new("unknown").ok());
    let read: Vec<_> = name_or_any
        .iter()
        .flat_map(|name| endpoints.iter().map(|endpoint| endpoint::read(endpoint, name, ports.as_deref())))
        .collect();
    let (Some(name), Some(hosts), Some(ports)) = (name, hosts, ports) else { return Vec::new() };
    let place = section.key_place("name");
    let service = Resource::Service(Service { name, ports, hosts, nearest, declared: true }.into());
    let endpoints =
        read.into_iter().flatten().map(|endpoint| endpoint.map(|it| Resource::Endpoint(it.into())));
    std::iter::once(Located { value: service, place }).chain(endpoints).collect()
}

fn hosts_of(value: &crate::config::Value<'_>) -> Option<Vec<HostName>> {
    use crate::config::{OneOrMany, Readable};
    OneOrMany::read(value).map(|OneOrMany(hosts)| hosts)
}

/// At least one port; names and numbers are unique.
fn ports(section: &Section<'_>) -> Option<Vec<ServicePort>> {
    let example = "ports, such as ports = [{ name = \"http\", number = 80 }]";
    let value = section.require_value("ports", example)?;
    let elements = value.list()?;
    if elements.is_empty() {
        value.reject("a service has at least one port", format!("expected {example}"));
        return None;
    }
    let read: Vec<Option<Located<ServicePort>>> = elements
        .iter()
        .map(|element| port(&Section::open(element, "a port, such as { name = \"http\", number = 80 }")?))
        .collect();
    let ports: Vec<Located<ServicePort>> = read.into_iter().collect::<Option<_>>()?;
    for (index, port) in ports.iter().enumerate() {
        for before in &ports[..index] {
            let what = if port.value.name == before.value.name {
                format!("port name `{}` is given twice", port.value.name)
            } else if port.value.number == before.value.number {
                format!("port number {} is given twice", port.value.number)
            } else {
                continue;
            };
            let fault = Fault::error(port.place.clone(), what);
            section.report(fault.related(before.place.clone(), "first given here"));
        }
    }
    Some(ports.into_iter().map(|port| port.value).collect())
}

fn port(section: &Section<'_>) -> Option<Located<ServicePort>> {
    let name: Option<PortName> = section.require("name", "a port name, such as name = \"http\"");
    let number: Option<Port> = section.require("number", "the number callers use, such as number = 80");
    let protocol = match section.get("protocol") {
        Some(value) => value.word(&PROTOCOLS)?,
        None => AppProtocol::default(),
    };
    let Port(number) = number?;
    Some(Located { value: ServicePort { name: name?, number, protocol }, place: section.place() })
}
