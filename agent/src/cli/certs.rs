//! `weft certs`.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use weft_core::tls::rfc3339;

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
    let mut table = Table::new(&["IDENTITY", "SERIAL", "ENDS IN", "VALID UNTIL"]);
    for certificate in certificates {
        let until = rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(certificate.not_after_s));
        let ends = if certificate.ends_in_s <= 0 { "ENDED".into() } else { span(certificate.ends_in_s) };
        table.row([certificate.identity, certificate.serial, ends, until]);
    }
    table.print("no certificates yet")?;
    Ok(ExitCode::SUCCESS)
}
