//! `weft status`: of an agent or of a hub, whichever answers on the socket.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use serde::Deserialize;

use super::{
    ca::parse_span,
    output::{OutputOptions, ReadOptions, counted, or_dash, print_json, span},
    table::Table,
};
use crate::{
    admin::pages,
    lifecycle::Phase,
    view::{
        Registry, Status,
        hub::{HubStatus, Node},
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Wait until the process is ready, at most so long
    #[arg(long, value_parser = parse_span, value_name = "SPAN")]
    wait: Option<Duration>,
    #[command(flatten)]
    read: ReadOptions,
}

/// How often a process that is waited for is asked.
const LOOK: Duration = Duration::from_millis(100);

/// Exit status of a process that runs and is not ready; 1 is a failure and 2 a wrong command line.
const NOT_READY: u8 = 3;

#[derive(Deserialize)]
#[serde(untagged)]
enum Answered {
    Agent(Box<Status>),
    Hub(Box<HubStatus>),
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (client, deadline) = (args.read.client(), args.wait.map(|span| Instant::now() + span));
    loop {
        let answer: anyhow::Result<Answered> = client.get("/status").await;
        let is_ready = answer.as_ref().is_ok_and(Answered::is_ready);
        if !is_ready && deadline.is_some_and(|deadline| Instant::now() < deadline) {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        return match answer? {
            Answered::Hub(status) => show_hub(&status, &args.read.format),
            Answered::Agent(status) if args.read.is_json() => {
                print_json(&status).map(|()| exit_code(is_ready))
            }
            Answered::Agent(status) => print(&status).map(|()| exit_code(is_ready)),
        };
    }
}

impl Answered {
    fn is_ready(&self) -> bool {
        match self {
            Self::Agent(status) => status.missing.is_empty() && status.phase == Phase::Serving,
            Self::Hub(status) => status.missing.is_empty(),
        }
    }
}

/// Shows a hub's status, for people or for programs.
pub(super) fn show_hub(status: &HubStatus, output: &OutputOptions) -> anyhow::Result<ExitCode> {
    if output.is_json() {
        print_json(status)?;
    } else {
        print_hub(status)?;
    }
    Ok(exit_code(status.missing.is_empty()))
}

fn exit_code(ready: bool) -> ExitCode {
    if ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) }
}

fn print(status: &Status) -> anyhow::Result<()> {
    let uptime = i64::try_from(status.uptime_s).unwrap_or(i64::MAX);
    let mut out = io::stdout().lock();
    writeln!(out, "weft {} (pid {}), {} for {}", status.version, status.pid, status.phase, span(uptime))?;
    let config = &status.config;
    let reloads = counted(config.reloads, "reloads");
    writeln!(out, "config {} ({reloads}, {} refused)", config.path, config.refused)?;
    for missing in &status.missing {
        writeln!(out, "  missing: {missing}")?;
    }
    if let Some(fault) = &config.fault {
        writeln!(out, "  the last reload was refused, the former configuration stays in force:")?;
        for line in fault.lines() {
            writeln!(out, "    {line}")?;
        }
    }
    if let Some(hub) = &status.hub {
        let tolerance = span(i64::try_from(hub.tolerance_s).unwrap_or(i64::MAX));
        let at = hub.address.as_ref().map(|address| format!(" {address}")).unwrap_or_default();
        writeln!(
            out,
            "hub{at} {}, as node {}; certificates last {tolerance} without it",
            hub.link, hub.node
        )?;
        for fault in &hub.faults {
            writeln!(out, "  {fault}")?;
        }
    }
    writeln!(out)?;
    drop(out);
    workloads(status).print("no workloads")?;
    println_empty()?;
    listeners(status).print("no listeners")?;
    println_empty()?;
    if !status.announcements.is_empty() {
        announcements(status).print("nothing announced")?;
        println_empty()?;
    }
    print_registries(&status.registries, &status.diagnostics)
}

/// The registries, what is wrong with each, and what had to be decided.
fn print_registries(rows: &[Registry], diagnostics: &[String]) -> anyhow::Result<()> {
    registries(rows).print("no registries")?;
    let mut out = io::stdout().lock();
    for registry in rows {
        let notes = registry.faults.iter().map(|fault| ("fault", fault));
        let kept = registry.unconfirmed.iter().map(|endpoint| ("unconfirmed", endpoint));
        for (kind, text) in notes.chain(kept) {
            writeln!(out, "  {kind} in {}: {text}", registry.scope)?;
        }
        if let Some(why) = &registry.unconfirmed_why {
            writeln!(out, "  unconfirmed in {}: {why}", registry.scope)?;
        }
    }
    for diagnostic in diagnostics {
        writeln!(out, "  note: {diagnostic}")?;
    }
    Ok(())
}

/// A hub for people.
fn print_hub(status: &HubStatus) -> anyhow::Result<()> {
    let uptime = i64::try_from(status.uptime_s).unwrap_or(i64::MAX);
    let mut out = io::stdout().lock();
    let (version, pid) = (&status.version, status.pid);
    writeln!(out, "weft {version} (pid {pid}), hub of {} for {}", status.trust_domain, span(uptime))?;
    for missing in &status.missing {
        writeln!(out, "  missing: {missing}")?;
    }
    for root in &status.roots {
        let role = match (root.signs, root.leaves) {
            (true, _) => "signs",
            (false, true) => "is being replaced; withdraw it with `weft ca retire`",
            (false, false) => "is trusted too",
        };
        writeln!(out, "root {} {role}; ends in {}", root.sha256, span(root.ends_in_s))?;
    }
    writeln!(out, "intermediate ends in {}", span(status.intermediate_ends_in_s))?;
    drop(out);
    println_empty()?;
    print_registries(&status.registries, &status.diagnostics)?;
    println_empty()?;
    Ok(hub_nodes(&status.nodes).print("no nodes")?)
}

/// A hub's nodes: who is there, and for how long their certificates last under which root.
pub(super) fn hub_nodes(nodes: &[Node]) -> Table {
    let mut table =
        Table::new(&["NODE", "STREAM", "HEARD", "CERTIFICATES", "UNDER ROOT", "TRUSTS", "IDENTITIES"]);
    let short = |digest: &str| digest.get(..8).unwrap_or(digest).to_owned();
    for node in nodes {
        let seconds = |count: u64| span(i64::try_from(count).unwrap_or(i64::MAX));
        let ends = node.certificates.iter().map(|held| held.ends_in_s).min();
        let mut roots: Vec<_> = node
            .certificates
            .iter()
            .map(|held| held.root.as_deref().map_or_else(|| "none".to_owned(), short))
            .collect();
        roots.sort();
        roots.dedup();
        let trusts: Vec<_> = node.trusts.iter().map(|root| short(root)).collect();
        let identities: Vec<_> = node.certificates.iter().map(|held| held.identity.as_str()).collect();
        table.row([
            node.name.clone(),
            match (node.connected_for_s, node.elsewhere) {
                (Some(since), _) => format!("for {}", seconds(since)),
                (None, Some(true)) => "at another hub".to_owned(),
                (None, Some(false)) => "away".to_owned(),
                (None, None) => "not here".to_owned(),
            },
            node.heard_ago_s.map_or_else(|| "never".to_owned(), |ago| format!("{} ago", seconds(ago))),
            match ends {
                None => "-".to_owned(),
                Some(left) if left <= 0 => "ENDED".to_owned(),
                Some(left) => format!("{} for {}", node.certificates.len(), span(left)),
            },
            or_dash(Some(&roots.join(" "))),
            or_dash(Some(&trusts.join(" "))),
            or_dash(Some(&identities.join(" "))),
        ]);
    }
    table
}

fn println_empty() -> io::Result<()> {
    writeln!(io::stdout())
}

fn workloads(status: &Status) -> Table {
    let mut table = Table::new(&["WORKLOAD", "IDENTITY", "CERTIFICATE"]);
    for workload in &status.workloads {
        let certificate = match workload.certificate_ends_in_s {
            None => "none".into(),
            Some(seconds) if seconds <= 0 => "ENDED".into(),
            Some(seconds) => format!("ends in {}", span(seconds)),
        };
        table.row([workload.name.clone(), workload.identity.clone(), certificate]);
    }
    table
}

fn listeners(status: &Status) -> Table {
    let mut table = Table::new(&["LISTENER", "WORKLOAD", "ADDRESS", "TO"]);
    for listener in &status.listeners {
        table.row([
            listener.kind.clone(),
            or_dash(listener.workload.as_deref()),
            listener.address.clone(),
            or_dash(listener.target.as_deref()),
        ]);
    }
    table
}

fn announcements(status: &Status) -> Table {
    let now = pages::seconds(SystemTime::now());
    let ago = |at: Option<u64>| match at {
        None => "never".to_owned(),
        Some(at) => format!("{} ago", span(i64::try_from(now.saturating_sub(at)).unwrap_or(i64::MAX))),
    };
    let mut table = Table::new(&["ANNOUNCED", "INSTANCE", "IN", "SINCE", "CONFIRMED", "HEALTH", "FAULT"]);
    for row in &status.announcements {
        let health = match &row.reason {
            None => row.health.clone(),
            Some(reason) => format!("{} ({reason})", row.health),
        };
        table.row([
            format!("{}/{}", row.service, row.port),
            row.instance.clone(),
            row.registry.clone(),
            ago(row.since_s),
            ago(row.confirmed_s),
            health,
            or_dash(row.fault.as_deref()),
        ]);
    }
    table
}

fn registries(registries: &[Registry]) -> Table {
    let mut table = Table::new(&["REGISTRY", "STATE", "CONFIRMED", "HOLDS", "ERROR"]);
    for registry in registries {
        let age = match registry.age_s {
            None => "never".into(),
            Some(seconds) => format!("{} ago", span(i64::try_from(seconds).unwrap_or(i64::MAX))),
        };
        let counts: Vec<String> =
            registry.counts.iter().map(|(what, count)| counted(*count as u64, what)).collect();
        table.row([
            registry.scope.clone(),
            registry.state.clone(),
            age,
            counts.join(", "),
            or_dash(registry.error.as_deref()),
        ]);
    }
    table
}
