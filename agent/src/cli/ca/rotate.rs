//! `weft ca rotate` and `weft ca retire`: one root replaces another while everything runs.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use data_encoding::HEXLOWER;

use super::{StateOptions, node::nodes};
use crate::hub::{operator::not_ready_for, token::sha256};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    state: StateOptions,
}

#[derive(Debug, clap::Args)]
pub(super) struct RetireArgs {
    #[command(flatten)]
    state: StateOptions,
    /// Withdraw it although hosts still need it; they must join anew
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let rotation = args.state.authority().rotate(SystemTime::now())?;
    let mut out = io::stdout().lock();
    writeln!(out, "the root {} signs from here on", shown(&rotation.new))?;
    if let Some(old) = &rotation.old {
        writeln!(out, "the root {} is trusted until `weft ca retire`", shown(old))?;
    }
    writeln!(out, "connected hosts renew within seconds; `weft ca node list` shows who has")?;
    Ok(())
}

pub(super) async fn retire(args: &RetireArgs) -> anyhow::Result<()> {
    let folder = args.state.authority();
    if let Some(rotation) = folder.rotation()? {
        let root = HEXLOWER.encode(&sha256(&rotation.new));
        let waiting = not_ready_for(&root, &nodes(&args.state).await?);
        let count = waiting.len();
        if count > 0 && !args.force {
            anyhow::bail!(
                "the old root is still needed:\n  {}\nwait for {}, remove what is gone with `weft ca node remove`, or use \
                 --force",
                waiting.join("\n  "),
                if count == 1 { "it" } else { "them" },
            );
        }
        folder.retire()?;
        let old = rotation.old.as_deref().map(shown).unwrap_or_default();
        return Ok(writeln!(io::stdout(), "the root {old} is no longer trusted")?);
    }
    Ok(folder.retire()?)
}

fn shown(root: &[u8]) -> String {
    HEXLOWER.encode(&sha256(root))
}
