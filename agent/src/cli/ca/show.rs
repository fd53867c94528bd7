//! `weft ca show`.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::ListArgs;
use crate::{
    cli::{output::span, table::Table},
    hub::{authority::DEFAULT_LEAF_LIFETIME, token::sha256},
};

/// An authority for people and programs.
#[derive(Debug, Serialize)]
struct View {
    trust_domain: String,
    root_sha256: Vec<String>,
    intermediate_ends_in_s: i64,
    root_key_present: bool,
    /// Whether one root replaces another: the first signs, and another one leaves.
    rotating: bool,
}

pub(super) fn run(args: &ListArgs) -> anyhow::Result<()> {
    let folder = args.state.authority();
    let now = SystemTime::now();
    let authority = folder.open(DEFAULT_LEAF_LIFETIME, now)?;
    let remaining = authority.intermediate_ends().duration_since(now).unwrap_or(Duration::ZERO);
    let view = View {
        trust_domain: authority.trust_domain().to_string(),
        root_sha256: authority
            .roots()
            .iter()
            .map(|root| data_encoding::HEXLOWER.encode(&sha256(root)))
            .collect(),
        intermediate_ends_in_s: i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX),
        root_key_present: folder.path().join("root.key").exists(),
        rotating: folder.rotation()?.is_some(),
    };
    args.print(&view, row, "no authority")
}

fn row(view: &View) -> Table {
    let mut table = Table::new(&["TRUST DOMAIN", "INTERMEDIATE ENDS IN", "ROOT KEY", "ROOT SHA-256"]);
    table.row([
        view.trust_domain.clone(),
        span(view.intermediate_ends_in_s),
        if view.root_key_present { "here" } else { "elsewhere" }.to_owned(),
        view.root_sha256.join(" "),
    ]);
    table
}
