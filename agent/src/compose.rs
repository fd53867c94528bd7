//! The composition root: the one place where the parts of an agent meet. It reads like the drawing.
//!
//! ```text
//!   registries ──> flow ──tables──> proxy <──credentials── identity
//!                    └──────── admin looks at all ────────┘
//! ```
//!
//! Everything but the proxy's workers runs on the control runtime and cannot slow down a request.

mod listeners;

use std::sync::Arc;

use anyhow::Context;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use weft_core::{
    flow::{Flow, FlowConfig, FlowHandle, Source},
    publish::{Publisher, Reader},
    registry::Registry,
    table::Table,
    tls::Credentials,
    workload::Workload,
};
use weft_proxy::Proxy;
use weft_registries::{Environment, hub::HubRegistry};

pub use listeners::{Inbound, proxy_config};

use crate::{
    config::{AgentConfig, IdentityConfig},
    file_identity::{FileIdentity, Workloads},
    files::make_private_folder,
    identity::{HubIdentity, IdentitySettings, IdentityStatus},
};

/// The running parts of an agent.
pub struct Parts {
    /// The local workloads, for all who follow them.
    pub workloads: watch::Sender<Arc<[Arc<Workload>]>>,
    /// Certificates and trust.
    pub credentials: Reader<Credentials>,
    /// What the registries say, compiled.
    pub tables: Reader<Table>,
    /// How the registries are.
    pub statuses: Reader<weft_core::flow::Status>,
    /// For changing what the flow compiles for.
    pub flow: FlowHandle,
    /// The data path.
    pub proxy: Proxy,
    /// Where the certificates come from.
    pub identity: Identity,
    flow_task: FlowTask,
}

/// Where certificates come from.
pub enum Identity {
    /// A hub that this host has joined.
    Hub(HubIdentity),
    /// A folder of files.
    Files(FileIdentity),
    /// Nowhere: there is nobody to certify.
    None,
}

/// The running flow; it writes what is unsaved when it is stopped.
struct FlowTask {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Parts {
    /// Puts an agent together and starts it, with the mesh port closed.
    ///
    /// # Errors
    /// When a folder cannot be made, a listener not be bound, or a registry lacks what it needs.
    pub fn start(config: &AgentConfig) -> anyhow::Result<Self> {
        make_private_folder(&config.state_dir)?;
        let (workloads, followed) = watch::channel(config.workloads().into());
        let identity = Identity::start(config, followed)?;
        let credentials = identity.credentials();
        let flow = flow(config, registries(config, &identity)?)?;
        let (tables, statuses, handle) = (flow.tables(), flow.statuses(), flow.handle());
        let flow_task = FlowTask::start(flow);
        let closed = proxy_config(config, Inbound::Closed)?;
        let proxy = Proxy::start(closed, tables.clone(), credentials.clone())?;
        Ok(Self { workloads, credentials, tables, statuses, flow: handle, proxy, identity, flow_task })
    }

    /// Takes over a configuration that changes only what may change: listeners first, because they alone can fail.
    ///
    /// # Errors
    /// When a listener cannot be bound; nothing is changed then.
    pub async fn reload(&mut self, config: &AgentConfig, inbound: Inbound) -> anyhow::Result<()> {
        self.proxy.reload(proxy_config(config, inbound)?)?;
        self.workloads.send_replace(config.workloads().into());
        let precedence = config.registries.iter().map(|plan| plan.name.value.clone()).collect();
        let in_force = async {
            self.flow.set_rules(precedence, config.joins.clone()).await?;
            self.flow.set_workloads(config.workloads()).await
        };
        in_force.await.context("the flow has ended")
    }

    /// Ends what is left after a drain, and writes what is unsaved.
    pub async fn stop(self) {
        drop(self.proxy);
        self.flow_task.stop().await;
    }
}

impl Identity {
    fn start(config: &AgentConfig, workloads: Workloads) -> anyhow::Result<Self> {
        Ok(match &config.identity {
            IdentityConfig::Hub => {
                let hub = config.hub.as_ref().map(ToString::to_string);
                let settings = IdentitySettings { state_dir: config.state_dir.clone(), hub };
                Self::Hub(HubIdentity::start(settings, workloads)?)
            }
            IdentityConfig::Files { directory } => {
                Self::Files(FileIdentity::start(directory.clone(), workloads))
            }
            IdentityConfig::None => Self::None,
        })
    }

    fn credentials(&self) -> Reader<Credentials> {
        match self {
            Self::Hub(hub) => hub.reader(),
            Self::Files(files) => files.reader(),
            Self::None => Publisher::new(Credentials::default()).reader(),
        }
    }

    /// How the certificates are, where a hub signs them.
    #[must_use]
    pub fn status(&self) -> Option<watch::Receiver<Arc<IdentityStatus>>> {
        match self {
            Self::Hub(hub) => Some(hub.status()),
            Self::Files(_) | Self::None => None,
        }
    }
}

/// The registries of the configuration. One that follows the hub shares the stream that brings the certificates.
fn registries(config: &AgentConfig, identity: &Identity) -> anyhow::Result<Vec<Arc<dyn Registry>>> {
    let hub = match identity {
        Identity::Hub(hub) => Some(HubRegistry::factory(hub.link().clone())),
        Identity::Files(_) | Identity::None => None,
    };
    let environment = Environment { hub };
    config.registries.iter().map(|plan| Ok(plan.build(&environment)?)).collect()
}

fn flow(config: &AgentConfig, registries: Vec<Arc<dyn Registry>>) -> anyhow::Result<Flow> {
    let state_dir = config.state_dir.join("registries");
    make_private_folder(&state_dir)?;
    let plans = config.registries.iter().zip(registries);
    let sources =
        plans.map(|(plan, registry)| Source { may_name: plan.may_name.clone(), ..Source::new(registry) });
    Ok(Flow::new(FlowConfig {
        joins: config.joins.clone(),
        workloads: config.workloads(),
        state_dir: Some(state_dir),
        ..FlowConfig::new(sources.collect())
    }))
}

impl FlowTask {
    fn start(flow: Flow) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(flow.run(async {
            // Dropped without a word, it stops all the same.
            let _stopped = stopped.await;
        }));
        Self { stop, task }
    }

    async fn stop(self) {
        // It may have ended by itself.
        let _told = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the flow did not end well");
        }
    }
}
