//! Metrics of the agent itself, beside those of requests.

use std::{
    fmt::{Result, Write as _},
    time::SystemTime,
};

use super::Inspect;
use crate::{
    admin::metrics::{gauge, head, process, registries},
    lifecycle::Phase,
};

/// All metrics.
pub(super) fn render(inspect: &Inspect) -> String {
    let mut text = inspect.proxy.metrics();
    // Writing to a string cannot fail.
    let _written = render_agent(&mut text, inspect);
    text
}

fn render_agent(text: &mut String, inspect: &Inspect) -> Result {
    process(text, inspect.missing().is_empty() && inspect.lifecycle.phase() <= Phase::Serving)?;
    head(
        text,
        "weft_config_reloads_total",
        "counter",
        "Configurations that were read anew, by what became of them.",
    )?;
    let record = inspect.record.view();
    for (result, count) in [("taken_over", record.reloads), ("refused", record.refused)] {
        writeln!(text, "weft_config_reloads_total{{result=\"{result}\"}} {count}")?;
    }
    head(
        text,
        "weft_config_last_reload_successful",
        "gauge",
        "Whether the file on disk is what is in force.",
    )?;
    writeln!(text, "weft_config_last_reload_successful {}", u8::from(record.fault.is_none()))?;
    registries(text, &inspect.statuses.load_full(), SystemTime::now())?;
    let held = inspect.certificates();
    let name = "weft_certificate_expiry_timestamp_seconds";
    gauge(
        text,
        (name, "When a certificate ends, in seconds since 1970."),
        "identity",
        held.iter().map(|held| (held.identity.as_str(), held.not_after_s)),
    )
}
