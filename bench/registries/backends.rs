//! What is asked of every registry, and of each how it is filled, changed and counted.

mod consul;
mod dns;
mod eureka;
mod kubernetes;
mod nomad;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use weft_testbed::{Kind, installed};

use crate::{
    ENDPOINTS, Options,
    agent::Place,
    probe::{self, Applications, Sign},
    report::{Row, quantile},
};

/// How many write to a server at once.
const WRITERS: usize = 8;
/// For how long changes are timed at most: where the agent asks at intervals, each takes one.
const CHANGING: Duration = Duration::from_secs(120);

/// What went between the agent and the server so far.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    requests: u64,
    bytes: u64,
}

/// A real server that only the agent and this process use.
trait Backend: Sync {
    /// The agent's `[[registry]]` section: services speak mesh by a rule, those that calls go to are called in plaintext.
    fn section(&self) -> String;
    /// Writes so many services of ten endpoints each.
    fn fill(&self, services: usize) -> anyhow::Result<()>;
    /// Writes what is changed later.
    fn prepare(&self, applications: &Applications, changes: usize) -> anyhow::Result<()>;
    /// Makes a change, and returns when the server has it: which service to call, and what shows it.
    fn change(&self, applications: &Applications, number: usize) -> anyhow::Result<(String, Sign)>;
    /// Waits until the server has nothing new to tell.
    fn rest(&self) -> anyhow::Result<()> {
        Ok(())
    }
    /// Replaces every endpoint by another.
    fn roll(&self, services: usize) -> anyhow::Result<()>;
    /// What the agent has asked for so far.
    fn traffic(&self) -> anyhow::Result<Traffic>;
}

/// Measures one.
pub(crate) fn measure(
    options: &Options,
    (name, kind): (&'static str, Kind),
    services: usize,
) -> anyhow::Result<Row> {
    eprintln!("{name}, {services} services of {ENDPOINTS}");
    let home = installed(kind)?;
    let place = Place::new(&options.weft_bin)?;
    let backend: Box<dyn Backend> = match kind {
        Kind::Consul => Box::new(consul::start(&home)?),
        Kind::Nomad => Box::new(nomad::start(&home)?),
        Kind::Kubernetes => Box::new(kubernetes::start(&home, place.scratch())?),
        Kind::Eureka => Box::new(eureka::start(&home)?),
        Kind::Knot => Box::new(dns::start(&home)?),
    };
    let mut row = Row { backend: name, services, endpoints: services * ENDPOINTS, ..Row::default() };
    let idle = {
        let agent = place.start("idle", &backend.section())?;
        agent.until(0)?;
        agent.measured.settled_megabytes()?
    };
    let began = Instant::now();
    backend.fill(services)?;
    let applications = Applications::start()?;
    backend.prepare(&applications, options.changes)?;
    eprintln!("  filled in {:.1} s; an idle agent has {idle:.1} MB", began.elapsed().as_secs_f64());

    let agent = place.start("agent", &backend.section())?;
    row.ready_s = agent.until(row.endpoints)?.as_secs_f64();
    row.memory_mb = agent.measured.settled_megabytes()? - idle;
    eprintln!("  ready after {:.2} s, {:.1} MB above idle", row.ready_s, row.memory_mb);

    backend.rest()?;
    let before = backend.traffic()?;
    thread::sleep(Duration::from_secs(options.rest));
    let after = backend.traffic()?;
    let per_minute = |before: u64, after: u64| (after - before) as f64 * 60.0 / options.rest.max(1) as f64;
    row.requests_per_minute = per_minute(before.requests, after.requests);
    row.bytes_per_minute = per_minute(before.bytes, after.bytes);
    eprintln!(
        "  at rest: {:.1} requests, {:.0} bytes a minute",
        row.requests_per_minute, row.bytes_per_minute
    );

    let (mut took, began) = (Vec::new(), Instant::now());
    for number in 0..options.changes {
        if began.elapsed() > CHANGING {
            break;
        }
        // Not in step with anything that the agent does at intervals.
        thread::sleep(Duration::from_millis(fastrand::u64(10..60)));
        let (service, sign) = backend.change(&applications, number)?;
        let time =
            probe::until(place.outbound(), &service, sign).context(agent.measured.process().output())?;
        took.push(time.as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    (row.change_p50_ms, row.change_p99_ms) = (quantile(&took, 0.5), quantile(&took, 0.99));
    row.more.insert("changes", took.len() as f64);
    eprintln!("  a change: p50 {:.1} ms, p99 {:.1} ms", row.change_p50_ms, row.change_p99_ms);

    agent.measured.calm()?;
    let (cpu, began) = (agent.measured.cpu_seconds()?, Instant::now());
    backend.roll(services)?;
    let wrote = began.elapsed().as_secs_f64();
    agent.measured.calm()?;
    row.cpu_s = agent.measured.cpu_seconds()? - cpu;
    row.more.insert("roll_wrote_s", wrote);
    row.more.insert("memory_after_roll_mb", agent.measured.settled_megabytes()? - idle);
    eprintln!("  everything replaced in {wrote:.1} s: {:.2} s of processor time", row.cpu_s);
    Ok(row)
}

/// Does `work` with each number below `count`, several at once; the first fault ends it.
fn each(count: usize, work: impl Fn(usize) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let writer = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            if let Err(error) = work(number) {
                next.store(count, Ordering::Relaxed);
                return Err(error);
            }
        }
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(writer)).collect();
        let ended =
            writers.into_iter().map(|writer| writer.join().unwrap_or_else(|_| bail!("a writer panicked")));
        ended.collect()
    })
}

/// The address of an endpoint, before and after it was replaced.
fn address(service: usize, endpoint: usize, replaced: bool) -> String {
    let second = 1 + service / 250 + if replaced { 100 } else { 0 };
    format!("10.{second}.{}.{}", service % 250, endpoint + 1)
}
