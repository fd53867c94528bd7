//! What following a registry costs: `just bench-registries`. `bench/README.md` says what is measured, and how.
//!
//! The measured agent and the measured hub are the real binary in processes of their own; this process starts the real
//! servers, fills them, changes them and calls through the agent.

mod agent;
mod backends;
mod hub;
mod probe;
mod report;

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Parser;
use weft_testbed::{Kind, installed};

use report::Row;

/// How many endpoints each service has.
const ENDPOINTS: usize = 10;

/// What can be measured, each with its server.
const BACKENDS: [(&str, Option<Kind>); 6] = [
    ("kubernetes", Some(Kind::Kubernetes)),
    ("consul", Some(Kind::Consul)),
    ("nomad", Some(Kind::Nomad)),
    ("eureka", Some(Kind::Eureka)),
    ("dns", Some(Kind::Knot)),
    ("hub", None),
];

/// What following a registry costs: time, memory, traffic.
#[derive(Debug, Parser)]
struct Options {
    /// What to measure: kubernetes, consul, nomad, eureka, dns, hub; all that are installed when none is named
    backends: Vec<String>,
    /// Services of ten endpoints each
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Kubernetes and Consul with ten thousand services too
    #[arg(long)]
    large: bool,
    /// Changes whose way to the proxy is timed
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Seconds for which traffic at rest is counted
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// Agents that are connected to the hub
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// The form of the result
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
    /// The binary to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_weft"))]
    weft_bin: PathBuf,
    /// What `cargo bench` says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(rows) if options.output == "json" => println!("{}", report::json(&rows)),
        Ok(rows) => println!("{}", report::table(&rows)),
        Err(error) => {
            eprintln!("bench: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, server, services) in wanted(options)? {
        rows.push(match server {
            Some(kind) => backends::measure(options, (name, kind), services)?,
            None => hub::measure(options)?,
        });
    }
    Ok(rows)
}

/// What is to be measured, with how many services.
fn wanted(options: &Options) -> anyhow::Result<Vec<(&'static str, Option<Kind>, usize)>> {
    let known = BACKENDS.map(|(name, _)| name);
    if let Some(unknown) = options.backends.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no backend {unknown}: {} are known", known.join(", "));
    }
    let mut wanted = Vec::new();
    for (name, server) in BACKENDS {
        let named = options.backends.iter().any(|backend| backend == name);
        if !named && !options.backends.is_empty() {
            continue;
        }
        if let Some(kind) = server
            && let Err(not) = installed(kind)
        {
            if named {
                bail!("{not}");
            }
            eprintln!("SKIPPED: {not}");
            continue;
        }
        wanted.push((name, server, options.services));
        if options.large && [Some(Kind::Kubernetes), Some(Kind::Consul)].contains(&server) {
            wanted.push((name, server, 10_000));
        }
    }
    Ok(wanted)
}
