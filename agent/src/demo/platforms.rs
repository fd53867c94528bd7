//! `weft demo --platforms`: one application over the registries of several platforms, real ones, and one of them killed.
//!
//! ```text
//!   loadgen ──> orders (Consul) ──> payments (Nomad) ──> reviews (Kubernetes) ──> catalog (Eureka) ──> stock (on the first two)
//! ```
//!
//! Each platform is a host with an agent of its own. Every agent follows every platform, and every call of the chain is
//! mutual TLS from one host to the next. The registry of the first platform that was named is killed: what it told of
//! must go on being called, and the agents must say that it is gone.

mod application;
mod consul;
mod eureka;
mod kubernetes;
mod nomad;
mod once;
mod outage;
mod server;

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use weft_testbed::{Home, Kind, installed};

use self::{
    application::Application,
    outage::{Outage, Sight},
};
use super::{
    Options, REDRAW,
    load::Load,
    scene::{Running, Scene, bring_up},
    screen::{Screen, View, quoted, weft},
    site::host,
};
use crate::lifecycle::Signals;

/// Requests per second of the load generator, each of which goes through the whole application.
const RATE: u32 = 100;
/// After how long the live demonstration kills a registry.
const KILL_AFTER: Duration = Duration::from_secs(15);

/// Runs the demonstration to its end.
///
/// # Errors
/// When a platform's server is not on this machine, before anything is started; when something does not come up.
pub(super) async fn run(options: &Options, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    let homes = homes(&options.platforms)?;
    let (application, children) = bring_up(signals, || Application::create(&homes)).await?;
    let load = Load::start(application.entry(), &host(application.first()), application.last(), RATE);
    let serving = application.serving();
    let mut demo = Running::observe(application, children, load, &serving);
    let outcome = if options.once {
        once::run(&mut demo, options.json, signals).await
    } else {
        live(&mut demo, signals).await
    };
    demo.end().await;
    outcome
}

/// Where the servers are; all that are missing are named at once. A demonstration without one of them would show less
/// than was asked for.
fn homes(kinds: &[Kind]) -> anyhow::Result<Vec<Home>> {
    let (mut homes, mut missing) = (Vec::new(), Vec::new());
    for &kind in kinds {
        match installed(kind) {
            Ok(home) => homes.push(home),
            Err(not) => missing.push(format!(
                "\n  {kind}: {}; get it with `just testbed {kind}` (or {})",
                not.why, not.cure
            )),
        }
    }
    if !missing.is_empty() {
        bail!(
            "not every platform that was asked for is on this machine, so nothing was started:{}",
            missing.concat()
        );
    }
    Ok(homes)
}

async fn live(demo: &mut Running<Application>, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    let mut ticks = tokio::time::interval(REDRAW);
    let mut screen = Screen::new();
    let began = tokio::time::Instant::now();
    let mut outage = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
        }
        demo.children.look().await;
        if outage.is_none() && began.elapsed() >= KILL_AFTER {
            outage = Some(Outage::begin(demo).await?);
        }
        let sight = Sight::of(demo.scene.site()).await;
        let mut view = View::of(demo, ("", String::new()), try_next(demo));
        view.tables.push(platforms_table(demo, &sight));
        view.tables.push(outage_table(demo, outage.as_ref(), began.elapsed()));
        screen.draw(&view)?;
    }
}

fn platforms_table(demo: &Running<Application>, sight: &Sight) -> (String, Vec<String>) {
    let heading =
        format!("{:<12} {:>8} {:>9} {:>9}  {}", "PLATFORM", "SERVICES", "ENDPOINTS", "REQUESTS", "REGISTRY");
    let tally = demo.load.tally();
    let lines = demo.scene.kinds().map(|kind| {
        let (services, endpoints) = sight.counts(kind, demo.scene.instances());
        let (alarm, state) = sight.state(kind);
        let alarm = if alarm { "!" } else { "" };
        let name = kind.name();
        format!("{alarm}{name:<12} {services:>8} {endpoints:>9} {:>9}  {state}", outage::served(&tally, kind))
    });
    (heading, lines.collect())
}

fn outage_table(
    demo: &Running<Application>,
    outage: Option<&Outage>,
    running: Duration,
) -> (String, Vec<String>) {
    let line = match outage {
        None => {
            let left = KILL_AFTER.saturating_sub(running).as_secs();
            format!("none yet: the registry of {} is killed in {left} s", demo.scene.victim().0)
        }
        Some(outage) => {
            let since = outage.since(&demo.load.tally());
            let alarm = if since.failed > 0 { "!" } else { "" };
            let seconds = outage.began.elapsed().as_secs();
            format!(
                "{alarm}the registry of {} was killed {seconds} s ago; since then {} requests, {} failed",
                outage.killed, since.requests, since.failed
            )
        }
    };
    ("OUTAGE".into(), vec![line])
}

fn try_next(demo: &Running<Application>) -> Vec<(&'static str, String)> {
    let (weft, front) = (weft(), quoted(&demo.scene.front().socket()));
    let mut commands = vec![
        ("who told of what", format!("{weft} endpoints --explain --socket {front}")),
        ("how registries are", format!("{weft} status --socket {front}")),
        ("look at every call", format!("{weft} tap --socket {front}")),
    ];
    if let Some((kind, server)) = demo.scene.servers().last()
        && let Some(pid) = server.pid()
    {
        commands.push(("kill a registry", format!("kill -9 {pid}   # {kind}'s; it stays away")));
    }
    commands
}
