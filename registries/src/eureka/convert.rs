//! From an instance of Eureka to an endpoint. Pure.
//!
//! Decisions that a reader may look for:
//!
//! - An application is a service of the namespace `default`, in lower case. Eureka knows no port of a service, so it is
//!   the one that most of its instances have: `http` of their plain ports, `https` of their secure ones. What is behind
//!   the latter speaks TLS of its own, which the mesh carries as the opaque bytes it is.
//! - `OUT_OF_SERVICE` is an operator's word: the instance drains. All that is neither that nor `UP` is unhealthy.
//! - An instance whose lease ran out is still listed while the server preserves itself: it suspects that its network
//!   failed. It is kept as what nobody confirms, for when no other is ready.
//! - A virtual address is a host name of the application when all its instances have it: the mesh calls an application as
//!   a whole, and who asks Eureka for an address gets those alone that have it. Not so one that is the name of another
//!   application, that several applications claim, that is a name of the caller's own host, or that the mesh gives. What
//!   each instance has is kept beside it, and served on.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use weft_core::{
    identity::TrustDomain,
    locality::Locality,
    name::{DEFAULT_NAMESPACE, HostName, InstanceName, PortName, ServiceName},
    resource::{AppProtocol, Endpoint, Health, Labels, Resource, Service, ServicePort},
};

use super::objects::Instance as Object;
use crate::{
    address::{endpoint_address, endpoint_host, read_ip},
    names::{fault, platform_of, quoted, service_name},
    speaking::{Instance, Recorded, Rules, keys},
    told::Words,
};

/// How long a server's answer may be older than its words, in milliseconds: two caches of half a minute each.
const CACHED: u64 = 60_000;
/// The label that keeps the host name of an instance with a secure port: clients check its certificate for that name, so
/// that it is served on, and nobody in the mesh calls it.
pub(super) const HOST_NAME: &str = "weft.dev/eureka-host-name";
/// The labels that keep the virtual addresses of an instance, separated by commas: clients find it by these, and by no
/// other instance's.
pub(super) const VIP: &str = "weft.dev/eureka-vip";
/// The same of its secure ones.
pub(super) const SECURE_VIP: &str = "weft.dev/eureka-secure-vip";
/// What is served on and means nothing in the mesh.
const SERVED: [&str; 3] = [HOST_NAME, VIP, SECURE_VIP];
/// The most labels of an endpoint, and the greatest length of a key or a value in bytes.
const MAX_LABELS: usize = 64;
const MAX_LABEL: usize = 256;
/// The most names in a virtual address.
const MAX_NAMES: usize = 16;

/// Why a virtual address is no host name that some instances of an application have.
const PARTIAL: &str = "not all instances have it, and a call to it would reach the others too";

const PLAIN: &str = "http";
const SECURE: &str = "https";

/// What is the same for all instances.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    pub(super) rules: Rules,
    pub(super) trust_domain: Option<TrustDomain>,
    /// The region of zones that do not say theirs.
    pub(super) region: Option<String>,
}

/// What an instance adds to its application's service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    plain: Option<u16>,
    secure: Option<u16>,
    protocol: Option<AppProtocol>,
    names: Vec<HostName>,
}

/// What one instance says: its own origin's words, and its part in its application's.
#[derive(Clone, Debug)]
pub(super) struct Converted {
    pub(super) words: Words,
    pub(super) part: Part,
}

/// Converts one instance, as told at `now` of the server's clock, in milliseconds.
pub(super) fn instance(object: &Object, context: &Context, now: u64) -> Converted {
    let mut faults = Vec::new();
    let place = format!("{}/{}", object.app, object.id);
    let (resources, part) = match service_name(&object.app, DEFAULT_NAMESPACE) {
        // That the name cannot be taken over is told once, of the application.
        Err(_) => (Vec::new(), Part::default()),
        Ok(service) => {
            let mut said = |message: String| faults.push(fault(&place, message));
            endpoints(object, &service, context, now, &mut said)
        }
    };
    Converted { words: Words::new(resources, faults), part }
}

/// Converts an application from the parts of its instances. `is_ours` says whether a virtual address is this one's.
pub(super) fn application<'a>(
    name: &str,
    parts: impl Iterator<Item = &'a Part>,
    rules: &Rules,
    is_ours: impl Fn(&HostName) -> Result<(), String>,
) -> Words {
    let mut faults = Vec::new();
    let service = match service_name(name, DEFAULT_NAMESPACE) {
        Ok(service) => service,
        Err(fault) => return Words::new(Vec::new(), vec![fault]),
    };
    let (mut plain, mut secure, mut protocol) = (BTreeMap::new(), BTreeMap::new(), None);
    let mut hosts: BTreeMap<&HostName, usize> = BTreeMap::new();
    let mut callable = 0_usize;
    for part in parts {
        // Nobody is called at an instance without a port, whatever it lacks.
        let counts = usize::from(part.plain.or(part.secure).is_some());
        callable += counts;
        part.plain.into_iter().for_each(|port| *plain.entry(port).or_default() += 1);
        part.secure.into_iter().for_each(|port| *secure.entry(port).or_default() += 1);
        match (protocol, part.protocol) {
            (Some(first), Some(other)) if first != other => {
                let message = "its instances name different protocols: that of the first stands";
                faults.push(fault(name, message));
            }
            _ => protocol = protocol.or(part.protocol),
        }
        for host in &part.names {
            *hosts.entry(host).or_default() += counts;
        }
    }
    faults.dedup();
    let protocol = rules.declared_protocol(&service).or(protocol).unwrap_or_else(|| rules.protocol(&service));
    let plain = most_common(&plain);
    // Nobody could tell two ports of one number apart.
    let secure = most_common(&secure).filter(|number| Some(*number) != plain);
    let numbered = [(PLAIN, plain, protocol), (SECURE, secure, AppProtocol::Tcp)];
    let ports = numbered.into_iter().filter_map(|(name, number, protocol)| {
        Some(ServicePort { name: PortName::new(name).ok()?, number: number?, protocol })
    });
    let ports: Vec<ServicePort> = ports.collect();
    let mut taken = Vec::new();
    for (host, count) in hosts {
        // By its own name an application is called as a whole.
        let is_whole = count == callable || host.as_str() == service.label();
        let shared = || if is_whole { Ok(()) } else { Err(PARTIAL.to_owned()) };
        match is_ours(host).and_then(|()| shared()) {
            Ok(()) => taken.push(host.clone()),
            Err(reason) => {
                faults.push(fault(name, format!("the virtual address \"{host}\" is left out: {reason}")))
            }
        }
    }
    if ports.is_empty() {
        return Words::new(Vec::new(), faults);
    }
    Words::new(
        vec![Resource::Service(Arc::new(Service {
            name: service,
            ports,
            hosts: taken,
            nearest: false,
            declared: false,
        }))],
        faults,
    )
}

/// The port that most have, of equal ones the lowest.
fn most_common(ports: &BTreeMap<u16, usize>) -> Option<u16> {
    ports.iter().rev().max_by_key(|(_, count)| **count).map(|(port, _)| *port)
}

impl Part {
    /// The virtual addresses that the instance has.
    pub(super) fn names(&self) -> &[HostName] {
        &self.names
    }
}

fn endpoints(
    object: &Object,
    service: &ServiceName,
    context: &Context,
    now: u64,
    said: &mut dyn FnMut(String),
) -> (Vec<Resource>, Part) {
    let (plain, secure) = virtual_addresses(object, &context.rules, said);
    let mut part = Part { names: hosts(object, [&plain[..], &secure[..]]), ..Part::default() };
    let instance = match InstanceName::new(&object.id) {
        Ok(instance) => instance,
        Err(error) => {
            said(format!("its id cannot be an instance's name: {}", error.reason));
            return (Vec::new(), part);
        }
    };
    let ip = match read_ip(&object.ip).or_else(|error| read_ip(&object.host).map_err(|_| error)) {
        Ok(ip) => ip,
        Err(error) => {
            said(error);
            return (Vec::new(), part);
        }
    };
    let recorded = Recorded::read(&|key| object.metadata.get(key).map(String::as_str));
    recorded.faults.iter().cloned().for_each(&mut *said);
    part.protocol = recorded.protocol;
    let strays = keys::strays(object.metadata.keys().map(String::as_str));
    let mut labels = labels(object, said);
    labels.extend(served_host(object, ip, &context.rules, said).map(|host| (HOST_NAME, host)));
    let served = [(VIP, listed(&plain)), (SECURE_VIP, listed(&secure))];
    labels.extend(
        served.iter().map(|(key, names)| (*key, names.as_str())).filter(|(_, names)| !names.is_empty()),
    );
    let labels: Labels = labels.into_iter().collect();
    let locality = recorded.locality.clone().unwrap_or_else(|| locality(object, context, said));
    let ports = [(PLAIN, object.port, &mut part.plain), (SECURE, object.secure_port, &mut part.secure)];
    if !ports.iter().any(|(_, port, _)| port.enabled) {
        said("neither its port nor its secure port is enabled".into());
    }
    let mut resources = Vec::new();
    for (name, port, number) in ports.into_iter().filter(|(_, port, _)| port.enabled) {
        let Ok(port_name) = PortName::new(name) else { continue };
        let address = match endpoint_address(ip, port.number, context.rules.allow_loopback) {
            Ok(address) => address,
            Err(reason) => {
                said(format!("{name}: {reason}"));
                continue;
            }
        };
        let speaks = {
            let record = |key: &str| object.metadata.get(key).map(String::as_str);
            let speaker = Instance::recorded(service, &address, &record, &strays);
            context.rules.speaks(speaker, context.trust_domain.as_ref())
        };
        let first = resources.is_empty();
        speaks.faults.into_iter().filter(|_| first).for_each(&mut *said);
        *number = Some(address.socket().port());
        resources.push(Resource::Endpoint(Arc::new(Endpoint {
            service: service.clone(),
            port_name,
            instance: instance.clone(),
            address,
            mesh_address: speaks.mesh_address,
            identity: speaks.identity,
            said_by: speaks.said_by,
            tls: speaks.tls,
            labels: labels.clone(),
            weight: recorded.weight.unwrap_or(1),
            locality: locality.clone(),
            health: health(object, now),
        })));
    }
    (resources, part)
}

/// What the instance's status means. Who overrides says that it is out of service; the word of an instance that says
/// itself that it is down stands beside it.
fn health(object: &Object, now: u64) -> Health {
    let status = match (object.status.as_str(), object.overridden.as_str()) {
        ("UP", overridden @ ("OUT_OF_SERVICE" | "DOWN")) => overridden,
        (status, _) => status,
    };
    let lease = object.lease;
    let ran_out = lease.renewed > 0
        && lease.renewed.saturating_add(lease.duration.saturating_mul(1000)) < now.saturating_sub(CACHED);
    match status {
        "UP" if ran_out => Health::Unconfirmed,
        "UP" => Health::Healthy,
        "OUT_OF_SERVICE" => Health::Draining,
        _ => Health::Unhealthy,
    }
}

/// A virtual address as it is written, with the host name that it is.
type Virtual<'a> = (&'a str, HostName);

/// The names by which it is found, and those of its secure port. What is no host name, or one of the caller's own host, is
/// told; a name with a variable in it was never filled in.
fn virtual_addresses<'a>(
    object: &'a Object,
    rules: &Rules,
    said: &mut dyn FnMut(String),
) -> (Vec<Virtual<'a>>, Vec<Virtual<'a>>) {
    let mut told: Vec<&str> = Vec::new();
    let mut read = |list: &'a str| {
        let mut names: Vec<Virtual<'a>> = Vec::new();
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            // A port in it is the instance's own, told already, and to clients a part of the name.
            let (bare, port) = text.rsplit_once(':').unwrap_or((text, ""));
            let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
            let text = if is_port { text } else { bare };
            let host = HostName::new(&bare.to_ascii_lowercase())
                .map_err(|error| error.reason.to_owned())
                .and_then(|host| {
                    endpoint_host(&host, rules.allow_loopback).map_err(|reason| format!("it is {reason}"))?;
                    Ok(host)
                });
            match host {
                Ok(_) if names.iter().any(|(known, _)| *known == text) => {}
                Ok(_) if names.len() >= MAX_NAMES => {
                    said(format!("more than {MAX_NAMES} virtual addresses: the rest is left out"));
                    break;
                }
                Ok(host) => names.push((text, host)),
                // Mostly the two lists are one.
                Err(_) if told.contains(&text) => {}
                Err(reason) => {
                    told.push(text);
                    said(format!("the virtual address {} is left out: {reason}", quoted(text)));
                }
            }
        }
        names
    };
    (read(&object.vip), read(&object.secure_vip))
}

/// The host names that are those of a port where anything listens.
fn hosts(object: &Object, [plain, secure]: [&[Virtual<'_>]; 2]) -> Vec<HostName> {
    let all = [(plain, object.port.enabled), (secure, object.secure_port.enabled)];
    let mut hosts: Vec<HostName> = Vec::new();
    for (_, host) in all.into_iter().filter(|(_, enabled)| *enabled).flat_map(|(names, _)| names) {
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    hosts
}

/// As Eureka lists them. Names that a platform gives are not Eureka's to list.
fn listed(names: &[Virtual<'_>]) -> String {
    let own = names.iter().filter(|(_, host)| platform_of(host.as_str()).is_none());
    own.map(|(text, _)| *text).collect::<Vec<_>>().join(",")
}

/// Its host name where it says more than its address, and clients may be sent to it.
fn served_host<'a>(
    object: &'a Object,
    ip: IpAddr,
    rules: &Rules,
    said: &mut dyn FnMut(String),
) -> Option<&'a str> {
    let is_address = || read_ip(&object.host).is_ok_and(|host| host.to_canonical() == ip.to_canonical());
    if !object.secure_port.enabled || is_address() {
        return None;
    }
    let name = HostName::new(&object.host.to_ascii_lowercase()).ok()?;
    match endpoint_host(&name, rules.allow_loopback) {
        Ok(()) => Some(&object.host),
        Err(reason) => {
            said(format!("its host name {} is left out: it is {reason}", quoted(&object.host)));
            None
        }
    }
}

fn labels<'a>(object: &'a Object, said: &mut dyn FnMut(String)) -> Vec<(&'a str, &'a str)> {
    let pairs = object.metadata.iter().filter(|(key, _)| !keys::is_ours(key));
    let fits =
        |(key, value): &(&String, &String)| (1..=MAX_LABEL).contains(&key.len()) && value.len() <= MAX_LABEL;
    let (good, long): (Vec<_>, Vec<_>) = pairs.partition(fits);
    if !long.is_empty() {
        said(format!("metadata longer than {MAX_LABEL} bytes is no label: {} left out", long.len()));
    }
    if good.len() > MAX_LABELS {
        said(format!("more than {MAX_LABELS} labels: {} left out", good.len() - MAX_LABELS));
    }
    let labels = good.into_iter().take(MAX_LABELS).map(|(key, value)| (key.as_str(), value.as_str()));
    labels.filter(|(key, _)| !SERVED.contains(key)).collect()
}

/// The zone, by the instance's own word or its cloud's, in a region: its own, that of the file, or the one that a zone
/// of Amazon's is named after.
fn locality(object: &Object, context: &Context, said: &mut dyn FnMut(String)) -> Locality {
    let metadata = |key: &str| object.metadata.get(key).map(String::as_str).filter(|text| !text.is_empty());
    let Some(zone) = metadata("zone").or(Some(object.zone.as_str()).filter(|zone| !zone.is_empty())) else {
        return Locality::default();
    };
    let region = metadata("region").or(context.region.as_deref()).or_else(|| amazon_region(zone));
    let text = format!("{}/{zone}", region.unwrap_or_default());
    Locality::new(&text).unwrap_or_else(|error| {
        said(format!("its zone {} is no locality: {}", quoted(zone), error.reason));
        Locality::default()
    })
}

/// `us-east-1` of `us-east-1a`.
fn amazon_region(zone: &str) -> Option<&str> {
    let region = zone.strip_suffix(|letter: char| letter.is_ascii_lowercase())?;
    let (name, number) = region.rsplit_once('-')?;
    let good = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && name.contains('-');
    good.then_some(region)
}
