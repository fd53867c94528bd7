//! The hub's metrics.

use std::{
    fmt::{Result, Write as _},
    time::SystemTime,
};

use super::Page;
use crate::{
    admin::{
        metrics::{gauge, head, process, registries},
        pages::seconds,
    },
    hub::authority::AuthorityFolder,
};

/// All metrics.
pub(super) fn render(page: &Page) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _written = write(&mut text, page);
    text
}

fn write(text: &mut String, page: &Page) -> Result {
    process(text, page.missing().is_empty())?;
    registries(text, &page.statuses.load_full(), SystemTime::now())?;
    head(text, "weft_hub_nodes_connected", "gauge", "Hosts whose stream is up.")?;
    writeln!(text, "weft_hub_nodes_connected {}", page.roster.connected().len())?;
    head(
        text,
        "weft_hub_certificate_requests_total",
        "counter",
        "Certificates that were asked for, by what became of them.",
    )?;
    let (signed, refused) = page.office.counts();
    for (result, count) in [("signed", signed), ("refused", refused)] {
        writeln!(text, "weft_hub_certificate_requests_total{{result=\"{result}\"}} {count}")?;
    }
    let authority = page.office.authority();
    let roots = authority.roots().iter().filter_map(|root| AuthorityFolder::ends(root));
    let ends = roots.min().map(|ends| ("root", seconds(ends)));
    gauge(
        text,
        ("weft_authority_expiry_timestamp_seconds", "When what signs ends, in seconds since 1970."),
        "certificate",
        ends.into_iter().chain([("intermediate", seconds(authority.intermediate_ends()))]),
    )
}
