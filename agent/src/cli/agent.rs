//! `weft agent`.

use std::{path::PathBuf, process::ExitCode};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(short, long, env = "WEFT_CONFIG", default_value = "/etc/weft/weft.toml", value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("{}: the agent cannot run yet", args.config.display())
}
