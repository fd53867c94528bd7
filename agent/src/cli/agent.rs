//! `weft agent`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use crate::{config::Overrides, run};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(short, long, env = "WEFT_CONFIG", default_value = "/etc/weft/weft.toml", value_name = "FILE")]
    config: PathBuf,
}

/// Runs on the control runtime; the proxy's workers have runtimes of their own.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("weft-control")
        // What a thread freed is given back to the system when it ends: lists are read on one, and it is idle then.
        .thread_keep_alive(Duration::from_secs(1))
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run::run(&args.config, Overrides::of_agent(|name| std::env::var_os(name))));
    // What still runs is admin connections and the like: nobody waits for them.
    runtime.shutdown_background();
    ended
}
