//! `weft drain`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::output::{ReadOptions, print_json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    read: ReadOptions,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer: serde_json::Value = args.read.client().post("/drain").await?;
    if args.read.is_json() {
        print_json(&answer)?;
    } else {
        writeln!(
            io::stdout(),
            "draining: what is under way finishes, nothing new is taken, then the agent ends"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
