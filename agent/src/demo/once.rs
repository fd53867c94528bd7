//! `weft demo --once`: runs for a few seconds, judges what was seen, and says so by its exit code.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;

use super::{
    Demo,
    layout::{SHARES, identity},
    load::Tally,
    observe::{Call, Sides},
};
use crate::lifecycle::Signals;

/// How long it runs at least.
const RUN_FOR: Duration = Duration::from_secs(8);
/// How long it goes on at most until enough rotations were seen.
const RUN_AT_MOST: Duration = Duration::from_secs(25);
/// How many rotations must be seen of each serving identity.
const ROTATIONS_EACH: u64 = 2;
/// How many standard deviations the split may be off: by chance it is in one run of fifteen thousand.
const DEVIATIONS: f64 = 4.0;

/// A caller and whom it called.
#[derive(Debug, Serialize)]
struct Caller {
    source: String,
    destination: String,
    count: u64,
    mutual_tls: bool,
}

/// What `--once -o json` prints.
#[derive(Debug, Serialize)]
struct Report {
    requests: u64,
    failed: u64,
    by_version: BTreeMap<String, u64>,
    callers: Vec<Caller>,
    rotations: u64,
    rotations_by_identity: BTreeMap<String, u64>,
    p50_us: u64,
    p99_us: u64,
    /// `ok` or `failed`.
    verdict: &'static str,
    /// Why the verdict is not `ok`.
    reasons: Vec<String>,
}

pub(super) async fn run(demo: &mut Demo, json: bool, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    tokio::select! {
        () = watch(demo) => {}
        _ = signals.next() => anyhow::bail!("stopped before the end"),
    }
    let report = judge(demo);
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report)?;
    }
    if report.reasons.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    demo.children.print_logs();
    Ok(ExitCode::FAILURE)
}

/// Runs until time is up and enough was seen, or it cannot get better.
async fn watch(demo: &mut Demo) {
    let began = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        demo.children.look().await;
        let enough =
            demo.observations.rotations().values().filter(|seen| seen.changes >= ROTATIONS_EACH).count() >= 2;
        let elapsed = began.elapsed();
        if elapsed >= RUN_AT_MOST || elapsed >= RUN_FOR && enough {
            return;
        }
    }
}

fn judge(demo: &Demo) -> Report {
    let tally = demo.load.tally();
    let calls = demo.observations.calls();
    let rotations = demo.observations.rotations();
    let rotations_by_identity: BTreeMap<String, u64> =
        rotations.iter().map(|(identity, seen)| (identity.clone(), seen.changes)).collect();
    let mut reasons = Vec::new();
    if tally.failed > 0 {
        reasons.push(format!("{} of {} requests failed: {:?}", tally.failed, tally.requests, tally.failures));
    }
    reasons.extend(judge_split(&tally));
    reasons.extend(judge_calls(&calls));
    reasons.extend(judge_coverage(&tally, &calls, demo.observations.missed()));
    for account in ["web", "reviews"] {
        let seen = rotations_by_identity.get(&identity(account)).copied().unwrap_or(0);
        if seen < ROTATIONS_EACH {
            reasons.push(format!("the certificate of {account} was seen to change {seen} times"));
        }
    }
    for process in
        demo.children.processes.iter().filter(|process| process.ended.is_some() || process.restarts > 0)
    {
        reasons.push(format!("{} ended", process.name));
    }
    Report {
        requests: tally.requests,
        failed: tally.failed,
        callers: calls.into_iter().map(|(call, sides)| Caller::new(call, sides.count())).collect(),
        rotations: rotations_by_identity.values().sum(),
        rotations_by_identity,
        p50_us: tally.latency.value_at_quantile(0.5),
        p99_us: tally.latency.value_at_quantile(0.99),
        by_version: tally.by_version,
        verdict: if reasons.is_empty() { "ok" } else { "failed" },
        reasons,
    }
}

impl Caller {
    fn new(call: Call, count: u64) -> Self {
        Self { source: call.source, destination: call.destination, count, mutual_tls: call.mutual_tls }
    }
}

/// Whether the split is what chance allows.
fn judge_split(tally: &Tally) -> Option<String> {
    let answered: u64 = tally.by_version.values().sum();
    if answered < 100 {
        return Some(format!("only {answered} requests were answered"));
    }
    let (first, share) = SHARES[0];
    let share = f64::from(share) / f64::from(SHARES.iter().map(|(_, share)| share).sum::<u32>());
    let expected = answered as f64 * share;
    let deviation = (expected * (1.0 - share)).sqrt();
    let got = tally.by_version.get(first).copied().unwrap_or(0) as f64;
    ((got - expected).abs() > DEVIATIONS * deviation).then(|| {
        format!("{first} got {got} of {answered}: {expected:.0} ± {:.0} expected", DEVIATIONS * deviation)
    })
}

/// The two hops of every request.
fn hops() -> [Call; 2] {
    let call = |source: &str, destination: &str| Call {
        source: identity(source),
        destination: identity(destination),
        mutual_tls: true,
    };
    [call("loadgen", "web"), call("web", "reviews")]
}

/// Whether both hops, and nothing else, were mutual TLS with the expected identities, as both sides saw it.
fn judge_calls(calls: &BTreeMap<Call, Sides>) -> Vec<String> {
    let hops = hops();
    let mut wrong = Vec::new();
    for hop in &hops {
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

/// Whether most answered requests were seen on both hops. Taps begin a moment late and may miss some.
fn judge_coverage(tally: &Tally, calls: &BTreeMap<Call, Sides>, missed: u64) -> Vec<String> {
    let answered: u64 = tally.by_version.values().sum();
    let seen = |hop: &Call| calls.get(hop).map_or(0, |sides| sides.called);
    let few = hops().into_iter().filter(|hop| seen(hop) + missed < answered / 2);
    few.map(|hop| format!("of {answered} answered requests only {} were: {hop}", seen(&hop))).collect()
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let security = if self.mutual_tls { "mutual TLS" } else { "plaintext" };
        write!(f, "{} -> {} by {security}", self.source, self.destination)
    }
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(
        out,
        "{} requests, {} failed, by version {:?}",
        report.requests, report.failed, report.by_version
    )?;
    writeln!(out, "p50 {} us, p99 {} us", report.p50_us, report.p99_us)?;
    for caller in &report.callers {
        let security = if caller.mutual_tls { "mTLS" } else { "plaintext" };
        writeln!(out, "{} -> {} {} times by {security}", caller.source, caller.destination, caller.count)?;
    }
    writeln!(
        out,
        "{} certificates were replaced meanwhile: {:?}",
        report.rotations, report.rotations_by_identity
    )?;
    for reason in &report.reasons {
        writeln!(out, "wrong: {reason}")?;
    }
    writeln!(out, "verdict: {}", report.verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hop_in_plaintext_or_seen_from_one_side_only_is_wrong() {
        let both = Sides { calling: 100, called: 100 };
        let good: BTreeMap<Call, Sides> = hops().into_iter().map(|hop| (hop, both)).collect();
        assert!(judge_calls(&good).is_empty());

        let mut plain = good.clone();
        let hop = Call { destination: "reviews.default".into(), mutual_tls: false, ..hops()[1].clone() };
        plain.insert(hop, Sides { calling: 1, called: 0 });
        let wrong = judge_calls(&plain);
        assert!(wrong.len() == 1 && wrong[0].ends_with("-> reviews.default by plaintext"), "{wrong:?}");

        for sides in [Sides { calling: 0, called: 1 }, Sides { calling: 1, called: 0 }] {
            let mut half = good.clone();
            half.insert(hops()[0].clone(), sides);
            assert_eq!(judge_calls(&half).len(), 1, "{half:?}");
        }
    }
}
