//! Consul's objects, as far as they mean something here; what else they hold is skipped. Every field may be missing, and
//! `null` where a list or a map is empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// What stands for the other kinds of proxies and gateways is told from an application's own instance by this word.
pub(super) const TYPICAL: &str = "";

/// One instance of a service with its node and its checks, from `/v1/health/service/:name`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Entry {
    /// Where it runs.
    #[serde(deserialize_with = "or_default")]
    pub node: Node,
    /// The instance.
    #[serde(deserialize_with = "or_default")]
    pub service: Instance,
    /// The checks of the instance and of its node.
    #[serde(deserialize_with = "or_default")]
    pub checks: Vec<Check>,
}

/// A node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// Its name.
    #[serde(rename = "Node", deserialize_with = "or_default")]
    pub name: String,
    /// What no other node has, where it has any.
    #[serde(rename = "ID", deserialize_with = "or_default")]
    pub id: String,
    /// Its address: an IP address, or whatever was registered.
    #[serde(deserialize_with = "or_default")]
    pub address: String,
    /// Its datacenter.
    #[serde(deserialize_with = "or_default")]
    pub datacenter: String,
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub meta: BTreeMap<String, String>,
    /// Where it is, where that was registered.
    pub locality: Option<Place>,
    /// When it was first written.
    #[serde(deserialize_with = "or_default")]
    pub create_index: u64,
    /// When it was last written.
    #[serde(deserialize_with = "or_default")]
    pub modify_index: u64,
}

/// An instance of a service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Instance {
    /// Empty for an application; else which proxy or gateway it is.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Unique on its node.
    #[serde(rename = "ID", deserialize_with = "or_default")]
    pub id: String,
    /// The service's name.
    #[serde(rename = "Service", deserialize_with = "or_default")]
    pub name: String,
    /// Its tags.
    #[serde(deserialize_with = "or_default")]
    pub tags: Vec<String>,
    /// Its address, where that is not its node's.
    #[serde(deserialize_with = "or_default")]
    pub address: String,
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub meta: BTreeMap<String, String>,
    /// Its port; any number may be registered.
    #[serde(deserialize_with = "or_default")]
    pub port: i64,
    /// Its ports, where it has several (from 1.22 on); one of them is `port`.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<NamedPort>,
    /// Its share of requests.
    pub weights: Option<Weights>,
    /// Where it is, where that was registered.
    pub locality: Option<Place>,
    /// When it was first written.
    #[serde(deserialize_with = "or_default")]
    pub create_index: u64,
    /// When it was last written.
    #[serde(deserialize_with = "or_default")]
    pub modify_index: u64,
}

/// One of several ports of an instance.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NamedPort {
    /// Unique within the instance.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Its number.
    #[serde(deserialize_with = "or_default")]
    pub port: i64,
}

/// An instance's share of requests by its state.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Weights {
    /// While all checks pass.
    pub passing: i64,
    /// While one warns.
    pub warning: i64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// Where something is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Place {
    /// The region.
    #[serde(deserialize_with = "or_default")]
    pub region: String,
    /// The zone within it.
    #[serde(deserialize_with = "or_default")]
    pub zone: String,
}

/// A check.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Check {
    /// The node that it is about.
    #[serde(deserialize_with = "or_default")]
    pub node: String,
    /// Unique on its node.
    #[serde(rename = "CheckID", deserialize_with = "or_default")]
    pub id: String,
    /// `passing`, `warning` or `critical`.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// The service that it is about; empty when it is about the whole node.
    #[serde(deserialize_with = "or_default")]
    pub service_name: String,
}

/// The services of one node, from `/v1/catalog/node-services/:node`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeServices {
    /// Each instance.
    #[serde(deserialize_with = "or_default")]
    pub services: Vec<Instance>,
}

/// A peering, from `/v1/peering/:name`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Peering {
    /// `ACTIVE` while the peer is there.
    pub state: String,
    /// What came from it.
    #[serde(deserialize_with = "or_default")]
    pub stream_status: StreamStatus,
}

/// What came from a peer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StreamStatus {
    /// Its services that are exported to us.
    #[serde(deserialize_with = "or_default")]
    pub imported_services: Vec<String>,
    /// When it said anything last; none since our server began.
    pub last_receive: Option<String>,
}

impl Peering {
    /// The services that the peer exports to us, as a list of a catalog.
    ///
    /// # Errors
    /// Says why what is known of them may be old: the peer is away, or has not spoken yet.
    pub fn imported(self) -> Result<BTreeMap<String, Vec<String>>, String> {
        if self.state != "ACTIVE" {
            return Err(format!("the peering is {}", crate::names::quoted(&self.state)));
        }
        if self.stream_status.last_receive.is_none() {
            return Err("the peer has not said anything yet".into());
        }
        Ok(self.stream_status.imported_services.into_iter().map(|name| (name, Vec::new())).collect())
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}
