//! `weft demo`: a whole mesh on this machine, in real processes with real certificates, shown live.
//!
//! ```text
//!   loadgen ──> agent one ══mTLS══> agent two ──> web ──> agent two ══mTLS══> agent one ──> reviews v1 / v2
//! ```
//!
//! The demonstration is an operator with a load generator: it starts the binary's own verbs as a user would, and everything it
//! shows it learns from outside: answers of the services, the agents' admin sockets, and the certificates that the mesh
//! ports present. Its children end when it ends, however it ends.

mod children;
mod client;
mod layout;
mod load;
mod observe;
mod once;
pub mod probe;
mod screen;
pub mod service;

use std::{process::ExitCode, sync::Arc, time::Duration};

use children::Children;
use layout::Layout;
use load::Load;
use observe::Observations;

use crate::lifecycle::Signals;

/// How the demonstration runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Run for a few seconds, judge and end.
    pub once: bool,
    /// Print the result as JSON.
    pub json: bool,
}

/// How often the live table is drawn.
const REDRAW: Duration = Duration::from_millis(500);

/// How often it is tried to bring the mesh up: a port that was free may be taken before it is used.
const ATTEMPTS: u32 = 3;

/// A running mesh and what is seen of it.
struct Demo {
    layout: Layout,
    children: Children,
    load: Arc<Load>,
    observations: Arc<Observations>,
}

/// Runs the demonstration to its end.
///
/// # Errors
/// When the mesh does not come up. What was started is ended and removed all the same.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let mut demo = bring_up(&mut signals).await?;
    let outcome = if options.once {
        once::run(&mut demo, options.json, &mut signals).await
    } else {
        live(&mut demo, &mut signals).await
    };
    demo.children.end().await;
    demo.layout.remove().await;
    outcome
}

/// Brings the mesh up, on other ports when somebody was faster to take one.
async fn bring_up(signals: &mut Signals) -> anyhow::Result<Demo> {
    let mut attempts = 1;
    loop {
        let layout = Layout::create()?;
        let mut children = Children::new(&layout);
        let started = tokio::select! {
            started = start(&layout, &mut children) => Some(started),
            _ = signals.next() => None,
        };
        if let Some(Ok(())) = started {
            return Ok(Demo::observe(layout, children));
        }
        let again = started.is_some() && attempts < ATTEMPTS && children.has_no_port();
        if started.is_some() && !again {
            children.print_logs();
        }
        children.end().await;
        layout.remove().await;
        match started {
            Some(Err(error)) if !again => return Err(error),
            Some(_) => attempts += 1,
            None => anyhow::bail!("stopped before the mesh was up"),
        }
    }
}

/// Brings the mesh up in the order in which an operator would.
async fn start(layout: &Layout, children: &mut Children) -> anyhow::Result<()> {
    layout.write_files()?;
    children.authority(layout).await?;
    children.start_hub(layout).await?;
    children.join_agents(layout).await?;
    children.start_services(layout).await?;
    children.start_agents(layout).await
}

impl Demo {
    fn observe(layout: Layout, children: Children) -> Self {
        let observations = Observations::start(&layout);
        let load = Load::start(layout.loadgen_outbound, &layout.web_host());
        Self { layout, children, load, observations }
    }
}

async fn live(demo: &mut Demo, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    let mut ticks = tokio::time::interval(REDRAW);
    let mut screen = screen::Screen::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                demo.children.look().await;
                screen.draw(demo)?;
            }
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
        }
    }
}
