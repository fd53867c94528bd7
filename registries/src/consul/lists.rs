//! The lists that are waited for, each by a question of its own that Consul answers when the list moved.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use weft_core::registry::RegistryError;

use super::{
    client::{Client, Reading, encoded},
    configuration::Part,
    configured::Configured,
    known::{Known, Name, State},
    objects::{Check, Node, Peering},
};
use crate::http_client::jittered;

/// The least time between two questions for one list, however fast it moves.
const LEAST: Duration = Duration::from_millis(20);
/// How often a list without an index is asked for: it cannot be waited for.
const WITHOUT_INDEX: Duration = Duration::from_secs(5);
/// How long one rests at first after an answer that came at once and had no news, and at most. Something between us and
/// Consul does not let questions wait: asked again at once, it would answer so for ever.
const IDLE: (Duration, Duration) = (Duration::from_millis(100), WITHOUT_INDEX);
/// An answer without news that came sooner was not waited for.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Within what time those who are woken ask.
const WOKEN: Duration = Duration::from_millis(1500);
/// What part of a wait is the whole of it: clocks differ.
const WHOLE: f64 = 0.9;
/// The longest that Consul may be asked to wait.
const LONGEST: Duration = Duration::from_secs(60);

/// One list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// All services with their tags. Its index moves with every write of an instance.
    Services,
    /// All nodes. Its index moves with every write of a node.
    Nodes,
    /// Checks that warn.
    Warning,
    /// Checks that fail. Waiting for these, and not for all checks, sleeps through the outputs of those that pass.
    Critical,
    /// Configuration.
    Configuration(Part),
    /// What a peer exports to us. The lists of the catalog say nothing of it, whatever peer they are asked about.
    Imported,
    /// The instances of one service of a peer.
    Instances,
}

/// What was heard of a list.
pub(super) struct Heard {
    pub(super) list: List,
    pub(super) index: Option<u64>,
    /// Whether the index is another one than was waited for.
    pub(super) moved: bool,
    /// Whether the index went back: the server's state is not the one that it was.
    pub(super) went_back: bool,
    pub(super) filtered: bool,
    /// Whether access control refuses what no rule allows.
    pub(super) default_deny: bool,
    body: Body,
}

enum Body {
    Services(BTreeMap<String, Vec<String>>),
    Nodes(Vec<Node>),
    Checks(State, Vec<Check>),
    Configuration(Part, Vec<Value>),
    Moved(Name),
}

impl List {
    /// Those of the catalog, and of configuration where that is wanted; of a peer, what it exports.
    pub(super) fn all(configuration: bool, peer: bool) -> Vec<Self> {
        if peer {
            return vec![Self::Imported];
        }
        let mut all = vec![Self::Nodes, Self::Services, Self::Warning, Self::Critical];
        if configuration {
            all.extend(Part::ALL.map(Self::Configuration));
        }
        all
    }

    /// Whether it is of the catalog, whose indexes never go back while its state is the same. Those of keys do when their last
    /// traces are cleared away.
    pub(super) fn is_of_catalog(self) -> bool {
        matches!(self, Self::Services | Self::Nodes | Self::Warning | Self::Critical)
    }

    /// What tells it from the others: its path, or how that begins.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Services => "/v1/catalog/services",
            Self::Nodes => "/v1/catalog/nodes",
            Self::Warning => "/v1/health/state/warning",
            Self::Critical => "/v1/health/state/critical",
            Self::Configuration(part) => part.path(),
            Self::Imported => "/v1/peering/",
            Self::Instances => "/v1/health/service/",
        }
    }

    fn path(self, client: &Client) -> String {
        match self {
            Self::Imported => format!("{}{}", self.name(), encoded(client.peer())),
            _ => self.name().to_owned(),
        }
    }

    /// Reads the list as it is; `before` is its index as it was heard last.
    pub(super) async fn read(self, client: &Client, before: Option<u64>) -> Result<Heard, RegistryError> {
        self.heard(&self.ask(client).await?, before)
    }

    async fn ask(self, client: &Client) -> Result<Reading, RegistryError> {
        match self {
            Self::Imported => client.read_peer(&self.path(client)).await,
            _ => client.read(&self.path(client)).await,
        }
    }

    fn heard(self, reading: &Reading, before: Option<u64>) -> Result<Heard, RegistryError> {
        let body = match self {
            Self::Services => Body::Services(reading.json()?),
            Self::Nodes => Body::Nodes(reading.json()?),
            Self::Warning => Body::Checks(State::Warning, reading.json()?),
            Self::Critical => Body::Checks(State::Critical, reading.json()?),
            Self::Configuration(part) => Body::Configuration(part, reading.json()?),
            Self::Imported => {
                let peering: Peering = reading.json()?;
                let names = peering.imported().map_err(RegistryError::Unreachable)?;
                return Ok(Heard::polled(self, reading, Body::Services(names)));
            }
            Self::Instances => return Ok(Heard::polled(self, reading, Body::Services(BTreeMap::new()))),
        };
        let went_back = matches!((reading.index, before), (Some(now), Some(before)) if now < before);
        let moved = reading.index.is_none() || reading.index != before;
        let Reading { index, filtered, default_deny, .. } = *reading;
        Ok(Heard { list: self, index, moved, went_back, filtered, default_deny, body })
    }

    /// Asks for the list for ever, from `index` on, and says what it hears; ends with the first error, or when nobody
    /// listens.
    pub(super) async fn follow(
        self,
        client: Client,
        mut index: Option<u64>,
        wait: Duration,
        heard: mpsc::Sender<Result<Heard, RegistryError>>,
    ) {
        let mut pace = Pace::default();
        loop {
            let (asked, patience) = (Instant::now(), jittered(wait).min(LONGEST));
            let answered = match index {
                Some(index) if !pace.is_woken => client.wait(&self.path(&client), index, patience).await,
                Some(_) => self.ask(&client).await,
                None => {
                    sleep(jittered(WITHOUT_INDEX)).await;
                    self.ask(&client).await
                }
            };
            let word = answered.and_then(|reading| self.heard(&reading, index));
            let is_over = word.is_err();
            let is_news = word.as_ref().is_ok_and(|heard| heard.moved);
            let next = asked + pace.after(asked.elapsed(), patience, is_news || index.is_none());
            index = word.as_ref().ok().and_then(|heard| heard.index);
            if heard.send(word).await.is_err() || is_over {
                return;
            }
            sleep_until(next).await;
        }
    }
}

/// How fast one question follows another.
#[derive(Default)]
struct Pace {
    /// How long was rested last because nothing waited; zero when something does.
    idle: Duration,
    /// Whether the last question was answered before its time and without news. So are all that wait when a snapshot is
    /// restored, before the index is the snapshot's: waited for again, the old index would tell nothing for a whole wait.
    /// The next question does not wait.
    is_woken: bool,
    /// Whether that one brought no news either, since which nothing did.
    is_vain: bool,
}

impl Pace {
    /// How long after a question the next one may be asked, where it was answered after `took`, and `patience` was how long
    /// it might have waited.
    fn after(&mut self, took: Duration, patience: Duration, is_news: bool) -> Duration {
        let is_whole = took >= patience.mul_f64(WHOLE);
        // Who was woken for nothing was woken by a server that lets nobody wait so long.
        self.is_vain = !is_news && (self.is_woken || (self.is_vain && !is_whole));
        self.is_woken = !is_news && !self.is_vain && !is_whole;
        self.idle = match is_news || took >= AT_ONCE {
            true => Duration::ZERO,
            false => (self.idle * 2).clamp(IDLE.0, IDLE.1),
        };
        // A restored snapshot wakes everybody at once.
        let spread = if self.is_woken { WOKEN.mul_f64(fastrand::f64()) } else { Duration::ZERO };
        self.idle.max(LEAST).max(spread)
    }
}

/// Waits for ever until a service of a peer moves, and says so; ends with the first error, or when nobody listens.
pub(super) async fn follow_instances(
    client: Client,
    service: Name,
    wait: Duration,
    heard: mpsc::Sender<Result<Heard, RegistryError>>,
) {
    let path = format!("{}{}", List::Instances.name(), encoded(&service));
    let mut index = None;
    let mut pace = Pace::default();
    loop {
        let (asked, patience) = (Instant::now(), jittered(wait).min(LONGEST));
        let answered = match index {
            Some(index) if !pace.is_woken => client.wait(&path, index, patience).await,
            _ => client.read(&path).await,
        };
        let word = match answered {
            Ok(reading) if reading.index.is_some() && reading.index == index => None,
            Ok(reading) => {
                index = reading.index;
                Some(Ok(Heard::polled(List::Instances, &reading, Body::Moved(service.clone()))))
            }
            Err(error) => Some(Err(error)),
        };
        let is_over = matches!(word, Some(Err(_)));
        let next = asked + pace.after(asked.elapsed(), patience, word.is_some());
        if let Some(word) = word
            && (heard.send(word).await.is_err() || is_over)
        {
            return;
        }
        sleep_until(if index.is_some() { next } else { next + WITHOUT_INDEX }).await;
    }
}

impl Heard {
    /// Of something whose index is not to be waited for.
    fn polled(list: List, reading: &Reading, body: Body) -> Self {
        let Reading { filtered, default_deny, .. } = *reading;
        Self { list, index: None, moved: false, went_back: false, filtered, default_deny, body }
    }

    /// Whether this cannot be the list of the catalog that is known: somebody began it again.
    pub(super) fn is_of_another_catalog(&self, known: &Known) -> bool {
        matches!(&self.body, Body::Nodes(list) if known.is_another(list))
    }

    /// Whether it shows that the server's state is an older one than that which is known, or another.
    pub(super) fn is_of_older_state(&self, known: &Known) -> bool {
        let is_begun_anew = || matches!(&self.body, Body::Nodes(list) if known.is_begun_anew(list));
        (self.went_back && self.list.is_of_catalog()) || is_begun_anew()
    }

    /// Tells what was heard.
    pub(super) fn tell(self, known: &mut Known, configured: &mut Option<Configured>) {
        match self.body {
            Body::Services(list) => known.services(&list),
            Body::Nodes(list) => known.nodes(&list),
            Body::Checks(state, list) => known.checks(state, list),
            Body::Moved(name) => known.mark(|service| *service == *name),
            Body::Configuration(part, list) => {
                if let Some(configured) = configured {
                    configured.hear(part, list, self.default_deny, known);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_let_questions_wait_is_asked_more_and_more_seldom() {
        let (soon, late, whole) =
            (Duration::from_millis(5), Duration::from_secs(29), Duration::from_secs(30));
        let mut pace = Pace::default();
        assert!(pace.after(soon, whole, false) <= WOKEN);
        let pauses: Vec<_> = (0..8).map(|_| pace.after(soon, whole, false).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!(pace.after(soon, whole, true), LEAST, "there is news");
        assert!(pace.after(soon, whole, false) < WOKEN.max(IDLE.0) * 2, "and it begins anew");
        assert_eq!(pace.after(late, whole, false), LEAST, "it waits again");
    }

    #[test]
    fn who_is_woken_without_news_asks_once_without_waiting() {
        let (soon, some, whole) = (Duration::from_millis(5), Duration::from_secs(7), Duration::from_secs(30));
        let mut pace = Pace::default();
        let mut woken = |took, is_news| {
            pace.after(took, whole, is_news);
            pace.is_woken
        };
        assert!(!woken(some, true) && !woken(whole, false));
        assert!(woken(some, false), "something woke it");
        assert!(!woken(soon, false), "this one did not wait");
        assert!(!woken(some, false), "who lets nobody wait long is not asked twice each time");
        assert!(!woken(some, true) && woken(some, false), "until there was news");
    }
}
