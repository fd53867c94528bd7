//! The text format of Prometheus, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    histogram::{Counts, DURATIONS, SIZES},
    series::{ConnectionCells, RequestCells, Series},
};

/// What a metric's samples have in common.
#[derive(Clone, Copy, Debug)]
pub struct Family<'a> {
    /// What its name begins with.
    pub prefix: &'a str,
    /// The rest of its name.
    pub name: &'a str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'a str,
    /// One line for people.
    pub help: &'a str,
}

impl Family<'_> {
    fn write_head(&self, out: &mut String) {
        let Self { prefix, name, kind, help } = self;
        // Writing to a string does not fail.
        let _ = write!(out, "# HELP {prefix}_{name} {help}\n# TYPE {prefix}_{name} {kind}\n");
    }
}

/// Writes a metric: a sample for each pair of labels, as they stand between braces, and value.
pub fn write_family<'a, V: Display>(
    out: &mut String,
    family: &Family<'_>,
    samples: impl IntoIterator<Item = (&'a str, V)>,
) {
    family.write_head(out);
    let Family { prefix, name, .. } = family;
    for (labels, value) in samples {
        let _ = match labels {
            "" => writeln!(out, "{prefix}_{name} {value}"),
            labels => writeln!(out, "{prefix}_{name}{{{labels}}} {value}"),
        };
    }
}

#[derive(Default)]
struct RequestSum {
    duration: Counts<{ DURATIONS.len() + 1 }>,
    received: Counts<{ SIZES.len() + 1 }>,
    sent: Counts<{ SIZES.len() + 1 }>,
}

#[derive(Default)]
struct ConnectionSum {
    opened: u64,
    closed: u64,
    received: u64,
    sent: u64,
}

pub(super) fn render(
    prefix: &str,
    requests: Vec<Arc<Series<RequestCells>>>,
    connections: Vec<Arc<Series<ConnectionCells>>>,
) -> String {
    let mut out = String::new();
    render_requests(&mut out, prefix, &requests);
    render_connections(&mut out, prefix, &connections);
    out
}

fn render_requests(out: &mut String, prefix: &str, series: &[Arc<Series<RequestCells>>]) {
    let mut sums = BTreeMap::<&str, RequestSum>::new();
    for one in series {
        let sum = sums.entry(&one.labels).or_default();
        one.cells.duration.add_to(&mut sum.duration);
        one.cells.received.add_to(&mut sum.received);
        one.cells.sent.add_to(&mut sum.sent);
    }
    let family = |name, kind, help| Family { prefix, name, kind, help };
    let totals = sums.iter().map(|(labels, sum)| (*labels, sum.duration.buckets.iter().sum::<u64>()));
    write_family(out, &family("requests_total", "counter", "Requests that ended"), totals);
    let duration =
        family("request_duration_milliseconds", "histogram", "Time from the first byte to the last");
    let counts = sums.iter().map(|(labels, sum)| (*labels, &sum.duration));
    write_histogram(out, &duration, &DURATIONS, 1_000, counts);
    let received = family("request_bytes", "histogram", "Bytes of the request's body");
    write_histogram(out, &received, &SIZES, 1, sums.iter().map(|(labels, sum)| (*labels, &sum.received)));
    let sent = family("response_bytes", "histogram", "Bytes of the response's body");
    write_histogram(out, &sent, &SIZES, 1, sums.iter().map(|(labels, sum)| (*labels, &sum.sent)));
}

fn render_connections(out: &mut String, prefix: &str, series: &[Arc<Series<ConnectionCells>>]) {
    let mut sums = BTreeMap::<&str, ConnectionSum>::new();
    for one in series {
        let sum = sums.entry(&one.labels).or_default();
        sum.opened += one.cells.opened.load(Relaxed);
        sum.closed += one.cells.closed.load(Relaxed);
        sum.received += one.cells.received.load(Relaxed);
        sum.sent += one.cells.sent.load(Relaxed);
    }
    type Number = fn(&ConnectionSum) -> u64;
    let families: [(&str, &str, Number); 4] = [
        ("tcp_connections_opened_total", "Opaque connections that opened, or could not be made", |sum| {
            sum.opened
        }),
        ("tcp_connections_closed_total", "Opaque connections that closed, or could not be made", |sum| {
            sum.closed
        }),
        ("tcp_received_bytes_total", "Bytes from callers of opaque connections", |sum| sum.received),
        ("tcp_sent_bytes_total", "Bytes to callers of opaque connections", |sum| sum.sent),
    ];
    for (name, help, number) in families {
        let family = Family { prefix, name, kind: "counter", help };
        let samples = sums.iter().map(|(labels, sum)| (*labels, number(sum)));
        write_family(out, &family, samples.filter(|(_, number)| *number > 0));
    }
}

/// `unit` is how many of the histogram's own units make one of those that are shown.
fn write_histogram<'a, const B: usize>(
    out: &mut String,
    family: &Family<'_>,
    bounds: &[u64],
    unit: u64,
    rows: impl Iterator<Item = (&'a str, &'a Counts<B>)>,
) {
    family.write_head(out);
    let Family { prefix, name, .. } = family;
    let shown = |value: u64| value as f64 / unit as f64;
    for (labels, counts) in rows {
        let mut below = 0;
        for (bound, count) in bounds.iter().zip(&counts.buckets) {
            below += count;
            let _ = writeln!(out, "{prefix}_{name}_bucket{{{labels},le=\"{}\"}} {below}", shown(*bound));
        }
        let all: u64 = counts.buckets.iter().sum();
        let _ = writeln!(out, "{prefix}_{name}_bucket{{{labels},le=\"+Inf\"}} {all}");
        let _ = writeln!(out, "{prefix}_{name}_sum{{{labels}}} {}", shown(counts.sum));
        let _ = writeln!(out, "{prefix}_{name}_count{{{labels}}} {all}");
    }
}
