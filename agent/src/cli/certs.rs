//! `weft certs`.

use std::process::ExitCode;

use super::{
    output::{ReadOptions, print_json, span},
    table::Table,
};
use crate::view::Certificate;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    read: ReadOptions,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let certificates: Vec<Certificate> = args.read.client().get("/certs").await?;
    if args.read.is_json() {
        print_json(&certificates)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["IDENTITY", "SERIAL", "ENDS IN", "LIFETIME"]);
    for certificate in certificates {
        let lifetime =
            i64::try_from(certificate.not_after_s.saturating_sub(certificate.not_before_s)).unwrap_or(0);
        let ends = if certificate.ends_in_s <= 0 { "ENDED".into() } else { span(certificate.ends_in_s) };
        table.row([certificate.identity, certificate.serial, ends, span(lifetime)]);
    }
    table.print("no certificates yet")?;
    Ok(ExitCode::SUCCESS)
}
