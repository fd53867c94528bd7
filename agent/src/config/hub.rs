//! `hub.toml`: the certificate authority and relay.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use weft_core::{
    config::{Fault, Located, Section},
    identity::TrustDomain,
    name::RegistryName,
};
use weft_registries::Plan;

use super::{admin::AdminConfig, eureka_api::EurekaApiConfig, store::StoreConfig};

/// How long leaves live when the file does not say.
const DEFAULT_LEAF_TTL: Duration = Duration::from_secs(24 * 3600);
/// The shortest life of a leaf: renewal at a third of it must leave time for the call.
const MIN_LEAF_TTL: Duration = Duration::from_secs(3);
/// The longest life of a leaf.
const MAX_LEAF_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// As which registry announcements are relayed when the file does not say: what agents call their hub is `hub`.
const DEFAULT_NAME: &str = "announced";
/// How long an announcement stays without its node when the file does not say: a restart of either side takes seconds.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// The shortest grace: agents come back within ten seconds, most of them within five.
const MIN_GRACE: Duration = Duration::from_secs(5);
/// After how long an announcement is forgotten when the file does not say.
const DEFAULT_FORGET: Duration = Duration::from_secs(3600);
/// The longest of both times.
const MAX_FORGET: Duration = Duration::from_secs(30 * 24 * 3600);

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
    /// How nodes may announce their own services; none when they may not.
    pub announcements: Option<AnnouncementsConfig>,
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

/// `[announcements]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncementsConfig {
    /// As which registry they are relayed.
    pub name: RegistryName,
    /// How long an announcement stays as it is without its node.
    pub grace: Duration,
    /// After how long without its node it is forgotten, at least the grace.
    pub forget_after: Duration,
    /// Whether nodes may announce addresses of this very host.
    pub allow_loopback: bool,
}

/// Reads `[announcements]`. Its name is one of the registries'.
pub(super) fn read_announcements(root: &Section<'_>, registries: &[Plan]) -> Option<AnnouncementsConfig> {
    let section = root.section("announcements")?;
    let name: Option<Located<RegistryName>> = section.read("name");
    let grace = section.read_or("grace", DEFAULT_GRACE);
    let forget_after = section.read_or("forget_after", DEFAULT_FORGET.max(grace));
    let allow_loopback = section.read_or("allow_loopback", false);
    if !(MIN_GRACE..=MAX_FORGET).contains(&grace) {
        let fault = Fault::error(section.key_place("grace"), "the grace is out of range");
        section.report(fault.expected("expected a duration from \"5s\" to \"30d\""));
    }
    if !(grace..=MAX_FORGET).contains(&forget_after) {
        let fault = Fault::error(section.key_place("forget_after"), "the time is out of range");
        section.report(fault.expected("expected a duration from that of `grace` to \"30d\""));
    }
    let place = name.as_ref().map_or_else(|| section.place(), |name| name.place.clone());
    let name = name.map(|name| name.value).or_else(|| RegistryName::new(DEFAULT_NAME).ok())?;
    if let Some(plan) = registries.iter().find(|plan| plan.name.value == name) {
        let fault = Fault::error(place, format!("registry `{name}` is defined twice"));
        section.report(fault.related(plan.name.place.clone(), "first defined here"));
    }
    Some(AnnouncementsConfig { name, grace, forget_after, allow_loopback })
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
