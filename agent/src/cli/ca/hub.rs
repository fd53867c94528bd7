//! `weft ca hub`: the authority of a further hub, made where the root's key is.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::SystemTime,
};

use clap::Subcommand;

use super::StateOptions;
use crate::{files::make_private_folder, hub::authority::AuthorityFolder};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the authority's files of a further hub, or renew them: an intermediate of its own under the same root
    Create(CreateArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    #[command(flatten)]
    state: StateOptions,
    /// The state directory of the hub that has the root's key
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Verb::Create(args) = &args.verb;
    make_private_folder(&args.state.state_dir)?;
    let folder = args.state.authority();
    AuthorityFolder::of_state(&args.from).make_hub(&folder, SystemTime::now())?;
    let path = folder.path().display();
    Ok(writeln!(
        io::stdout(),
        "an intermediate of its own in {path}; bring the folder to that hub, it holds its key"
    )?)
}
