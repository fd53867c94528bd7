//! From what Consul says of one service to resources. Pure: the same answer always makes the same words.
//!
//! * A service of Consul is one origin, with all its instances. Its name is read without regard to case, as Consul does.
//! * Its ports: `http` (`tcp` where that is spoken), or those that its instances name (Consul 1.22 on). The number is the
//!   instances' own where all agree. Where they differ (schedulers choose ports), it is the one that most have, of equal
//!   ones the lowest: callers that name no port do not care.
//! * A critical check makes an instance unhealthy; maintenance alone makes it drain; a warning changes its weight, as
//!   registered (`Weights`).
//! * Meta becomes labels, and so do tags: `tag.NAME`, with what follows `=` as the value, `true` where nothing does.
//! * Locality: `weft-locality` of the service's meta or the node's, else what was registered as locality, else the
//!   datacenter as the region.
//! * Proxies and gateways of Consul's own mesh are no application's instances: left out and told. So are Consul's servers,
//!   which every catalog holds: left out.

use std::{
    collections::{BTreeMap, btree_map},
    net::IpAddr,
    sync::Arc,
};

use weft_core::{
    identity::TrustDomain,
    locality::Locality,
    name::{DEFAULT_NAMESPACE, HostName, InstanceName, OriginName, PortName, ServiceName},
    registry::OriginFault,
    resource::{AppProtocol, Endpoint, Health, Labels, PrincipalMatch, Resource, Service, ServicePort},
};

use super::objects::{self, Entry, Weights};
use crate::{
    address, names,
    speaking::{Instance, Recorded, Rules, keys},
    told::{MAX_FAULTS, Words},
};

/// How many labels an endpoint has at most.
const MAX_LABELS: usize = 64;
/// How long a label's key or value is at most, in bytes.
const MAX_LABEL: usize = 256;
/// As which service Consul's own servers stand in every catalog. They are no application: nobody need hear that they do not
/// speak mesh, unless the file has a rule for them.
const SERVERS: &str = "consul";
/// Checks whose being critical is the operator's maintenance.
const MAINTENANCE: [&str; 2] = ["_service_maintenance:", "_node_maintenance"];

/// What conversion depends on beside the objects.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Which instances speak mesh, and as whom.
    pub rules: Rules,
    /// The trust domain of identities that a rule names without one.
    pub trust_domain: Option<TrustDomain>,
    /// Which identities this registry may name; any where nobody says.
    pub may_name: Option<Vec<PrincipalMatch>>,
    /// The domain of Consul's host names.
    pub domain: HostName,
    /// The datacenter, where it is another than the server's own.
    pub datacenter: Option<String>,
    /// The peer whose services these are.
    pub peer: Option<String>,
}

/// The origin of a service.
#[must_use]
pub fn origin(service: &str) -> OriginName {
    names::origin_name(&["service", service])
}

/// The origin of a part of a service, which adds endpoints to what the service itself said last.
#[must_use]
pub fn part(service: &str) -> OriginName {
    names::origin_name(&["part", service])
}

/// What a part of a service says: what is known of the service itself stands.
#[must_use]
pub fn words_of_part(words: Words) -> Words {
    let mut resources = words.resources;
    resources.retain(|resource| matches!(resource, Resource::Endpoint(_)));
    Words::new(resources, words.faults)
}

/// What a service says whose name cannot be ours.
///
/// # Errors
/// The words of one whose name can.
pub fn checked_name(service: &str) -> Result<ServiceName, Words> {
    names::service_name(service, DEFAULT_NAMESPACE).map_err(|fault| Words::new(Vec::new(), vec![fault]))
}

/// Consul answers for a name with the instances of all that are written like it but for the case, and whoever may register
/// one of these need not be who may register another. The name in lower case stands, or the one nearest to it.
fn leave_out_others(name: &ServiceName, entries: &mut Vec<&Entry>, faults: &mut Faults) {
    let is_meant = |entry: &Entry| {
        let own = &entry.service.name;
        own == name.label() || names::service_name(own, name.namespace()).is_ok_and(|own| own == *name)
    };
    let standing =
        entries.iter().filter(|entry| is_meant(entry)).map(|entry| &entry.service.name).max().cloned();
    entries.retain(|entry| {
        let own = &entry.service.name;
        let stands = Some(own) == standing.as_ref();
        if !stands {
            let as_which = standing.as_deref().unwrap_or(name.label());
            let message =
                format!("an instance of it is listed as one of {}, and is left out", names::quoted(as_which));
            faults.add(own, &message);
        }
        stands
    });
}

/// What a service says: `entries` are all its instances, `declared` is what Consul's config entries say that it speaks.
#[must_use]
pub fn service(
    name: &ServiceName,
    entries: &[Entry],
    declared: Option<AppProtocol>,
    around: &Surroundings,
) -> Words {
    if name.label() == SERVERS && !around.rules.names(name) {
        return Words::new(Vec::new(), Vec::new());
    }
    let mut faults = Faults::default();
    let mut entries: Vec<&Entry> = entries.iter().collect();
    // The oldest decides where instances contradict each other: it is the one that callers know.
    entries.sort_by_key(|it| (it.service.create_index, &it.node.name, &it.service.id));
    leave_out_others(name, &mut entries, &mut faults);
    let proxies = entries.iter().filter(|it| it.service.kind != objects::TYPICAL).count();
    entries.retain(|it| it.service.kind == objects::TYPICAL);
    if proxies > 0 {
        let message = format!("{proxies} proxies or gateways of Consul's own mesh are left out");
        faults.add(name.label(), message);
    }
    let recorded: Vec<Recorded> = entries
        .iter()
        .map(|it| Recorded::read(&|key| it.service.meta.get(key).map(String::as_str)))
        .collect();
    let protocol = protocol(name, &recorded, declared, around, &mut faults);
    let mut endpoints: BTreeMap<(PortName, InstanceName), Arc<Endpoint>> = BTreeMap::new();
    let mut used: BTreeMap<PortName, BTreeMap<u16, usize>> = BTreeMap::new();
    for (entry, recorded) in entries.iter().zip(&recorded) {
        for endpoint in instance(name, entry, recorded, protocol, around, &mut faults) {
            match endpoints.entry((endpoint.port_name.clone(), endpoint.instance.clone())) {
                btree_map::Entry::Occupied(_) => {
                    faults.add(&entry.service.id, "another instance has its name")
                }
                btree_map::Entry::Vacant(place) => {
                    let numbers = used.entry(endpoint.port_name.clone()).or_default();
                    *numbers.entry(endpoint.address.socket().port()).or_default() += 1;
                    place.insert(Arc::new(endpoint));
                }
            }
        }
    }
    let ports = ports(used, protocol, name, &mut faults);
    let mut resources = Vec::with_capacity(endpoints.len() + 1);
    if !ports.is_empty() {
        let known = |port: &PortName| ports.iter().any(|it| it.name == *port);
        endpoints.retain(|(port, _), _| known(port));
        let hosts = hosts(name, &entries, around);
        resources.push(Resource::Service(Arc::new(Service {
            name: name.clone(),
            ports,
            hosts,
            nearest: false,
            declared: false,
        })));
        resources.extend(endpoints.into_values().map(Resource::Endpoint));
    }
    Words::new(resources, faults.told())
}

/// The file's word for the service, else the oldest instance's that has one, else Consul's, else the file's for all.
fn protocol(
    name: &ServiceName,
    recorded: &[Recorded],
    declared: Option<AppProtocol>,
    around: &Surroundings,
    faults: &mut Faults,
) -> AppProtocol {
    let mut said = recorded.iter().filter_map(|it| it.protocol);
    let first = said.next();
    if let (Some(first), Some(other)) = (first, said.find(|other| Some(*other) != first)) {
        faults.add(
            name.label(),
            format!("some instances speak {first:?} and others {other:?}: the oldest stands"),
        );
    }
    let said = around.rules.declared_protocol(name).or(first).or(declared);
    said.unwrap_or_else(|| around.rules.protocol(name))
}

/// The ports that callers know, from the numbers that instances have.
fn ports(
    used: BTreeMap<PortName, BTreeMap<u16, usize>>,
    protocol: AppProtocol,
    service: &ServiceName,
    faults: &mut Faults,
) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::with_capacity(used.len());
    for (name, numbers) in used {
        // Of equal ones the last is taken, so they are looked at from the highest number down.
        let Some((&number, _)) = numbers.iter().rev().max_by_key(|(_, count)| **count) else { continue };
        match ports.iter().find(|it| it.number == number) {
            Some(other) => {
                let message =
                    format!("its ports {} and {name} are both {number}: the first stands", other.name);
                faults.add(service.label(), message);
            }
            None => ports.push(ServicePort { name, number, protocol }),
        }
    }
    ports
}

/// `web.service.consul` and the same of its datacenter, or of the peer.
fn hosts(name: &ServiceName, entries: &[&Entry], around: &Surroundings) -> Vec<HostName> {
    let (label, domain) = (name.label(), &around.domain);
    let mut texts = Vec::new();
    match &around.peer {
        Some(peer) => texts.push(format!("{label}.service.{}.peer.{domain}", peer.to_ascii_lowercase())),
        None => {
            if around.datacenter.is_none() {
                texts.push(format!("{label}.service.{domain}"));
            }
            let own = entries.iter().map(|it| it.node.datacenter.as_str()).find(|it| !it.is_empty());
            let datacenter = own.or(around.datacenter.as_deref());
            texts
                .extend(datacenter.map(|it| format!("{label}.service.{}.{domain}", it.to_ascii_lowercase())));
        }
    }
    texts.iter().filter_map(|text| HostName::new(text).ok()).collect()
}

/// The endpoints of one instance: one for each of its ports.
fn instance(
    service: &ServiceName,
    entry: &Entry,
    recorded: &Recorded,
    protocol: AppProtocol,
    around: &Surroundings,
    faults: &mut Faults,
) -> Vec<Endpoint> {
    let place = format!("{}/{}", entry.node.name, entry.service.id);
    let mut told = |message: &str| faults.add(&place, message);
    recorded.faults.iter().for_each(|fault| told(fault));
    let name = match InstanceName::new(&place) {
        Ok(name) => name,
        Err(error) => {
            told(&format!("an instance that cannot be named: {}", error.reason));
            return Vec::new();
        }
    };
    let written = if entry.service.address.is_empty() { &entry.node.address } else { &entry.service.address };
    let ip = match address::endpoint_ip(written, "register it with an `Address` that is one") {
        Ok(ip) => ip,
        Err(fault) => {
            told(&fault);
            return Vec::new();
        }
    };
    let health = health(entry);
    let labels = labels(entry, &mut told);
    let locality = locality(entry, recorded, &mut told);
    let weight = recorded.weight.unwrap_or_else(|| weight(entry));
    let mut endpoints = Vec::new();
    for (port_name, port) in named_ports(entry, protocol, &mut told) {
        let (address, speaks) = match speaks(service, entry, ip, port, around) {
            Ok(read) => read,
            Err(fault) => {
                told(&fault);
                continue;
            }
        };
        speaks.faults.iter().for_each(|fault| told(fault));
        endpoints.push(Endpoint {
            service: service.clone(),
            port_name,
            instance: name.clone(),
            address,
            mesh_address: speaks.mesh_address,
            identity: speaks.identity,
            said_by: speaks.said_by,
            tls: speaks.tls,
            labels: labels.clone(),
            weight,
            locality: locality.clone(),
            health,
        });
    }
    endpoints
}

fn speaks(
    service: &ServiceName,
    entry: &Entry,
    ip: IpAddr,
    port: i64,
    around: &Surroundings,
) -> Result<(weft_core::resource::Address, crate::speaking::Speaks), String> {
    // A negative port is none, just as one that is too large.
    let port = u64::try_from(port).unwrap_or(0);
    let address = address::endpoint_address(ip, port, around.rules.allow_loopback)?;
    let record = |key: &str| entry.service.meta.get(key).map(String::as_str);
    let words = [("node", &*entry.node.name), ("datacenter", &*entry.node.datacenter)];
    let strays = strays(entry);
    let known = Instance { words: &words, ..Instance::recorded(service, &address, &record, &strays) };
    let speaks = around.rules.speaks(known, around.trust_domain.as_ref());
    Ok((address, speaks))
}

/// What is meant for the mesh and is not where it is read, or not spelt as it is.
fn strays(entry: &Entry) -> Vec<String> {
    let mut strays = keys::strays(entry.service.meta.keys().map(String::as_str));
    if let Some(tag) = entry.service.tags.iter().find(|tag| keys::is_ours(tag)) {
        strays
            .push(format!("the tag {} is not read: keys of the mesh stand in the meta", names::quoted(tag)));
    }
    strays
}

fn named_ports(entry: &Entry, protocol: AppProtocol, told: &mut impl FnMut(&str)) -> Vec<(PortName, i64)> {
    let read = |name: &str, told: &mut dyn FnMut(&str)| match names::port_name(name) {
        Ok(name) => Some(name),
        Err(fault) => {
            told(&format!("a port is called {}: {}", fault.place, fault.message));
            None
        }
    };
    if entry.service.ports.is_empty() {
        let name = if protocol.is_http() { "http" } else { "tcp" };
        return read(name, told).into_iter().map(|name| (name, entry.service.port)).collect();
    }
    let ports = &entry.service.ports;
    ports.iter().filter_map(|it| Some((read(&it.name, told)?, it.port))).collect()
}

fn health(entry: &Entry) -> Health {
    let critical = || entry.checks.iter().filter(|check| check.status == "critical");
    let is_maintenance = |id: &str| MAINTENANCE.iter().any(|word| id.starts_with(word));
    if critical().any(|check| !is_maintenance(&check.id)) {
        Health::Unhealthy
    } else if critical().next().is_some() {
        Health::Draining
    } else {
        Health::Healthy
    }
}

fn weight(entry: &Entry) -> u16 {
    let Weights { passing, warning } = entry.service.weights.unwrap_or_default();
    let warns = entry.checks.iter().any(|check| check.status == "warning");
    let weight = if warns { warning } else { passing };
    u16::try_from(weight.clamp(0, i64::from(u16::MAX))).unwrap_or(u16::MAX)
}

fn labels(entry: &Entry, told: &mut impl FnMut(&str)) -> Labels {
    let meta = entry.service.meta.iter().filter(|(key, _)| !keys::is_ours(key));
    let meta = meta.map(|(key, value)| (key.clone(), value.as_str()));
    let tags = entry.service.tags.iter().filter(|tag| !keys::is_ours(tag));
    let tags = tags.map(|tag| tag.split_once('=').unwrap_or((tag, "true")));
    let tags = tags.map(|(tag, value)| (format!("tag.{tag}"), value));
    // Labels are shown to people: a line break or an escape would write what they read.
    let fits = |text: &str| text.len() <= MAX_LABEL && !text.chars().any(char::is_control);
    let fits = |(key, value): &(String, &str)| !key.is_empty() && fits(key) && fits(value);
    let (mut kept, left_out): (Vec<(String, &str)>, Vec<_>) = meta.chain(tags).partition(fits);
    // The same ones whatever the order of tags.
    kept.sort();
    kept.dedup_by(|one, other| one.0 == other.0);
    if !left_out.is_empty() || kept.len() > MAX_LABELS {
        told(
            "some of its meta and tags are left out: at most 64 labels, keys and values of at most 256 bytes without control characters",
        );
    }
    kept.truncate(MAX_LABELS);
    kept.into_iter().collect()
}

fn locality(entry: &Entry, recorded: &Recorded, told: &mut impl FnMut(&str)) -> Locality {
    if let Some(locality) = &recorded.locality {
        return locality.clone();
    }
    let mut read = |text: &str, whose: &str| match Locality::new(text) {
        Ok(locality) => Some(locality),
        Err(error) => {
            let reason = error.reason;
            told(&format!("{whose} is {}, which is no locality: {reason}", names::quoted(text)));
            None
        }
    };
    let node = || format!("{} of its node", keys::LOCALITY);
    let of_node = entry.node.meta.get(keys::LOCALITY).and_then(|text| read(text, &node()));
    let place = entry.service.locality.as_ref().or(entry.node.locality.as_ref());
    let registered = place.filter(|place| !place.region.is_empty());
    let registered = registered
        .and_then(|it| read(&format!("{}/{}", it.region, it.zone), "what was registered as its place"));
    let datacenter = || Locality::new(&entry.node.datacenter).ok();
    of_node.or(registered).or_else(datacenter).unwrap_or_default()
}

/// The faults of one service: the first ones, and how many there are beside them.
#[derive(Default)]
struct Faults {
    told: Vec<OriginFault>,
    more: usize,
}

impl Faults {
    fn add(&mut self, place: &str, message: impl Into<String>) {
        if self.told.len() < MAX_FAULTS {
            self.told.push(names::fault(place, message));
        } else {
            self.more += 1;
        }
    }

    fn told(mut self) -> Vec<OriginFault> {
        if self.more > 0 {
            self.told.push(names::fault("", format!("and {} more faults", self.more)));
        }
        self.told
    }
}
