//! Services and endpoints.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    message,
    strings::{StringReader, StringWriter},
};
use crate::{
    control::{
        ControlError,
        error::{named, narrow},
    },
    locality::Locality,
    name::{HostName, InstanceName, PortName, ServiceName},
    resource::{AppProtocol, Endpoint, Health, SaidBy, Sayer, Service, ServicePort, TlsMode},
};

pub(super) fn write_service(strings: &mut StringWriter, service: &Service) -> message::Service {
    let mut port = |port: &ServicePort| message::ServicePort {
        name: strings.number(port.name.as_str()),
        number: port.number.into(),
        protocol: match port.protocol {
            AppProtocol::Http => 0,
            AppProtocol::Http2 => 1,
            AppProtocol::Grpc => 2,
            AppProtocol::Tcp => 3,
        },
    };
    let ports = service.ports.iter().map(&mut port).collect();
    message::Service {
        name: strings.number(&service.name.to_string()),
        ports,
        hosts: service.hosts.iter().map(ToString::to_string).collect(),
        nearest: service.nearest,
        declared: service.declared,
    }
}

pub(super) fn read_service(
    strings: &StringReader,
    service: message::Service,
) -> Result<Service, ControlError> {
    let port = |port: message::ServicePort| {
        Ok(ServicePort {
            name: strings.name("service port", port.name, PortName::new)?,
            number: narrow("service port number", port.number)?,
            protocol: match port.protocol {
                0 => AppProtocol::Http,
                1 => AppProtocol::Http2,
                2 => AppProtocol::Grpc,
                3 => AppProtocol::Tcp,
                other => return Err(ControlError::Value { field: "protocol", value: other.into() }),
            },
        })
    };
    Ok(Service {
        name: strings.name("service", service.name, ServiceName::new)?,
        ports: service.ports.into_iter().map(port).collect::<Result<_, _>>()?,
        hosts: service
            .hosts
            .iter()
            .map(|host| named("host", HostName::new(host)))
            .collect::<Result<_, _>>()?,
        nearest: service.nearest,
        declared: service.declared,
    })
}

pub(super) fn write_endpoint(strings: &mut StringWriter, endpoint: &Endpoint) -> message::Endpoint {
    message::Endpoint {
        service: strings.number(&endpoint.service.to_string()),
        port_name: strings.number(endpoint.port_name.as_str()),
        instance: endpoint.instance.to_string(),
        address: write_address(endpoint.address.socket()),
        mesh_address: endpoint
            .mesh_address
            .as_ref()
            .map_or(Bytes::new(), |mesh| write_address(mesh.socket())),
        identity: endpoint.identity.as_ref().map_or(0, |identity| strings.number(identity.as_str())),
        labels: strings.labels(&endpoint.labels),
        weight: (endpoint.weight != 1).then_some(endpoint.weight.into()),
        locality: strings.number(&endpoint.locality.to_string()),
        health: match endpoint.health {
            Health::Healthy => 0,
            Health::Draining => 1,
            Health::Unhealthy => 2,
            Health::Unconfirmed => 3,
        },
        tls: match endpoint.tls {
            TlsMode::Required => 0,
            TlsMode::Off => 1,
        },
        identity_from: write_sayer(endpoint.said_by.identity),
        mesh_address_from: write_sayer(endpoint.said_by.mesh_address),
        tls_from: write_sayer(endpoint.said_by.tls),
    }
}

pub(super) fn read_endpoint(
    strings: &mut StringReader,
    endpoint: message::Endpoint,
) -> Result<Endpoint, ControlError> {
    let mesh = Some(&endpoint.mesh_address).filter(|bytes| !bytes.is_empty());
    Ok(Endpoint {
        service: strings.name("endpoint's service", endpoint.service, ServiceName::new)?,
        port_name: strings.name("endpoint's port", endpoint.port_name, PortName::new)?,
        instance: named("instance", InstanceName::new(&endpoint.instance))?,
        address: read_address("address", &endpoint.address)?.into(),
        mesh_address: mesh.map(|bytes| read_address("mesh_address", bytes)).transpose()?.map(Into::into),
        identity: strings.identity(endpoint.identity)?,
        labels: strings.labels(endpoint.labels)?,
        weight: endpoint.weight.map_or(Ok(1), |weight| narrow("weight", weight))?,
        locality: strings.name("locality", endpoint.locality, Locality::new)?,
        health: match endpoint.health {
            0 => Health::Healthy,
            1 => Health::Draining,
            2 => Health::Unhealthy,
            3 => Health::Unconfirmed,
            other => return Err(ControlError::Value { field: "health", value: other.into() }),
        },
        tls: match endpoint.tls {
            0 => TlsMode::Required,
            1 => TlsMode::Off,
            other => return Err(ControlError::Value { field: "tls", value: other.into() }),
        },
        said_by: SaidBy {
            identity: read_sayer(endpoint.identity_from),
            mesh_address: read_sayer(endpoint.mesh_address_from),
            tls: read_sayer(endpoint.tls_from),
        },
    })
}

const SAYERS: [Sayer; 6] = [
    Sayer::Declared,
    Sayer::Platform,
    Sayer::Metadata,
    Sayer::ServiceRule,
    Sayer::RegistryRule,
    Sayer::Default,
];

fn write_sayer(sayer: Sayer) -> u32 {
    SAYERS.iter().zip(0..).find_map(|(known, number)| (*known == sayer).then_some(number)).unwrap_or(0)
}

fn read_sayer(number: u32) -> Sayer {
    usize::try_from(number).ok().and_then(|at| SAYERS.get(at)).copied().unwrap_or_default()
}

/// The IP in 4 or 16 bytes, then the port in 2, in network order.
fn write_address(address: SocketAddr) -> Bytes {
    let mut bytes = BytesMut::with_capacity(18);
    match address.ip() {
        IpAddr::V4(ip) => bytes.put_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes.put_slice(&ip.octets()),
    }
    bytes.put_u16(address.port());
    bytes.freeze()
}

fn read_address(field: &'static str, bytes: &[u8]) -> Result<SocketAddr, ControlError> {
    let wrong = || ControlError::Length { field, length: bytes.len() };
    let (ip, port) = bytes.split_last_chunk::<2>().ok_or_else(wrong)?;
    let ip: IpAddr = if let Ok(v4) = <[u8; 4]>::try_from(ip) {
        v4.into()
    } else {
        <[u8; 16]>::try_from(ip).map_err(|_| wrong())?.into()
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}
