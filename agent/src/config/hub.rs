//! `hub.toml`: the certificate authority and relay.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use weft_core::{
    config::{Fault, Section},
    identity::TrustDomain,
};
use weft_registries::Plan;

use super::{admin::AdminConfig, eureka_api::EurekaApiConfig, store::StoreConfig};

/// How long leaves live when the file does not say.
const DEFAULT_LEAF_TTL: Duration = Duration::from_secs(24 * 3600);
/// The shortest life of a leaf: renewal at a third of it must leave time for the call.
const MIN_LEAF_TTL: Duration = Duration::from_secs(3);
/// The longest life of a leaf.
const MAX_LEAF_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// What `hub.toml` means.
#[derive(Clone, Debug, PartialEq)]
pub struct HubConfig {
    /// Where agents connect to.
    pub listen: SocketAddr,
    /// The trust domain, where the file says so again: it must be the authority's.
    pub trust_domain: Option<TrustDomain>,
    /// Where the authority's keys and the store lie.
    pub state_dir: PathBuf,
    /// Where sockets are made.
    pub run_dir: PathBuf,
    /// The operator's door.
    pub admin: AdminConfig,
    /// Where clients of Eureka find the mesh's services; none without it.
    pub eureka_api: Option<EurekaApiConfig>,
    /// The certificate authority.
    pub ca: CaConfig,
    /// Where the records lie.
    pub store: StoreConfig,
    /// The registries that are relayed, in the order of the file.
    pub registries: Vec<Plan>,
}

/// The operator's socket of the hub that owns a state directory.
#[must_use]
pub fn operator_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("hub.sock")
}

/// `[ca]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaConfig {
    /// How long leaf certificates are valid, from 3 seconds to 30 days.
    pub leaf_ttl: Duration,
}

pub(super) fn read_ca(root: &Section<'_>) -> CaConfig {
    let Some(section) = root.section("ca") else { return CaConfig { leaf_ttl: DEFAULT_LEAF_TTL } };
    let leaf_ttl = section.read_or("leaf_ttl", DEFAULT_LEAF_TTL);
    if !(MIN_LEAF_TTL..=MAX_LEAF_TTL).contains(&leaf_ttl) {
        let fault = Fault::error(section.key_place("leaf_ttl"), "the life of certificates is out of range");
        section.report(fault.expected("expected a duration from \"3s\" to \"30d\""));
    }
    CaConfig { leaf_ttl }
}
