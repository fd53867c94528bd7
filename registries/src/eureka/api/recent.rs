//! The last change of each instance that changed lately.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::registrations::Key;
use crate::eureka::objects::Instance;

/// How long changes are told, in milliseconds: as long as Eureka does.
const TOLD_FOR: u64 = 180_000;
/// The most changes that are kept; a client that misses some sees by the count of statuses that it did.
const MAX_CHANGES: usize = 20_000;
/// The most memory of what is kept for no other reason, in bytes: of instances that are gone.
const MAX_GONE: usize = 32 << 20;

/// Changes, of each instance the last one: who changes often takes no room from others.
#[derive(Debug, Default)]
pub(super) struct Recent {
    last: BTreeMap<Key, Change>,
    /// When each of them was noted; the oldest is the first.
    order: BTreeSet<(u64, u64)>,
    keys: BTreeMap<u64, Key>,
    noted: u64,
    gone: usize,
}

#[derive(Debug)]
struct Change {
    at: u64,
    number: u64,
    instance: Arc<Instance>,
    /// What it weighs if it is gone.
    weight: usize,
}

impl Recent {
    /// Notes a change at a moment, in milliseconds.
    pub(super) fn note(&mut self, instance: Arc<Instance>, at: u64) {
        let key = (instance.app.clone(), instance.id.clone());
        self.forget(&key);
        self.noted += 1;
        let (number, weight) = (self.noted, if instance.action == "DELETED" { instance.weight() } else { 0 });
        self.gone += weight;
        self.order.insert((at, number));
        self.keys.insert(number, key.clone());
        self.last.insert(key, Change { at, number, instance, weight });
        while self.last.len() > MAX_CHANGES || self.gone > MAX_GONE {
            self.forget_oldest();
        }
    }

    /// Forgets what was told for long enough.
    pub(super) fn expire(&mut self, now: u64) {
        while self.order.first().is_some_and(|(at, _)| at.saturating_add(TOLD_FOR) < now) {
            self.forget_oldest();
        }
    }

    /// All of them, by application and id.
    pub(super) fn all(&self) -> impl Iterator<Item = &Instance> {
        self.last.values().map(|change| &*change.instance)
    }

    pub(super) fn len(&self) -> usize {
        self.last.len()
    }

    fn forget_oldest(&mut self) {
        let oldest = self.order.first().and_then(|(_, number)| self.keys.get(number).cloned());
        if let Some(key) = oldest {
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some(Change { at, number, weight, .. }) = self.last.remove(key) {
            self.order.remove(&(at, number));
            self.keys.remove(&number);
            self.gone -= weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(number: usize, length: usize) -> Arc<Instance> {
        let (id, home) = (format!("i{number}"), "x".repeat(length));
        Arc::new(Instance { app: "A".into(), id, action: "DELETED".into(), vip: home, ..Instance::default() })
    }

    #[test]
    fn what_is_gone_is_told_for_a_while_and_within_bounds() {
        let mut recent = Recent::default();
        for number in 0..5 {
            recent.note(gone(number % 2, 10), 1000 + number as u64);
        }
        assert_eq!(recent.len(), 2, "of each the last");
        recent.expire(1003 + TOLD_FOR);
        assert_eq!(recent.len(), 2);
        recent.expire(1004 + TOLD_FOR);
        assert_eq!(recent.all().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["i0"]);
        recent.expire(1005 + TOLD_FOR);
        assert_eq!((recent.len(), recent.gone, recent.order.len(), recent.keys.len()), (0, 0, 0, 0));
        for number in 0..40 {
            recent.note(gone(number, 1 << 20), 0);
        }
        assert_eq!(recent.len(), 31, "what is gone has 32 MB");
        assert_eq!(recent.all().filter(|it| it.id == "i39" || it.id == "i0").count(), 1, "the oldest goes");
        for number in 0..MAX_CHANGES + 5 {
            recent.note(gone(number, 1), 0);
        }
        assert_eq!(recent.len(), MAX_CHANGES);
    }
}
