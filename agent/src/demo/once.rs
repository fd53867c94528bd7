//! `weft demo --once`: runs for a few seconds, judges what was seen, and says so by its exit code.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;

use super::{
    judge::{self, Common, conclude, hop},
    layout::{Layout, SHARES},
    load::Tally,
    scene::Running,
    site::identity,
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

/// What `--once -o json` prints.
#[derive(Debug, Serialize)]
struct Report {
    requests: u64,
    failed: u64,
    by_version: BTreeMap<String, u64>,
    rotations: u64,
    rotations_by_identity: BTreeMap<String, u64>,
    #[serde(flatten)]
    common: Common,
}

pub(super) async fn run(
    demo: &mut Running<Layout>,
    json: bool,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    tokio::select! {
        () = watch(demo) => {}
        _ = signals.next() => anyhow::bail!("stopped before the end"),
    }
    Ok(conclude(&report(demo), json, &demo.children)?)
}

/// Runs until time is up and enough was seen, or it cannot get better.
async fn watch(demo: &mut Running<Layout>) {
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

fn report(demo: &Running<Layout>) -> Report {
    let tally = demo.load.tally();
    let rotations = demo.observations.rotations();
    let rotations_by_identity: BTreeMap<String, u64> =
        rotations.iter().map(|(identity, seen)| (identity.clone(), seen.changes)).collect();
    let hops = [hop("loadgen", "web"), hop("web", "reviews")];
    let mut reasons = judge::judge(&hops, &tally, &demo.observations, &demo.children);
    reasons.extend(judge_split(&tally));
    for account in ["web", "reviews"] {
        let seen = rotations_by_identity.get(&identity(account)).copied().unwrap_or(0);
        if seen < ROTATIONS_EACH {
            reasons.push(format!("the certificate of {account} was seen to change {seen} times"));
        }
    }
    Report {
        requests: tally.requests,
        failed: tally.failed,
        by_version: tally.versions("reviews"),
        rotations: rotations_by_identity.values().sum(),
        rotations_by_identity,
        common: Common::new(&tally, &demo.observations, reasons),
    }
}

/// Whether the split is what chance allows.
fn judge_split(tally: &Tally) -> Option<String> {
    let versions = tally.versions("reviews");
    let answered: u64 = versions.values().sum();
    if answered < 100 {
        return Some(format!("only {answered} requests were answered"));
    }
    let (first, share) = SHARES[0];
    let share = f64::from(share) / f64::from(SHARES.iter().map(|(_, share)| share).sum::<u32>());
    let expected = answered as f64 * share;
    let deviation = (expected * (1.0 - share)).sqrt();
    let got = versions.get(first).copied().unwrap_or(0) as f64;
    ((got - expected).abs() > DEVIATIONS * deviation).then(|| {
        format!("{first} got {got} of {answered}: {expected:.0} ± {:.0} expected", DEVIATIONS * deviation)
    })
}

impl judge::Report for Report {
    fn common(&self) -> &Common {
        &self.common
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{} requests, {} failed, by version {:?}",
            self.requests, self.failed, self.by_version
        )?;
        writeln!(
            out,
            "{} certificates were replaced meanwhile: {:?}",
            self.rotations, self.rotations_by_identity
        )
    }
}
