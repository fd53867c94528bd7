//! The rows, for programs and for people.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// What was measured of one backend.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) backend: &'static str,
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
    /// From the start of the agent; of the hub: until all agents have everything.
    pub(crate) ready_s: f64,
    /// Above the same process before there was anything to follow, in MB of 10^6 bytes.
    pub(crate) memory_mb: f64,
    pub(crate) change_p50_ms: f64,
    pub(crate) change_p99_ms: f64,
    /// At rest, of one agent.
    pub(crate) requests_per_minute: f64,
    pub(crate) bytes_per_minute: f64,
    /// Of the measured process, while everything was replaced once.
    pub(crate) cpu_s: f64,
    /// What only some have.
    #[serde(flatten)]
    pub(crate) more: BTreeMap<&'static str, f64>,
}

/// The value below which this share of the sorted `values` lies.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

fn values(rows: &[Row]) -> Vec<Value> {
    let rounded = |value: Value| match value.as_f64() {
        Some(number) if value.is_f64() => Value::from((number * 1000.0).round() / 1000.0),
        _ => value,
    };
    let row = |row: &Row| match serde_json::to_value(row) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(key, value)| (key, rounded(value))).collect(),
        other => other.unwrap_or_default(),
    };
    rows.iter().map(row).collect()
}

/// An array, an object for each row.
pub(crate) fn json(rows: &[Row]) -> String {
    format!("{:#}", Value::Array(values(rows)))
}

/// Aligned columns; what only some rows have comes below.
pub(crate) fn table(rows: &[Row]) -> String {
    let heads = [
        "backend",
        "services",
        "endpoints",
        "ready_s",
        "memory_mb",
        "change_p50_ms",
        "change_p99_ms",
        "requests_per_minute",
        "bytes_per_minute",
        "cpu_s",
    ];
    let mut text = heads.map(|head| format!("{head:>width$}", width = width(head))).join("  ");
    for (row, value) in rows.iter().zip(values(rows)) {
        let cells = heads.map(|head| {
            let cell = value[head].as_str().map_or_else(|| value[head].to_string(), str::to_owned);
            format!("{cell:>width$}", width = width(head))
        });
        text.push_str(&format!("\n{}", cells.join("  ")));
        for name in row.more.keys() {
            text.push_str(&format!("\n{:>10}  {name} {}", "", value[*name]));
        }
    }
    text
}

fn width(head: &str) -> usize {
    head.len().max(10)
}
