//! The composition root: the one place where the parts of an agent meet. It reads like the drawing.
//!
//! ```text
//!   registries ──> flow ──tables──> proxy <──credentials── identity
//!                    └──────── admin looks at all ────────┘
//! ```
//!
//! Everything but the proxy's workers runs on the control runtime and cannot slow down a request.

mod listeners;

use std::{path::Path, sync::Arc};

use anyhow::Context;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use weft_core::{
    flow::{Flow, FlowConfig, FlowHandle, Source},
    publish::Reader,
    registry::Registry,
    table::Table,
    tls::Credentials,
    workload::Workload,
};
use weft_proxy::Proxy;
use weft_registries::Environment;

pub use listeners::{Inbound, proxy_config};

use crate::{
    config::{AgentConfig, IdentityConfig},
    file_identity::FileIdentity,
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
        private_folder(&config.state_dir)?;
        let (workloads, followed) = watch::channel(config.workloads().into());
        let (identity, credentials) = identity(config, followed)?;
        let environment = Environment::default();
        let flow = flow(config, registries(config, &environment)?)?;
        let (tables, statuses, handle) = (flow.tables(), flow.statuses(), flow.handle());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(flow.run(async {
            // Dropped without a word, it stops all the same.
            let _stopped = stopped.await;
        }));
        let proxy =
            Proxy::start(proxy_config(config, Inbound::Closed)?, tables.clone(), credentials.clone())?;
        Ok(Self {
            workloads,
            credentials,
            tables,
            statuses,
            flow: handle,
            proxy,
            identity,
            flow_task: FlowTask { stop, task },
        })
    }

    /// Takes over a configuration that changes only what may change: listeners first, because they alone can fail.
    ///
    /// # Errors
    /// When a listener cannot be bound; nothing is changed then.
    pub async fn reload(&mut self, config: &AgentConfig, inbound: Inbound) -> anyhow::Result<()> {
        self.proxy.reload(proxy_config(config, inbound)?).map_err(explain)?;
        self.workloads.send_replace(config.workloads().into());
        self.flow.set_workloads(config.workloads()).await.context("the flow has ended")
    }

    /// Ends what is left after a drain, and writes what is unsaved.
    pub async fn stop(self) {
        drop(self.proxy);
        // It may have ended by itself.
        let _told = self.flow_task.stop.send(());
        if let Err(error) = self.flow_task.task.await {
            tracing::error!(%error, "the flow did not end well");
        }
    }
}

/// A proxy's fault with its cause on one line.
fn explain(error: weft_proxy::StartError) -> anyhow::Error {
    anyhow::Error::new(error)
}

fn identity(
    config: &AgentConfig,
    workloads: crate::file_identity::Workloads,
) -> anyhow::Result<(Identity, Reader<Credentials>)> {
    match &config.identity {
        IdentityConfig::Files { directory } => {
            let files = FileIdentity::start(directory.clone(), workloads);
            let reader = files.reader();
            Ok((Identity::Files(files), reader))
        }
        IdentityConfig::None => {
            let reader = weft_core::publish::Publisher::new(Credentials::default()).reader();
            Ok((Identity::None, reader))
        }
        IdentityConfig::Hub => anyhow::bail!("identities from a hub are not there yet"),
    }
}

fn registries(config: &AgentConfig, environment: &Environment) -> anyhow::Result<Vec<Arc<dyn Registry>>> {
    config.registries.iter().map(|plan| Ok(plan.build(environment)?)).collect()
}

fn flow(config: &AgentConfig, registries: Vec<Arc<dyn Registry>>) -> anyhow::Result<Flow> {
    let state_dir = config.state_dir.join("registries");
    private_folder(&state_dir)?;
    let sources = registries.into_iter().map(Source::new).collect();
    Ok(Flow::new(FlowConfig {
        workloads: config.workloads(),
        state_dir: Some(state_dir),
        ..FlowConfig::new(sources)
    }))
}

/// Makes a folder that only its owner may enter.
fn private_folder(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))
}
