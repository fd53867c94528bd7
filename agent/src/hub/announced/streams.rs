//! The streams that are open at this hub, and what was said on each.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use weft_core::registry::LocalInstance;

use super::MOST_OF_A_NODE;

/// How long a refusal is shown after it was last given: an agent that still wants it asks again every minute.
const REFUSAL_SHOWN: Duration = Duration::from_secs(150);
/// How many refusals of one stream are kept.
const MOST_REFUSALS: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Streams {
    /// In their order.
    open: BTreeMap<u64, Open>,
    /// Those of each node; the latest counts.
    of_node: BTreeMap<String, BTreeSet<u64>>,
    next: u64,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) node: String,
    pub(super) since: Instant,
    /// What the node announces on it.
    pub(super) said: BTreeMap<String, Said>,
    /// What was refused, why, and when last.
    refused: BTreeMap<String, (String, Instant)>,
    /// How many of its words are not answered yet.
    pub(super) unanswered: usize,
    /// When the last one was.
    pub(super) quiet_since: Instant,
}

/// What was announced on a stream.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) instance: LocalInstance,
    /// Whether it was answered: it was in the store then.
    pub(super) is_kept: bool,
}

impl Streams {
    /// A stream begins; gives its number.
    pub(super) fn enter(&mut self, node: &str, now: Instant) -> u64 {
        self.next += 1;
        let open = Open {
            node: node.to_owned(),
            since: now,
            said: BTreeMap::new(),
            refused: BTreeMap::new(),
            unanswered: 0,
            quiet_since: now,
        };
        self.open.insert(self.next, open);
        self.of_node.entry(node.to_owned()).or_default().insert(self.next);
        self.next
    }

    /// A stream ends.
    pub(super) fn leave(&mut self, number: u64) {
        let Some(Open { node, .. }) = self.open.remove(&number) else { return };
        if let Some(numbers) = self.of_node.get_mut(&node)
            && numbers.remove(&number)
            && numbers.is_empty()
        {
            self.of_node.remove(&node);
        }
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Open> {
        self.open.get_mut(&number)
    }

    /// The nodes that have one.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &String> {
        self.of_node.keys()
    }

    pub(super) fn has(&self, node: &str) -> bool {
        self.of_node.contains_key(node)
    }

    /// The latest of each node.
    pub(super) fn latest(&self) -> impl Iterator<Item = &Open> {
        self.of_node.values().filter_map(|numbers| self.open.get(numbers.last()?))
    }

    /// What was refused, and still is as far as is known.
    pub(super) fn refusals(&self, now: Instant) -> impl Iterator<Item = &String> {
        let refused = self.latest().flat_map(|open| open.refused.values());
        refused.filter(move |(_, at)| now.saturating_duration_since(*at) < REFUSAL_SHOWN).map(|(why, _)| why)
    }
}

impl Open {
    /// Something is announced; whether it was refused before is of no account any more.
    pub(super) fn say(&mut self, key: &str, instance: LocalInstance, is_kept: bool) {
        if self.said.len() >= MOST_OF_A_NODE && !self.said.contains_key(key) {
            return;
        }
        self.refused.remove(key);
        self.said.insert(key.to_owned(), Said { instance, is_kept });
    }

    /// Something is no more announced, or was never.
    pub(super) fn unsay(&mut self, key: &str) {
        self.refused.remove(key);
        self.said.remove(key);
    }

    /// Something may not be announced.
    pub(super) fn refuse(&mut self, key: &str, why: String, now: Instant) {
        self.said.remove(key);
        self.refused.retain(|_, (_, at)| now.saturating_duration_since(*at) < REFUSAL_SHOWN);
        if self.refused.len() < MOST_REFUSALS || self.refused.contains_key(key) {
            self.refused.insert(key.to_owned(), (why, now));
        }
    }
}
