//! What a hub's admin API answers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Registry;

/// `GET /status` of a hub.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HubStatus {
    /// Weft's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Seconds since it began.
    pub uptime_s: u64,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// Seconds until the hub's intermediate certificate ends.
    pub intermediate_ends_in_s: i64,
    /// The roots that the mesh trusts, the one that signs first.
    pub roots: Vec<Root>,
    /// What must come up before it is ready; empty when ready.
    pub missing: Vec<String>,
    /// The registries that it relays, by scope.
    pub registries: Vec<Registry>,
    /// Every host that joined.
    pub nodes: Vec<Node>,
    /// What it had to decide or leave out.
    pub diagnostics: Vec<String>,
}

/// A root of the mesh.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Root {
    /// The SHA-256 of the certificate, in hexadecimal.
    pub sha256: String,
    /// Seconds until it ends.
    pub ends_in_s: i64,
    /// Whether certificates are signed under it.
    pub signs: bool,
    /// Whether another root replaces it.
    pub leaves: bool,
}

/// A host that joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The SPIFFE IDs that it may ask certificates for.
    pub granted: Vec<String>,
    /// Where its stream comes from; none while it has none.
    pub from: Option<SocketAddr>,
    /// Seconds since its stream began; none while it has none.
    pub connected_for_s: Option<u64>,
    /// Whether its stream is at another hub that shares the store; none where hubs do not tell each other.
    #[serde(default)]
    pub elsewhere: Option<bool>,
    /// Seconds since it last said what it holds; none when it never did.
    pub heard_ago_s: Option<u64>,
    /// Its software.
    pub software: String,
    /// The SHA-256 of the roots that it trusts for this mesh, in hexadecimal.
    pub trusts: Vec<String>,
    /// Its own certificate and those of its workloads.
    pub certificates: Vec<Held>,
}

/// A certificate that a node holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Held {
    /// Whom it names.
    pub identity: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// Seconds until it ends.
    pub ends_in_s: i64,
    /// The SHA-256 of the root that it leads to; none when it leads to none that the node trusts.
    pub root: Option<String>,
}
