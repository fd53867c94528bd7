//! From a file to a configuration: the sections in their order, then the checks across them.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use weft_core::{
    compile::Join,
    config::{Fault, Located, OneOrMany, Outcome, Place, Section, SourceFile, Style, read, render_all},
    identity::TrustDomain,
    locality::Locality,
    name::ServiceName,
};
use weft_registries::Plan;

use super::{
    AgentConfig, AnnouncementConfig, EurekaApiConfig, HubConfig, Listener, Overrides, admin, announce, check,
    eureka_api, hub, identity, join, limits, log, store, unix_path::too_long, workload,
};

/// How long requests may go on when the agent ends and the file does not say.
const DEFAULT_DRAIN: Duration = Duration::from_secs(60);
/// The longest drain deadline.
const MAX_DRAIN: Duration = Duration::from_secs(24 * 3600);
/// Workers when the file does not say: right for a sidecar.
const DEFAULT_WORKERS: u64 = 2;
/// The greatest number of workers.
const MAX_WORKERS: u64 = 64;

/// Why a configuration cannot be used: all its faults, shown as `weft check` shows them.
#[derive(Debug)]
pub struct ConfigError {
    /// Errors, and warnings beside them.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.faults.iter().filter(|fault| fault.is_error()).count();
        let plural = if errors == 1 { "error" } else { "errors" };
        write!(f, "the configuration has {errors} {plural}\n{}", render_all(&self.faults, Style::Plain))
    }
}

impl std::error::Error for ConfigError {}

/// Reads the agent's file from the disk. The warnings come with the configuration.
///
/// # Errors
/// All that is wrong with it.
pub fn load_agent(path: &Path, overrides: &Overrides) -> Result<(AgentConfig, Vec<Fault>), ConfigError> {
    load(path, |source| read_agent(source, overrides))
}

/// Reads the hub's file from the disk. The warnings come with the configuration.
///
/// # Errors
/// All that is wrong with it.
pub fn load_hub(path: &Path, overrides: &Overrides) -> Result<(HubConfig, Vec<Fault>), ConfigError> {
    load(path, |source| read_hub(source, overrides))
}

fn load<T>(
    path: &Path,
    read: impl FnOnce(&SourceFile) -> Outcome<T>,
) -> Result<(T, Vec<Fault>), ConfigError> {
    let source = SourceFile::read(path).map_err(|fault| ConfigError { faults: vec![*fault] })?;
    let outcome = read(&source);
    match outcome.value {
        Some(value) => Ok((value, outcome.faults)),
        None => Err(ConfigError { faults: outcome.faults }),
    }
}

/// Reads the agent's file.
#[must_use]
pub fn read_agent(source: &SourceFile, overrides: &Overrides) -> Outcome<AgentConfig> {
    read(source, |root| agent(root, overrides))
}

/// Reads the hub's file.
#[must_use]
pub fn read_hub(source: &SourceFile, overrides: &Overrides) -> Outcome<HubConfig> {
    read(source, |root| hub(root, overrides))
}

fn agent(root: &Section<'_>, overrides: &Overrides) -> Option<AgentConfig> {
    let trust_domain: Option<Located<TrustDomain>> = root.read("trust_domain");
    let locality = root.read_or("locality", Locality::default());
    let state_dir = directory(root, "state_dir", overrides.state_dir.as_ref(), "/var/lib/weft");
    let run_dir = directory(root, "run_dir", overrides.run_dir.as_ref(), "/run/weft");
    let workers = root.get("workers").map_or(Some(DEFAULT_WORKERS), |value| value.integer(1..=MAX_WORKERS));
    let drain_deadline = root.read_or("drain_deadline", DEFAULT_DRAIN);
    if drain_deadline > MAX_DRAIN {
        let fault = Fault::error(root.key_place("drain_deadline"), "the drain deadline is out of range");
        root.report(fault.expected("expected a duration up to \"24h\""));
    }
    let fault_header = root.read_or("fault_header", true);
    let admin = admin::read(root, &run_dir, by_default(root, loopback(15020)));
    let eureka_api = eureka_api::read(root);
    let inbound = inbound(root);
    let hubs = identity::read_hubs(root);
    let identity = identity::read(root);
    let access_log = log::read_access_log(root);
    let metric_prefix = log::read_metrics(root);
    let limits = limits::read(root);
    let mut registries = registries(root, true);
    for fault in check::hub_registries(&registries, identity.as_ref()) {
        root.report(fault);
    }
    let joins = join::read(root, &registries);
    let workloads: Vec<_> = root.sections("workload").iter().filter_map(workload::read).collect();
    follow_own(&mut registries, &workloads, &joins);
    let announce = announce::read_host(root);
    let named = workloads.iter().flat_map(|workload| &workload.announced);
    for fault in named.flat_map(|(_, terms)| announce::check_registries(&terms.registries, &registries)) {
        root.report(fault);
    }
    let serves = workloads.iter().any(|workload| !workload.ports.is_empty());
    let inbound = inbound.filter(|_| serves || root.has("inbound"));

    let mut listeners = listeners(&admin, eureka_api.as_ref(), inbound.as_deref().unwrap_or_default());
    listeners.extend(check::tcp_listeners(&workloads));
    let faults = check::workloads(&workloads, trust_domain.as_ref());
    for fault in faults.into_iter().chain(check::clashes(&listeners, &workloads)) {
        root.report(fault);
    }
    let domain = trust_domain.map(|domain| domain.value);
    let of_workloads = workloads.first().map(|it| it.checked.workload.locality.clone()).unwrap_or_default();
    Some(AgentConfig {
        trust_domain: domain.or_else(|| workloads.first().map(|it| it.identity.value.trust_domain())),
        locality: if locality == Locality::default() { of_workloads } else { locality },
        state_dir: state_dir.value,
        run_dir: run_dir.value,
        workers: usize::try_from(workers?).ok()?,
        drain_deadline,
        fault_header,
        admin: admin.checked(),
        eureka_api: checked_api(eureka_api),
        inbound: inbound.map(|addresses| addresses.into_iter().map(|address| address.value).collect()),
        identity: identity?,
        hubs,
        access_log: access_log?,
        metric_prefix: metric_prefix?,
        limits,
        registries,
        joins,
        announce,
        announcements: announcements(&workloads),
        workloads: workloads.into_iter().map(|workload| workload.checked).collect(),
    })
}

/// Has registries of which a part is followed follow what is served here, called by name, or joined, too.
fn follow_own(registries: &mut [Plan], workloads: &[workload::RawWorkload], joins: &[Join]) {
    let served = workloads.iter().flat_map(|it| it.checked.workload.ports.iter().map(|port| &port.service));
    let called =
        workloads.iter().flat_map(|it| it.checked.upstreams.iter().map(|upstream| &upstream.service));
    let joined = joins.iter().flat_map(|join| &join.services);
    let own: Vec<ServiceName> = served.chain(called).chain(joined).cloned().collect();
    for plan in registries {
        if let Some(settings) = plan.settings.including(&own) {
            plan.settings = settings;
        }
    }
}

fn announcements(workloads: &[workload::RawWorkload]) -> Vec<AnnouncementConfig> {
    let of = |workload: &workload::RawWorkload| {
        let announced = workload.announced.iter().map(|(port, raw)| AnnouncementConfig {
            workload: workload.checked.workload.clone(),
            port: port.clone(),
            terms: raw.terms.clone(),
        });
        announced.collect::<Vec<_>>()
    };
    workloads.iter().flat_map(of).collect()
}

fn hub(root: &Section<'_>, overrides: &Overrides) -> Option<HubConfig> {
    let listen: Option<Located<SocketAddr>> = match root.get("listen") {
        Some(value) => weft_core::config::Readable::read(&value),
        None => Some(by_default(root, any(weft_core::control::DEFAULT_PORT))),
    };
    let trust_domain: Option<TrustDomain> = root.read("trust_domain");
    let state_dir = directory(root, "state_dir", overrides.state_dir.as_ref(), "/var/lib/weft/hub");
    let run_dir = directory(root, "run_dir", overrides.run_dir.as_ref(), "/run/weft/hub");
    let admin = admin::read(root, &run_dir, by_default(root, loopback(15022)));
    if let Some(fault) = too_long(&hub::operator_socket(&state_dir.value), state_dir.place) {
        root.report(fault);
    }
    let eureka_api = eureka_api::read(root);
    let ca = hub::read_ca(root);
    let store = store::read(root);
    let registries = registries(root, false);
    let announcements = hub::read_announcements(root, &registries);
    let listen = listen?;
    let mut listeners = vec![Listener { address: listen.clone(), what: "the hub".into() }];
    listeners.extend(self::listeners(&admin, eureka_api.as_ref(), &[]));
    for fault in check::clashes(&listeners, &[]) {
        root.report(fault);
    }
    let admin = admin.checked();
    let (state_dir, run_dir) = (state_dir.value, run_dir.value);
    let eureka_api = checked_api(eureka_api);
    let listen = listen.value;
    let store = store?;
    Some(HubConfig {
        listen,
        trust_domain,
        state_dir,
        run_dir,
        admin,
        eureka_api,
        ca,
        store,
        registries,
        announcements,
    })
}

fn directory(
    root: &Section<'_>,
    key: &'static str,
    override_: Option<&PathBuf>,
    default: &str,
) -> Located<PathBuf> {
    let written: Option<Located<PathBuf>> = root.read(key);
    match override_ {
        Some(path) => by_default(root, path.clone()),
        None => written.unwrap_or_else(|| by_default(root, default.into())),
    }
}

fn inbound(root: &Section<'_>) -> Option<Vec<Located<SocketAddr>>> {
    let default = || vec![by_default(root, any(15008))];
    let Some(section) = root.section("inbound") else { return Some(default()) };
    match section.get("listen") {
        Some(value) => {
            <OneOrMany<_> as weft_core::config::Readable>::read(&value).map(|OneOrMany(listen)| listen)
        }
        None => Some(default()),
    }
}

/// Reads `[[registry]]`. The hub cannot follow itself; an agent follows it where `[hub]` says.
fn registries(root: &Section<'_>, of_agent: bool) -> Vec<Plan> {
    let mut sections = root.sections("registry");
    let mut plans = Vec::new();
    for section in &mut sections {
        let Some(plan) = Plan::read(section, if of_agent { "" } else { "hub-" }) else { continue };
        if plan.kind == "hub" && !(of_agent && root.has("hub")) {
            let message = match of_agent {
                true => "this registry follows the hub, and there is no `[hub]`",
                false => "the hub cannot follow a hub",
            };
            let fault = Fault::error(section.key_place("kind"), message);
            root.report(if of_agent { fault.expected("expected `[hub]` with its `address`") } else { fault });
        }
        plans.push(plan);
    }
    if sections.is_empty() && !root.has("registry") && !root.has("announcements") {
        let fault = Fault::warning(root.place(), "there is no `[[registry]]`: no service will be known");
        root.report_missing(fault);
    }
    for fault in check::registries(&plans) {
        root.report(fault);
    }
    plans
}

fn checked_api(listen: Option<Located<SocketAddr>>) -> Option<EurekaApiConfig> {
    listen.map(|listen| EurekaApiConfig { listen: listen.value })
}

fn listeners(
    admin: &admin::RawAdmin,
    eureka_api: Option<&Located<SocketAddr>>,
    inbound: &[Located<SocketAddr>],
) -> Vec<Listener> {
    let admin = admin.listen.iter().map(|address| (address, "the admin port"));
    let eureka_api = eureka_api.map(|address| (address, "the port of Eureka's API"));
    let inbound = inbound.iter().map(|address| (address, "the inbound port"));
    inbound
        .chain(admin)
        .chain(eureka_api)
        .map(|(address, what)| Listener { address: address.clone(), what: what.into() })
        .collect()
}

/// A value that the file does not name: it has no line.
fn by_default<T>(root: &Section<'_>, value: T) -> Located<T> {
    Located { value, place: Place::whole_file(&root.place().file) }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn any(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

/// Which kind of file a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// The agent's `weft.toml`.
    Agent,
    /// The hub's `hub.toml`.
    Hub,
    /// A file of resources.
    Mesh,
}

/// Guesses the kind of a file: resources are told by their tables, the hub by its name or its own keys.
#[must_use]
pub fn kind_of(path: &Path, source: &SourceFile) -> FileKind {
    let headers: Vec<&str> = source
        .text()
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix('['))
        .map(|line| {
            line.trim_start_matches('[').trim_start().split([']', '.', ' ']).next().unwrap_or_default()
        })
        .collect();
    let holds = |words: &[&str]| headers.iter().any(|header| words.contains(header));
    // An agent has no such key of its own.
    let mut top = source.text().lines().take_while(|line| !line.trim_start().starts_with('['));
    let listens = top.any(|line| line.split('=').next().unwrap_or_default().trim() == "listen");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if holds(&["service", "route", "policy"]) {
        FileKind::Mesh
    } else if name.starts_with("hub")
        || holds(&["ca", "store", "announcements"])
        || (listens && !holds(&["workload", "inbound"]))
    {
        FileKind::Hub
    } else if name.starts_with("weft")
        || holds(&["workload", "registry", "admin", "inbound", "identity", "hub", "limits", "eureka_api"])
    {
        FileKind::Agent
    } else {
        FileKind::Mesh
    }
}
