//! `weft status`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::{
    output::{ReadOptions, or_dash, print_json, span},
    table::Table,
};
use crate::view::{Registry, Status};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    read: ReadOptions,
}

/// Exits with 2 when the agent runs but is not ready.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let status: Status = args.read.client().get("/status").await?;
    let ready = status.missing.is_empty();
    if args.read.is_json() {
        print_json(&status)?;
    } else {
        print(&status)?;
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn print(status: &Status) -> anyhow::Result<()> {
    let uptime = i64::try_from(status.uptime).unwrap_or(i64::MAX);
    let mut out = io::stdout().lock();
    writeln!(out, "weft {} (pid {}), {} for {}", status.version, status.pid, status.phase, span(uptime))?;
    let config = &status.config;
    writeln!(out, "config {} ({} reloads, {} refused)", config.path, config.reloads, config.refused)?;
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
        let tolerance = span(i64::try_from(hub.tolerance).unwrap_or(i64::MAX));
        writeln!(out, "hub {}, as node {}; certificates last {tolerance} without it", hub.link, hub.node)?;
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
    registries(&status.registries).print("no registries")?;
    let mut out = io::stdout().lock();
    for registry in &status.registries {
        let notes = registry.faults.iter().map(|fault| ("fault", fault));
        let kept = registry.unconfirmed.iter().map(|endpoint| ("unconfirmed", endpoint));
        for (kind, text) in notes.chain(kept) {
            writeln!(out, "  {kind} in {}: {text}", registry.scope)?;
        }
    }
    for diagnostic in &status.diagnostics {
        writeln!(out, "  note: {diagnostic}")?;
    }
    Ok(())
}

fn println_empty() -> io::Result<()> {
    writeln!(io::stdout())
}

fn workloads(status: &Status) -> Table {
    let mut table = Table::new(&["WORKLOAD", "IDENTITY", "CERTIFICATE"]);
    for workload in &status.workloads {
        let certificate = match workload.certificate_ends_in {
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

fn registries(registries: &[Registry]) -> Table {
    let mut table = Table::new(&["REGISTRY", "STATE", "CONFIRMED", "HOLDS", "ERROR"]);
    for registry in registries {
        let age = match registry.age {
            None => "never".into(),
            Some(seconds) => format!("{} ago", span(i64::try_from(seconds).unwrap_or(i64::MAX))),
        };
        let counts: Vec<String> =
            registry.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
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
