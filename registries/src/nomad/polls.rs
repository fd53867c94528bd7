//! When to ask for which allocation's checks: bounded in number at once and in number per second, and spread.
//!
//! The server passes a question on to the allocation's node, and waits for that: a node that is dead costs every question
//! its whole time. So a node is asked one thing at a time, one that kept silent rests, and those that did so last hold up
//! only a part of the questions: the checks of all other nodes go on.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    mem,
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};
use weft_core::registry::RegistryError;

use super::objects::Check;
use crate::{
    http_client::{growing_pause, jittered},
    shared::Text,
};

/// How many are asked at once.
const AT_ONCE: usize = 4;
/// How many of them may be of nodes that kept silent when they were asked last.
const SILENT_AT_ONCE: usize = 1;
/// How long a node rests that keeps silent: at first, and at most.
const RESTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// How many are asked per second at most when all is quiet: each question goes on from the server to a node.
const PER_SECOND: f64 = 20.0;
/// How soon a check that has no result yet is asked for again.
const SOON: Duration = Duration::from_secs(1);
/// How much rarer an allocation without checks is asked: it may get some when its job changes.
const RARELY: u32 = 30;

/// What an allocation's node said; none when nobody knows of such an allocation.
pub(super) type Said = Result<Option<BTreeMap<String, Check>>, RegistryError>;

/// What was said of which allocation.
pub(super) type Answer = (Text, Said);

/// The questions.
pub(super) struct Polls {
    interval: Duration,
    allocations: BTreeMap<Text, Asked>,
    nodes: BTreeMap<Text, Node>,
    due: BinaryHeap<Reverse<Turn>>,
    asked: FuturesUnordered<BoxFuture<'static, (Text, Answer)>>,
}

/// When an allocation is asked for.
type Turn = (Instant, Text);

struct Asked {
    node: Text,
    /// When it is asked next; none while it is asked.
    next: Option<Instant>,
}

/// A node that is asked.
#[derive(Default)]
struct Node {
    is_asked: bool,
    /// How often it kept silent since it answered last.
    silences: u32,
    rests_until: Option<Instant>,
    /// What waits until it has answered.
    waiting: Vec<Turn>,
}

impl Polls {
    pub(super) fn new(interval: Duration) -> Self {
        let (allocations, nodes) = (BTreeMap::new(), BTreeMap::new());
        Self { interval, allocations, nodes, due: BinaryHeap::new(), asked: FuturesUnordered::new() }
    }

    /// Asks as soon as there is room. What begins to run on a node shows that the node is there.
    pub(super) fn ask_now(&mut self, allocation: &Text, node: &Text) {
        // Where the server does not say on which node it is, it has one of its own.
        let node = if node.is_empty() { allocation } else { node };
        self.nodes.entry(node.clone()).or_default().rests_until = None;
        let asked = Asked { node: node.clone(), next: None };
        self.allocations.entry(allocation.clone()).or_insert(asked).node = node.clone();
        self.ask_at(allocation, Instant::now());
    }

    /// Asks again, as soon as what was answered makes sensible.
    pub(super) fn ask_again(&mut self, allocation: &Text, answer: Option<&BTreeMap<String, Check>>) {
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
        self.allocations.retain(|allocation, _| wanted(allocation));
        let named: BTreeSet<&Text> = self.allocations.values().map(|asked| &asked.node).collect();
        self.nodes.retain(|name, node| node.is_asked || named.contains(name));
    }

    /// Whether it is asked now or will be.
    pub(super) fn knows(&self, allocation: &str) -> bool {
        self.allocations.contains_key(allocation)
    }

    /// Whether there is anybody left who was never asked or is asked now. Only who is asked makes others wait.
    pub(super) fn are_idle(&mut self) -> bool {
        let now = Instant::now();
        self.asked.is_empty() && self.due.peek().is_none_or(|Reverse((due, _))| *due > now)
    }

    /// The next answer. May be given up and called again.
    pub(super) async fn next(&mut self, ask: impl Fn(Text) -> BoxFuture<'static, Said>) -> Answer {
        loop {
            self.ask_those_due(&ask);
            let due = self.due.peek().filter(|_| self.asked.len() < AT_ONCE).map(|Reverse((due, _))| *due);
            let time_to_ask = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((node, answer)) = self.asked.next() => {
                    self.note(&node, &answer.1);
                    return answer;
                }
                () = time_to_ask => {}
            }
        }
    }

    fn ask_those_due(&mut self, ask: &impl Fn(Text) -> BoxFuture<'static, Said>) {
        let now = Instant::now();
        let mut silent = self.nodes.values().filter(|node| node.is_asked && node.silences > 0).count();
        while self.asked.len() < AT_ONCE
            && let Some(Reverse((due, _))) = self.due.peek()
            && *due <= now
            && let Some(Reverse((due, allocation))) = self.due.pop()
        {
            // What was put off, brought forward or forgotten since leaves its old place in the queue.
            let found = self.allocations.get_mut(&allocation).filter(|asked| asked.next == Some(due));
            let Some(asked) = found else { continue };
            let node = self.nodes.entry(asked.node.clone()).or_default();
            if node.is_asked {
                node.waiting.push((due, allocation));
            } else if let Some(until) = node.rests(now, silent) {
                asked.next = Some(until);
                self.due.push(Reverse((until, allocation)));
            } else {
                (node.is_asked, asked.next) = (true, None);
                silent += usize::from(node.silences > 0);
                let (node, said) = (asked.node.clone(), ask(allocation.clone()));
                self.asked.push(Box::pin(async move { (node, (allocation, said.await)) }));
            }
        }
    }

    /// A node has answered, or has not.
    fn note(&mut self, node: &str, said: &Said) {
        let Some(node) = self.nodes.get_mut(node) else { return };
        node.is_asked = false;
        if matches!(said, Err(RegistryError::Unreachable(_))) {
            node.rests_until = Some(Instant::now() + growing_pause(RESTS, node.silences));
            node.silences += 1;
        } else {
            (node.silences, node.rests_until) = (0, None);
        }
        self.due.extend(mem::take(&mut node.waiting).into_iter().map(Reverse));
    }

    fn ask_at(&mut self, allocation: &Text, when: Instant) {
        let Some(asked) = self.allocations.get_mut(allocation) else { return };
        if asked.next.is_none_or(|next| when < next) {
            asked.next = Some(when);
            self.due.push(Reverse((when, allocation.clone())));
        }
    }

    /// The interval, stretched where there are so many that they would be asked too often.
    #[allow(clippy::cast_precision_loss, reason = "a number of allocations")]
    fn usual(&self) -> Duration {
        self.interval.max(Duration::from_secs_f64(self.allocations.len() as f64 / PER_SECOND))
    }
}

impl Node {
    /// Until when it is not asked, if so, where so many silent ones are asked already.
    fn rests(&self, now: Instant, silent: usize) -> Option<Instant> {
        let crowded = self.silences > 0 && silent >= SILENT_AT_ONCE;
        self.rests_until.filter(|until| *until > now).or(crowded.then(|| now + jittered(SOON)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks `polls` for so long, of nodes that are named by the first letter of their allocations: `d…` are dead, and take
    /// three seconds to say so. How often each node answered, or did not.
    async fn counted(polls: &mut Polls, time: Duration) -> BTreeMap<char, u32> {
        let ask = |allocation: Text| -> BoxFuture<'static, Said> {
            Box::pin(async move {
                if allocation.starts_with('d') {
                    tokio::time::sleep(Duration::from_secs(3)).await;
                    return Err(RegistryError::Unreachable("late".into()));
                }
                let check = Check { status: "success".into(), ..Check::default() };
                Ok(Some([("check".to_owned(), check)].into()))
            })
        };
        let (end, mut counts) = (Instant::now() + time, BTreeMap::new());
        while let Ok((allocation, said)) = tokio::time::timeout_at(end, polls.next(ask)).await {
            *counts.entry(allocation.chars().next().unwrap()).or_default() += 1;
            polls.ask_again(&allocation, said.ok().flatten().as_ref());
        }
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_node_holds_up_nobody_elses_checks() {
        let mut polls = Polls::new(Duration::from_secs(1));
        (0..20).for_each(|number| polls.ask_now(&format!("d{number}").into(), &"dead".into()));
        polls.ask_now(&"a".into(), &"alive".into());
        let counts = counted(&mut polls, Duration::from_secs(60)).await;
        assert!(counts[&'a'] >= 45, "once a second, spread: {counts:?}");
        assert!((3..=6).contains(&counts[&'d']), "it rests longer and longer: {counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn many_dead_nodes_hold_up_nobody_elses_checks_once_they_are_known() {
        let mut polls = Polls::new(Duration::from_secs(1));
        (0..40).for_each(|number| {
            polls.ask_now(&format!("d{number}").into(), &format!("dead {number}").into());
        });
        polls.ask_now(&"a".into(), &"alive".into());
        counted(&mut polls, Duration::from_secs(40)).await;
        let counts = counted(&mut polls, Duration::from_secs(60)).await;
        assert!(counts[&'a'] >= 24 && counts[&'d'] <= 21, "every two seconds, spread: {counts:?}");
        assert!(counts[&'d'] >= 10, "they are asked on: {counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_begins_to_run_on_a_node_is_asked_for_at_once() {
        let mut polls = Polls::new(Duration::from_secs(1));
        polls.ask_now(&"d".into(), &"node".into());
        counted(&mut polls, Duration::from_secs(120)).await;
        polls.ask_now(&"a".into(), &"node".into());
        assert!(!polls.are_idle());
        let counts = counted(&mut polls, Duration::from_secs(4)).await;
        assert!(counts[&'a'] >= 1, "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_what_is_wanted_no_more() {
        let mut polls = Polls::new(Duration::from_secs(1));
        (0..8).for_each(|number| polls.ask_now(&format!("a{number}").into(), &"node".into()));
        polls.keep(|allocation| allocation == "a3");
        let counts = counted(&mut polls, Duration::from_secs(10)).await;
        assert!(counts[&'a'] <= 14 && polls.knows("a3") && !polls.knows("a4"), "{counts:?}");
        polls.keep(|_| false);
        assert!(counted(&mut polls, Duration::from_secs(10)).await.is_empty() && polls.nodes.is_empty());
    }
}
