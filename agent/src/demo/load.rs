//! The load generator: calls `web` as the workload `loadgen`, at a steady rate, and never retries.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde_json::Value;

use super::client::Client;

/// How many callers there are; each has its own connection.
const CALLERS: u32 = 8;
/// Requests per second of all callers.
const RATE: u32 = 200;
/// How many failures are kept in words.
const REMEMBERED: usize = 5;

/// What has come of the load so far.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) by_version: BTreeMap<String, u64>,
    /// Microseconds.
    pub(super) latency: Histogram<u64>,
    /// The last failures, in words.
    pub(super) failures: Vec<String>,
}

/// The running load.
#[derive(Debug)]
pub(super) struct Load {
    tally: Mutex<Tally>,
}

impl Load {
    /// Starts calling.
    pub(super) fn start(address: SocketAddr, host: &str) -> Arc<Self> {
        let load = Arc::new(Self { tally: Mutex::new(Tally::new()) });
        let client = Arc::new(Client::new(address, host));
        for caller in 0..CALLERS {
            tokio::spawn(load.clone().call(client.clone(), caller));
        }
        load
    }

    pub(super) fn tally(&self) -> Tally {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(self: Arc<Self>, client: Arc<Client>, caller: u32) {
        let pause = Duration::from_secs(1) * CALLERS / RATE;
        // Callers take turns instead of calling all at once.
        let first = tokio::time::Instant::now() + pause * caller / CALLERS;
        let mut ticks = tokio::time::interval_at(first, pause);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let began = Instant::now();
            let outcome = one_call(&client).await;
            self.lock().count(began.elapsed(), outcome);
        }
    }
}

/// Calls once and returns which version of reviews answered.
async fn one_call(client: &Client) -> Result<String, String> {
    let answer = client.get("/").await.map_err(|error| format!("{error:#}"))?;
    let page: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if !answer.status.is_success() {
        let fault = answer.headers.get("x-weft-fault").and_then(|fault| fault.to_str().ok());
        let behind = page.pointer("/reviews").map(ToString::to_string);
        let why = fault.map(str::to_owned).or(behind).unwrap_or_default();
        return Err(format!("{} {why}", answer.status.as_u16()));
    }
    let version = page.pointer("/reviews/version").and_then(Value::as_str);
    version.map(str::to_owned).ok_or_else(|| format!("an answer without a version: {page}"))
}

impl Tally {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds that fit");
        Self { requests: 0, failed: 0, by_version: BTreeMap::new(), latency, failures: Vec::new() }
    }

    fn count(&mut self, duration: Duration, outcome: Result<String, String>) {
        self.requests += 1;
        self.latency.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        match outcome {
            Ok(version) => *self.by_version.entry(version).or_default() += 1,
            Err(failure) => {
                self.failed += 1;
                if self.failures.len() == REMEMBERED {
                    self.failures.remove(0);
                }
                self.failures.push(failure);
            }
        }
    }
}
