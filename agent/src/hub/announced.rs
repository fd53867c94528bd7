//! The embedded registry: what the nodes announce of their own services, kept in the records with their leases and followed
//! like any other registry, so that the relay spreads it. Hubs that share a store share it too.
//!
//! A node announces only itself (instances whose names begin with its own) and only as identities that its token granted;
//! a service belongs to the identity under which it is announced first. What was answered is durable. That its node has a
//! stream, at whichever hub, is an announcement's lease. Silence is not absence: when the stream is lost, or the hubs were
//! away, it stays as it is for [`AnnouncementsConfig::grace`], by this hub's own clock; then it is unhealthy, which makes it
//! the last resort of callers, and only much later it is forgotten. What a node that is there has not repeated within the
//! grace is no longer its configuration: that goes then.

mod judge;
mod listing;
mod presence;
mod registry;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::StreamExt;
use tokio::sync::watch;
use weft_core::{
    control::announcement::{announcement_key, read_announcement},
    identity::SpiffeId,
    name::RegistryName,
};

use super::{
    records::{ANNOUNCED, AnnouncementRecord, PRESENT, Records, read_announced},
    store::{Entry, StoreError, Told, Version},
    token::random,
};
use crate::config::AnnouncementsConfig;

pub use judge::AnnounceRefusal;
pub(super) use registry::AnnouncedRegistry;

/// How many ports a node may announce.
const MOST_OF_A_NODE: usize = 1024;
/// How often is looked whose time is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a store that failed is left alone.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// All announcements, as one hub knows them.
pub struct Announcements {
    terms: AnnouncementsConfig,
    records: Records,
    state: Mutex<State>,
    /// Something else is to be told.
    changed: watch::Sender<()>,
    /// A stream began or ended here.
    moved: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// As the records say; none before they were read.
    kept: Option<BTreeMap<String, Kept>>,
    /// Which stream each node has, at whichever hub.
    present: BTreeMap<String, String>,
    /// Since when a node has none, as seen from here.
    away: BTreeMap<String, SystemTime>,
    /// Nodes that are away for longer than the grace.
    doubted: BTreeSet<String>,
    /// The streams that are open here, in their order.
    open: BTreeMap<u64, Open>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    record: AnnouncementRecord,
    version: Version,
}

#[derive(Debug)]
struct Open {
    node: String,
    /// Unique among all hubs and their lives.
    name: String,
    since: SystemTime,
    /// What was announced on it.
    said: BTreeSet<String>,
}

/// One node's stream, for as long as it is open.
#[derive(Debug)]
pub(super) struct Desk {
    all: Arc<Announcements>,
    node: String,
    number: u64,
}

impl Announcements {
    /// Knows nothing before it is [kept](Self::keep).
    #[must_use]
    pub fn new(records: Records, terms: AnnouncementsConfig) -> Self {
        let (changed, moved) = (watch::channel(()).0, watch::channel(()).0);
        Self { terms, records, state: Mutex::default(), changed, moved }
    }

    /// Follows the records, keeps the leases of this hub's nodes, and looks whose time is over, for ever.
    pub(super) async fn keep(self: Arc<Self>) {
        let looking = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                self.look(SystemTime::now()).await;
            }
        };
        tokio::join!(
            self.follow(ANNOUNCED, |all, told| all.take_announced(told)),
            self.follow(PRESENT, |all, told| {
                all.take_present(told);
                Ok(())
            }),
            presence::keep(&self),
            looking
        );
    }

    async fn follow(&self, prefix: &'static str, take: fn(&Self, Told) -> Result<(), StoreError>) {
        let mut failing = false;
        loop {
            let mut words = self.records.follow(prefix);
            let fault = loop {
                match words.next().await {
                    Some(Ok(told)) => match take(self, told) {
                        Ok(()) => failing = false,
                        Err(fault) => break fault,
                    },
                    Some(Err(fault)) => break fault,
                    None => break StoreError::Unreachable("it tells no more".into()),
                }
            };
            // What is known stays.
            if !std::mem::replace(&mut failing, true) {
                tracing::warn!(%fault, prefix, "announcements cannot be followed in the store; tried again");
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }

    fn take_announced(&self, told: Told) -> Result<(), StoreError> {
        let read = |entry: &Entry| {
            let (key, record) = read_announced(entry)?;
            Ok::<_, StoreError>((key, Kept { record, version: entry.version.clone() }))
        };
        match told {
            Told::All(entries) => {
                let kept = entries.iter().map(read).collect::<Result<_, _>>()?;
                self.lock().kept = Some(kept);
            }
            Told::Put(entry) => {
                let (key, kept) = read(&entry)?;
                self.lock().kept.get_or_insert_default().insert(key, kept);
            }
            Told::Gone(key) => {
                let key = key.strip_prefix(ANNOUNCED).unwrap_or_default();
                self.lock().kept.get_or_insert_default().remove(key);
            }
        }
        self.changed.send_replace(());
        Ok(())
    }

    fn take_present(&self, told: Told) {
        let name = |key: &str| key.strip_prefix(PRESENT).unwrap_or_default().to_owned();
        let stream = |entry: &Entry| String::from_utf8_lossy(&entry.value).into_owned();
        let present = &mut self.lock().present;
        match told {
            Told::All(entries) => {
                *present = entries.iter().map(|entry| (name(&entry.key), stream(entry))).collect();
            }
            Told::Put(entry) => drop(present.insert(name(&entry.key), stream(&entry))),
            Told::Gone(key) => drop(present.remove(&name(&key))),
        }
    }

    /// As which registry they are relayed.
    pub(super) fn name(&self) -> &RegistryName {
        &self.terms.name
    }

    /// A node's stream has begun.
    pub(super) fn enter(self: &Arc<Self>, node: &str, now: SystemTime) -> Desk {
        let mut state = self.lock();
        state.next += 1;
        let (node, number) = (node.to_owned(), state.next);
        let name = HEXLOWER.encode(&random::<16>());
        state.open.insert(number, Open { node: node.clone(), name, since: now, said: BTreeSet::new() });
        drop(state);
        self.moved.send_replace(());
        Desk { all: self.clone(), node, number }
    }

    /// Looks whose time is over.
    async fn look(&self, now: SystemTime) {
        let (over, changed) = self.lock().over(&self.terms, now);
        if changed {
            self.changed.send_replace(());
        }
        for (key, version) in over {
            match self.records.forget_announced(&key, version).await {
                Ok(true) => tracing::info!(%key, "an announcement has run out"),
                // Announced again meanwhile.
                Ok(false) => {}
                Err(fault) => tracing::debug!(%fault, %key, "not forgotten yet"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is to be forgotten, and whether others are doubted than before.
    fn over(&mut self, terms: &AnnouncementsConfig, now: SystemTime) -> (Vec<(String, Version)>, bool) {
        let Self { kept: Some(kept), present, away, doubted, open, .. } = self else {
            return Default::default();
        };
        let passed = |since: SystemTime| now.duration_since(since).unwrap_or_default();
        let nodes: BTreeSet<&String> = kept.values().map(|kept| &kept.record.node).collect();
        let is_there =
            |node: &String| present.contains_key(node) || open.values().any(|open| open.node == *node);
        away.retain(|node, _| nodes.contains(node) && !is_there(node));
        for node in nodes.iter().filter(|node| !is_there(node)) {
            away.entry((*node).clone()).or_insert(now);
        }
        let doubtful = away.iter().filter(|(_, since)| passed(**since) >= terms.grace);
        let doubtful: BTreeSet<String> = doubtful.map(|(node, _)| node.clone()).collect();
        for node in doubtful.difference(doubted) {
            tracing::warn!(%node, "what it announced is unhealthy from now on: it is away");
        }
        // The latest stream of a node, where that is one of ours.
        let latest = |node: &String| open.values().rev().find(|open| open.node == *node);
        let ours = |node: &String| {
            latest(node).filter(|open| present.get(node).is_none_or(|name| *name == open.name))
        };
        let is_over = |(key, kept): &(&String, &Kept)| {
            let node = &kept.record.node;
            let dropped =
                ours(node).is_some_and(|open| passed(open.since) >= terms.grace && !open.said.contains(*key));
            dropped || away.get(node).is_some_and(|since| passed(*since) >= terms.forget_after)
        };
        let over = kept.iter().filter(is_over).map(|(key, kept)| (key.clone(), kept.version.clone()));
        (over.collect(), std::mem::replace(doubted, doubtful.clone()) != doubtful)
    }
}

impl Desk {
    /// Announces what a message says. When this returns it is durable.
    ///
    /// # Errors
    /// Names what was refused.
    pub(super) async fn announce(
        &self,
        granted: &[SpiffeId],
        event: &Bytes,
        now: SystemTime,
    ) -> Result<(), AnnounceRefusal> {
        let instance = read_announcement(event)?;
        judge::alone(&self.node, granted, &instance, self.all.terms.allow_loopback)?;
        let (endpoint, key) = (&instance.endpoint, announcement_key(&instance.endpoint));
        let of_service = self.all.records.announced(&format!("{}/", endpoint.service)).await?;
        judge::beside(&self.node, &key, endpoint, &of_service)?;
        if self.others(&key) >= MOST_OF_A_NODE {
            let reason = format!("node {} announces {MOST_OF_A_NODE} ports already", self.node);
            return Err(AnnounceRefusal::Unfit(reason));
        }
        let record = AnnouncementRecord { node: self.node.clone(), since: now, instance };
        self.all.records.announce(&key, record).await?;
        if self.all.records.node(&self.node).await?.is_none() {
            // Removed meanwhile, and what it announced with it, but for this.
            self.all.records.withdraw(&key, &self.node).await?;
        }
        if let Some(open) = self.all.lock().open.get_mut(&self.number) {
            open.said.insert(key);
        }
        Ok(())
    }

    /// How many others the node announces.
    fn others(&self, key: &str) -> usize {
        let state = self.all.lock();
        let kept = state.kept.iter().flatten();
        kept.filter(|(other, kept)| *other != key && kept.record.node == self.node).count()
    }

    /// Withdraws an own announcement; that it is not known is no fault.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn withdraw(&self, key: &str) -> Result<(), StoreError> {
        self.all.records.withdraw(key, &self.node).await
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.all.lock().open.remove(&self.number);
        self.all.moved.send_replace(());
    }
}

impl std::fmt::Debug for Announcements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announcements").field("terms", &self.terms).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
