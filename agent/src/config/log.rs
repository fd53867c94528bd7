//! `[access_log]` and `[metrics]`: what is said of requests, and where.

use std::path::PathBuf;

use weft_core::config::{Readable, Section};

/// Where requests are logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output, one JSON object per line.
    Stdout,
    /// This file, one JSON object per line.
    File(PathBuf),
}

/// How metrics are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricPrefix {
    /// `weft_requests_total`.
    #[default]
    Weft,
    /// `istio_requests_total`, for dashboards made for Istio.
    Istio,
}

impl MetricPrefix {
    /// The prefix without its underscore.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Weft => "weft",
            Self::Istio => "istio",
        }
    }
}

pub(super) fn read_access_log(root: &Section<'_>) -> Option<AccessLogTarget> {
    let Some(section) = root.section("access_log") else { return Some(AccessLogTarget::default()) };
    let value = section.require_value("path", "a file, \"stdout\" or \"off\"")?;
    match value.as_text() {
        Some("off") => Some(AccessLogTarget::Off),
        Some("stdout") => Some(AccessLogTarget::Stdout),
        _ => PathBuf::read(&value).map(AccessLogTarget::File),
    }
}

pub(super) fn read_metrics(root: &Section<'_>) -> Option<MetricPrefix> {
    let Some(section) = root.section("metrics") else { return Some(MetricPrefix::default()) };
    match section.get("prefix") {
        Some(value) => value.word(&[("weft", MetricPrefix::Weft), ("istio", MetricPrefix::Istio)]),
        None => Some(MetricPrefix::default()),
    }
}
