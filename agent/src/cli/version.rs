//! `weft version`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::output::{OutputOptions, print_json};
use crate::view::Version;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    format: OutputOptions,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let version = Version::current();
    if args.format.is_json() {
        print_json(&version)?;
    } else {
        writeln!(io::stdout(), "weft {} {}", version.version, version.platform)?;
    }
    Ok(ExitCode::SUCCESS)
}
