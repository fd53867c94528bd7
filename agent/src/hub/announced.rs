//! The embedded registry: what the nodes announce of their own services, kept in the records with their leases and followed
//! like any other registry, so that the relay spreads it. Hubs that share a store share it too.
//!
//! A node announces only itself (instances whose names begin with its own) and only as identities that its token granted;
//! a service belongs to the identity under which it is announced first, also while nobody announces it for a while. What was
//! answered is durable, and written again where the store lost it; until then it is unhealthy. That its node has a stream, at whichever hub, is an
//! announcement's lease. Silence is not absence: when the stream is lost, or the hubs were away, it stays as it is for
//! [`AnnouncementsConfig::grace`], by this hub's own clock; then it is unhealthy, which makes it the last resort of callers,
//! and only much later it is forgotten. What a node that is there has not repeated within the grace is no longer its
//! configuration: that goes then.

mod judge;
mod stored;
mod streams;
mod listing;
mod overdue;
mod presence;
mod registry;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_core::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::watch;
use weft_core::{
    control::announcement::{announcement_key, read_announcement},
    identity::SpiffeId,
    name::{RegistryName, ServiceName},
    registry::LocalInstance,
};

use super::{
    records::{ANNOUNCED, AnnouncementRecord, OWNERS, OwnerRecord, PRESENT, Records},
    store::{StoreError, Version},
    token::random,
};
use crate::config::AnnouncementsConfig;
use overdue::Due;
use stored::Stored;
use streams::{Open, Streams};

pub use judge::AnnounceRefusal;
pub(super) use registry::AnnouncedRegistry;

/// How many ports a node may announce.
pub(super) const MOST_OF_A_NODE: usize = 1024;
/// How often is looked who is away.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often is looked what the store has too much and too little.
const MEND_EVERY: Duration = Duration::from_secs(3);
/// How many changes of that kind are made in one turn, and how many at a time.
const MENDED: (usize, usize) = (1024, 16);
/// How long a store that failed is left alone.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How many diagnostics are told.
const MOST_DIAGNOSTICS: usize = 100;

/// All announcements, as one hub knows them.
pub struct Announcements {
    terms: AnnouncementsConfig,
    records: Records,
    /// What this hub is called among all hubs and their lives.
    hub: String,
    state: Mutex<State>,
    /// Something else is to be told.
    changed: watch::Sender<()>,
    /// A stream began or ended here.
    moved: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    stored: Stored,
    streams: Streams,
    /// Since when a node has no stream, as seen from here.
    away: BTreeMap<String, Instant>,
    /// Nodes that are away for longer than the grace.
    doubted: BTreeSet<String>,
    /// Since when the store lacks what was announced here.
    lacking: BTreeMap<String, Instant>,
    /// Since when a service is announced by nobody.
    idle: BTreeMap<String, Instant>,
}

/// One node's stream, for as long as it is open.
#[derive(Debug)]
pub(super) struct Desk {
    all: Arc<Announcements>,
    node: String,
    number: u64,
}

/// A word of a node's that is not answered yet.
#[derive(Debug)]
pub(super) struct Word(Arc<Desk>);

impl Announcements {
    /// Knows nothing before it is [kept](Self::keep).
    #[must_use]
    pub fn new(records: Records, terms: AnnouncementsConfig) -> Self {
        let (changed, moved) = (watch::channel(()).0, watch::channel(()).0);
        let hub = HEXLOWER.encode(&random::<8>());
        Self { terms, records, hub, state: Mutex::default(), changed, moved }
    }

    /// Follows the records, keeps the leases of this hub's nodes, and looks whose time is over, for ever.
    pub(super) async fn keep(self: Arc<Self>) {
        let looking = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                self.look(Instant::now());
            }
        };
        // Apart: a store that is slow delays nothing that needs no store.
        let mending = async {
            loop {
                tokio::time::sleep(MEND_EVERY.mul_f64(0.5 + fastrand::f64())).await;
                self.mend(Instant::now()).await;
            }
        };
        let following = [ANNOUNCED, OWNERS, PRESENT].map(|prefix| self.follow(prefix));
        tokio::join!(futures_util::future::join_all(following), presence::keep(&self), looking, mending);
    }

    async fn follow(&self, prefix: &'static str) {
        let mut failing = false;
        loop {
            let mut words = self.records.follow(prefix);
            let fault = loop {
                match words.next().await {
                    Some(Ok(told)) => {
                        self.lock().stored.take(prefix, told);
                        failing = false;
                        if prefix != PRESENT {
                            self.changed.send_replace(());
                        }
                    }
                    Some(Err(fault)) => break fault,
                    None => break StoreError::Unreachable("it tells no more".into()),
                }
            };
            // What is known stays.
            self.lock().stored.lose(prefix);
            if !std::mem::replace(&mut failing, true) {
                tracing::warn!(%fault, prefix, "announcements cannot be followed in the store; tried again");
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }

    /// The store gives no answer to what this hub must write, or does again.
    fn note_away(&self, away: bool) {
        if self.lock().stored.note_away(away, Instant::now()) {
            self.changed.send_replace(());
        }
    }

    /// As which registry they are relayed.
    pub(super) fn name(&self) -> &RegistryName {
        &self.terms.name
    }

    /// What nodes wanted to announce here and may not, and what cannot be read.
    pub(super) fn diagnostics(&self) -> Vec<String> {
        let state = self.lock();
        let unreadable = state.stored.unreadable().values().map(|fault| format!("left out: {fault}"));
        let refused = state.streams.refusals(Instant::now()).map(|why| format!("refused: {why}"));
        unreadable.chain(refused).take(MOST_DIAGNOSTICS).collect()
    }

    /// Whether a node has a stream at another hub that shares the store.
    pub(super) fn is_elsewhere(&self, node: &str) -> bool {
        self.lock().stored.is_elsewhere(node, &self.hub)
    }

    /// A node's stream has begun.
    pub(super) fn enter(self: &Arc<Self>, node: &str, now: Instant) -> Desk {
        let number = self.lock().streams.enter(node, now);
        self.moved.send_replace(());
        Desk { all: self.clone(), node: node.to_owned(), number }
    }

    /// Looks who is away, and what was lost for too long.
    fn look(&self, now: Instant) {
        let mut state = self.lock();
        let changed = [state.doubt(&self.terms, now), state.stored.forget_lost(now)];
        drop(state);
        if changed.contains(&true) {
            self.changed.send_replace(());
        }
    }

    /// Changes in the store what is due.
    async fn mend(&self, now: Instant) {
        let Due { forget, restore, claim, free } = self.lock().due(&self.hub, &self.terms, now);
        let forget = forget.into_iter().map(|(key, version)| self.forget(key, version).boxed());
        let restore = restore.into_iter().map(|(node, instance)| self.restore(node, instance).boxed());
        let claim = claim.into_iter().map(|(service, owner)| self.claim(service, owner).boxed());
        let free = free.into_iter().map(|(service, version)| self.free(service, version).boxed());
        let all: Vec<BoxFuture<'_, Result<(), AnnounceRefusal>>> =
            forget.chain(restore).chain(claim).chain(free).take(MENDED.0).collect();
        let done = stream::iter(all).for_each_concurrent(MENDED.1, |change| async {
            match change.await {
                Err(AnnounceRefusal::Store(fault)) => {
                    tracing::debug!(%fault, "announcements are not tidied up yet");
                }
                Err(fault) => tracing::warn!(%fault, "the store lost an announcement, which stays lost"),
                Ok(()) => {}
            }
        });
        done.await;
    }

    async fn forget(&self, key: String, version: Version) -> Result<(), AnnounceRefusal> {
        // When it is not, it was announced again meanwhile.
        if self.records.forget_announced(&key, version).await? {
            tracing::info!(%key, "an announcement has run out");
        }
        Ok(())
    }

    async fn restore(&self, node: String, instance: LocalInstance) -> Result<(), AnnounceRefusal> {
        let known = self.records.node(&node).await?;
        let granted = known.map(|node| node.identities).unwrap_or_default();
        judge::alone(&node, &granted, &instance, self.terms.allow_loopback)?;
        self.write(&node, &instance, SystemTime::now()).await?;
        tracing::info!(%node, instance = %instance.endpoint.instance, "announced again: the store had lost it");
        Ok(())
    }

    async fn claim(&self, service: ServiceName, owner: OwnerRecord) -> Result<(), AnnounceRefusal> {
        self.records.claim_service(&service, &owner, |_| false).await?;
        Ok(())
    }

    async fn free(&self, service: String, version: Version) -> Result<(), AnnounceRefusal> {
        self.records.free_service(&service, version).await?;
        Ok(())
    }

    /// Writes what was judged by itself, if nothing beside it stands against that.
    async fn write(
        &self,
        node: &str,
        instance: &LocalInstance,
        now: SystemTime,
    ) -> Result<(), AnnounceRefusal> {
        let (endpoint, key) = (&instance.endpoint, announcement_key(&instance.endpoint));
        let Some(identity) = endpoint.identity.clone() else {
            return Err(AnnounceRefusal::Unfit("it names no identity".to_owned()));
        };
        let own = self.lock().beside(node, &key, instance)?;
        let wanted = OwnerRecord { identity, node: node.to_owned() };
        // Who is alone may change its mind.
        let may_change = |known: &OwnerRecord| match &own {
            Alone::No => false,
            Alone::As(before) => *before == known.identity,
            Alone::Silent => known.node == node,
        };
        let owner = self.records.claim_service(&endpoint.service, &wanted, may_change).await?;
        if owner.identity != wanted.identity {
            return Err(judge::conflict(node, endpoint, &owner.node, Some(&owner.identity)));
        }
        let record = AnnouncementRecord { node: node.to_owned(), since: now, instance: instance.clone() };
        let kept = self.records.announce(&key, record).await;
        kept.map_err(|fault| AnnounceRefusal::of(fault, node, endpoint))?;
        if self.records.node(node).await?.is_none() {
            // Removed meanwhile, and what it announced with it, but for this.
            self.records.withdraw(&key, node).await?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a node announces a service alone.
enum Alone {
    /// Others do too.
    No,
    /// It does, as this identity until now.
    As(SpiffeId),
    /// Nobody does at the moment.
    Silent,
}

impl State {
    /// Judges an announcement beside all others.
    fn beside(&self, node: &str, key: &str, instance: &LocalInstance) -> Result<Alone, AnnounceRefusal> {
        if !self.stored.is_read() {
            let why = "what is announced was not read from it yet";
            return Err(StoreError::Unreachable(why.to_owned()).into());
        }
        let endpoint = &instance.endpoint;
        let service = endpoint.service.to_string();
        judge::beside(node, key, endpoint, self.stored.of_service(&service))?;
        let of_node =
            self.stored.of_node(node).map_or(0, |keys| keys.len() - usize::from(keys.contains(key)));
        if of_node >= MOST_OF_A_NODE {
            let reason = format!("node {node} announces {MOST_OF_A_NODE} ports already");
            return Err(AnnounceRefusal::Unfit(reason));
        }
        let mut all = self.stored.of_service(&service);
        Ok(match (all.next(), all.next()) {
            (None, _) => Alone::Silent,
            (Some((own, record)), None) if own == key && record.node == node => {
                record.instance.endpoint.identity.clone().map_or(Alone::No, Alone::As)
            }
            _ => Alone::No,
        })
    }
}

impl Desk {
    /// A word of the node's was heard. What is not answered yet is no silence.
    pub(super) fn hear(self: &Arc<Self>) -> Word {
        self.with_stream(|open| open.unanswered += 1);
        Word(self.clone())
    }

    /// Whether all that a message announces stands already: after a hub or a stream was lost all nodes say again what they
    /// said before, and the store need not be asked. It must be as the node may with what was granted when the stream began.
    pub(super) fn repeat(&self, granted: &[SpiffeId], event: &Bytes) -> bool {
        let Ok(instance) = read_announcement(event) else { return false };
        if judge::alone(&self.node, granted, &instance, self.all.terms.allow_loopback).is_err() {
            return false;
        }
        let (mut state, key) = (self.all.lock(), announcement_key(&instance.endpoint));
        let owner = state.stored.owner(&instance.endpoint.service.to_string());
        let is_owner =
            owner.is_some_and(|owner| Some(&owner.identity) == instance.endpoint.identity.as_ref());
        let is_kept = state
            .stored
            .get(&key)
            .is_some_and(|kept| kept.record.node == self.node && kept.record.instance == instance);
        let is_readable = !state.stored.unreadable().contains_key(&format!("{ANNOUNCED}{key}"));
        let stands = is_owner && is_kept && is_readable;
        if let Some(open) = state.streams.get_mut(self.number).filter(|_| stands) {
            open.say(&key, instance, true);
        }
        stands
    }

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
        let key = announcement_key(&instance.endpoint);
        let outcome = match judge::alone(&self.node, granted, &instance, self.all.terms.allow_loopback) {
            Ok(()) => self.all.write(&self.node, &instance, now).await,
            Err(fault) => Err(fault),
        };
        self.with_stream(|open| match &outcome {
            Ok(()) => open.say(&key, instance, true),
            // It is the node's wish all the same.
            Err(AnnounceRefusal::Store(_)) => open.say(&key, instance, false),
            Err(fault) => open.refuse(&key, fault.to_string(), Instant::now()),
        });
        outcome
    }

    /// The store could not even be asked what the node may announce.
    pub(super) fn postpone(&self, event: &Bytes) {
        let Ok(instance) = read_announcement(event) else { return };
        let key = announcement_key(&instance.endpoint);
        self.with_stream(|open| open.say(&key, instance, false));
    }

    /// Withdraws an own announcement; that it is not known is no fault.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn withdraw(&self, key: &str) -> Result<(), StoreError> {
        self.with_stream(|open| open.unsay(key));
        self.all.records.withdraw(key, &self.node).await?;
        if self.all.lock().stored.withdraw_lost(key, &self.node) {
            self.all.changed.send_replace(());
        }
        Ok(())
    }

    /// Notes something of the node's stream, while that is open.
    fn with_stream(&self, note: impl FnOnce(&mut Open)) {
        if let Some(open) = self.all.lock().streams.get_mut(self.number) {
            note(open);
        }
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        self.0.with_stream(|open| {
            open.unanswered = open.unanswered.saturating_sub(1);
            open.quiet_since = Instant::now();
        });
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.all.lock().streams.leave(self.number);
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
