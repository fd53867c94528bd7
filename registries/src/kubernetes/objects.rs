//! The fields that we use of the API server's objects. All else is skipped as it is read: a pod's JSON has ten thousand
//! bytes, of which a hundred matter here.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::compact::{Id, Uid};
use crate::speaking::keys;

/// One object of a kind that is followed.
#[derive(Debug)]
pub(super) enum Object {
    Service(Service),
    Slice(Slice),
    Pod(Pod),
    Node(Node),
    /// A route or a policy of ours.
    Configured(Kind, Configured),
}

/// What is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Services,
    Slices,
    Pods,
    Nodes,
    Routes,
    Policies,
}

/// The API group of our own objects.
const OWN_GROUP: &str = "weft.dev";

impl Kind {
    /// All of them.
    pub(super) const ALL: [Self; 6] =
        [Self::Services, Self::Slices, Self::Pods, Self::Nodes, Self::Routes, Self::Policies];

    /// Whether it is of ours.
    pub(super) fn is_configuration(self) -> bool {
        matches!(self, Self::Routes | Self::Policies)
    }

    /// Its plural name.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Slices => "endpointslices",
            Self::Pods => "pods",
            Self::Nodes => "nodes",
            Self::Routes => "meshroutes",
            Self::Policies => "meshpolicies",
        }
    }

    /// Its API group; empty for the core.
    pub(super) fn group(self) -> &'static str {
        match self {
            Self::Slices => "discovery.k8s.io",
            Self::Routes | Self::Policies => OWN_GROUP,
            Self::Services | Self::Pods | Self::Nodes => "",
        }
    }

    /// As roles and messages of the API server call it: `endpointslices.discovery.k8s.io`.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Slices => "endpointslices.discovery.k8s.io",
            Self::Routes => "meshroutes.weft.dev",
            Self::Policies => "meshpolicies.weft.dev",
            Self::Services | Self::Pods | Self::Nodes => self.plural(),
        }
    }

    /// The path of all of them, or of those in a namespace.
    pub(super) fn path(self, namespace: Option<&str>) -> String {
        let base = match self {
            Self::Slices => "/apis/discovery.k8s.io/v1",
            Self::Routes | Self::Policies => "/apis/weft.dev/v1alpha1",
            Self::Services | Self::Pods | Self::Nodes => "/api/v1",
        };
        match namespace {
            Some(namespace) => format!("{base}/namespaces/{namespace}/{}", self.plural()),
            None => format!("{base}/{}", self.plural()),
        }
    }

    /// Reads an object's JSON.
    ///
    /// # Errors
    /// Names the object, as far as that can be read, and says what is wrong with it.
    pub(super) fn read(self, json: &RawValue) -> Result<Object, Unreadable> {
        let json = json.get();
        let object = match self {
            Self::Services => serde_json::from_str(json).map(Object::Service),
            Self::Slices => serde_json::from_str(json).map(Object::Slice),
            Self::Pods => serde_json::from_str(json).map(Object::Pod),
            Self::Nodes => serde_json::from_str(json).map(Object::Node),
            Self::Routes | Self::Policies => {
                serde_json::from_str(json).map(|object| Object::Configured(self, object))
            }
        };
        let object = object.map_err(|error| self.unreadable(json, error.to_string()))?;
        let meta = object.meta();
        let named = !meta.name.is_empty() && !meta.name.contains('/') && !meta.namespace.contains('/');
        let placed = (self == Self::Nodes) == meta.namespace.is_empty();
        if named && placed { Ok(object) } else { Err(self.unreadable(json, "it has no name".into())) }
    }

    fn unreadable(self, json: &str, why: String) -> Unreadable {
        let named: Named = serde_json::from_str(json).unwrap_or_default();
        let Named { metadata: Name { name, namespace, uid } } = named;
        let known_as = match self {
            Self::Pods => Uid::read(&uid).map(Id::Pod),
            Self::Nodes => Some(Id::Named(name.as_str().into())),
            _ => Some(Id::Named(format!("{namespace}/{name}").into())),
        };
        // An error may repeat all of what is wrong.
        let why = why.chars().take(200).flat_map(char::escape_debug).collect();
        Unreadable { name: format!("{}/{namespace}/{name}", self.plural()), known_as, why }
    }
}

/// What is asked for, for messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) kind: Kind,
    /// None for all of them.
    pub(super) namespace: Option<String>,
    /// The only object of the namespace that is asked for; none for all that are there.
    pub(super) name: Option<String>,
}

impl Place {
    /// All of a kind, of a namespace where one is named.
    pub(super) fn all(kind: Kind, namespace: Option<&str>) -> Self {
        Self { kind, namespace: namespace.map(str::to_owned), name: None }
    }

    /// Whether the object of that key is of those that are asked for.
    pub(super) fn includes(&self, key: &str) -> bool {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
    }

    /// What is asked for, as roles call it, and by its name where it is one object: `services web`.
    pub(super) fn resource(&self) -> String {
        let resource = self.kind.resource();
        self.name.as_ref().map_or_else(|| resource.to_owned(), |name| format!("{resource} {name}"))
    }

    /// `list endpointslices.discovery.k8s.io in all namespaces`.
    pub(super) fn describe(&self, verb: &str) -> String {
        let resource = self.resource();
        match (&self.namespace, self.kind) {
            (_, Kind::Nodes) => format!("{verb} {resource}"),
            (Some(namespace), _) => format!("{verb} {resource} in namespace {namespace}"),
            (None, _) => format!("{verb} {resource} in all namespaces"),
        }
    }
}

/// An object that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// Its kind, namespace and name, as far as they could be read.
    pub(super) name: String,
    /// What it may be known by already: what it said before still stands.
    pub(super) known_as: Option<Id>,
    /// What is wrong.
    pub(super) why: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    metadata: Name,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Name {
    name: String,
    namespace: String,
    uid: String,
}

impl Object {
    pub(super) fn meta(&self) -> &Meta {
        match self {
            Self::Service(Service { metadata, .. })
            | Self::Slice(Slice { metadata, .. })
            | Self::Pod(Pod { metadata, .. })
            | Self::Node(Node { metadata, .. })
            | Self::Configured(_, Configured { metadata, .. }) => metadata,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Services,
            Self::Slice(_) => Kind::Slices,
            Self::Pod(_) => Kind::Pods,
            Self::Node(_) => Kind::Nodes,
            Self::Configured(kind, _) => *kind,
        }
    }
}

/// What every object has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Meta {
    pub(super) name: String,
    /// Empty for what belongs to no namespace.
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
    /// Counts the changes of `spec`.
    pub(super) generation: i64,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) annotations: Option<Record>,
}

/// Those annotations that steer the mesh ([`keys`]), and no others: one alone may have 256 KiB. What is wrong with those
/// that were meant to is kept beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Record {
    known: Box<[(&'static str, Box<str>)]>,
    strays: Box<[String]>,
}

impl Record {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.known.iter().find(|(known, _)| *known == key).map(|(_, value)| &**value)
    }

    /// What is wrong with its keys ([`keys::strays`]).
    pub(super) fn strays(&self) -> &[String] {
        &self.strays
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RecordVisitor)
    }
}

struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Record, M::Error> {
        let (mut read, mut strays) = (Vec::new(), Vec::new());
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match keys::ALL.into_iter().find(|known| **known == *key) {
                Some(known) => read.push((known, map.next_value::<String>()?.into())),
                None => {
                    map.next_value::<IgnoredAny>()?;
                    strays.extend(Some(key).filter(|key| keys::is_ours(key)));
                }
            }
        }
        let strays = keys::strays(strays.iter().map(|key| &**key));
        Ok(Record { known: read.into(), strays: strays.into() })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub(super) metadata: Meta,
    pub(super) spec: ServiceSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) ports: Option<Vec<Port>>,
    pub(super) ip_families: Option<Vec<String>>,
    pub(super) external_name: Option<String>,
    pub(super) traffic_distribution: Option<String>,
    pub(super) internal_traffic_policy: Option<String>,
    pub(super) session_affinity: Option<String>,
    pub(super) publish_not_ready_addresses: Option<bool>,
}

/// A port of a service or of a slice.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Port {
    pub(super) name: Option<String>,
    /// TCP where nothing is said.
    pub(super) protocol: Option<String>,
    pub(super) port: Option<u64>,
    pub(super) app_protocol: Option<String>,
}

impl Port {
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Slice {
    pub(super) metadata: Meta,
    pub(super) address_type: String,
    pub(super) endpoints: Option<Vec<SliceEndpoint>>,
    pub(super) ports: Option<Vec<Port>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SliceEndpoint {
    pub(super) addresses: Option<Vec<String>>,
    pub(super) conditions: Option<Conditions>,
    pub(super) target_ref: Option<Target>,
    pub(super) node_name: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) hints: Option<Hints>,
}

/// For whom an endpoint is meant. Hints for nodes (`forNodes`) come with those for zones and are not read: a node is nearer
/// than anything that we tell apart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Hints {
    pub(super) for_zones: Option<Vec<ForZone>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ForZone {
    pub(super) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Target {
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) uid: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Meta,
    pub(super) spec: PodSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) service_account_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) metadata: Meta,
}

/// A route or a policy of ours. What its `spec` means is another module's.
#[derive(Debug, Deserialize)]
pub(super) struct Configured {
    pub(super) metadata: Meta,
    pub(super) spec: Box<RawValue>,
    #[serde(default)]
    pub(super) status: ConfiguredStatus,
}

/// What was told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct ConfiguredStatus {
    pub(super) conditions: Option<Vec<Condition>>,
}

/// A condition as Kubernetes has them (`metav1.Condition`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(super) status: String,
    pub(super) observed_generation: i64,
    /// When `status` became what it is, as RFC 3339 writes it.
    pub(super) last_transition_time: String,
    pub(super) reason: String,
    pub(super) message: String,
}

/// A page of a list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct List<'a> {
    pub(super) metadata: ListMeta,
    #[serde(borrow)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) continue_token: Option<String>,
}

/// One line of a watch.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    #[serde(rename = "type")]
    pub(super) word: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

/// What a line of any word says of itself.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Mark {
    pub(super) metadata: MarkMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct MarkMeta {
    pub(super) resource_version: String,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// Why the API server did not do what it was asked to.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) message: String,
    pub(super) reason: String,
}
