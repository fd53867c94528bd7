//! The life of an agent, from its configuration to its last connection.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::sync::Notify;
use weft_core::{
    config::{Fault, Style, render},
    name::RegistryName,
};

use crate::{
    admin::Admin,
    compose::{Inbound, Parts, proxy_config},
    config::{AgentConfig, ListenAddress, Overrides, load_agent},
    eureka_api::{EurekaApi, Said, Surroundings},
    gates::Gates,
    inspect::{Full, Inspect, ReadOnly},
    lifecycle::{Lifecycle, Phase, Request, Signals},
    open_files,
    readiness::Readiness,
    reload::{Record, fixed_keys_changed, name_that_is_relayed},
    view,
    watched::Watched,
};

/// How often what is missing is looked at while the agent comes up.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What to do when there may be more connections than open files.
const FEW_FILES: &str = "raise the hard limit (`LimitNOFILE` of systemd) or lower `[limits] connections`";

/// How long what is announced waits for certificates once the mesh port is open: one that was not granted never comes.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// How long the access log may take for its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A running agent.
struct Agent {
    path: PathBuf,
    overrides: Overrides,
    config: AgentConfig,
    parts: Parts,
    gates: Gates,
    /// When the mesh port was seen open for the first time.
    open_since: Option<Instant>,
    inspect: Arc<Inspect>,
    /// The file that the configuration is read from, watched from before it was.
    file: Watched,
    /// Closes the admin sockets when it is dropped.
    admin: Admin,
    /// Where clients of Eureka ask; none where it is not configured.
    eureka_api: Option<EurekaApi>,
}

/// Runs an agent until it is asked to end.
///
/// # Errors
/// When the configuration has faults, or a part cannot start.
pub async fn run(path: &Path, overrides: Overrides) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let mut agent = Agent::start(path, overrides).await?;
    agent.serve(&mut signals).await;
    Ok(agent.end(&mut signals).await)
}

impl Agent {
    async fn start(path: &Path, overrides: Overrides) -> anyhow::Result<Self> {
        let file = Watched::new([path.to_owned()]);
        let (config, warnings) = load_agent(path, &overrides)?;
        log_warnings(&warnings);
        open_files::provide(files_needed(&config), FEW_FILES);
        let readiness = Readiness::default();
        let gates = Gates::new(&config, &readiness);
        let parts = Parts::start(&config)?;
        let inspect = Arc::new(Inspect {
            began: Instant::now(),
            lifecycle: Lifecycle::default(),
            readiness,
            record: Record::new(&path.display().to_string()),
            config_text: Mutex::new(std::fs::read_to_string(path).unwrap_or_default()),
            listeners: Mutex::new(listener_rows(&config)),
            workloads: parts.workloads.subscribe(),
            tables: parts.tables.clone(),
            snapshots: parts.snapshots.clone(),
            statuses: parts.statuses.clone(),
            credentials: parts.credentials.clone(),
            identity: parts.identity.status(),
            relayed: parts.identity.relayed(),
            flow: parts.flow.clone(),
            proxy: parts.proxy.inspector(),
            announcements: parts.board(),
            findings: parts.findings(),
            drain: Notify::new(),
        });
        let admin = admin(&config, &inspect).await?;
        let eureka_api = eureka_api(&config, &parts).await?;
        let path = path.to_owned();
        let open_since = None;
        Ok(Self { path, overrides, config, parts, gates, open_since, inspect, file, admin, eureka_api })
    }

    /// Comes up, serves, and takes over new configurations, until it is asked to end.
    async fn serve(&mut self, signals: &mut Signals) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let inspect = self.inspect.clone();
        loop {
            tokio::select! {
                _ = looks.tick(), if inspect.lifecycle.phase() == Phase::Starting => self.look(),
                () = self.file.changed() => self.reload().await,
                () = inspect.drain.notified() => return,
                request = signals.next() => match request {
                    Request::Reload => {
                        self.parts.proxy.records().reopen_log();
                        self.file.skip();
                        self.reload().await;
                    }
                    Request::Stop => return,
                },
            }
        }
    }

    /// Looks at what is missing, and goes on when it is there.
    fn look(&mut self) {
        let status = self.parts.statuses.load_full();
        self.gates.heard(&status);
        self.gates.certified(&self.config, &self.parts.credentials.load());
        if self.gates.is_closed() && status.is_ready() {
            self.open();
        }
        let is_ready = self.inspect.readiness.is_ready();
        if !self.gates.is_closed() {
            let since = *self.open_since.get_or_insert_with(Instant::now);
            if is_ready || since.elapsed() >= CERTIFICATES {
                self.parts.announce();
            }
        }
        if is_ready {
            self.inspect.lifecycle.enter(Phase::Serving);
        }
    }

    /// Opens the mesh port. What stands in its way is told once and tried again.
    fn open(&mut self) {
        let opened = proxy_config(&self.config, Inbound::Open)
            .and_then(|config| self.parts.proxy.reload(config).context("the mesh port cannot be opened"));
        match opened {
            Ok(()) => self.gates.opened(),
            Err(error) => {
                if self.gates.note_fault(&error) {
                    tracing::error!(error = format!("{error:#}"), "not ready");
                }
            }
        }
    }

    async fn reload(&mut self) {
        match self.try_reload().await {
            Ok(()) => {
                tracing::info!(path = %self.path.display(), "a new configuration is in force");
                self.inspect.record.taken_over();
            }
            Err(error) => {
                let fault = format!("{error:#}");
                tracing::error!(fault, "the new configuration is refused; the former stays in force");
                self.inspect.record.refused(fault);
            }
        }
    }

    async fn try_reload(&mut self) -> anyhow::Result<()> {
        let (config, warnings) = load_agent(&self.path, &self.overrides)?;
        let fixed = fixed_keys_changed(&self.config, &config);
        anyhow::ensure!(
            fixed.is_empty(),
            "{}: {} can only be changed by a restart",
            self.path.display(),
            fixed.join(", ")
        );
        let relayed = self.inspect.relayed.as_ref().and_then(|relayed| relayed.borrow().clone());
        let is_relayed = |name: &RegistryName| {
            relayed
                .as_ref()
                .is_some_and(|states| states.registries.iter().any(|state| state.registry == *name))
        };
        if let Some(fault) = name_that_is_relayed(&self.config, &config, is_relayed) {
            anyhow::bail!("{fault}");
        }
        log_warnings(&warnings);
        self.gates.need_inbound_of(&config, &self.inspect.readiness);
        let inbound = if self.gates.is_closed() { Inbound::Closed } else { Inbound::Open };
        self.parts.reload(&config, inbound).await?;
        self.gates.follow(&config, &self.config, &self.inspect.readiness);
        let lock = |error: PoisonError<_>| error.into_inner();
        *self.inspect.listeners.lock().unwrap_or_else(PoisonError::into_inner) = listener_rows(&config);
        *self.inspect.config_text.lock().unwrap_or_else(lock) =
            std::fs::read_to_string(&self.path).unwrap_or_default();
        if let Some(api) = &self.eureka_api {
            api.surround(Surroundings::of_agent(&config));
        }
        self.config = config;
        Ok(())
    }

    /// Drains at most until the deadline; a second signal cuts it short.
    async fn end(mut self, signals: &mut Signals) -> ExitCode {
        self.inspect.lifecycle.enter(Phase::Draining);
        let deadline = self.config.drain_deadline;
        tracing::info!(deadline_seconds = deadline.as_secs(), "draining: a second signal ends at once");
        let code = tokio::select! {
            cut = self.parts.drain(deadline) => {
                tracing::info!(cut, "drained");
                ExitCode::SUCCESS
            }
            () = second_stop(signals) => {
                tracing::warn!("ended by a second signal");
                ExitCode::from(130)
            }
        };
        let records = self.parts.proxy.records();
        self.inspect.lifecycle.enter(Phase::Stopped);
        self.parts.stop().await;
        // Only now: a worker hands over its last lines as it ends.
        if !records.flush_log(LAST_LINES) {
            tracing::warn!("the access log takes no more: its last lines are lost");
        }
        self.admin.finish().await;
        code
    }
}

/// How few open files are worth a word although nobody said how many connections there will be.
const FEW: u64 = 4096;

/// How many open files its connections may need: each goes on to somewhere. The default bound is no announcement.
fn files_needed(config: &AgentConfig) -> u64 {
    if config.limits.connections == weft_proxy::Limits::default().connections {
        return FEW;
    }
    let outbound = config.workloads.iter().map(|workload| workload.outbound.len() + workload.upstreams.len());
    // All addresses of the mesh port share its places.
    let listeners = outbound.sum::<usize>() + usize::from(config.inbound.is_some());
    u64::try_from(listeners).unwrap_or(u64::MAX).saturating_mul(2 * u64::from(config.limits.connections))
}

async fn second_stop(signals: &mut Signals) {
    while signals.next().await != Request::Stop {}
}

async fn admin(config: &AgentConfig, inspect: &Arc<Inspect>) -> anyhow::Result<Admin> {
    let mut admin = Admin::new();
    let socket = &config.admin.socket;
    admin
        .serve_unix(socket, Arc::new(Full(inspect.clone())))
        .with_context(|| format!("the admin socket {}", socket.display()))?;
    if let Some(listen) = config.admin.listen {
        admin
            .serve_tcp(listen, Arc::new(ReadOnly(inspect.clone())))
            .await
            .with_context(|| format!("the admin address {listen}"))?;
    }
    Ok(admin)
}

async fn eureka_api(config: &AgentConfig, parts: &Parts) -> anyhow::Result<Option<EurekaApi>> {
    let Some(api) = config.eureka_api else { return Ok(None) };
    let (snapshots, statuses) = (parts.snapshots.clone(), parts.statuses.clone());
    let said = Said { snapshots, statuses, tables: parts.tables.clone() };
    let served = EurekaApi::serve(api.listen, said, Surroundings::of_agent(config)).await;
    served.map(Some).with_context(|| format!("the address of Eureka's API {}", api.listen))
}

fn log_warnings(faults: &[Fault]) {
    for fault in faults {
        tracing::warn!("{}", render(fault, Style::Plain));
    }
}

/// What the configuration listens on.
fn listener_rows(config: &AgentConfig) -> Vec<view::Listener> {
    let row = |kind: &str, workload: Option<&str>, address: String, target: Option<String>| view::Listener {
        kind: kind.into(),
        workload: workload.map(Into::into),
        address,
        target,
    };
    let mut rows = vec![row("admin", None, config.admin.socket.display().to_string(), None)];
    rows.extend(config.admin.listen.map(|listen| row("admin read-only", None, listen.to_string(), None)));
    rows.extend(config.eureka_api.map(|api| row("eureka api", None, api.listen.to_string(), None)));
    rows.extend(config.inbound.iter().flatten().map(|listen| row("inbound", None, listen.to_string(), None)));
    for configured in &config.workloads {
        let name = Some(configured.workload.name.as_str());
        let shown = |address: &ListenAddress| address.to_string();
        rows.extend(configured.outbound.iter().map(|address| row("outbound", name, shown(address), None)));
        rows.extend(configured.upstreams.iter().map(|upstream| {
            row("upstream", name, shown(&upstream.listen), Some(upstream.service.to_string()))
        }));
    }
    rows
}
