//! The load generator: calls as the workload `loadgen`, at a steady rate, and never retries.

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
/// How many failures are kept in words.
const REMEMBERED: usize = 5;

/// What has come of the load so far.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// How often each instance answered: a service and its version.
    pub(super) answers: BTreeMap<(String, String), u64>,
    /// Microseconds.
    pub(super) latency: Histogram<u64>,
    /// The last failures, in words.
    pub(super) failures: Vec<String>,
}

/// The running load.
#[derive(Debug)]
pub(super) struct Load {
    /// The service that is called last, by the one before it: without its answer nothing was answered.
    last: &'static str,
    tally: Mutex<Tally>,
}

impl Load {
    /// Starts calling `host` at `address`, so many times a second.
    pub(super) fn start(address: SocketAddr, host: &str, last: &'static str, rate: u32) -> Arc<Self> {
        let load = Arc::new(Self { last, tally: Mutex::new(Tally::new()) });
        let client = Arc::new(Client::new(address, host));
        for caller in 0..CALLERS {
            tokio::spawn(load.clone().call(client.clone(), caller, Duration::from_secs(1) * CALLERS / rate));
        }
        load
    }

    pub(super) fn tally(&self) -> Tally {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(self: Arc<Self>, client: Arc<Client>, caller: u32, pause: Duration) {
        // Callers take turns instead of calling all at once.
        let first = tokio::time::Instant::now() + pause * caller / CALLERS;
        let mut ticks = tokio::time::interval_at(first, pause);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let began = Instant::now();
            let outcome = one_call(&client, self.last).await;
            self.lock().count(began.elapsed(), outcome);
        }
    }
}

/// Who answered, from the first called to the last: services and their versions.
type Answered = Vec<(String, String)>;

/// Calls once and returns who answered.
async fn one_call(client: &Client, last: &str) -> Result<Answered, String> {
    let answer = client.get("/").await.map_err(|error| format!("{error:#}"))?;
    let page: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if !answer.status.is_success() {
        let fault = answer.headers.get("x-weft-fault").and_then(|fault| fault.to_str().ok());
        let why = fault.map(str::to_owned).or(behind(&page).map(ToString::to_string)).unwrap_or_default();
        return Err(format!("{} {why}", answer.status.as_u16()));
    }
    let answered = answered(&page);
    let whole = answered.last().is_some_and(|(service, _)| service == last);
    if whole { Ok(answered) } else { Err(format!("an answer without {last}: {page}")) }
}

fn answered(page: &Value) -> Answered {
    let pages = std::iter::successors(Some(page), |page| behind(page));
    let text = |page: &Value, key: &str| page.get(key).and_then(Value::as_str).map(str::to_owned);
    pages.map_while(|page| Some((text(page, "service")?, text(page, "version")?))).collect()
}

/// What the service that was called behind this one said.
fn behind(page: &Value) -> Option<&Value> {
    page.as_object()?.values().find(|value| value.is_object())
}

impl Tally {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds that fit");
        Self { requests: 0, failed: 0, answers: BTreeMap::new(), latency, failures: Vec::new() }
    }

    /// How often each version of a service answered.
    pub(super) fn versions(&self, service: &str) -> BTreeMap<String, u64> {
        let of_it = self.answers.iter().filter(|((name, _), _)| name == service);
        of_it.map(|((_, version), count)| (version.clone(), *count)).collect()
    }

    fn count(&mut self, duration: Duration, outcome: Result<Answered, String>) {
        self.requests += 1;
        self.latency.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        match outcome {
            Ok(answered) => {
                for instance in answered {
                    *self.answers.entry(instance).or_default() += 1;
                }
            }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_answered_is_read_down_to_the_last_that_did() {
        let page = json!({ "service": "web", "version": "v1", "reviews": { "service": "reviews", "version": "v2" } });
        let pair = |service: &str, version: &str| (service.to_owned(), version.to_owned());
        assert_eq!(answered(&page), [pair("web", "v1"), pair("reviews", "v2")]);
        let broken = json!({ "service": "web", "version": "v1", "reviews": { "error": "no answer" } });
        assert_eq!(answered(&broken), [pair("web", "v1")]);
        assert_eq!(answered(&Value::Null), []);
    }
}
