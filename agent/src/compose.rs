//! The composition root: the one place where the parts of an agent meet. It reads like the drawing.
//!
//! ```text
//!   registries ──> flow ──tables──> proxy <──credentials── identity
//!                    └──────── admin looks at all ────────┘
//! ```
//!
//! Everything but the proxy's workers runs on the control runtime and cannot slow down a request.

mod listeners;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use weft_core::{
    flow::{Flow, FlowConfig, FlowHandle, Registries, Source},
    identity::TrustDomain,
    merge::{Limits, Snapshot},
    name::RegistryName,
    publish::{Publisher, Reader},
    registry::Registry,
    table::Table,
    tls::{Credentials, TlsContext},
    workload::Workload,
};
use weft_proxy::Proxy;
use weft_registries::{
    Environment, Plan,
    checked::Findings,
    hub::{HubRegistry, RelayedStates},
};

pub use listeners::{Inbound, proxy_config};

use crate::{
    announcer::{Announcer, Board, Host, Wish},
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
    /// What the registries say, as they say it.
    pub snapshots: Reader<Snapshot>,
    /// How the registries are.
    pub statuses: Reader<weft_core::flow::Status>,
    /// For changing what the flow compiles for.
    pub flow: FlowHandle,
    /// The data path.
    pub proxy: Proxy,
    /// Where the certificates come from.
    pub identity: Identity,
    /// The registries that are followed.
    plans: Vec<Plan>,
    /// What their endpoints are checked with, and where is shown what is found.
    checks: Checks,
    /// The same, to announce in.
    registries: Announced,
    announcer: Announcer,
    /// What is to be announced as soon as calls can come in; none from then on.
    unannounced: Option<Vec<Wish>>,
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

/// What checks of endpoints need of this process.
#[derive(Clone)]
struct Checks {
    tls: Arc<TlsContext>,
    findings: Findings,
}

/// The registries in which can be announced, by name.
type Announced = BTreeMap<RegistryName, Arc<dyn Registry>>;

/// How long withdrawing what is announced may take, as a part of the time that draining has.
const WITHDRAWING: u32 = 4;

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
        let tls = Arc::new(TlsContext::new(credentials.clone()));
        let checks = Checks { tls, findings: Findings::default() };
        let sources = sources(&config.registries, &identity, config.trust_domain.as_ref(), &checks)?;
        let registries = by_name(&sources);
        let wishes = wishes(config, &identity, &registries)?;
        let flow = flow(config, sources)?;
        let (tables, snapshots) = (flow.tables(), flow.snapshots());
        let (statuses, handle) = (flow.statuses(), flow.handle());
        let flow_task = FlowTask::start(flow);
        let closed = proxy_config(config, Inbound::Closed)?;
        let proxy = Proxy::start(closed, tables.clone(), credentials.clone())?;
        let plans = config.registries.clone();
        Ok(Self {
            workloads,
            credentials,
            tables,
            snapshots,
            statuses,
            flow: handle,
            proxy,
            identity,
            plans,
            checks,
            registries,
            announcer: Announcer::default(),
            unannounced: Some(wishes),
            flow_task,
        })
    }

    /// Takes over a configuration that changes only what may change: first what can fail.
    ///
    /// # Errors
    /// When a registry lacks what it needs or a listener cannot be bound; nothing is changed then.
    pub async fn reload(&mut self, config: &AgentConfig, inbound: Inbound) -> anyhow::Result<()> {
        let fresh: Vec<_> =
            config.registries.iter().filter(|plan| !self.plans.contains(plan)).cloned().collect();
        let fresh = sources(&fresh, &self.identity, config.trust_domain.as_ref(), &self.checks)?;
        let mut announced = self.registries.clone();
        announced.extend(by_name(&fresh));
        announced.retain(|name, _| config.registries.iter().any(|plan| plan.name.value == *name));
        let wishes = wishes(config, &self.identity, &announced)?;
        let registries = Registries {
            order: config.registries.iter().map(|plan| plan.name.value.clone()).collect(),
            fresh,
            joins: config.joins.clone(),
            locality: config.locality.clone(),
        };
        self.proxy.reload(proxy_config(config, inbound)?)?;
        self.workloads.send_replace(config.workloads().into());
        self.plans.clone_from(&config.registries);
        self.registries = announced;
        match &mut self.unannounced {
            Some(unannounced) => *unannounced = wishes,
            None => self.announcer.change(wishes),
        }
        let in_force = async {
            self.flow.set_registries(registries).await?;
            self.flow.set_workloads(config.workloads()).await
        };
        in_force.await.context("the flow has ended")
    }

    /// Begins to announce: calls can come in.
    pub fn announce(&mut self) {
        if let Some(wishes) = self.unannounced.take() {
            self.announcer.change(wishes);
        }
    }

    /// What checks of endpoints find.
    #[must_use]
    pub fn findings(&self) -> Findings {
        self.checks.findings.clone()
    }

    /// How the announcements are.
    #[must_use]
    pub fn board(&self) -> Board {
        self.announcer.board()
    }

    /// Withdraws what is announced, and then drains, all at most until the deadline. Returns how many connections were cut.
    pub async fn drain(&mut self, deadline: Duration) -> u32 {
        let began = tokio::time::Instant::now();
        self.announcer.withdraw(deadline / WITHDRAWING).await;
        self.proxy.drain(deadline.saturating_sub(began.elapsed())).await
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
                let hubs = config.hubs.iter().map(ToString::to_string).collect();
                let settings = IdentitySettings { state_dir: config.state_dir.clone(), hubs };
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

    /// How the registries are that the hub relays, where there is one.
    #[must_use]
    pub fn relayed(&self) -> Option<watch::Receiver<Option<Arc<RelayedStates>>>> {
        match self {
            Self::Hub(hub) => Some(hub.link().relayed()),
            Self::Files(_) | Self::None => None,
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

/// Registries as configured. One that follows the hub shares the stream that brings the certificates.
fn sources(
    plans: &[Plan],
    identity: &Identity,
    trust_domain: Option<&TrustDomain>,
    checks: &Checks,
) -> anyhow::Result<Vec<Source>> {
    let hub = match identity {
        Identity::Hub(hub) => Some(HubRegistry::factory(hub.link().clone())),
        Identity::Files(_) | Identity::None => None,
    };
    let Checks { tls, findings } = checks.clone();
    let trust_domain = trust_domain.cloned();
    let environment = Environment { hub, trust_domain, tls: Some(tls), findings, limits: Limits::default() };
    let source = |plan: &Plan| {
        let registry = plan.build(&environment)?;
        Ok(Source { limits: plan.limits.clone(), ..Source::new(registry) })
    };
    plans.iter().map(source).collect()
}

fn by_name(sources: &[Source]) -> Announced {
    sources.iter().map(|source| (source.registry.name().clone(), source.registry.clone())).collect()
}

/// What is to be announced, of a host that needs an address only if there is something.
fn wishes(config: &AgentConfig, identity: &Identity, registries: &Announced) -> anyhow::Result<Vec<Wish>> {
    if config.announcements.is_empty() {
        return Ok(Vec::new());
    }
    let node = match identity {
        Identity::Hub(hub) => Some(hub.node().node.as_str()),
        Identity::Files(_) | Identity::None => None,
    };
    let host = Host::of(config, node)?;
    config.announcements.iter().map(|announced| Ok(host.wish(announced, registries)?)).collect()
}

fn flow(config: &AgentConfig, sources: Vec<Source>) -> anyhow::Result<Flow> {
    let state_dir = config.state_dir.join("registries");
    make_private_folder(&state_dir)?;
    Ok(Flow::new(FlowConfig {
        joins: config.joins.clone(),
        workloads: config.workloads(),
        locality: config.locality.clone(),
        state_dir: Some(state_dir),
        ..FlowConfig::new(sources)
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
