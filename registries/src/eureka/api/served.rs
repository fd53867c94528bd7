//! The mesh's services as Eureka's clients know applications. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    time::SystemTime,
};

use weft_core::{
    compile::{Join, Proved},
    merge::{ServiceEntry, Snapshot},
    name::{DEFAULT_NAMESPACE, HostName, PortName, RegistryName, ServiceKey, ServiceName},
    resource::{Endpoint, Health},
};

use super::registrations::Key;
use crate::eureka::{
    convert::{HOST_NAME, SECURE_VIP, VIP},
    objects::{Instance, Lease, Port},
};

/// The name of the port that is an instance's secure one.
const SECURE: &str = "https";

/// Listeners of the local agent that clients can reach, by the service that each leads to.
pub type Listeners = BTreeMap<ServiceName, SocketAddr>;

/// The service that a host name leads to, if any.
#[derive(Clone, Copy)]
pub struct Leads<'a>(pub &'a (dyn Fn(&str) -> Option<ServiceKey> + Sync));

impl fmt::Debug for Leads<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leads")
    }
}

/// What the list is made from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What the registries say.
    pub snapshot: &'a Snapshot,
    /// The registries in the order of precedence: of two services of a name, that of the first is listed.
    pub order: &'a [RegistryName],
    /// Which services of different registries are one.
    pub joins: &'a [Join],
    /// To whom each host name leads: a service is not listed under one that is another's.
    pub leads: Leads<'a>,
    /// The registries that are Eureka's own.
    pub eureka: &'a BTreeSet<RegistryName>,
    /// Listeners that are listed instead of their services' instances.
    pub listeners: &'a Listeners,
    /// Whether a registry was never heard, and is waited for no more: then an empty list says nothing.
    pub lacks: bool,
}

impl Source<'_> {
    /// When each of Eureka's registries was heard last, in milliseconds since 1970.
    pub(super) fn heard(&self) -> BTreeMap<RegistryName, u64> {
        let mut heard = BTreeMap::new();
        for (scope, state) in self.snapshot.scopes.iter().filter(|(it, _)| self.eureka.contains(&it.registry))
        {
            let at = state.committed_at.unwrap_or(SystemTime::UNIX_EPOCH);
            let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
            let at = u64::try_from(at).unwrap_or(u64::MAX);
            heard
                .entry(scope.registry.clone())
                .and_modify(|before: &mut u64| *before = at.min(*before))
                .or_insert(at);
        }
        heard
    }
}

/// Who left as far as the API knows.
#[derive(Debug)]
pub(super) struct Left<'a> {
    /// Until when each was known to be there, in milliseconds since 1970.
    pub(super) until: &'a BTreeMap<Key, u64>,
    /// When each of Eureka's registries was heard last.
    pub(super) heard: &'a BTreeMap<RegistryName, u64>,
}

impl Left<'_> {
    /// Whether an instance left since its registry was heard, or is not confirmed by it any more.
    fn has(&self, registry: &RegistryName, key: &Key, is_confirmed: bool) -> bool {
        let Some((until, heard)) = self.until.get(key).zip(self.heard.get(registry)) else { return false };
        heard <= until || !is_confirmed
    }
}

/// What the registries say.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// Every instance by application and id.
    pub(super) instances: BTreeMap<Key, Instance>,
    /// Those that are left out because they left.
    pub(super) left: BTreeSet<Key>,
    /// The names, in upper case, of applications that another registry than Eureka speaks of: whoever registers without
    /// proof takes none of them.
    pub(super) taken: BTreeSet<String>,
}

pub(super) fn served(source: &Source<'_>, left: &Left<'_>) -> Served {
    let mut served = Served::default();
    let mut named: BTreeSet<&ServiceName> = BTreeSet::new();
    for registry in in_order(source) {
        let Some(partition) = source.snapshot.partitions.get(registry) else { continue };
        // Whose last instance is gone keeps its name; of a joined service the others go on.
        let keeping = || partition.departed.iter().filter(|(_, departed)| !departed.is_withdrawn);
        let alone = keeping().map(|(name, _)| name).filter(|name| join(source, registry, name).is_none());
        named.extend(alone);
        for (_, departed) in keeping().filter(|_| !source.eureka.contains(registry)) {
            let entry = ServiceEntry { service: Some(departed.service.clone()), ..ServiceEntry::default() };
            let all = Speaking { registry, entry: &entry, endpoints: Vec::new() };
            served.taken.extend(names(&Naming::new(source, &departed.service.name, &all).blank()));
        }
        for (name, entry) in partition.services.iter().filter(|(_, entry)| entry.service.is_some()) {
            let members = members(source, registry, name, entry);
            if members.iter().any(|(registry, _)| !source.eureka.contains(*registry)) {
                let all = Speaking { registry, entry, endpoints: Vec::new() };
                served.taken.extend(names(&Naming::new(source, name, &all).blank()));
            }
            let speaking = speaking(source, name, &members);
            let Some(first) = speaking.first().filter(|_| !named.contains(name)) else { continue };
            named.insert(name);
            let naming = Naming::new(source, name, first);
            let instances = match source.listeners.get(name) {
                Some(listener) => vec![through(name, naming.blank(), &speaking, *listener)],
                None => instances(source, &naming, &speaking, left, &mut served.left),
            };
            for instance in instances {
                served.instances.entry((instance.app.clone(), instance.id.clone())).or_insert(instance);
            }
        }
    }
    served
}

/// The names in upper case by which clients find an instance.
pub(super) fn names(instance: &Instance) -> impl Iterator<Item = String> {
    let addresses = instance.vip.split(',').chain(instance.secure_vip.split(','));
    let all = std::iter::once(instance.app.as_str()).chain(addresses.map(str::trim));
    all.filter(|name| !name.is_empty()).map(str::to_uppercase)
}

type Member<'a> = (&'a RegistryName, &'a ServiceEntry);

/// All that is one service with this, itself included, most authoritative first.
fn members<'a>(
    source: &Source<'a>,
    registry: &'a RegistryName,
    name: &ServiceName,
    entry: &'a ServiceEntry,
) -> Vec<Member<'a>> {
    let Some(join) = join(source, registry, name) else { return vec![(registry, entry)] };
    let member = |registry: &'a RegistryName| {
        let entry = source.snapshot.partitions.get(registry)?.services.get(name)?;
        entry.service.is_some().then_some((registry, &**entry))
    };
    join.registries.iter().filter_map(member).collect()
}

fn join<'a>(source: &Source<'a>, registry: &RegistryName, name: &ServiceName) -> Option<&'a Join> {
    let joins: &'a [Join] = source.joins;
    joins.iter().find(|join| join.covers(registry, name))
}

/// What counts of one registry's part of a service.
struct Speaking<'a> {
    registry: &'a RegistryName,
    entry: &'a ServiceEntry,
    endpoints: Vec<&'a Endpoint>,
}

/// Those of them that have endpoints: of a joined service only those that prove what its measure does.
fn speaking<'a>(source: &Source<'a>, name: &ServiceName, members: &[Member<'a>]) -> Vec<Speaking<'a>> {
    let of = |registry: &RegistryName| ServiceKey { registry: registry.clone(), service: name.clone() };
    let joined = members.first().and_then(|(registry, _)| join(source, registry, name));
    let measure = joined.and_then(|join| {
        Proved::measure(join.registries.iter().map(|registry| {
            let member = members.iter().find(|(member, _)| *member == registry);
            let endpoints = member.map_or(&[][..], |(_, entry)| &entry.endpoints);
            (registry, endpoints, source.snapshot.departed(&of(registry)).map(|departed| &**departed))
        }))
    });
    let found = members.iter().map(|(registry, entry)| {
        let others = measure.as_ref().filter(|(first, _)| first != registry);
        let admitted = |endpoint: &&Endpoint| others.is_none_or(|(_, proved)| proved.admits(endpoint));
        let endpoints = entry.endpoints.iter().map(|it| &**it).filter(admitted).collect();
        Speaking { registry, entry, endpoints }
    });
    found.filter(|speaking| !speaking.endpoints.is_empty()).collect()
}

/// Those that are named, and then whatever else a relay brings, by name.
fn in_order<'a>(source: &Source<'a>) -> impl Iterator<Item = &'a RegistryName> {
    let order: &'a [RegistryName] = source.order;
    let others = source.snapshot.partitions.keys().filter(|name| !order.contains(name));
    order.iter().chain(others)
}

/// The only instance of a service that is reached through the agent.
fn through(
    name: &ServiceName,
    mut instance: Instance,
    speaking: &[Speaking<'_>],
    listener: SocketAddr,
) -> Instance {
    let takes = |endpoint: &Endpoint| matches!(endpoint.health, Health::Healthy | Health::Unconfirmed);
    let up = speaking.iter().flat_map(|it| &it.endpoints).any(|endpoint| takes(endpoint));
    instance.id = format!("weft:{}:{}", name, listener.port());
    instance.status = if up { "UP" } else { "DOWN" }.into();
    instance.port = Port { number: listener.port().into(), enabled: true };
    instance.secure_vip.clear();
    at(&mut instance, listener);
    instance
}

/// Of all that speak, without those that left, which are noted in `gone`. An address that several tell of is one instance.
fn instances(
    source: &Source<'_>,
    naming: &Naming<'_>,
    speaking: &[Speaking<'_>],
    left: &Left<'_>,
    gone: &mut BTreeSet<Key>,
) -> Vec<Instance> {
    let blank = naming.blank();
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for Speaking { registry, entry, endpoints } in speaking {
        let mut by_id: BTreeMap<&str, Vec<&Endpoint>> = BTreeMap::new();
        for endpoint in endpoints {
            by_id.entry(endpoint.instance.as_str()).or_default().push(endpoint);
        }
        let known: BTreeSet<(String, u64)> = seen.clone();
        let is_missing = source.snapshot.unconfirmed_since(registry, entry).is_some();
        for (id, endpoints) in by_id {
            let key = (blank.app.clone(), id.to_owned());
            let is_unsure = || endpoints.iter().all(|endpoint| endpoint.health == Health::Unconfirmed);
            if left.has(registry, &key, !is_missing && !is_unsure()) {
                gone.insert(key);
                continue;
            }
            let of_eureka = source.eureka.contains(*registry).then_some(naming);
            let found = instance(blank.clone(), entry, id, &endpoints, of_eureka);
            let place = |it: &Instance| {
                (it.ip.clone(), if it.port.enabled { it.port } else { it.secure_port }.number)
            };
            let Some(instance) = found.filter(|it| !known.contains(&place(it))) else { continue };
            seen.insert(place(&instance));
            all.push(instance);
        }
    }
    all
}

/// `of_eureka`: how an instance of Eureka is named. Elsewhere the labels that keep that are what anybody may call a label.
fn instance(
    mut instance: Instance,
    entry: &ServiceEntry,
    id: &str,
    endpoints: &[&Endpoint],
    of_eureka: Option<&Naming<'_>>,
) -> Option<Instance> {
    let secure = endpoints.iter().find(|endpoint| endpoint.port_name.as_str() == SECURE);
    let plain = plain_port(entry, endpoints);
    let first = plain.or(secure.copied())?;
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
    let [host, vip, secure_vip] = [HOST_NAME, VIP, SECURE_VIP].map(|key| instance.metadata.remove(key));
    if secure.is_none() {
        instance.secure_vip.clear();
    }
    if let Some(naming) = of_eureka {
        instance.host = host.filter(|_| secure.is_some()).unwrap_or(instance.host);
        instance.vip = naming.addresses(instance.vip, vip.as_deref());
        instance.secure_vip = naming.addresses(instance.secure_vip, secure_vip.as_deref());
    }
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

/// By which names the instances of a service are found.
struct Naming<'a> {
    leads: Leads<'a>,
    /// Who the service is.
    key: ServiceKey,
    is_joined: bool,
    app: String,
    /// The service's own, which all its instances have.
    names: String,
}

impl<'a> Naming<'a> {
    fn new(source: &Source<'a>, name: &ServiceName, named: &Speaking<'_>) -> Self {
        let short = match name.namespace() {
            DEFAULT_NAMESPACE => name.label(),
            _ => name.as_str(),
        };
        let join = join(source, named.registry, name);
        let first = join.and_then(|join| join.registries.first());
        let key = ServiceKey { registry: first.unwrap_or(named.registry).clone(), service: name.clone() };
        let mut naming = Self {
            leads: source.leads,
            key,
            is_joined: join.is_some(),
            app: short.to_uppercase(),
            names: String::new(),
        };
        let hosts = named.entry.service.iter().flat_map(|service| &service.hosts).map(HostName::as_str);
        let mut names: Vec<&str> = vec![short];
        names.extend(hosts.filter(|host| *host != short && naming.is_own(host)).take(15));
        naming.names = names.join(",");
        naming
    }

    /// Whether a host name leads to no other service.
    fn is_own(&self, host: &str) -> bool {
        self.leads.0(host).is_none_or(|leads| leads == self.key)
    }

    /// An instance of nothing but its names.
    fn blank(&self) -> Instance {
        Instance {
            app: self.app.clone(),
            overridden: "UNKNOWN".into(),
            secure_port: Port { number: 443, enabled: false },
            vip: self.names.clone(),
            secure_vip: self.names.clone(),
            lease: Lease::default(),
            ..Instance::default()
        }
    }

    /// The virtual addresses of an instance of Eureka: `own`, which it has there, and those of its `service` where that is
    /// more than Eureka's application.
    fn addresses(&self, service: String, own: Option<&str>) -> String {
        let is_own = |name: &&str| {
            let host = name.split(':').next().unwrap_or_default().to_ascii_lowercase();
            self.is_own(&host)
        };
        let own = own.unwrap_or_default().split(',').filter(|name| !name.is_empty()).filter(is_own);
        let mut names: Vec<&str> = Vec::new();
        let joined = if self.is_joined { service.split(',') } else { "".split(',') };
        for name in joined.filter(|name| !name.is_empty()).chain(own) {
            if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                names.push(name);
            }
        }
        names.join(",")
    }
}

fn at(instance: &mut Instance, address: SocketAddr) {
    instance.ip = address.ip().to_string();
    instance.host.clone_from(&instance.ip);
}
