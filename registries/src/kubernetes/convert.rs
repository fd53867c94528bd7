//! From what the API server says to services and endpoints. Pure; nothing that is written there can make it panic, and
//! what means nothing is left out alone, with a fault that names it.

mod port;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use weft_core::{
    identity::{SpiffeId, TrustDomain},
    locality::Locality,
    name::{HostName, InstanceName, PortName, ServiceName},
    registry::OriginFault,
    resource::{Endpoint, FOR_ZONES, Health, Labels, Resource, Service, ServicePort},
};

use super::{
    compact::{Key, Node, Pod, Slice, SliceEndpoint, Target, Uid, namespace_of},
    objects::{self, Conditions, Record},
};
use crate::{
    address::{endpoint_address, read_ip},
    names,
    narrow::Narrow,
    speaking::{Instance, Recorded, Rules, keys},
    told,
};

/// More labels of an endpoint are left out.
const MAX_LABELS: usize = 64;
/// Longer keys and values of labels are left out, in bytes.
const MAX_LABEL: usize = 256;

/// All that an object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) resources: Vec<Resource>,
    pub(super) faults: Vec<OriginFault>,
}

/// How objects are read.
#[derive(Debug)]
pub(super) struct Conversion {
    pub(super) rules: Rules,
    pub(super) trust_domain: TrustDomain,
    /// `cluster.local`, as a rule.
    pub(super) cluster_domain: String,
    pub(super) narrow: Option<Narrow>,
    /// Where routes and policies may concern more than their namespace.
    pub(super) root_namespace: String,
}

/// A service, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceView {
    /// None when it is none for us; the faults say why.
    service: Option<Arc<Service>>,
    /// What is told of it: the same, but where it does not say how it is called.
    told: Option<Arc<Service>>,
    faults: Vec<OriginFault>,
    /// The address type of the slices that stand where an instance has addresses of two families.
    pub(super) family: &'static str,
    /// The service of this cluster that it is another name of.
    pub(super) alias: Option<Key>,
    /// Whether readiness is not to be looked at (`publishNotReadyAddresses`).
    disregards_readiness: bool,
    /// Whether an annotation of it was meant for the mesh, and nobody knows what it was to say.
    is_misspelt: bool,
}

/// A slice and what it is joined with.
pub(super) struct SliceView<'a> {
    pub(super) key: &'a Key,
    pub(super) slice: &'a Slice,
    pub(super) service: Option<&'a ServiceView>,
    pub(super) pod: &'a dyn Fn(Uid) -> Option<&'a Pod>,
    pub(super) node: &'a dyn Fn(&Key) -> Option<&'a Node>,
    /// Whether a slice of the service's preferred family has the pod too.
    pub(super) covered: &'a dyn Fn(Uid) -> bool,
    /// Whether a pod that is not known may be heard of any moment.
    pub(super) awaited: &'a dyn Fn(Uid) -> bool,
}

impl ServiceView {
    /// Whether it is a service for us.
    pub(super) fn is_taken_over(&self) -> bool {
        self.told.is_some()
    }

    /// The same; where it does not say how it is called, as it was called before. All else that it says counts.
    pub(super) fn after(mut self, before: Option<&Self>) -> Self {
        let unread = self.service.as_ref().filter(|_| self.told.is_none());
        let Some((service, known)) = unread.zip(before.and_then(|before| before.told.as_ref())) else {
            return self;
        };
        let mut told = Service::clone(service);
        // The annotation speaks for all ports, so that nothing that another one says can be believed.
        port::keep_protocols(&mut told.ports, &known.ports);
        self.told = Some(Arc::new(told));
        for fault in self.faults.iter_mut().filter(|fault| fault.keeps_last_good) {
            // It is known here what that is, and other names of it go on to change.
            fault.keeps_last_good = false;
            fault.message += ": what it said before stands";
        }
        self
    }

    pub(super) fn words(&self) -> Words {
        let resources = self.told.iter().cloned().map(Resource::Service).collect();
        Words { resources, faults: self.faults.clone() }
    }
}

impl Words {
    fn bounded(mut self) -> Self {
        self.faults = told::bounded(self.faults);
        self
    }
}

impl Conversion {
    /// Whether the service of that namespace and name is followed.
    pub(super) fn follows(&self, key: &Key) -> bool {
        let part = |narrow: &Narrow| {
            key.split_once('/').is_some_and(|(namespace, name)| narrow.includes(namespace, name))
        };
        self.narrow.as_ref().is_none_or(part)
    }

    /// Reads a service.
    pub(super) fn service(&self, key: &Key, service: &objects::Service) -> ServiceView {
        let mut faults = Vec::new();
        let external = Some("ExternalName") == service.spec.kind.as_deref();
        let alias = external.then(|| self.alias(key, service.spec.external_name.as_deref()?)).flatten();
        let read = match &alias {
            Some(_) => None,
            None => self.read_service(key, service, &mut faults),
        };
        let families = service.spec.ip_families.as_deref().unwrap_or_default();
        let family = if families.first().is_some_and(|family| family == "IPv6") { "IPv6" } else { "IPv4" };
        let bounded = Words { resources: Vec::new(), faults }.bounded();
        let disregards_readiness = service.spec.publish_not_ready_addresses.unwrap_or(false);
        let is_misspelt = service.metadata.annotations.as_ref().is_some_and(|it| !it.strays().is_empty());
        let is_unread = bounded.faults.iter().any(|fault| fault.keeps_last_good);
        let read = read.map(Arc::new);
        ServiceView {
            told: read.clone().filter(|_| !is_unread),
            service: read,
            faults: bounded.faults,
            family,
            alias,
            disregards_readiness,
            is_misspelt,
        }
    }

    fn read_service(
        &self,
        key: &Key,
        service: &objects::Service,
        faults: &mut Vec<OriginFault>,
    ) -> Option<Service> {
        let spec = &service.spec;
        if spec.kind.as_deref() == Some("ExternalName") {
            let host = names::quoted(spec.external_name.as_deref().unwrap_or_default());
            let message =
                format!("skipped: it is an ExternalName for {host}, a name outside and no endpoints");
            faults.push(names::fault(key, message));
            return None;
        }
        let meta = &service.metadata;
        let name =
            names::service_name(&meta.name, &meta.namespace).map_err(|fault| faults.push(fault)).ok()?;
        self.report_unsupported(key, spec, faults);
        let record = meta.annotations.clone().unwrap_or_default();
        let recorded = Recorded::read(&|key| record.get(key));
        let told = recorded.faults.into_iter().chain(record.strays().iter().cloned());
        faults.extend(told.map(|message| names::fault(key, message)));
        let says = record.get(keys::PROTOCOL).filter(|_| self.rules.declared_protocol(&name).is_none());
        if says.is_some() && recorded.protocol.is_none() {
            let fault = names::fault(key, "its annotation does not say how it is called");
            // The first: of many the last are left out.
            faults.insert(0, OriginFault { keeps_last_good: true, ..fault });
        }
        let mut ports: Vec<ServicePort> = Vec::new();
        for port in spec.ports.iter().flatten() {
            match port::read(port, &name, recorded.protocol, &self.rules) {
                Ok((port, fault))
                    if ports.iter().all(|it| it.name != port.name && it.number != port.number) =>
                {
                    faults.extend(fault.map(|message| names::fault(key, message)));
                    ports.push(port);
                }
                Ok((port, _)) => {
                    faults.push(names::fault(key, format!("port {} is there twice", port.number)));
                }
                Err(message) => faults.push(names::fault(key, message)),
            }
        }
        if ports.is_empty() {
            faults.push(names::fault(key, "skipped: it has no TCP port"));
            return None;
        }
        let hosts = self
            .hosts(&meta.name, &meta.namespace)
            .map_err(|message| faults.push(names::fault(key, message)));
        // `PreferClose` is the older word for the zone; the node is nearer than anything we tell apart.
        let wants_nearest = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        let nearest = spec.traffic_distribution.as_deref().is_some_and(|word| wants_nearest.contains(&word));
        Some(Service { name, ports, hosts: hosts.unwrap_or_default(), nearest, declared: true })
    }

    /// The service of this cluster whose own name an ExternalName is for.
    fn alias(&self, key: &Key, host: &str) -> Option<Key> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let (name, namespace) =
            host.strip_suffix(&format!(".svc.{}", self.cluster_domain))?.split_once('.')?;
        let target: Key = format!("{namespace}/{name}").into();
        (target != *key && !namespace.contains('.')).then_some(target)
    }

    /// What the services of an alias are called beside their own names.
    pub(super) fn alias_hosts(&self, alias: &Key) -> Vec<HostName> {
        let (namespace, name) = alias.split_once('/').unwrap_or_default();
        let mut hosts = self.hosts(name, namespace).unwrap_or_default();
        hosts.extend(HostName::new(&format!("{name}.{namespace}")));
        hosts
    }

    fn hosts(&self, name: &str, namespace: &str) -> Result<Vec<HostName>, String> {
        let short = format!("{name}.{namespace}.svc");
        let long = format!("{short}.{}", self.cluster_domain);
        let read = |text: &str| HostName::new(text).map_err(|error| error.to_string());
        Ok(vec![read(&long)?, read(&short)?])
    }

    /// Tells of what a service asks for that is not done.
    fn report_unsupported(&self, key: &Key, spec: &objects::ServiceSpec, faults: &mut Vec<OriginFault>) {
        let mut tell = |message: &str| faults.push(names::fault(key, message));
        if spec.internal_traffic_policy.as_deref() == Some("Local") {
            tell("internalTrafficPolicy Local is not applied: endpoints of other nodes are called too");
        }
        if spec.traffic_distribution.as_deref() == Some("PreferSameNode") {
            tell("trafficDistribution PreferSameNode is applied as PreferSameZone");
        }
        if spec.session_affinity.as_deref() == Some("ClientIP") {
            tell("sessionAffinity ClientIP is not applied: each request is balanced by itself");
        }
    }

    /// Reads a slice.
    pub(super) fn slice(&self, view: &SliceView<'_>) -> Words {
        let mut words = Words::default();
        if let Err(message) = self.read_slice(view, &mut words) {
            words.faults.push(names::fault(view.key, message));
        }
        words.bounded()
    }

    fn read_slice(&self, view: &SliceView<'_>, words: &mut Words) -> Result<(), String> {
        let slice = view.slice;
        let Some(service) = &slice.service else {
            return Err("it has no label kubernetes.io/service-name, so it belongs to no service".into());
        };
        // A service that could not be taken over has said why.
        let Some(read) = view.service else {
            return Err(format!("there is no service {}", names::quoted(service)));
        };
        let Some(service) = &read.service else { return Ok(()) };
        if !matches!(&*slice.address_type, "IPv4" | "IPv6") {
            let kind = names::quoted(&slice.address_type);
            return Err(format!("its addresses are of type {kind}: only IPv4 and IPv6 are called"));
        }
        let mut ports = Vec::new();
        for (name, number) in &slice.ports {
            match port::of_slice(name, *number, service) {
                Ok(port) => ports.push(port),
                Err(message) => words.faults.push(names::fault(view.key, message)),
            }
        }
        for endpoint in &slice.endpoints {
            if let Err(message) = self.read_endpoint(view, &service.name, &ports, endpoint, words) {
                words.faults.push(names::fault(view.key, message));
            }
        }
        Ok(())
    }

    fn read_endpoint(
        &self,
        view: &SliceView<'_>,
        service: &ServiceName,
        ports: &[(PortName, u64)],
        endpoint: &SliceEndpoint,
        words: &mut Words,
    ) -> Result<(), String> {
        let pod = match &endpoint.target {
            Target::Address => None,
            Target::Unclear(name) => {
                let name = names::quoted(name);
                return Err(format!(
                    "withheld: it points to pod {name} of no known uid or of another namespace"
                ));
            }
            Target::Pod(uid, _) if (view.covered)(*uid) => return Ok(()),
            Target::Pod(uid, name) => {
                let pod = (view.pod)(*uid);
                if pod.is_none() && (view.awaited)(*uid) {
                    return Ok(());
                }
                // A slice of one namespace borrows no pod of another by its uid.
                let pod = pod.filter(|pod| namespace_of(&pod.key) == namespace_of(view.key));
                let known = pod.ok_or_else(|| {
                    format!("withheld: pod {} of that uid is not known", names::quoted(name))
                })?;
                Some((known, name))
            }
        };
        let ip = read_ip(&endpoint.address)?;
        if ip.is_ipv4() != (*view.slice.address_type == *"IPv4") {
            return Err(format!("{ip} is not of its slice's family"));
        }
        let name = pod.map_or_else(|| ip.to_string(), |(_, name)| name.to_string());
        let place = format!("{} {name}", view.key);
        let mut joined = self.join(view, endpoint, pod.map(|(pod, _)| pod))?;
        let mut tell = |message| words.faults.push(names::fault(&place, message));
        std::mem::take(&mut joined.faults).into_iter().for_each(&mut tell);
        for port in ports {
            match self.endpoint(service, port, ip, endpoint, &joined) {
                Ok((endpoint, faults)) => {
                    words.resources.push(Resource::Endpoint(endpoint.into()));
                    faults.into_iter().for_each(&mut tell);
                }
                Err(message) => tell(message),
            }
        }
        Ok(())
    }

    /// What an endpoint's pod, or else its slice, and its node say of it.
    fn join<'a>(
        &self,
        view: &'a SliceView<'_>,
        endpoint: &SliceEndpoint,
        pod: Option<&'a Pod>,
    ) -> Result<Joined<'a>, String> {
        let mut faults = Vec::new();
        let record = match pod {
            Some(pod) => pod.record.as_deref(),
            None => Some(&view.slice.record),
        };
        let identity = match pod {
            None => None,
            Some(pod) => Some(self.identity(pod)?),
        };
        faults.extend(pod.and_then(|pod| pod.fault.as_deref()).map(str::to_owned));
        let recorded = Recorded::read(&|key| record.and_then(|record| record.get(key)));
        faults.extend(recorded.faults);
        let node = endpoint.site.node.as_ref().and_then(|name| (view.node)(name));
        let region = node.and_then(|node| node.region.as_deref()).unwrap_or_default();
        let zone = endpoint.site.zone.as_deref().or_else(|| node?.zone.as_deref()).unwrap_or_default();
        let locality = recorded.locality.map_or_else(|| Locality::new(&format!("{region}/{zone}")), Ok);
        let locality = locality.map_err(|error| faults.push(error.to_string())).unwrap_or_default();
        let labels = meant_for(view, endpoint, pod.map(|pod| pod.labels.clone()).unwrap_or_default());
        let account = pod.and_then(|pod| pod.account.as_deref());
        let weight = recorded.weight.unwrap_or(1);
        let health = match endpoint.health {
            Health::Unhealthy if view.service.is_some_and(|it| it.disregards_readiness) => {
                if endpoint.is_terminating { Health::Draining } else { Health::Healthy }
            }
            health => health,
        };
        let is_misspelt = view.service.is_some_and(|service| service.is_misspelt);
        let unread = is_misspelt.then_some("its service has an annotation that is no key of the mesh");
        Ok(Joined { record, unread, identity, account, labels, locality, weight, health, faults })
    }

    fn identity(&self, pod: &Pod) -> Result<SpiffeId, String> {
        let (namespace, name) = pod.key.split_once('/').unwrap_or_default();
        let told = |why: String| format!("withheld: pod {} has no identity: {why}", names::quoted(name));
        let account = pod.account.as_deref().ok_or_else(|| told("it has no service account".into()))?;
        SpiffeId::new(&self.trust_domain, namespace, account).map_err(|error| told(error.to_string()))
    }

    fn endpoint(
        &self,
        service: &ServiceName,
        (port_name, number): &(PortName, u64),
        ip: IpAddr,
        endpoint: &SliceEndpoint,
        joined: &Joined<'_>,
    ) -> Result<(Endpoint, Vec<String>), String> {
        let address = endpoint_address(ip, *number, self.rules.allow_loopback)?;
        // An address that is no pod may serve a port of one name at several numbers, each in a slice of its own.
        let instance = match &endpoint.target {
            Target::Pod(_, name) => InstanceName::new(name),
            _ => InstanceName::new(&address.to_string()),
        };
        let instance = instance.map_err(|error| error.to_string())?;
        let words = [
            ("account", joined.account.unwrap_or_default()),
            ("node", endpoint.site.node.as_deref().unwrap_or_default()),
        ];
        let known: Vec<_> = words.into_iter().filter(|(_, word)| !word.is_empty()).collect();
        let speaks = self.rules.speaks(
            Instance {
                service,
                address: &address,
                platform: joined.identity.as_ref(),
                record: &|key| joined.record.and_then(|record| record.get(key)),
                unread: joined.unread,
                strays: joined.record.map(Record::strays).unwrap_or_default(),
                words: &known,
            },
            Some(&self.trust_domain),
        );
        let endpoint = Endpoint {
            service: service.clone(),
            port_name: port_name.clone(),
            instance,
            address,
            mesh_address: speaks.mesh_address,
            identity: speaks.identity,
            said_by: speaks.said_by,
            tls: speaks.tls,
            labels: joined.labels.clone(),
            weight: joined.weight,
            locality: joined.locality.clone(),
            health: joined.health,
        };
        Ok((endpoint, speaks.faults))
    }
}

/// Labels with the zones that an endpoint is meant for. Those of a service that wants the nearest are meant for their own
/// zones, which callers know without.
fn meant_for(view: &SliceView<'_>, endpoint: &SliceEndpoint, labels: Labels) -> Labels {
    let service = view.service.and_then(|view| view.service.as_ref());
    match &endpoint.site.for_zones {
        Some(zones) if service.is_some_and(|service| !service.nearest) => {
            labels.iter().chain([(FOR_ZONES, &**zones)]).collect()
        }
        _ => labels,
    }
}

/// The zones that hints name, separated by commas; none where they name none that a label can hold.
pub(super) fn for_zones(hints: objects::Hints) -> Option<String> {
    let zones = hints.for_zones.unwrap_or_default();
    let zones = zones.iter().map(|zone| zone.name.as_str()).collect::<Vec<_>>().join(",");
    (!zones.is_empty() && zones.len() <= MAX_LABEL).then_some(zones)
}

/// What was found for an endpoint beside its slice's own words.
struct Joined<'a> {
    record: Option<&'a Record>,
    /// What could not be read that may name its mesh port.
    unread: Option<&'static str>,
    identity: Option<SpiffeId>,
    account: Option<&'a str>,
    labels: Labels,
    locality: Locality,
    weight: u16,
    health: Health,
    faults: Vec<String>,
}

/// What an endpoint's conditions mean. What is not said is taken as EndpointSlice v1 wants it: ready, serving as it is
/// ready, not terminating. Of a service that publishes addresses before they are ready, the API server's own slices say
/// that all are; what others say of it is not looked at.
pub(super) fn health(conditions: &Conditions) -> Health {
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    match (conditions.terminating.unwrap_or(false), ready, serving) {
        (false, true, _) => Health::Healthy,
        (true, true, _) | (true, _, true) => Health::Draining,
        (false, false, _) | (true, false, false) => Health::Unhealthy,
    }
}

/// Labels within bounds, and what is wrong with those that were left out.
pub(super) fn labels(labels: BTreeMap<String, String>) -> (Labels, Option<Box<str>>) {
    let all = labels.len();
    let fit = |text: &str| text.len() <= MAX_LABEL;
    let kept = labels.into_iter().filter(|(key, value)| fit(key) && fit(value)).take(MAX_LABELS);
    let labels: Labels = kept.collect();
    let left_out = all - labels.len();
    let fault = format!("{left_out} labels left out: at most {MAX_LABELS} of {MAX_LABEL} bytes are kept");
    (labels, (left_out > 0).then(|| fault.into()))
}
