//! What is listed now, and what changed in the last minutes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_core::{compile::Join, name::RegistryName};

use super::{
    Moment,
    recent::Recent,
    registrations::{Key, Registrations},
    served::{Left, Listeners, Served, Source, names, served},
};
use crate::eureka::objects::{Instance, status_counts};

/// The list and its changes.
#[derive(Debug, Default)]
pub(super) struct Log {
    current: BTreeMap<Key, Arc<Instance>>,
    changes: Recent,
    version: u64,
    /// Applications that registered here under a name that a registry has.
    refused: BTreeSet<String>,
    refusals: Refusals,
    made_from: Option<MadeFrom>,
}

/// What the list was made from: the same makes the same.
#[derive(Debug, PartialEq, Eq)]
struct MadeFrom {
    mesh: u64,
    registrations: u64,
    order: Vec<RegistryName>,
    joins: Vec<Join>,
    eureka: BTreeSet<RegistryName>,
    listeners: Listeners,
    /// When Eureka's registries were heard last; empty while nobody left, for whom alone that counts.
    heard: BTreeMap<RegistryName, u64>,
}

/// What was said lately of applications that are not listed. Who registers again and again, under one name or many, decides
/// neither how long the log is nor how much is kept here: what is not said one by one is counted, and the count is said.
#[derive(Debug, Default)]
struct Refusals {
    /// When each was named; of no more than [`MAX_NAMED`].
    named: BTreeMap<String, u64>,
    /// How many were not, and since when.
    untold: Option<(usize, u64)>,
}

/// For how long an application that was named is not named again, in milliseconds.
const NAMED_FOR: u64 = 300_000;
/// How many applications are named in that time.
const MAX_NAMED: usize = 20;

impl Refusals {
    /// Whether an application is to be named now; else it is counted.
    fn is_news(&mut self, app: &str, now: u64) -> bool {
        self.named.retain(|_, at| now.saturating_sub(*at) < NAMED_FOR);
        let is_news = !self.named.contains_key(app) && self.named.len() < MAX_NAMED;
        if is_news {
            self.named.insert(app.to_owned(), now);
        } else {
            self.untold.get_or_insert((0, now)).0 += 1;
        }
        is_news
    }

    /// How many were counted, when it is time to say so.
    fn untold(&mut self, now: u64) -> Option<usize> {
        let is_due = |(_, since): &mut (usize, u64)| now.saturating_sub(*since) >= NAMED_FOR;
        self.untold.take_if(is_due).map(|(count, _)| count)
    }
}

impl Log {
    /// Brings the list up to date.
    pub(super) fn refresh(&mut self, source: &Source<'_>, registrations: &mut Registrations, now: Moment) {
        self.changes.expire(now.steady);
        if let Some(count) = self.refusals.untold(now.steady) {
            tracing::warn!(
                count,
                "more registrations with Eureka's API were not listed, for the same reason"
            );
        }
        let made_from = MadeFrom {
            mesh: source.snapshot.generation,
            registrations: registrations.generation(),
            order: source.order.to_vec(),
            joins: source.joins.to_vec(),
            eureka: source.eureka.clone(),
            listeners: source.listeners.clone(),
            heard: if registrations.left().is_empty() { BTreeMap::new() } else { source.heard() },
        };
        if self.made_from.as_ref() == Some(&made_from) {
            return;
        }
        let heard = &self.made_from.insert(made_from).heard;
        let Served { instances: mut fresh, left, taken } =
            served(source, &Left { until: registrations.left(), heard });
        // Since then all of them have spoken for themselves.
        registrations.forget_left(heard.values().min().copied().unwrap_or(u64::MAX), &left);
        let is_taken = |instance: &Instance| names(instance).any(|name| taken.contains(&name));
        let mut refused = BTreeSet::new();
        for instance in registrations.all() {
            if is_taken(instance) {
                refused.insert(instance.app.clone());
                continue;
            }
            // Who registers here says more of itself than Eureka told.
            fresh.insert((instance.app.clone(), instance.id.clone()), instance.clone());
        }
        let refusals = &mut self.refusals;
        for app in refused.difference(&self.refused).filter(|app| refusals.is_news(app, now.steady)) {
            tracing::warn!(
                app,
                "registered with Eureka's API and not listed: the name is that of a service of another registry"
            );
        }
        self.refused = refused;
        self.replace(fresh, now);
    }

    /// All that is listed, by application.
    pub(super) fn all(&self) -> impl Iterator<Item = &Instance> {
        self.current.values().map(|instance| &**instance)
    }

    /// The last change of each instance that changed lately.
    pub(super) fn changes(&self) -> impl Iterator<Item = &Instance> {
        self.changes.all()
    }

    /// How many there are of each status.
    pub(super) fn hash(&self) -> String {
        hash(self.all())
    }

    /// Grows with every change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The same as long as the list and its changes are.
    pub(super) fn state(&self) -> (u64, usize) {
        (self.version, self.changes.len())
    }

    fn replace(&mut self, fresh: BTreeMap<Key, Instance>, now: Moment) {
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
            instance.stamp(now.wall);
            let instance = Arc::new(instance);
            changed.push(instance.clone());
            self.current.insert(key, instance);
        }
        for (key, instance) in old {
            if !self.current.contains_key(&key) {
                let mut gone = Instance::clone(&instance);
                "DELETED".clone_into(&mut gone.action);
                gone.updated = now.wall;
                changed.push(Arc::new(gone));
            }
        }
        self.version += u64::from(!changed.is_empty());
        changed.into_iter().for_each(|instance| self.changes.note(instance, now.steady));
    }
}

/// How many instances there are of each status, as Eureka's clients compare it.
pub(super) fn hash<'a>(instances: impl Iterator<Item = &'a Instance>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in instances {
        *counts.entry(&instance.status).or_default() += 1;
    }
    status_counts(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_again_and_again_is_named_once_and_counted() {
        let mut refusals = Refusals::default();
        let named = (0..3000_u64).filter(|time| refusals.is_news("ORDERS", time * 10)).count();
        assert_eq!((named, refusals.untold(29_990)), (1, None));
        assert_eq!((refusals.untold(NAMED_FOR + 10), refusals.untold(NAMED_FOR + 11)), (Some(2999), None));
        let named = (0..3000_u64).filter(|app| refusals.is_news(&format!("A{app}"), 400_000)).count();
        assert_eq!((named, refusals.named.len()), (MAX_NAMED, MAX_NAMED));
        assert!(refusals.is_news("ORDERS", 400_000 + NAMED_FOR), "it is news again");
    }
}
