//! What the admin API answers, as types that the server writes and the operator's verbs read.
//!
//! Fields are only ever added: programs read this JSON. What is measured in a unit ends in its name (`_s`, `_ms`); points in time
//! are counted from the Unix epoch.

pub mod hub;

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::lifecycle::Phase;

/// `GET /status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Weft's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Where in its life it is.
    pub phase: Phase,
    /// Seconds since it began.
    pub uptime_s: u64,
    /// What must come up before it is ready; empty when ready.
    pub missing: Vec<String>,
    /// The configuration in force.
    pub config: Config,
    /// What it listens on.
    pub listeners: Vec<Listener>,
    /// The registries, by scope.
    pub registries: Vec<Registry>,
    /// Local workloads and how long their certificates last.
    pub workloads: Vec<Workload>,
    /// The hub that signs the certificates; none where they come from files.
    pub hub: Option<Hub>,
    /// Local services that are announced, a row for each registry.
    #[serde(default)]
    pub announcements: Vec<Announcement>,
    /// What the compiler had to decide or leave out.
    pub diagnostics: Vec<String>,
}

/// A port of a local service that is announced in a registry.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Announcement {
    /// The registry.
    pub registry: String,
    /// The service.
    pub service: String,
    /// The service's port name.
    pub port: String,
    /// The instance.
    pub instance: String,
    /// What is announced of the application: `healthy`, `unhealthy`, or `unknown` where nobody looks.
    pub health: String,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// Since when it is announced there; none while it never was.
    pub since_s: Option<u64>,
    /// When the registry last said that it has it.
    pub confirmed_s: Option<u64>,
    /// Why the last word did not reach the registry or was refused; none when it was taken.
    pub fault: Option<String>,
}

/// The hub, as the agent sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hub {
    /// This host's name in the mesh.
    pub node: String,
    /// `connected`, `connecting` or why it is away.
    pub link: String,
    /// Which of several hubs is connected, as configured; none while none is.
    pub address: Option<String>,
    /// Seconds for which the hub may stay away before a certificate is over.
    pub tolerance_s: u64,
    /// What went wrong with certificates, a line each.
    pub faults: Vec<String>,
}

/// The configuration in force, and what became of the last attempt to change it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    /// The file.
    pub path: String,
    /// When what is in force was read.
    pub loaded_at_s: u64,
    /// How many reloads were taken over.
    pub reloads: u64,
    /// How many reloads were refused.
    pub refused: u64,
    /// The faults of the last attempt; none when it was taken over.
    pub fault: Option<String>,
}

/// A listening socket.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Listener {
    /// `inbound`, `outbound`, `upstream`, `admin` or `admin read-only`.
    pub kind: String,
    /// The workload it belongs to; none for sockets of the whole agent.
    pub workload: Option<String>,
    /// The address, or the path of a Unix socket.
    pub address: String,
    /// What it leads to: a service for an upstream.
    pub target: Option<String>,
}

/// One scope of a registry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registry {
    /// `registry/part`.
    pub scope: String,
    /// `connected`, `away` (it was there before), `lost` (by the hub that relays it), `restored` (from disk, and not yet
    /// reached), `stale` or `waiting`.
    pub state: String,
    /// Seconds since its last commit; none when there never was one.
    pub age_s: Option<u64>,
    /// Why it is not connected.
    pub error: Option<String>,
    /// How many services and endpoints its registry says itself, over all its scopes.
    pub counts: BTreeMap<String, usize>,
    /// What could not be taken over.
    pub faults: Vec<String>,
    /// What is kept though the registry no longer mentions it.
    pub unconfirmed: Vec<String>,
    /// Why that is kept, until when, and what ends it at once; none where nothing is.
    #[serde(default)]
    pub unconfirmed_why: Option<String>,
}

/// A local workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its SPIFFE ID.
    pub identity: String,
    /// Seconds until its certificate ends; none when it has none.
    pub certificate_ends_in_s: Option<i64>,
}

/// One row of `GET /services`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Service {
    /// The registry.
    pub registry: String,
    /// `name.namespace`.
    pub name: String,
    /// Every host name that leads to it.
    pub hosts: Vec<String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// How many of them are healthy.
    pub healthy: usize,
    /// Seconds since its last instance went, of a service that is known by its instances alone and keeps its names for a
    /// while; none of all others.
    #[serde(default)]
    pub gone_s: Option<u64>,
    /// Whether nobody may call it yet: a registry before its own has yet to be heard for the first time.
    #[serde(default)]
    pub held: bool,
}

/// A port of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServicePort {
    /// Its name.
    pub name: String,
    /// At which number it is called.
    pub port: u16,
    /// What is spoken there, as a file of resources says it.
    pub protocol: String,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.name, self.port, self.protocol)
    }
}

/// One row of `GET /endpoints`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// The registry.
    pub registry: String,
    /// The service.
    pub service: String,
    /// The service's port name.
    pub port: String,
    /// The instance.
    pub instance: String,
    /// The application's own address.
    pub address: SocketAddr,
    /// Where its agent takes mesh traffic.
    pub mesh_address: Option<SocketAddr>,
    /// Who must answer.
    pub identity: Option<String>,
    /// Who named the identity: `declared in a file`, `the platform's account`, `the instance's record`, `a rule for the
    /// service`, `the rule of the registry` or `the default`; none without an identity.
    pub identity_from: Option<String>,
    /// Who named the port that takes mesh traffic, likewise; none without one.
    #[serde(default)]
    pub mesh_address_from: Option<String>,
    /// `required` or `off`.
    pub tls: String,
    /// Who said so, likewise; empty from an agent that does not tell.
    #[serde(default)]
    pub tls_from: String,
    /// Whether its registry says `off` now, which does not count: what was once reached in TLS alone stays so.
    #[serde(default)]
    pub tls_stays: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Relative share.
    pub weight: u16,
    /// Where it runs.
    pub locality: String,
    /// What the registry says.
    pub health: String,
    /// Requests and connections under way from here.
    pub in_flight: u32,
    /// Seconds for which it gets no requests because it failed; none when it takes them.
    pub ejected_for_s: Option<f64>,
    /// Whether calls go to it while others can be called, too.
    pub eligible: bool,
    /// Why not; none when they do.
    pub reason: Option<String>,
    /// Whether calls go to it in spite of the reason, because nothing better is left.
    pub last_resort: bool,
    /// Whether nothing is wrong with it, and calls go elsewhere only because its join or its distance puts others first.
    #[serde(default)]
    pub stands_by: bool,
    /// Seconds since its registry last said that this is so.
    pub age_s: Option<u64>,
}

/// One row of `GET /left-out`: something a registry says that is not taken over, or not as it is said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeftOut {
    /// The registry.
    pub registry: String,
    /// What speaks as a whole there: a service of a catalog, an object, a file.
    pub origin: String,
    /// What it is about, in the registry's own terms.
    pub place: String,
    /// Never: whatever of it is in force has a row of its own.
    pub eligible: bool,
    /// What is wrong with it.
    pub reason: String,
}

/// One rule of `GET /routes`, in the order in which rules are tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Route {
    /// The registry.
    pub registry: String,
    /// The service whose callers it applies to.
    pub service: String,
    /// The service's port name.
    pub port: String,
    /// The rule's name.
    pub rule: String,
    /// Its conditions, as text; empty when it matches everything.
    pub matches: Vec<String>,
    /// Where to: share and endpoints.
    pub targets: Vec<Target>,
    /// Milliseconds until the response's head must be there; none without a limit.
    pub request_timeout_ms: Option<u64>,
    /// Milliseconds until a connection must be made.
    pub connect_timeout_ms: u64,
    /// Tries after the first.
    pub retries: u8,
}

/// One weighted destination of a rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// The service.
    pub service: String,
    /// Percent of requests.
    pub percent: f64,
    /// The instances to choose from.
    pub instances: Vec<String>,
}

/// One row of `GET /certs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Certificate {
    /// Whose it is.
    pub identity: String,
    /// The serial number, in hexadecimal.
    pub serial: String,
    /// From when it is valid.
    pub not_before_s: u64,
    /// Until when it is valid.
    pub not_after_s: u64,
    /// Seconds until it ends.
    pub ends_in_s: i64,
    /// The trust domain whose roots vouch for its peers.
    pub trust_domain: String,
}

/// `GET /version`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// Weft's version.
    pub version: String,
    /// The operating system and architecture it was built for.
    pub platform: String,
}

impl Version {
    /// This binary's.
    #[must_use]
    pub fn current() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}
