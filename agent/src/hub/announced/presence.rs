//! Which nodes have a stream here, for all hubs: written in a few parts under this hub's own name, and under one lease that
//! is kept alive as long as this hub runs. No hub writes another one's parts, so one that comes back from behind a cut takes
//! nothing away that a node's new hub has said. Parts, because thousands of nodes come at once, and a store takes as many
//! writes one after the other in longer than a lease lasts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use tokio::time::timeout;

use super::Announcements;
use crate::hub::{
    store::{LeaseId, StoreError},
    token::sha256,
};

/// How long a node is present for other hubs after its hub has died: less than the shortest grace would make a store that
/// is slow for a moment look like a dead hub.
const LASTS: Duration = Duration::from_secs(15);
/// How often the lease is kept alive.
const KEPT_ALIVE: Duration = Duration::from_secs(4);
/// How long nodes that come or go wait for others that do.
const GATHERED: Duration = Duration::from_millis(250);
/// For how long the store may give no answer to what must be written before nothing that it tells is taken for new.
const AWAY: Duration = Duration::from_secs(4);
/// How soon the store tells what was written. Where it tells something else later than that, the write was lost.
const TOLD: Duration = Duration::from_secs(10);

/// Keeps what the store says of this hub's streams as it is, for ever.
pub(super) async fn keep(all: &Announcements) {
    let mut moved = all.moved.subscribe();
    let mut presence = Presence::default();
    let mut silent_since: Option<Instant> = None;
    loop {
        moved.mark_unchanged();
        let began = Instant::now();
        let written = presence.write(all).await;
        silent_since = match &written {
            Err(StoreError::Unreachable(_)) => silent_since.or(Some(began)),
            _ => None,
        };
        all.note_away(silent_since.is_some_and(|since| since.elapsed() >= AWAY));
        if let Err(fault) = written {
            tracing::debug!(%fault, "which nodes are present could not be written");
            tokio::time::sleep(super::STORE_PAUSE).await;
        }
        // It cannot end before the announcements do, which we hold.
        if timeout(KEPT_ALIVE, moved.changed()).await.is_ok() {
            tokio::time::sleep(GATHERED).await;
        }
    }
}

/// What was written.
#[derive(Default)]
struct Presence {
    /// With the moment from which on it lasts.
    lease: Option<(LeaseId, Instant)>,
    /// Which nodes each part names, and when that was written.
    written: BTreeMap<String, (BTreeSet<String>, Instant)>,
}

impl Presence {
    async fn write(&mut self, all: &Announcements) -> Result<(), StoreError> {
        let (mut wanted, told) = parts(all);
        self.lease(all).await?;
        for part in self.written.keys().chain(wanted.keys()).cloned().collect::<BTreeSet<_>>() {
            let nodes = wanted.remove(&part);
            if self.is_written(&part, nodes.as_ref(), told.get(&part)) {
                continue;
            }
            // However long the others take, it does not end meanwhile.
            let lease = self.lease(all).await?;
            let (place, now) = (format!("{}/{part}", all.hub), Instant::now());
            let Some(nodes) = nodes else {
                all.records.absent(&place).await?;
                self.written.remove(&part);
                continue;
            };
            if let Err(fault) = all.records.present(&place, &nodes, &lease).await {
                if fault == StoreError::LeaseGone {
                    self.forget();
                }
                return Err(fault);
            }
            self.written.insert(part, (nodes, now));
        }
        Ok(())
    }

    /// The lease, with most of its time before it. When the store gives no answer it may last, and is kept.
    async fn lease(&mut self, all: &Announcements) -> Result<LeaseId, StoreError> {
        let asked = Instant::now();
        if let Some((lease, since)) = &mut self.lease {
            if since.elapsed() < KEPT_ALIVE - GATHERED {
                return Ok(lease.clone());
            }
            if all.records.store().keep_alive(lease).await? {
                *since = asked;
                return Ok(lease.clone());
            }
            self.forget();
        }
        let lease = all.records.store().grant(LASTS).await?;
        self.lease = Some((lease.clone(), asked));
        Ok(lease)
    }

    /// The lease has ended, and what was written with it.
    fn forget(&mut self) {
        self.lease = None;
        self.written.clear();
    }

    /// Whether a part is in the store as it should be: as it was written, and as the store tells.
    fn is_written(
        &self,
        part: &str,
        wanted: Option<&BTreeSet<String>>,
        told: Option<&BTreeSet<String>>,
    ) -> bool {
        let written = self.written.get(part);
        written.map(|(nodes, _)| nodes) == wanted
            && (told == wanted || written.is_none_or(|(_, at)| at.elapsed() < TOLD))
    }
}

type Parts = BTreeMap<String, BTreeSet<String>>;

/// The nodes that are here by their parts, and what the store tells of these.
fn parts(all: &Announcements) -> (Parts, Parts) {
    let state = all.lock();
    let mut wanted = Parts::new();
    for node in state.streams.nodes() {
        wanted.entry(part_of(node)).or_default().insert(node.clone());
    }
    let told = |part: &String| {
        Some((part.clone(), state.stored.present_at(&format!("{}/{part}", all.hub))?.clone()))
    };
    let told = wanted.keys().filter_map(told).collect();
    (wanted, told)
}

/// One of sixteen.
fn part_of(node: &str) -> String {
    HEXLOWER.encode(&sha256(node.as_bytes())[..1])[..1].to_owned()
}
