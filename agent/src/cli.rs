//! The command line: one verb per file, each with its arguments and what it does.
//!
//! Results go to standard output, as an aligned table for people or as JSON for programs (`-o json`); everything else goes
//! to standard error.
//!
//! Exit status: 0 it is done; 1 it failed, and standard error says why; 2 the command line is wrong; 3 the process that
//! `status` asked is not ready.

mod agent;
mod ca;
mod certs;
mod check;
mod demo;
mod drain;
mod endpoints;
mod hub;
mod join;
mod output;
mod registry;
mod routes;
mod services;
mod status;
mod table;
mod tap;
mod version;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use weft_registries::Kind;

use crate::{
    demo::service,
    telemetry::{self, LogOptions},
};

/// A service mesh for every platform you run
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    log: LogOptions,
    /// End when standard input ends: for a process whose parent must not leave it behind
    #[arg(long, global = true, hide = true)]
    end_with_stdin: bool,
    /// Remove this folder when standard input ends
    #[arg(long, global = true, hide = true, value_name = "FOLDER", requires = "end_with_stdin")]
    remove_at_end: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the per-host daemon: discovery, identity and proxy
    Agent(agent::Args),
    /// Run the hub, certificate authority and relay of discovery, or say how it is
    Hub(hub::Args),
    /// Join a mesh with a one-time token
    Join(join::Args),
    /// Keep the mesh's authority: root, intermediate, tokens, certificates without a hub
    Ca(ca::Args),
    /// Say how the agent is and what is missing
    Status(status::Args),
    /// List the services that the agent knows
    Services(services::Args),
    /// List the endpoints that the agent knows
    Endpoints(endpoints::Args),
    /// List the routing rules in force
    Routes(routes::Args),
    /// Give the operator's word on what registries say: what is gone, what may be in plaintext
    Registry(registry::Args),
    /// Say all that is wrong with configuration files, without running anything
    Check(check::Args),
    /// List the certificates that the agent holds
    Certs(certs::Args),
    /// Follow requests as they end
    Tap(tap::Args),
    /// Finish what is under way, take nothing new, then end the agent
    Drain(drain::Args),
    /// Show a whole mesh at work on this machine
    Demo(demo::Args),
    /// A sample service of the demonstration
    #[command(hide = true, disable_version_flag = true)]
    DemoService(service::Options),
    /// Print the version
    Version(version::Args),
}

/// Runs the verb that the command line names, in a binary that knows further kinds of registry: `docs/writing-a-registry.md`.
#[must_use]
pub fn main_with(kinds: &[Kind]) -> ExitCode {
    match weft_registries::add_kinds(kinds) {
        Ok(()) => main(),
        Err(error) => {
            eprintln!("weft: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the verb that the command line names.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.end_with_stdin {
        let folder = cli.remove_at_end;
        std::thread::spawn(move || end_with_stdin(folder.as_deref()));
    }
    let outcome = telemetry::install(&cli.log).and_then(|flush| {
        let ended = run(cli.verb);
        drop(flush);
        ended
    });
    match outcome {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft: {error:#}");
            if let Some(advice) = advice(&error) {
                eprintln!("  {advice}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Agent(args) => agent::run(args),
        Verb::Hub(args) => hub::run(&args),
        Verb::Join(args) => reading(join::run(args)),
        Verb::Ca(args) => reading(ca::run(args)),
        Verb::Status(args) => reading(status::run(args)),
        Verb::Services(args) => reading(services::run(args)),
        Verb::Endpoints(args) => reading(endpoints::run(args)),
        Verb::Routes(args) => reading(routes::run(args)),
        Verb::Registry(args) => reading(registry::run(args)),
        Verb::Check(args) => reading(check::run(&args)),
        Verb::Certs(args) => reading(certs::run(args)),
        Verb::Tap(args) => reading(tap::run(args)),
        Verb::Drain(args) => reading(drain::run(args)),
        Verb::Demo(args) => demo::run(&args),
        Verb::DemoService(options) => demo::run_service(options),
        Verb::Version(args) => version::run(&args),
    }
}

/// Runs a verb that asks a running process: one thread is enough.
fn reading(verb: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(verb);
    // What hangs, such as a credential plugin, has been given up: it must not hold the process.
    runtime.shutdown_background();
    ended
}

/// `weft tap | head` is no fault.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    kinds(error).any(|kind| kind == io::ErrorKind::BrokenPipe)
}

fn kinds(error: &anyhow::Error) -> impl Iterator<Item = io::ErrorKind> {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// What to do about a fault of the system whose own words say only what is wrong: an address that cannot be listened on.
fn advice(error: &anyhow::Error) -> Option<&'static str> {
    kinds(error).find_map(|kind| match kind {
        io::ErrorKind::AddrInUse => {
            Some("another process has it (`ss -lntp` names it): end that one, or configure another address")
        }
        io::ErrorKind::AddrNotAvailable => Some(
            "no interface of this host has that address (`ip address` lists them): configure another one",
        ),
        _ => None,
    })
}

/// Reads standard input to its end, which comes when the parent is gone however it went, and ends the process. Removes
/// `folder` first, in which others that end now may still write.
fn end_with_stdin(folder: Option<&Path>) {
    let _ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
    for _ in 0..50 {
        let Some(folder) = folder.filter(|folder| folder.exists()) else { break };
        if std::fs::remove_dir_all(folder).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
