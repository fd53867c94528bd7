//! The lease by which a hub's nodes are present for all hubs: one for all of them, kept alive as long as this hub runs.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::timeout;

use super::Announcements;
use crate::hub::store::{LeaseId, StoreError};

/// How long a node is present for other hubs after its hub has died: less than the shortest grace would make a store that
/// is slow for a moment look like a dead hub.
const LASTS: Duration = Duration::from_secs(15);
/// How often the lease is kept alive.
const KEPT_ALIVE: Duration = Duration::from_secs(5);

/// Keeps what the store says of this hub's streams as it is, for ever.
pub(super) async fn keep(all: &Announcements) {
    let mut moved = all.moved.subscribe();
    let mut presence = Presence::default();
    loop {
        moved.mark_unchanged();
        if let Err(fault) = presence.write(all).await {
            tracing::debug!(%fault, "which nodes are present could not be written");
            tokio::time::sleep(super::STORE_PAUSE).await;
        }
        // It cannot end before the announcements do, which we hold.
        let _moved = timeout(KEPT_ALIVE, moved.changed()).await;
    }
}

/// What was written.
#[derive(Default)]
struct Presence {
    lease: Option<LeaseId>,
    /// Which stream of each node.
    written: BTreeMap<String, String>,
}

impl Presence {
    async fn write(&mut self, all: &Announcements) -> Result<(), StoreError> {
        let lease = match self.lease.take() {
            Some(lease) if all.records.store().keep_alive(&lease).await? => lease,
            _ => {
                self.written.clear();
                all.records.store().grant(LASTS).await?
            }
        };
        self.lease = Some(lease.clone());
        // Of several streams of one node the latest counts.
        let open: BTreeMap<String, String> =
            all.lock().open.values().map(|open| (open.node.clone(), open.name.clone())).collect();
        for (node, stream) in &open {
            if self.written.get(node) != Some(stream) {
                all.records.present(node, stream, &lease).await?;
                self.written.insert(node.clone(), stream.clone());
            }
        }
        let ended: Vec<_> = self.written.keys().filter(|node| !open.contains_key(*node)).cloned().collect();
        for node in ended {
            if let Some(stream) = self.written.get(&node) {
                all.records.absent(&node, stream).await?;
                self.written.remove(&node);
            }
        }
        Ok(())
    }
}
