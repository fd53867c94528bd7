//! `weft hub`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;

use crate::{
    config::{Overrides, load_hub},
    hub::Hub,
    lifecycle::{Lifecycle, Phase, Request, Signals},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(short, long, env = "WEFT_HUB_CONFIG", default_value = "/etc/weft/hub.toml", value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: &Args) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install().context("cannot handle signals")?;
    let (config, warnings) = load_hub(&args.config, &Overrides::from_environment())?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let lifecycle = Lifecycle::default();
    let hub = Hub::start(&config).await?;
    lifecycle.enter(Phase::Serving);
    while signals.next().await == Request::Reload {
        // The authority's files and static registries are followed anyway; what else changes needs a restart, which
        // agents bridge.
        tracing::info!(
            "the hub follows its authority and registries by itself; for anything else restart it"
        );
    }
    lifecycle.enter(Phase::Draining);
    hub.stop().await;
    Ok(ExitCode::SUCCESS)
}
