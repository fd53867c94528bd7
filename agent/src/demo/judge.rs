//! What is asked of every demonstration that runs `--once`: that nothing failed, that every hop was mutual TLS as both
//! sides saw it, that nobody died unasked; and how it is said.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

use super::{
    children::Children,
    load::Tally,
    observe::{Call, Observations, Sides},
    site::identity,
};

/// A caller and whom it called.
#[derive(Debug, Serialize)]
pub(super) struct Caller {
    source: String,
    destination: String,
    count: u64,
    mutual_tls: bool,
}

/// What every report has.
#[derive(Debug, Serialize)]
pub(super) struct Common {
    pub(super) callers: Vec<Caller>,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    /// `ok` or `failed`.
    verdict: &'static str,
    /// Why the verdict is not `ok`.
    reasons: Vec<String>,
}

impl Common {
    pub(super) fn new(tally: &Tally, observations: &Observations, reasons: Vec<String>) -> Self {
        let calls = observations.calls().into_iter();
        Self {
            callers: calls.map(|(call, sides)| Caller::new(call, sides.count())).collect(),
            p50_us: tally.latency.value_at_quantile(0.5),
            p99_us: tally.latency.value_at_quantile(0.99),
            verdict: if reasons.is_empty() { "ok" } else { "failed" },
            reasons,
        }
    }

    /// For people.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "p50 {} us, p99 {} us", self.p50_us, self.p99_us)?;
        for caller in &self.callers {
            let security = if caller.mutual_tls { "mTLS" } else { "plaintext" };
            writeln!(
                out,
                "{} -> {} {} times by {security}",
                caller.source, caller.destination, caller.count
            )?;
        }
        for reason in &self.reasons {
            writeln!(out, "wrong: {reason}")?;
        }
        writeln!(out, "verdict: {}", self.verdict)
    }
}

impl Caller {
    fn new(call: Call, count: u64) -> Self {
        Self { source: call.source, destination: call.destination, count, mutual_tls: call.mutual_tls }
    }
}

/// A report that can be printed for people too.
pub(super) trait Report: Serialize {
    fn common(&self) -> &Common;
    fn print(&self, out: &mut impl Write) -> io::Result<()>;
}

/// Prints a report and says by the exit code what it comes to.
pub(super) fn conclude(report: &impl Report, json: bool, children: &Children) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        report.print(&mut out)?;
        report.common().print(&mut out)?;
    }
    if report.common().reasons.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    children.print_logs();
    Ok(ExitCode::FAILURE)
}

/// A hop by mutual TLS, as it should be.
pub(super) fn hop(source: &str, destination: &str) -> Call {
    Call { source: identity(source), destination: identity(destination), mutual_tls: true }
}

/// What is wrong with the requests, the hops that each took, and the processes.
pub(super) fn judge(
    hops: &[Call],
    tally: &Tally,
    observations: &Observations,
    children: &Children,
) -> Vec<String> {
    let calls = observations.calls();
    let mut reasons = Vec::new();
    if tally.failed > 0 {
        reasons.push(format!("{} of {} requests failed: {:?}", tally.failed, tally.requests, tally.failures));
    }
    reasons.extend(judge_calls(hops, &calls));
    reasons.extend(judge_coverage(hops, tally, &calls, observations.missed()));
    let ended = children.processes.iter().filter(|process| process.ended.is_some() || process.restarts > 0);
    reasons.extend(ended.map(|process| format!("{} ended", process.name)));
    reasons
}

/// Whether the hops, and nothing else, were mutual TLS with the expected identities, as both sides saw it.
fn judge_calls(hops: &[Call], calls: &BTreeMap<Call, Sides>) -> Vec<String> {
    let mut wrong = Vec::new();
    for hop in hops {
        let sides = calls.get(hop).copied().unwrap_or_default();
        for (side, count) in [("calling", sides.calling), ("called", sides.called)] {
            if count == 0 {
                wrong.push(format!("the {side} side did not see: {hop}"));
            }
        }
    }
    wrong.extend(calls.keys().filter(|call| !hops.contains(call)).map(|call| format!("unexpected: {call}")));
    wrong
}

/// Whether most answered requests were seen on every hop. Taps begin a moment late and may miss some.
fn judge_coverage(hops: &[Call], tally: &Tally, calls: &BTreeMap<Call, Sides>, missed: u64) -> Vec<String> {
    let answered = tally.requests - tally.failed;
    let seen = |hop: &Call| calls.get(hop).map_or(0, |sides| sides.called);
    let few = hops.iter().filter(|hop| seen(hop) + missed < answered / 2);
    few.map(|hop| format!("of {answered} answered requests only {} were: {hop}", seen(hop))).collect()
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let security = if self.mutual_tls { "mutual TLS" } else { "plaintext" };
        write!(f, "{} -> {} by {security}", self.source, self.destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hop_in_plaintext_or_seen_from_one_side_only_is_wrong() {
        let hops = [hop("loadgen", "web"), hop("web", "reviews")];
        let both = Sides { calling: 100, called: 100 };
        let good: BTreeMap<Call, Sides> = hops.iter().map(|hop| (hop.clone(), both)).collect();
        assert!(judge_calls(&hops, &good).is_empty());

        let mut plain = good.clone();
        let hop = Call { destination: "reviews.default".into(), mutual_tls: false, ..hops[1].clone() };
        plain.insert(hop, Sides { calling: 1, called: 0 });
        let wrong = judge_calls(&hops, &plain);
        assert!(wrong.len() == 1 && wrong[0].ends_with("-> reviews.default by plaintext"), "{wrong:?}");

        for sides in [Sides { calling: 0, called: 1 }, Sides { calling: 1, called: 0 }] {
            let mut half = good.clone();
            half.insert(hops[0].clone(), sides);
            assert_eq!(judge_calls(&hops, &half).len(), 1, "{half:?}");
        }
    }
}
