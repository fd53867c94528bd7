//! `weft hub` and `weft hub status`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Subcommand;

use super::{output::OutputOptions, status::show_hub};
use crate::{
    admin::client::AdminClient,
    config::{Overrides, load_hub},
    hub::{Hub, MAX_CONNECTIONS},
    lifecycle::{Lifecycle, Phase, Request, Signals},
    open_files,
};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The configuration file
    #[arg(short, long, env = "WEFT_HUB_CONFIG", default_value = "/etc/weft/hub.toml", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say how the hub is: its roots, registries and nodes
    Status(StatusArgs),
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    output: OutputOptions,
    /// The admin socket of the hub to ask
    #[arg(long, env = "WEFT_HUB_SOCKET", default_value = "/run/weft/hub/admin.sock", value_name = "PATH")]
    socket: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(Verb::Status(args)) = &args.verb {
        return super::reading(status(args));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let status = AdminClient::of_hub(&args.socket).get("/status").await?;
    show_hub(&status, &args.output)
}

async fn serve(args: &Args) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install().context("cannot handle signals")?;
    let (config, warnings) = load_hub(&args.config, &Overrides::of_hub(|name| std::env::var_os(name)))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    open_files::provide(MAX_CONNECTIONS.into(), "raise the hard limit (`LimitNOFILE` of systemd)");
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
