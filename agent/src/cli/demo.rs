//! `weft demo`, and the sample services that it starts.

use std::process::ExitCode;

use clap::error::ErrorKind;
use weft_testbed::Kind;

use super::output::OutputOptions;
use crate::demo::{self, service};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Run for a few seconds, judge what was seen, and end
    #[arg(long)]
    once: bool,
    /// Spread one application over the real registries of these platforms, and kill one of them: any of consul, nomad,
    /// kubernetes, eureka, where they are installed. The one named first is killed
    #[arg(long, value_delimiter = ',', value_parser = platform, value_name = "NAME,…")]
    platforms: Vec<Kind>,
    #[command(flatten)]
    format: OutputOptions,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let platforms = args.platforms.clone();
    if let Some((_, twice)) =
        platforms.iter().enumerate().find(|(index, kind)| platforms[..*index].contains(kind))
    {
        clap::Error::raw(ErrorKind::ValueValidation, format!("--platforms names {twice} twice\n")).exit();
    }
    let options = demo::Options { once: args.once, json: args.format.is_json(), platforms };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(demo::run(&options))
}

/// A platform by its name.
fn platform(name: &str) -> Result<Kind, String> {
    let known = Kind::PLATFORMS.map(Kind::name);
    let found = Kind::PLATFORMS.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| format!("there is no such platform: {} are known", known.join(", ")))
}

/// Runs a sample service; it ends only by a signal or a fault.
pub(super) fn run_service(options: service::Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(service::serve(options))?;
    Ok(ExitCode::SUCCESS)
}
