//! The mesh's services as Eureka's clients know applications. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use weft_core::{
    merge::{ServiceEntry, Snapshot},
    name::{DEFAULT_NAMESPACE, PortName, RegistryName, ServiceName},
    resource::{Endpoint, Health},
};

use crate::eureka::objects::{Instance, Lease, Port};

/// The name of the port that is an instance's secure one.
const SECURE: &str = "https";

/// Listeners of the local agent that clients can reach, by the service that each leads to.
pub type Listeners = BTreeMap<ServiceName, SocketAddr>;

/// What the list is made from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What the registries say.
    pub snapshot: &'a Snapshot,
    /// The registries in the order of precedence: of two services of a name, that of the first is listed.
    pub order: &'a [RegistryName],
    /// Listeners that are listed instead of their services' instances.
    pub listeners: &'a Listeners,
}

/// Every instance by application and id.
pub(super) fn served(source: &Source<'_>) -> BTreeMap<(String, String), Instance> {
    let mut all = BTreeMap::new();
    let mut named: BTreeSet<ServiceName> = BTreeSet::new();
    for registry in in_order(source) {
        let Some(partition) = source.snapshot.partitions.get(registry) else { continue };
        for (name, entry) in partition.services.iter() {
            if entry.endpoints.is_empty() || entry.service.is_none() || !named.insert(name.clone()) {
                continue;
            }
            let instances = match source.listeners.get(name) {
                Some(listener) => vec![through(name, entry, *listener)],
                None => instances(name, entry),
            };
            all.extend(instances.into_iter().map(|it| ((it.app.clone(), it.id.clone()), it)));
        }
    }
    all
}

/// Those that are named, and then whatever else a relay brings, by name.
fn in_order<'a>(source: &Source<'a>) -> impl Iterator<Item = &'a RegistryName> {
    let order: &'a [RegistryName] = source.order;
    let others = source.snapshot.partitions.keys().filter(|name| !order.contains(name));
    order.iter().chain(others)
}

/// The only instance of a service that is reached through the agent.
fn through(name: &ServiceName, entry: &ServiceEntry, listener: SocketAddr) -> Instance {
    let takes = |endpoint: &Endpoint| matches!(endpoint.health, Health::Healthy | Health::Unconfirmed);
    let up = entry.endpoints.iter().any(|endpoint| takes(endpoint));
    let mut instance = blank(name, entry);
    instance.id = format!("weft:{}:{}", name, listener.port());
    instance.status = if up { "UP" } else { "DOWN" }.into();
    instance.port = Port { number: listener.port().into(), enabled: true };
    at(&mut instance, listener);
    instance
}

fn instances(name: &ServiceName, entry: &ServiceEntry) -> Vec<Instance> {
    let mut by_id: BTreeMap<&str, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in &entry.endpoints {
        by_id.entry(endpoint.instance.as_str()).or_default().push(endpoint);
    }
    by_id.into_iter().filter_map(|(id, endpoints)| instance(name, entry, id, &endpoints)).collect()
}

fn instance(name: &ServiceName, entry: &ServiceEntry, id: &str, endpoints: &[&Endpoint]) -> Option<Instance> {
    let secure = endpoints.iter().find(|endpoint| endpoint.port_name.as_str() == SECURE);
    let plain = plain_port(entry, endpoints);
    let first = plain.or(secure.copied())?;
    let mut instance = blank(name, entry);
    id.clone_into(&mut instance.id);
    instance.status = status(first.health).into();
    let port = |endpoint: Option<&Endpoint>, other: u64| match endpoint {
        Some(endpoint) => Port { number: endpoint.address.socket().port().into(), enabled: true },
        None => Port { number: other, enabled: false },
    };
    instance.port = port(plain, 80);
    instance.secure_port = port(secure.copied(), 443);
    at(&mut instance, first.address.socket());
    let labels = first.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    instance.metadata = labels.collect();
    let zone = first.locality.zone();
    if !zone.is_empty() {
        instance.metadata.entry("zone".into()).or_insert_with(|| zone.to_owned());
    }
    Some(instance)
}

/// Of several ports the one called `http`, else the first that speaks HTTP, else the first; never the secure one.
fn plain_port<'a>(entry: &ServiceEntry, endpoints: &[&'a Endpoint]) -> Option<&'a Endpoint> {
    let rank = |name: &PortName| {
        let ports = entry.service.iter().flat_map(|service| &service.ports);
        let speaks =
            ports.clone().find(|port| port.name == *name).is_some_and(|port| port.protocol.is_http());
        (name.as_str() != "http", !speaks, name.clone())
    };
    let plain = endpoints.iter().filter(|endpoint| endpoint.port_name.as_str() != SECURE);
    plain.min_by_key(|endpoint| rank(&endpoint.port_name)).copied()
}

fn status(health: Health) -> &'static str {
    match health {
        // Nobody said that it is gone, and a client of Eureka knows no rank.
        Health::Healthy | Health::Unconfirmed => "UP",
        Health::Draining => "OUT_OF_SERVICE",
        Health::Unhealthy => "DOWN",
    }
}

fn blank(name: &ServiceName, entry: &ServiceEntry) -> Instance {
    let short = match name.namespace() {
        DEFAULT_NAMESPACE => name.label(),
        _ => name.as_str(),
    };
    let hosts = entry.service.iter().flat_map(|service| &service.hosts).map(|host| host.as_str());
    let mut names: Vec<&str> = vec![short];
    names.extend(hosts.filter(|host| *host != short).take(15));
    let vip = names.join(",");
    Instance {
        app: short.to_uppercase(),
        overridden: "UNKNOWN".into(),
        secure_port: Port { number: 443, enabled: false },
        secure_vip: vip.clone(),
        vip,
        lease: Lease::default(),
        ..Instance::default()
    }
}

fn at(instance: &mut Instance, address: SocketAddr) {
    instance.ip = address.ip().to_string();
    instance.host.clone_from(&instance.ip);
}
