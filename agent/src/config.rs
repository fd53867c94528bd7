//! The configuration files of the agent and the hub: read, checked as a whole, and told apart from what is written.
//!
//! A file per section reads what is written; [`check`] then looks across sections. All faults come out together, and
//! only a file without errors yields a configuration. What the types here hold is meaning, with all defaults filled in.

mod admin;
mod announce;
mod eureka_api;
mod hub;
mod identity;
mod join;
mod limits;
mod log;
mod overrides;
mod store;
mod unix_path;
mod workload;
mod check;
mod file;
mod survey;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use weft_core::{
    compile::Join,
    config::{HostPort, Located},
    identity::TrustDomain,
    locality::Locality,
};
use weft_registries::Plan;

pub use admin::AdminConfig;
pub use announce::{AnnounceTerms, AnnouncementConfig, HostConfig};
pub use eureka_api::EurekaApiConfig;
pub use file::{ConfigError, FileKind, kind_of, load_agent, load_hub, read_agent, read_hub};
pub use hub::{AnnouncementsConfig, CaConfig, HubConfig, operator_socket};
pub use identity::IdentityConfig;
pub use join::strangers;
pub use log::{AccessLogTarget, MetricPrefix};
pub use overrides::Overrides;
pub use store::{SharedStore, StoreConfig};
pub use survey::{CheckedFile, survey};
pub use workload::{Allowed, ListenAddress, UpstreamConfig, WorkloadConfig};

/// What `weft.toml` means.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// The trust domain of all workloads; none when neither the file nor a workload names one.
    pub trust_domain: Option<TrustDomain>,
    /// Where this host runs; unknown when the file does not say.
    pub locality: Locality,
    /// Where keys, certificates and the last good state are kept.
    pub state_dir: PathBuf,
    /// Where sockets are made.
    pub run_dir: PathBuf,
    /// How many workers share the traffic, 1 to 64.
    pub workers: usize,
    /// How long requests may go on when the agent ends.
    pub drain_deadline: Duration,
    /// Whether responses made by the proxy say why in a header.
    pub fault_header: bool,
    /// The operator's door.
    pub admin: AdminConfig,
    /// Where clients of Eureka find the mesh's services; none without it.
    pub eureka_api: Option<EurekaApiConfig>,
    /// Where other agents connect to; none when no workload has a port.
    pub inbound: Option<Vec<SocketAddr>>,
    /// Where the workloads' certificates come from.
    pub identity: IdentityConfig,
    /// The hubs' addresses, in the order in which they are tried; none without a hub.
    pub hubs: Vec<HostPort>,
    /// Where requests are logged.
    pub access_log: AccessLogTarget,
    /// How metrics are named.
    pub metric_prefix: MetricPrefix,
    /// How much callers may take.
    pub limits: weft_proxy::Limits,
    /// The registries that are followed, in the order of the file, which is their precedence.
    pub registries: Vec<Plan>,
    /// Which services of different registries are one.
    pub joins: Vec<Join>,
    /// The local workloads.
    pub workloads: Vec<WorkloadConfig>,
    /// How others reach this host.
    pub announce: HostConfig,
    /// What is announced of the workloads' ports.
    pub announcements: Vec<AnnouncementConfig>,
}

impl AgentConfig {
    /// All workloads, for the compiler.
    #[must_use]
    pub fn workloads(&self) -> Vec<Arc<weft_core::workload::Workload>> {
        self.workloads.iter().map(|configured| configured.workload.clone()).collect()
    }
}

/// A TCP listener of ours with the place that asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) address: Located<SocketAddr>,
    /// In messages: "the outbound port of workload `web`".
    pub(crate) what: String,
}
