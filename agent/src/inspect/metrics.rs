//! Metrics of the agent itself, beside those of requests.

use std::{
    fmt::{Result, Write as _},
    time::SystemTime,
};

use super::Inspect;
use crate::{
    admin::metrics::{gauge, head, process, registries},
    lifecycle::Phase,
    view::Announcement,
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
    announcements(text, &inspect.announcement_rows(&inspect.statuses.load_full()))?;
    let held = inspect.certificates();
    let name = "weft_certificate_expiry_timestamp_seconds";
    gauge(
        text,
        (name, "When a certificate ends, in seconds since 1970."),
        "identity",
        held.iter().map(|held| (held.identity.as_str(), held.not_after_s)),
    )
}

fn announcements(text: &mut String, rows: &[Announcement]) -> Result {
    if rows.is_empty() {
        return Ok(());
    }
    let labels = |row: &Announcement| {
        let Announcement { registry, service, port, instance, .. } = row;
        format!("registry=\"{registry}\",service=\"{service}\",port=\"{port}\",instance=\"{instance}\"")
    };
    let name = "weft_announcement_in_force";
    head(text, name, "gauge", "Whether a registry has what is announced there, and took the last word.")?;
    for row in rows {
        let in_force = row.confirmed_s.is_some() && row.fault.is_none();
        writeln!(text, "{name}{{{}}} {}", labels(row), u8::from(in_force))?;
    }
    let name = "weft_announcement_healthy";
    head(text, name, "gauge", "Whether the application of what is announced answers its check.")?;
    for row in rows.iter().filter(|row| row.health != "unknown") {
        writeln!(text, "{name}{{{}}} {}", labels(row), u8::from(row.health == "healthy"))?;
    }
    let name = "weft_announcement_confirmed_timestamp_seconds";
    head(
        text,
        name,
        "gauge",
        "When a registry last said that it has what is announced, in seconds since 1970.",
    )?;
    for row in rows {
        if let Some(at) = row.confirmed_s {
            writeln!(text, "{name}{{{}}} {at}", labels(row))?;
        }
    }
    Ok(())
}
