//! Whose time is over, and what the store lacks. Pure.
//!
//! What a node announces is taken away in two cases only: the node is at no hub for `forget_after`, or it is at this hub
//! alone, all that it said here is answered, and for the whole grace it has said nothing of that announcement. Both only
//! after the store was heard of without a fault for as long as the grace: who knows old news takes nothing away.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use weft_core::registry::LocalInstance;

use super::{State, listing::service_of};
use crate::{
    config::AnnouncementsConfig,
    hub::{
        records::{ANNOUNCED, OWNERS, OwnerRecord, PRESENT},
        store::Version,
    },
};

/// How long the store must lack what was announced here before it is written again. It is told of one's own writes, and of
/// those of a hub to which the node has gone over, within seconds.
pub(super) const LACKED: Duration = Duration::from_secs(10);

/// What is to be done in the store.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Announcements to be forgotten.
    pub(super) forget: Vec<(String, Version)>,
    /// Announcements of nodes that are here, which the store has lost.
    pub(super) restore: Vec<(String, LocalInstance)>,
    /// Services without an owner.
    pub(super) claim: Vec<(weft_core::name::ServiceName, OwnerRecord)>,
    /// Names of services that are free again.
    pub(super) free: Vec<(String, Version)>,
}

impl State {
    /// Doubts who is away for longer than the grace; says whether others are doubted than before. Where it is not told who is
    /// at other hubs, nobody is known to be away: that must have been told for the whole grace.
    pub(super) fn doubt(&mut self, terms: &AnnouncementsConfig, now: Instant) -> bool {
        if !self.stored.is_read() {
            return false;
        }
        let Self { stored, streams, away, doubted, .. } = self;
        let is_away = |node: &str| !streams.has(node) && !stored.is_present(node);
        away.retain(|node, _| stored.of_node(node).is_some() && is_away(node));
        for node in stored.nodes().filter(|node| is_away(node)) {
            away.entry(node.clone()).or_insert(now);
        }
        let is_told = stored.told_for(PRESENT, now).is_some_and(|told| told >= terms.grace);
        let is_late = |since: &Instant| is_told && now.saturating_duration_since(*since) >= terms.grace;
        let doubtful = away.iter().filter(|(node, since)| is_late(since) || doubted.contains(*node));
        let doubtful: BTreeSet<String> = doubtful.map(|(node, _)| node.clone()).collect();
        for node in doubtful.difference(doubted) {
            tracing::warn!(%node, "what it announced is unhealthy from now on: it is away");
        }
        let changed = *doubted != doubtful;
        *doubted = doubtful;
        changed
    }

    /// What is to be done in the store of the hub that is called so.
    pub(super) fn due(&mut self, hub: &str, terms: &AnnouncementsConfig, now: Instant) -> Due {
        let mut due = Due::default();
        let Some(steady) = self.stored.steady(now).filter(|_| self.stored.is_read()) else { return due };
        let may_forget = steady >= terms.grace;
        let passed = |since: Instant| now.saturating_duration_since(since);
        let version = |key: &String| Some((key.clone(), self.stored.get(key)?.version.clone()));
        for (node, _) in self.away.iter().filter(|(_, since)| passed(**since) >= terms.forget_after) {
            let keys = self.stored.of_node(node).into_iter().flatten().filter(|_| may_forget);
            due.forget.extend(keys.filter_map(version));
        }
        let mut lacking = BTreeMap::new();
        for open in self.streams.latest().filter(|open| !self.stored.is_elsewhere(&open.node, hub)) {
            let is_done = open.unanswered == 0 && passed(open.quiet_since) >= terms.grace;
            if may_forget && is_done && passed(open.since) >= terms.grace {
                let kept = self.stored.of_node(&open.node).into_iter().flatten();
                let dropped = kept.filter(|key| !open.said.contains_key(*key));
                due.forget.extend(dropped.filter_map(version));
            }
            for (key, said) in open.said.iter().filter(|(_, said)| said.is_kept && open.unanswered == 0) {
                let is_there = self.stored.get(key).is_some_and(|kept| {
                    kept.record.node == open.node && kept.record.instance == said.instance
                });
                if is_there && !self.is_unreadable(ANNOUNCED, key) {
                    continue;
                }
                let since = self.lacking.get(key).copied().unwrap_or(now);
                lacking.insert(key.clone(), since);
                if passed(since) >= LACKED && steady >= LACKED {
                    due.restore.push((open.node.clone(), said.instance.clone()));
                }
            }
        }
        self.lacking = lacking;
        self.ownership(&mut due, may_forget, terms.forget_after, now);
        due
    }

    /// A service's name is its owner's until nobody has announced it as that for `forget_after`.
    fn ownership(&mut self, due: &mut Due, may_forget: bool, forget_after: Duration, now: Instant) {
        let mut oldest: BTreeMap<&str, _> = BTreeMap::new();
        let mut used = BTreeSet::new();
        for (key, kept) in self.stored.kept() {
            let service = service_of(key);
            let identity = kept.record.instance.endpoint.identity.as_ref();
            match self.stored.owner(service) {
                Some(owner) if Some(&owner.identity) == identity => drop(used.insert(service)),
                Some(_) => {}
                None => {
                    let first = oldest.entry(service).or_insert(&kept.record);
                    if kept.record.since < first.since {
                        *first = &kept.record;
                    }
                }
            }
        }
        let readable = oldest.into_iter().filter(|(service, _)| !self.is_unreadable(OWNERS, service));
        due.claim.extend(readable.filter_map(|(_, record)| {
            let endpoint = &record.instance.endpoint;
            let owner = OwnerRecord { identity: endpoint.identity.clone()?, node: record.node.clone() };
            Some((endpoint.service.clone(), owner))
        }));
        let mut idle = BTreeMap::new();
        for (service, (_, version)) in self.stored.owners().filter(|(name, _)| !used.contains(name.as_str()))
        {
            let since = self.idle.get(service).copied().unwrap_or(now);
            idle.insert(service.clone(), since);
            if may_forget && now.saturating_duration_since(since) >= forget_after {
                due.free.push((service.clone(), version.clone()));
            }
        }
        self.idle = idle;
    }

    fn is_unreadable(&self, prefix: &str, key: &str) -> bool {
        let unreadable = self.stored.unreadable();
        !unreadable.is_empty() && unreadable.contains_key(&format!("{prefix}{key}"))
    }
}
