//! Objects in few bytes: what of them matters, each text kept once.

use std::{collections::HashSet, sync::Arc};

use weft_core::resource::{Health, Labels};

use super::{
    convert,
    objects::{self, Record},
};
use crate::shared::{Shared, Text};

/// `namespace/name`, or the name of what belongs to no namespace.
pub(super) type Key = Text;

/// A pod's uid, which is a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Uid(u64, u64);

impl Uid {
    /// Reads the one way that the API server writes them.
    pub(super) fn read(text: &str) -> Option<Self> {
        let dashes = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let digits: String = text.bytes().filter(|byte| hexadecimal(*byte)).map(char::from).collect();
        if !dashes || digits.len() != 32 {
            return None;
        }
        let half = |part: &str| u64::from_str_radix(part, 16).ok();
        Some(Self(half(&digits[..16])?, half(&digits[16..])?))
    }
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SliceEndpoint {
    pub(super) address: Box<str>,
    pub(super) health: Health,
    pub(super) is_terminating: bool,
    pub(super) target: Target,
    pub(super) site: Arc<Site>,
}

/// Where an endpoint is, and for whom. Those of one node mostly have it in common.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub(super) node: Option<Key>,
    pub(super) zone: Option<Key>,
    /// The zones that it is meant for, separated by commas.
    pub(super) for_zones: Option<Key>,
}

/// What an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Something outside: all that is known of it is in the slice.
    Address,
    /// A pod of the slice's namespace.
    Pod(Uid, Box<str>),
    /// A pod by words that name none for certain.
    Unclear(Box<str>),
}

/// A slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) service: Option<Key>,
    pub(super) address_type: Key,
    /// Name and number of each TCP port; a number that is missing means all ports.
    pub(super) ports: Box<[(Key, Option<u64>)]>,
    pub(super) endpoints: Box<[SliceEndpoint]>,
    pub(super) record: Record,
}

/// What a pod is, as far as its endpoints are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) key: Key,
    /// Its service account.
    pub(super) account: Option<Key>,
    pub(super) labels: Labels,
    /// What is wrong with the labels that were left out.
    pub(super) fault: Option<Box<str>>,
    pub(super) record: Option<Arc<Record>>,
}

/// Where a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) region: Option<Key>,
    pub(super) zone: Option<Key>,
}

/// What an object is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Id {
    Named(Key),
    Pod(Uid),
}

impl SliceEndpoint {
    /// The pod that it is, where it names one for certain.
    pub(super) fn uid(&self) -> Option<Uid> {
        match self.target {
            Target::Pod(uid, _) => Some(uid),
            _ => None,
        }
    }
}

/// What an object is known by.
pub(super) fn key(meta: &objects::Meta) -> Key {
    if meta.namespace.is_empty() {
        meta.name.as_str().into()
    } else {
        format!("{}/{}", meta.namespace, meta.name).into()
    }
}

/// The namespace of what is known by a key; empty where it belongs to none.
pub(super) fn namespace_of(key: &str) -> &str {
    key.split_once('/').map_or("", |(namespace, _)| namespace)
}

/// The one copy of each text that many objects have, and of each set of labels.
#[derive(Debug, Default)]
pub(super) struct Texts {
    texts: Shared<str>,
    sites: Shared<Site>,
    labels: HashSet<Labels>,
}

impl Texts {
    /// The copy of a text.
    pub(super) fn text(&mut self, text: &str) -> Key {
        self.texts.copy_of(text)
    }

    fn some(&mut self, text: Option<String>) -> Option<Key> {
        text.filter(|text| !text.is_empty()).map(|text| self.text(&text))
    }

    fn labels(&mut self, labels: Labels) -> Labels {
        if let Some(known) = self.labels.get(&labels) {
            return known.clone();
        }
        self.labels.insert(labels.clone());
        labels
    }

    /// Lets go of what nothing uses any more.
    pub(super) fn retain<'a>(&mut self, pods: impl Iterator<Item = &'a Pod>) {
        self.sites.sweep();
        self.texts.sweep();
        self.labels = pods.map(|pod| pod.labels.clone()).collect();
    }

    pub(super) fn slice(&mut self, slice: objects::Slice) -> Slice {
        let namespace = slice.metadata.namespace;
        let labels = slice.metadata.labels.unwrap_or_default();
        let service = labels.get("kubernetes.io/service-name").filter(|name| !name.is_empty());
        let service = service.map(|name| self.text(&format!("{namespace}/{name}")));
        let ports = slice.ports.unwrap_or_default();
        let ports = ports.iter().filter(|port| port.is_tcp());
        let ports = ports.map(|port| (self.text(port.name()), port.port)).collect();
        let endpoints = slice.endpoints.unwrap_or_default().into_iter();
        let endpoints = endpoints.map(|endpoint| self.endpoint(&namespace, endpoint)).collect();
        let record = slice.metadata.annotations.unwrap_or_default();
        Slice { service, address_type: self.text(&slice.address_type), ports, endpoints, record }
    }

    fn endpoint(&mut self, namespace: &str, endpoint: objects::SliceEndpoint) -> SliceEndpoint {
        // Further addresses of one endpoint mean the same, and consumers use the first (EndpointSlice v1).
        let address = endpoint.addresses.unwrap_or_default().into_iter().next().unwrap_or_default();
        let conditions = endpoint.conditions.unwrap_or_default();
        let site = Site {
            node: self.some(endpoint.node_name),
            zone: self.some(endpoint.zone),
            for_zones: self.some(endpoint.hints.and_then(convert::for_zones)),
        };
        SliceEndpoint {
            address: address.into(),
            health: convert::health(&conditions),
            is_terminating: conditions.terminating.unwrap_or(false),
            target: endpoint.target_ref.map_or(Target::Address, |target| read_target(namespace, target)),
            site: self.sites.copy_of(site),
        }
    }

    pub(super) fn pod(&mut self, key: Key, pod: objects::Pod) -> Pod {
        let (labels, fault) = convert::labels(pod.metadata.labels.unwrap_or_default());
        Pod {
            key,
            account: self.some(pod.spec.service_account_name),
            labels: self.labels(labels),
            fault,
            record: pod.metadata.annotations.filter(|it| *it != Record::default()).map(Arc::new),
        }
    }

    pub(super) fn node(&mut self, node: objects::Node) -> Node {
        let mut labels = node.metadata.labels.unwrap_or_default();
        let mut label = |name: &str| self.some(labels.remove(name));
        Node { region: label("topology.kubernetes.io/region"), zone: label("topology.kubernetes.io/zone") }
    }
}

fn read_target(namespace: &str, target: objects::Target) -> Target {
    let name = target.name.unwrap_or_default();
    if target.kind.as_deref() != Some("Pod") {
        return Target::Address;
    }
    let elsewhere = target.namespace.is_some_and(|other| !other.is_empty() && other != namespace);
    match target.uid.as_deref().and_then(Uid::read) {
        Some(uid) if !elsewhere && !name.is_empty() => Target::Pod(uid, name.into()),
        _ => Target::Unclear(name.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_written_in_one_way() {
        let uid = Uid::read("0f8fad5b-d9cb-469f-a165-70867728950e").unwrap();
        assert_ne!(Some(uid), Uid::read("0f8fad5b-d9cb-469f-a165-70867728950f"));
        for other in [
            "",
            "0F8FAD5B-D9CB-469F-A165-70867728950E",
            "0f8fad5bd9cb469fa16570867728950e",
            "0f8fad5b-d9cb-469f-a165-70867728950",
            "0f8fad5b-d9cb-469f-a165-7086772895é",
            "0f8fad5b-d9cb-469f-a165--0867728950e",
        ] {
            assert_eq!(Uid::read(other), None, "{other}");
        }
    }
}
