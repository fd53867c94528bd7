//! `weft demo --platforms … --once`: some seconds with all registries, some with one of them dead, and a verdict.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;
use weft_testbed::Kind;

use super::{
    application::Application,
    outage::{Outage, Sight, served},
};
use crate::{
    demo::{
        judge::{self, Common, conclude, hop},
        scene::{Running, Scene},
    },
    lifecycle::Signals,
};

/// How long all registries are there.
const BEFORE: Duration = Duration::from_secs(5);
/// How soon the agents must say that one is not.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);
/// How long it goes on from then.
const DURING: Duration = Duration::from_secs(8);

/// What `--platforms … --once -o json` prints.
#[derive(Debug, Serialize)]
struct Report {
    requests: u64,
    failed: u64,
    platforms: BTreeMap<&'static str, PlatformReport>,
    outage: OutageReport,
    #[serde(flatten)]
    common: Common,
}

/// What one platform had a part in.
#[derive(Debug, Serialize)]
struct PlatformReport {
    server: String,
    /// Services of the application that it tells of, by the load generator's agent.
    services: usize,
    /// Their endpoints on it.
    endpoints: usize,
    /// Requests that those answered.
    requests: u64,
}

/// What happened while a registry was dead.
#[derive(Debug, Serialize)]
struct OutageReport {
    killed: &'static str,
    lasted_s: f64,
    /// When every agent had said that it does not reach it; none when not all did.
    noticed_after_ms: Option<u64>,
    /// What they said in the end.
    agents_say: String,
    requests: u64,
    failed: u64,
    /// Requests that were answered meanwhile, by platform.
    by_platform: BTreeMap<&'static str, u64>,
    /// Services and endpoints of the killed one's that are still called.
    services: usize,
    endpoints: usize,
}

/// What was seen.
struct Seen {
    before: Sight,
    outage: Outage,
    noticed: Option<Duration>,
    after: Sight,
}

pub(super) async fn run(
    demo: &mut Running<Application>,
    json: bool,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    eprintln!("all agents see everything: calling");
    let seen = tokio::select! {
        seen = watch(demo) => seen?,
        _ = signals.next() => anyhow::bail!("stopped before the end"),
    };
    Ok(conclude(&report(demo, &seen), json, &demo.children)?)
}

async fn watch(demo: &mut Running<Application>) -> anyhow::Result<Seen> {
    pause(demo, BEFORE).await;
    let before = Sight::of(demo.scene.site()).await;
    let outage = Outage::begin(demo).await?;
    eprintln!("the registry of {} is killed: calling on", outage.killed);
    let mut noticed = None;
    while noticed.is_none() && outage.began.elapsed() < NOTICED_WITHIN {
        pause(demo, Duration::from_millis(50)).await;
        let lost = Sight::of(demo.scene.site()).await.all_lost(outage.killed);
        noticed = lost.then(|| outage.began.elapsed());
    }
    pause(demo, DURING).await;
    Ok(Seen { before, outage, noticed, after: Sight::of(demo.scene.site()).await })
}

/// Lets it run, and notes whose process ends.
async fn pause(demo: &mut Running<Application>, time: Duration) {
    tokio::time::sleep(time).await;
    demo.children.look().await;
}

fn report(demo: &Running<Application>, seen: &Seen) -> Report {
    let tally = demo.load.tally();
    let instances = demo.scene.instances();
    let platforms = demo.scene.servers().iter().map(|(kind, server)| {
        let (services, endpoints) = seen.before.counts(*kind, instances);
        let server = server.address();
        (kind.name(), PlatformReport { server, services, endpoints, requests: served(&tally, *kind) })
    });
    let platforms: BTreeMap<_, _> = platforms.collect();
    let Outage { killed, began, .. } = seen.outage;
    let since = seen.outage.since(&tally);
    let (services, endpoints) = seen.after.counts(killed, instances);
    let outage = OutageReport {
        killed: killed.name(),
        lasted_s: began.elapsed().as_secs_f64(),
        noticed_after_ms: seen.noticed.and_then(|after| u64::try_from(after.as_millis()).ok()),
        agents_say: seen.after.state(killed).1,
        requests: since.requests,
        failed: since.failed,
        by_platform: demo.scene.kinds().map(|kind| (kind.name(), since.served(kind))).collect(),
        services,
        endpoints,
    };
    let chain = demo.scene.chain();
    let hops: Vec<_> = chain.windows(2).map(|pair| hop(pair[0], pair[1])).collect();
    let mut reasons = judge::judge(&hops, &tally, &demo.observations, &demo.children);
    for kind in demo.scene.kinds() {
        let expected = instances.iter().filter(|instance| instance.kind == kind).count();
        reasons.extend(judge_platform(kind, expected, &platforms[kind.name()]));
    }
    reasons.extend(judge_outage(&outage, &platforms[killed.name()], seen.after.all_lost(killed)));
    let common = Common::new(&tally, &demo.observations, reasons);
    Report { requests: tally.requests, failed: tally.failed, platforms, outage, common }
}

fn judge_platform(kind: Kind, expected: usize, platform: &PlatformReport) -> Vec<String> {
    let mut wrong = Vec::new();
    if (platform.services, platform.endpoints) != (expected, expected) {
        let PlatformReport { services, endpoints, .. } = platform;
        wrong.push(format!(
            "{kind} has {services} services and {endpoints} endpoints, not {expected} of each"
        ));
    }
    if platform.requests == 0 {
        wrong.push(format!("nothing on {kind} answered"));
    }
    wrong
}

fn judge_outage(outage: &OutageReport, platform: &PlatformReport, still_lost: bool) -> Vec<String> {
    let killed = outage.killed;
    let mut wrong = Vec::new();
    if outage.noticed_after_ms.is_none() || !still_lost {
        wrong.push(format!("not every agent says that it lost {killed}: {}", outage.agents_say));
    }
    if outage.requests == 0 {
        wrong.push(format!("there were no requests while {killed} was dead"));
    }
    let silent = outage.by_platform.iter().filter(|(_, requests)| **requests == 0);
    wrong.extend(silent.map(|(name, _)| format!("nothing on {name} answered while {killed} was dead")));
    if (outage.services, outage.endpoints) != (platform.services, platform.endpoints) {
        let (now, before) = (outage.endpoints, platform.endpoints);
        wrong.push(format!("of {before} endpoints that {killed} told of {now} were called when it was dead"));
    }
    wrong
}

impl judge::Report for Report {
    fn common(&self) -> &Common {
        &self.common
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{} requests, {} failed", self.requests, self.failed)?;
        writeln!(out, "{:<12} {:>8} {:>9} {:>9}  SERVER", "PLATFORM", "SERVICES", "ENDPOINTS", "REQUESTS")?;
        for (name, PlatformReport { server, services, endpoints, requests }) in &self.platforms {
            writeln!(out, "{name:<12} {services:>8} {endpoints:>9} {requests:>9}  {server}")?;
        }
        let OutageReport { killed, lasted_s, agents_say, requests, failed, .. } = &self.outage;
        writeln!(
            out,
            "the registry of {killed} was dead for {lasted_s:.1} s: {requests} requests meanwhile, {failed} failed"
        )?;
        writeln!(out, "the agents' word on it: {agents_say}")
    }
}
