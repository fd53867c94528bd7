//! What is listed now, and what changed in the last minutes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use weft_core::name::RegistryName;

use super::{
    registrations::Registrations,
    served::{Listeners, Source, served},
};
use crate::eureka::objects::Instance;

/// How long changes are told, in milliseconds: as long as Eureka does.
const TOLD_FOR: u64 = 180_000;
/// The most changes that are kept; a client that misses some sees by the count of statuses that it did.
const MAX_CHANGES: usize = 50_000;

type Key = (String, String);

/// The list and its changes.
#[derive(Debug, Default)]
pub(super) struct Log {
    current: BTreeMap<Key, Arc<Instance>>,
    /// Oldest first.
    changes: VecDeque<(u64, Arc<Instance>)>,
    version: u64,
    made_from: Option<MadeFrom>,
}

/// What the list was made from: the same makes the same.
#[derive(Debug, PartialEq, Eq)]
struct MadeFrom {
    mesh: u64,
    registrations: u64,
    order: Vec<RegistryName>,
    listeners: Listeners,
}

impl Log {
    /// Brings the list up to date.
    pub(super) fn refresh(&mut self, source: &Source<'_>, registrations: &Registrations, now: u64) {
        while self.changes.front().is_some_and(|(at, _)| at.saturating_add(TOLD_FOR) < now) {
            self.changes.pop_front();
        }
        let made_from = MadeFrom {
            mesh: source.snapshot.generation,
            registrations: registrations.generation(),
            order: source.order.to_vec(),
            listeners: source.listeners.clone(),
        };
        if self.made_from.as_ref() == Some(&made_from) {
            return;
        }
        self.made_from = Some(made_from);
        let mut fresh = served(source);
        // Who registers here says more of itself than the mesh knows.
        for instance in registrations.all() {
            fresh.insert((instance.app.clone(), instance.id.clone()), instance.clone());
        }
        self.replace(fresh, now);
    }

    /// All that is listed, by application.
    pub(super) fn all(&self) -> impl Iterator<Item = &Instance> {
        self.current.values().map(|instance| &**instance)
    }

    /// The last change of each instance that changed lately.
    pub(super) fn changes(&self, now: u64) -> impl Iterator<Item = &Instance> {
        let told = self.changes.iter().rev().take_while(move |(at, _)| at.saturating_add(TOLD_FOR) >= now);
        let mut seen = BTreeSet::new();
        let last: BTreeMap<_, _> = told
            .filter(|(_, instance)| seen.insert((&instance.app, &instance.id)))
            .map(|(_, instance)| ((&instance.app, &instance.id), &**instance))
            .collect();
        last.into_values()
    }

    /// How many there are of each status.
    pub(super) fn hash(&self) -> String {
        hash(self.all())
    }

    /// Grows with every change.
    pub(super) fn version(&self) -> String {
        self.version.to_string()
    }

    fn replace(&mut self, fresh: BTreeMap<Key, Instance>, now: u64) {
        let old = std::mem::take(&mut self.current);
        let mut changed = Vec::new();
        for (key, mut instance) in fresh {
            match old.get(&key) {
                Some(before) if before.says_the_same(&instance) => {
                    self.current.insert(key, before.clone());
                    continue;
                }
                Some(before) => {
                    instance.action = "MODIFIED".into();
                    instance.lease.registered = before.lease.registered;
                }
                None => "ADDED".clone_into(&mut instance.action),
            }
            instance.stamp(now);
            let instance = Arc::new(instance);
            changed.push(instance.clone());
            self.current.insert(key, instance);
        }
        for (key, instance) in old {
            if !self.current.contains_key(&key) {
                let mut gone = Instance::clone(&instance);
                "DELETED".clone_into(&mut gone.action);
                gone.updated = now;
                changed.push(Arc::new(gone));
            }
        }
        self.version += u64::from(!changed.is_empty());
        self.changes.extend(changed.into_iter().map(|instance| (now, instance)));
        let surplus = self.changes.len().saturating_sub(MAX_CHANGES);
        self.changes.drain(..surplus);
    }
}

/// How many instances there are of each status, in the order of statuses.
pub(super) fn hash<'a>(instances: impl Iterator<Item = &'a Instance>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in instances {
        *counts.entry(&instance.status).or_default() += 1;
    }
    counts.into_iter().map(|(status, count)| format!("{status}_{count}_")).collect()
}
