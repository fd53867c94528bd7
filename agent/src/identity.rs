//! Who the local workloads are, when a hub says so: joining, keys, certificates and their renewal.
//!
//! Keys are made here and never leave. What is held lies in the state directory, so an agent that starts while the hub is
//! away serves at once from what it has; how long that lasts is [`IdentityStatus::tolerance`].

mod key;
mod state;
mod schedule;
pub mod join;
mod manager;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, task::JoinHandle};
use weft_core::{
    control::NodeReport,
    identity::{SpiffeId, TrustDomain},
    publish::{Publisher, Reader},
    tls::{Credentials, TlsContext},
};
use weft_registries::hub::{HubLink, LinkConfig, LinkState};

pub use state::{NodeState, StateError};

use crate::file_identity::Workloads;
use manager::Manager;
use state::StateFolder;

/// Certificates that a hub signs.
pub struct HubIdentity {
    credentials: Reader<Credentials>,
    link: HubLink,
    status: watch::Receiver<Arc<IdentityStatus>>,
    node: NodeState,
    task: JoinHandle<()>,
}

/// How the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityStatus {
    /// This host's name in the mesh.
    pub node: String,
    /// The stream to the hub.
    pub link: LinkState,
    /// The node's own certificate first, then one per identity of the local workloads.
    pub certificates: Vec<CertificateStatus>,
}

/// How one certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Whom it names.
    pub identity: SpiffeId,
    /// What is held; none before the first one came.
    pub held: Option<HeldStatus>,
    /// Why the last attempt to get or keep it failed; none when it did not.
    pub fault: Option<String>,
}

/// A certificate that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldStatus {
    /// The serial number in hexadecimal.
    pub serial: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// When a new one is asked for.
    pub renew_at: SystemTime,
}

impl IdentityStatus {
    /// How long the hub may stay away before a certificate is over; zero when one is missing or over.
    #[must_use]
    pub fn tolerance(&self, now: SystemTime) -> Duration {
        let left = |certificate: &CertificateStatus| {
            let held = certificate.held.as_ref()?;
            held.not_after.duration_since(now).ok()
        };
        self.certificates
            .iter()
            .map(|certificate| left(certificate).unwrap_or_default())
            .min()
            .unwrap_or_default()
    }

    /// What went wrong, a line each.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let faults = self.certificates.iter().filter_map(|certificate| {
            let fault = certificate.fault.as_ref()?;
            Some(format!("{}: {fault}", certificate.identity))
        });
        faults.collect()
    }
}

/// Where an agent that uses a hub keeps its state and finds the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySettings {
    /// The agent's state directory.
    pub state_dir: PathBuf,
    /// The hubs' addresses, `host:port`, in the order in which they are tried; none for the one it joined by.
    pub hubs: Vec<String>,
}

impl HubIdentity {
    /// Restores what the state directory holds, which is in force at once, and keeps it current from here on.
    ///
    /// # Errors
    /// When this host has not joined, or its node certificate cannot be read.
    pub fn start(settings: IdentitySettings, workloads: Workloads) -> Result<Self, StateError> {
        let folder = StateFolder::of(&settings.state_dir);
        let restored = folder.restore()?;
        let node = restored.node.clone();
        // The node's own certificate opens the stream to the hub and nothing else: it is kept from the proxy's.
        let own = Publisher::new(
            Credentials::default()
                .with_bundle(restored.bundle.clone())
                .with_identity(restored.certificate.clone()),
        );
        let (told, report) = watch::channel(NodeReport::default());
        let mut hubs = settings.hubs;
        if hubs.is_empty() {
            hubs.push(node.hub.clone());
        }
        let link = HubLink::start(LinkConfig {
            addresses: hubs.into(),
            node: restored.certificate.identity().clone(),
            node_name: node.node.clone(),
            tls: Arc::new(TlsContext::new(own.reader())),
            report: Some(report),
        });
        let manager = Manager::new(folder, restored, link.clone(), workloads, own, told);
        let (credentials, status) = (manager.credentials(), manager.status());
        let task = tokio::spawn(manager.keep());
        Ok(Self { credentials, link, status, node, task })
    }

    /// The credentials of the local workloads as they are.
    #[must_use]
    pub fn reader(&self) -> Reader<Credentials> {
        self.credentials.clone()
    }

    /// The stream to the hub, for the registry that it relays.
    #[must_use]
    pub fn link(&self) -> &HubLink {
        &self.link
    }

    /// How the certificates are; may be waited on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<IdentityStatus>> {
        self.status.clone()
    }

    /// What the state directory says of this host.
    #[must_use]
    pub fn node(&self) -> &NodeState {
        &self.node
    }

    /// The mesh's trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.node.trust_domain
    }
}

/// What it takes to look at the hubs as the host that joined in this state directory, of which nothing is changed: an agent
/// may run with it meanwhile, and to the hub it is there no more than before. `hubs` are addresses, `host:port`; none for the
/// one that the host joined by.
///
/// # Errors
/// When this host has not joined, or its node certificate cannot be read.
pub fn look(state_dir: &Path, mut hubs: Vec<String>) -> Result<LinkConfig, StateError> {
    let restored = StateFolder::of(state_dir).restore()?;
    if hubs.is_empty() {
        hubs.push(restored.node.hub);
    }
    let node = restored.certificate.identity().clone();
    let own = Credentials::default().with_bundle(restored.bundle).with_identity(restored.certificate);
    let tls = Arc::new(TlsContext::new(Publisher::new(own).reader()));
    Ok(LinkConfig { addresses: hubs.into(), node, node_name: restored.node.node, tls, report: None })
}

impl std::fmt::Debug for HubIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubIdentity").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Drop for HubIdentity {
    fn drop(&mut self) {
        self.task.abort();
        self.link.stop();
    }
}
