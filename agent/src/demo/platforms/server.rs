//! What a demonstration needs of a platform: that its real server starts, tells of instances, and can be killed.

use std::{sync::Arc, thread, time::Instant};

use anyhow::Context;
use tokio::sync::oneshot;
use weft_testbed::{Home, Kind};

use super::{application::Instance, consul, eureka, kubernetes, nomad};

/// A running server. Everything blocks.
pub(super) trait Server: Send + Sync {
    /// Where it is.
    fn address(&self) -> String;
    /// The agents' `[[registry]]` section.
    fn section(&self) -> String;
    /// Has the platform tell of an instance.
    fn announce(&self, instance: &Instance) -> anyhow::Result<()>;
    /// Kills what the agents follow. What it told of runs on.
    fn kill(&self);
    /// The process that [`Server::kill`] kills, while it runs.
    fn pid(&self) -> Option<u32>;
    /// Takes back what the platform runs for an instance, where it runs anything.
    fn withdraw(&self, _instance: &Instance) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Starts the server of a platform, and says so on standard error.
pub(super) async fn start(home: Home) -> anyhow::Result<(Kind, Arc<dyn Server>)> {
    let (kind, began) = (home.kind(), Instant::now());
    eprintln!("{kind}: starting");
    let server = apart(move || -> anyhow::Result<Arc<dyn Server>> {
        Ok(match home.kind() {
            Kind::Consul => Arc::new(consul::start(&home)?),
            Kind::Nomad => Arc::new(nomad::start(&home)?),
            Kind::Kubernetes => Arc::new(kubernetes::start(&home)?),
            Kind::Eureka => Arc::new(eureka::start(&home)?),
            Kind::Knot => anyhow::bail!("a server of names runs and registers nothing"),
        })
    });
    let server = server.await?.with_context(|| format!("{kind} did not start"))?;
    eprintln!("{kind}: ready after {:.1} s at {}", began.elapsed().as_secs_f64(), server.address());
    Ok((kind, server))
}

/// Runs what blocks on a thread that nobody waits for when the demonstration is ended meanwhile: the servers end
/// with our process, however it ends.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    let (done, outcome) = oneshot::channel();
    thread::spawn(move || done.send(work()));
    outcome.await.context("a thread of the demonstration panicked")
}
