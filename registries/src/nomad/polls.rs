//! When to ask for which allocation's checks: bounded in number at once and in number per second, and spread.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};
use weft_core::registry::RegistryError;

use super::{client::Client, objects::Check};
use crate::http_client::jittered;

/// How many are asked at once.
const AT_ONCE: usize = 4;
/// How many are asked per second at most when all is quiet: each question goes on from the server to a node.
const PER_SECOND: f64 = 20.0;
/// How soon a check that has no result yet is asked for again.
const SOON: Duration = Duration::from_secs(1);
/// How much rarer an allocation without checks is asked: it may get some when its job changes.
const RARELY: u32 = 30;

/// What an allocation's node said; none when it knows of no such allocation or does not answer.
pub(super) type Answer = (String, Result<Option<BTreeMap<String, Check>>, RegistryError>);

/// The questions.
pub(super) struct Polls {
    interval: Duration,
    /// When each allocation is asked next; none while it is asked.
    next: BTreeMap<String, Option<Instant>>,
    due: BinaryHeap<Reverse<(Instant, String)>>,
    asked: FuturesUnordered<BoxFuture<'static, Answer>>,
}

impl Polls {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, next: BTreeMap::new(), due: BinaryHeap::new(), asked: FuturesUnordered::new() }
    }

    /// Asks as soon as there is room.
    pub(super) fn ask_now(&mut self, allocation: &str) {
        self.ask_at(allocation, Instant::now());
    }

    /// Asks again, as soon as what was answered makes sensible.
    pub(super) fn ask_again(&mut self, allocation: &str, answer: Option<&BTreeMap<String, Check>>) {
        let usual = self.usual();
        let wait = match answer {
            Some(checks) if checks.values().any(|check| check.status == "pending") => SOON.min(usual),
            Some(checks) if checks.is_empty() => usual * RARELY,
            _ => usual,
        };
        self.ask_at(allocation, Instant::now() + jittered(wait));
    }

    /// Asks no more about allocations that are not among these.
    pub(super) fn keep(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        self.next.retain(|allocation, _| wanted(allocation));
    }

    /// Whether it is asked now or will be.
    pub(super) fn knows(&self, allocation: &str) -> bool {
        self.next.contains_key(allocation)
    }

    /// Whether there is anybody left who was never asked or is asked now.
    pub(super) fn are_idle(&mut self) -> bool {
        let now = Instant::now();
        self.asked.is_empty() && self.due.peek().is_none_or(|Reverse((due, _))| *due > now)
    }

    /// The next answer. May be given up and called again.
    pub(super) async fn next(&mut self, client: &Client) -> Answer {
        loop {
            self.ask_those_due(client);
            let due = self.due.peek().filter(|_| self.asked.len() < AT_ONCE).map(|Reverse((due, _))| *due);
            let time_to_ask = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(answer) = self.asked.next() => return answer,
                () = time_to_ask => {}
            }
        }
    }

    fn ask_those_due(&mut self, client: &Client) {
        let now = Instant::now();
        while self.asked.len() < AT_ONCE
            && let Some(Reverse((due, _))) = self.due.peek()
            && *due <= now
            && let Some(Reverse((due, allocation))) = self.due.pop()
        {
            // What was put off, brought forward or forgotten since leaves its old place in the queue.
            let Some(next) = self.next.get_mut(&allocation).filter(|next| **next == Some(due)) else {
                continue;
            };
            *next = None;
            let client = client.clone();
            self.asked.push(Box::pin(async move {
                let answer = client.checks(&allocation).await;
                (allocation, answer)
            }));
        }
    }

    fn ask_at(&mut self, allocation: &str, when: Instant) {
        let next = self.next.entry(allocation.to_owned()).or_insert(None);
        if next.is_none_or(|next| when < next) {
            *next = Some(when);
            self.due.push(Reverse((when, allocation.to_owned())));
        }
    }

    /// The interval, stretched where there are so many that they would be asked too often.
    #[allow(clippy::cast_precision_loss, reason = "a number of allocations")]
    fn usual(&self) -> Duration {
        self.interval.max(Duration::from_secs_f64(self.next.len() as f64 / PER_SECOND))
    }
}
