//! Nomad's objects as resources. Pure: an instance joined with its allocation and its node.
//!
//! What is wrong with one instance leaves that one out, with a fault that names it, and nothing else.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use weft_core::{
    identity::TrustDomain,
    locality::Locality,
    name::{InstanceName, OriginName, PortName, ServiceName},
    registry::OriginFault,
    resource::{Address, AppProtocol, Endpoint, Health, Labels, Resource, Service, ServicePort},
};

use super::{
    compact::{Copies, Instance},
    health::Known,
    objects::{Node, Registration},
};
use crate::{
    address, names,
    shared::Text,
    speaking::{self, Recorded, Rules, keys},
    told::{Words, share},
};

/// The most labels of an endpoint.
const MAX_LABELS: usize = 64;
/// The longest key or value of a label, in bytes.
const MAX_LABEL: usize = 256;
/// What to do instead where the `address` of a service is a name.
const NO_NAME: &str = "give the service an `address_mode`, or an `address` that is one";
/// Nomad's catalog means the address of Consul's agent by this, which knows none of these services.
const NO_ADDRESS: &str = "it has no address: Nomad knows none of a service whose `port` is a number. Name a port of the group's \
                          network there, or give the service an `address`";
/// What says that an instance is a canary which was not promoted yet.
const CANARY: &str = "canary";

/// What instances are joined with.
pub(super) struct Joined<'a> {
    pub(super) allocations: &'a BTreeMap<Text, Known>,
    /// Allocations that instances name and that there are none of any more.
    pub(super) lost: &'a BTreeSet<Text>,
    pub(super) nodes: &'a BTreeMap<Text, Node>,
    pub(super) region: &'a str,
    pub(super) rules: &'a Rules,
    pub(super) trust_domain: Option<&'a TrustDomain>,
}

/// The instances of a service, as far as they could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instances {
    pub(super) read: Box<[Instance]>,
    pub(super) faults: Vec<OriginFault>,
    /// Whether the answer as a whole made no sense: then what was known before stands.
    pub(super) is_garbled: bool,
}

impl Instances {
    pub(super) fn read(answer: Vec<serde_json::Value>, copies: &mut Copies) -> Self {
        let (mut read, mut faults) = (Vec::with_capacity(answer.len()), Vec::new());
        for value in answer {
            let id = value.get("ID").and_then(|id| id.as_str()).unwrap_or_default().to_owned();
            match serde_json::from_value::<Registration>(value) {
                Ok(registration) => read.push(copies.instance(&registration)),
                Err(error) => faults.push(names::fault(&id, error.to_string())),
            }
        }
        read.sort_by(|one, other| one.id.cmp(&other.id));
        Self { read: read.into(), faults, is_garbled: false }
    }

    /// An answer that made no sense.
    pub(super) fn garbled(name: &str, why: &str) -> Self {
        let fault = OriginFault { keeps_last_good: true, ..names::fault(name, why) };
        Self { faults: vec![fault], is_garbled: true, ..Self::default() }
    }
}

/// The origin that a service of Nomad is.
pub(super) fn origin(namespace: &str, name: &str) -> OriginName {
    names::origin_name(&[namespace, name])
}

/// All that a service says.
pub(super) fn convert(namespace: &str, name: &str, instances: &Instances, joined: &Joined<'_>) -> Words {
    let mut faults = instances.faults.clone();
    if instances.is_garbled {
        return Words::new(Vec::new(), faults);
    }
    let service = match names::service_name(name, namespace) {
        Ok(service) => service,
        Err(fault) => return Words::new(Vec::new(), vec![fault]),
    };
    let mut endpoints = Vec::with_capacity(instances.read.len());
    let mut spoken: Option<AppProtocol> = joined.rules.declared_protocol(&service);
    for instance in &instances.read {
        let place = |message: String| names::fault(&instance.id, message);
        let recorded = Recorded::read(&|key| record(instance, joined, key));
        spoken = agreed(spoken, recorded.protocol).unwrap_or_else(|other| {
            let message = format!("{} differs from what other instances say", keys::PROTOCOL);
            faults.push(place(message));
            other
        });
        match endpoint((name, &service), instance, &recorded, joined) {
            Ok((endpoint, wrong)) => {
                endpoints.push(endpoint);
                faults.extend(recorded.faults.into_iter().chain(wrong).map(place));
            }
            Err(wrong) => faults.extend(wrong.into_iter().chain(recorded.faults).map(place)),
        }
    }
    let protocol = spoken.unwrap_or_else(|| joined.rules.protocol(&service));
    let port = port_name(protocol);
    let ports = vec![ServicePort { name: port.clone(), number: 80, protocol }];
    let mut resources = vec![Resource::Service(
        Service { name: service, ports, hosts: Vec::new(), nearest: false, declared: false }.into(),
    )];
    resources.extend(endpoints.into_iter().map(|mut endpoint| {
        endpoint.port_name.clone_from(&port);
        Resource::Endpoint(endpoint.into())
    }));
    share(&mut resources, &mut None);
    Words::new(resources, faults)
}

/// Nomad's services have one port, which has no name.
fn port_name(protocol: AppProtocol) -> PortName {
    names::port_name(if protocol.is_http() { "" } else { "tcp" }).expect("a port's name")
}

/// What all instances say alike; the error holds what stands when they do not.
fn agreed(
    before: Option<AppProtocol>,
    now: Option<AppProtocol>,
) -> Result<Option<AppProtocol>, Option<AppProtocol>> {
    match (before, now) {
        (Some(before), Some(now)) if before != now => Err(Some(before)),
        (before, now) => Ok(before.or(now)),
    }
}

/// The value of a key of the mesh: a tag `key=value`, or, for what an operator says of a whole node, its meta.
fn record<'a>(instance: &'a Instance, joined: &Joined<'a>, key: &str) -> Option<&'a str> {
    let tag = instance.tags.iter().find_map(|tag| tag.strip_prefix(key)?.strip_prefix('='));
    let of_node = key == keys::MESH_PORT || key == keys::LOCALITY;
    tag.or_else(|| {
        let node = joined.nodes.get(&instance.place.node).filter(|_| of_node)?;
        node.meta.get(key).map(String::as_str)
    })
}

/// An endpoint, with what is wrong with it short of being none; the error says why it is none, and what else is wrong. Its
/// service is given as Nomad calls it and as the mesh does.
fn endpoint(
    (name, service): (&str, &ServiceName),
    instance: &Instance,
    recorded: &Recorded,
    joined: &Joined<'_>,
) -> Result<(Endpoint, Vec<String>), Vec<String>> {
    let found = address_of(instance, joined.rules);
    let nowhere = Address::from(([0, 0, 0, 0], 0));
    let place = &instance.place;
    let known = joined.allocations.get(&place.allocation);
    let node = joined.nodes.get(&place.node);
    let task = known.and_then(|known| known.task_of(name, instance));
    let words = [
        ("job", Some(&*place.job)),
        ("datacenter", Some(&*place.datacenter)),
        ("group", known.map(|known| &*known.allocation.group)),
        ("node", node.map(|node| node.name.as_str())),
        ("task", task),
    ];
    let words: Vec<(&str, &str)> =
        words.iter().filter_map(|(word, value)| Some((*word, (*value)?))).collect();
    let speaker = speaking::Instance {
        service,
        // Of one that has none, what else is wrong is told all the same.
        address: found.as_ref().unwrap_or(&nowhere),
        platform: None,
        record: &|key| record(instance, joined, key),
        unread: node.is_none().then_some("its node cannot be read"),
        strays: &strays(&instance.tags, node),
        words: &words,
    };
    let speaks = joined.rules.speaks(speaker, joined.trust_domain);
    let mut faults = speaks.faults;
    let named = found.and_then(|address| Ok((address, instance_name(&instance.id)?)));
    let (address, name_of_it) = match named {
        Ok(named) => named,
        Err(why) => {
            faults.insert(0, why);
            return Err(faults);
        }
    };
    let canary = known.is_some_and(|known| known.allocation.deployment.is_some_and(|it| it.canary));
    let locality = recorded.locality.clone().map_or_else(|| locality(&place.datacenter, node, joined), Ok);
    let endpoint = Endpoint {
        service: service.clone(),
        port_name: port_name(AppProtocol::Http),
        instance: name_of_it,
        mesh_address: speaks.mesh_address,
        identity: speaks.identity,
        said_by: speaks.said_by,
        tls: speaks.tls,
        labels: labels(&instance.tags, canary, &mut faults),
        weight: recorded.weight.unwrap_or(1),
        locality: locality.unwrap_or_else(|fault| {
            faults.push(fault);
            Locality::default()
        }),
        health: match known {
            Some(known) => known.health(name, instance),
            // The catalog outlives what it tells of: nothing can run there.
            None if joined.lost.contains(&place.allocation) => Health::Unhealthy,
            None => Health::Healthy,
        },
        address,
    };
    Ok((endpoint, faults))
}

fn address_of(instance: &Instance, rules: &Rules) -> Result<Address, String> {
    if instance.address.is_empty() {
        return Err(NO_ADDRESS.into());
    }
    let ip = address::endpoint_ip(&instance.address, NO_NAME)?;
    let port = u64::try_from(instance.port).unwrap_or_default();
    address::endpoint_address(ip, port, rules.allow_loopback)
}

/// What is meant for the mesh, by a tag or by the meta of the node, and is not spelt as it is read.
fn strays(tags: &[Text], node: Option<&Node>) -> Vec<String> {
    let keys_of_tags = tags.iter().filter_map(|tag| Some(tag.split_once('=')?.0));
    let mut strays = keys::strays(keys_of_tags);
    if let Some(tag) = tags.iter().find(|tag| !tag.contains('=') && keys::is_ours(tag)) {
        strays.push(format!("the tag {} has no = and no value", names::quoted(tag)));
    }
    let of_node = node.into_iter().flat_map(|node| node.meta.keys().map(String::as_str));
    strays.extend(keys::strays(of_node).into_iter().map(|stray| format!("of its node: {stray}")));
    strays
}

fn instance_name(id: &str) -> Result<InstanceName, String> {
    if id.is_empty() {
        return Err("it has no ID".into());
    }
    // Groups may have long names; what is no name here is hashed, and always to the same.
    InstanceName::new(id)
        .or_else(|_| InstanceName::new(names::origin_name(&[id]).as_str()))
        .map_err(|error| error.to_string())
}

/// Region, datacenter and the node's class.
fn locality(datacenter: &str, node: Option<&Node>, joined: &Joined<'_>) -> Result<Locality, String> {
    let class = node.map(|node| node.node_class.as_str()).unwrap_or_default();
    let parts = [joined.region, datacenter, class];
    if parts.iter().any(|part| part.contains('/')) {
        return Err("its region, datacenter or node class has a slash in it: it runs nowhere known".into());
    }
    Locality::new(&parts.join("/")).map_err(|error| format!("it runs nowhere known: {error}"))
}

/// Tags as labels. `key=value` is metadata, for which Nomad has no other place; any other is the label `tag.TAG` with the
/// value `true`, as tags are in catalogs that have both. The mesh's own keys are none.
fn labels(tags: &[Text], canary: bool, faults: &mut Vec<String>) -> Labels {
    let mut labels: BTreeMap<Cow<'_, str>, &str> = BTreeMap::new();
    if canary {
        labels.insert(CANARY.into(), "true");
    }
    let mut left_out = 0_usize;
    for tag in tags.iter().filter(|tag| !keys::is_ours(tag.split_once('=').map_or(&**tag, |it| it.0))) {
        let (key, value) = match tag.split_once('=') {
            Some((key, value)) => (Cow::from(key), value),
            None if tag.is_empty() => (Cow::from(""), ""),
            None => (format!("tag.{tag}").into(), "true"),
        };
        let fits = |text: &str| text.len() <= MAX_LABEL && !text.chars().any(char::is_control);
        let has_room = labels.len() < MAX_LABELS || labels.contains_key(&key);
        if key.is_empty() || !fits(&key) || !fits(value) || !has_room {
            left_out += 1;
            continue;
        }
        labels.insert(key, value);
    }
    if left_out > 0 {
        faults.push(format!(
            "{left_out} of its tags are no labels: at most {MAX_LABELS}, of at most {MAX_LABEL} bytes on either side of \
             the =, without control characters"
        ));
    }
    labels.into_iter().map(|(key, value)| (key.into_owned(), value)).collect()
}

#[cfg(test)]
mod tests;
