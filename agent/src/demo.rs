//! `weft demo`: a whole mesh on this machine, in real processes with real certificates, shown live.
//!
//! ```text
//!   loadgen ──> agent one ══mTLS══> agent two ──> web ──> agent two ══mTLS══> agent one ──> reviews v1 / v2
//! ```
//!
//! The demonstration is an operator with a load generator: it starts the binary's own verbs as a user would, and everything it
//! shows it learns from outside: answers of the services, the agents' admin sockets, and the certificates that the mesh
//! ports present. Its children end when it ends, however it ends.
//!
//! With `--platforms` ([`platforms`]) the application is spread over real registries instead, one of which is killed.

mod children;
mod client;
mod judge;
mod layout;
mod load;
mod observe;
mod once;
mod platforms;
pub mod probe;
mod scene;
mod screen;
pub mod service;
mod site;

use std::{process::ExitCode, time::Duration};

use layout::{Layout, SHARES};
use load::Load;
use scene::{Running, bring_up};
use screen::{Screen, View, quoted, weft};
use weft_testbed::Kind;

use crate::lifecycle::Signals;

/// How the demonstration runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Run for a few seconds, judge and end.
    pub once: bool,
    /// Print the result as JSON.
    pub json: bool,
    /// The platforms to spread an application over; none for the sample mesh of two hosts.
    pub platforms: Vec<Kind>,
}

/// How often the live table is drawn.
const REDRAW: Duration = Duration::from_millis(500);
/// Requests per second of the load generator.
const RATE: u32 = 200;

/// Runs the demonstration to its end.
///
/// # Errors
/// When the mesh does not come up. What was started is ended and removed all the same.
pub async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    if !options.platforms.is_empty() {
        return platforms::run(options, &mut signals).await;
    }
    let (layout, children) = bring_up(&mut signals, Layout::create).await?;
    let load = Load::start(layout.loadgen_outbound, &site::host("web"), "reviews", RATE);
    let serving = layout.serving();
    let mut demo = Running::observe(layout, children, load, &serving);
    let outcome = if options.once {
        once::run(&mut demo, options.json, &mut signals).await
    } else {
        live(&mut demo, &mut signals).await
    };
    demo.end().await;
    outcome
}

async fn live(demo: &mut Running<Layout>, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    let mut ticks = tokio::time::interval(REDRAW);
    let mut screen = Screen::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                demo.children.look().await;
                screen.draw(&View::of(demo, answers(demo), try_next(demo)))?;
            }
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Which version of reviews answered how often.
fn answers(demo: &Running<Layout>) -> (&'static str, String) {
    let versions = demo.load.tally().versions("reviews");
    let answered: u64 = versions.values().sum();
    let split: Vec<String> = SHARES
        .iter()
        .map(|(version, share)| {
            let count = versions.get(*version).copied().unwrap_or(0);
            let percent = 100.0 * count as f64 / answered.max(1) as f64;
            format!("{version} {count} ({percent:.1} %, began as {share})")
        })
        .collect();
    ("ANSWERED BY REVIEWS", split.join("  "))
}

fn try_next(demo: &Running<Layout>) -> Vec<(&'static str, String)> {
    let (layout, children, weft) = (&demo.scene, &demo.children, weft());
    let [one, two] = layout.agents().map(|agent| quoted(&agent.socket()));
    let routes = quoted(&layout.routes_file());
    let share = SHARES[0].1;
    let kill = |name: &str| {
        let pid = children.pid_of(name).map_or_else(|| "PID".into(), |pid| pid.to_string());
        format!("kill -9 {pid}   # is back after a few seconds, as under systemd")
    };
    let refused = format!("curl -i -H 'Host: reviews.default.mesh' http://{}/", layout.loadgen_outbound);
    vec![
        ("change the split", format!("sed -i 's/weight = {share}/weight = 25/' {routes}   # half and half")),
        ("kill reviews v2", kill("reviews v2")),
        ("kill an agent", kill("agent one")),
        ("look at every call", format!("{weft} tap --socket {two}")),
        ("what an agent knows", format!("{weft} endpoints --socket {one}")),
        ("its certificates", format!("{weft} certs --socket {one}")),
        ("be refused", refused),
    ]
}
