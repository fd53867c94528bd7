//! `weft demo`, and the sample services that it starts.

use std::process::ExitCode;

use super::output::OutputOptions;
use crate::demo::{self, service};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Run for a few seconds, judge what was seen, and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    format: OutputOptions,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let options = demo::Options { once: args.once, json: args.format.is_json() };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(demo::run(options))
}

/// Runs a sample service; it ends only by a signal or a fault.
pub(super) fn run_service(options: service::Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(service::serve(options))?;
    Ok(ExitCode::SUCCESS)
}
