//! What nodes announce, and which of them have a stream at some hub.
//!
//! An announcement is a record of its own, so that two nodes never write the same key. That a service is one identity's is
//! checked over several of them and so not certain where two hubs take two at once: whoever reads them decides by age.

use std::time::SystemTime;

use futures_core::stream::BoxStream;
use serde::{Deserialize, Serialize};
use weft_core::registry::LocalInstance;

use super::{
    Records,
    change::{Step, change, parse},
};
use crate::hub::store::{Entry, Expected, LeaseId, Put, StoreError, Told, Version};

/// Before an announcement's key.
pub const ANNOUNCED: &str = "announced/";
/// Before the name of a node that has a stream; the value names the stream.
pub const PRESENT: &str = "present/";

/// A port of a node's service that is announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncementRecord {
    /// Who announced it.
    pub node: String,
    /// Since when; the oldest announcement of a service decides whose it is.
    pub since: SystemTime,
    /// What is announced.
    pub instance: LocalInstance,
}

/// The announcement of an entry, with its key.
///
/// # Errors
/// When it cannot be read.
pub fn read_announced(entry: &Entry) -> Result<(String, AnnouncementRecord), StoreError> {
    Ok((entry.key.strip_prefix(ANNOUNCED).unwrap_or_default().to_owned(), parse(entry)?))
}

impl Records {
    /// Keeps an announcement, durably. What the same node announced before under this key gives it its age.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn announce(&self, key: &str, record: AnnouncementRecord) -> Result<(), StoreError> {
        change(&*self.store, &format!("{ANNOUNCED}{key}"), |known: Option<&AnnouncementRecord>| {
            let known = known.filter(|known| known.node == record.node);
            let since = known.map_or(record.since, |known| known.since);
            let now = AnnouncementRecord { since, ..record.clone() };
            Ok::<_, StoreError>(if known == Some(&now) { Step::Keep(()) } else { Step::Put(now, ()) })
        })
        .await
    }

    /// Everything that is announced under keys that begin so.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn announced(&self, prefix: &str) -> Result<Vec<(String, AnnouncementRecord)>, StoreError> {
        let entries = self.store.list(&format!("{ANNOUNCED}{prefix}")).await?;
        entries.iter().map(read_announced).collect()
    }

    /// Forgets what `node` announced under this key.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn withdraw(&self, key: &str, node: &str) -> Result<(), StoreError> {
        change(&*self.store, &format!("{ANNOUNCED}{key}"), |known: Option<&AnnouncementRecord>| {
            let is_its = known.is_some_and(|known| known.node == node);
            Ok::<_, StoreError>(if is_its { Step::Remove(()) } else { Step::Keep(()) })
        })
        .await
    }

    /// Forgets an announcement, if it is still the one that was read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn forget_announced(&self, key: &str, version: Version) -> Result<bool, StoreError> {
        self.store.swap(&format!("{ANNOUNCED}{key}"), Expected::Version(version), None).await
    }

    /// Tells what is under one of the two prefixes, and how that changes, until it fails.
    pub fn follow(&self, prefix: &'static str) -> BoxStream<'_, Result<Told, StoreError>> {
        self.store.watch(prefix)
    }

    /// Notes for as long as a lease that a node has a stream.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn present(&self, node: &str, stream: &str, lease: &LeaseId) -> Result<(), StoreError> {
        let put = Put { lease: Some(lease.clone()), may_be_lost: true, ..Put::durable(stream.to_owned()) };
        self.store.swap(&format!("{PRESENT}{node}"), Expected::Any, Some(put)).await.map(drop)
    }

    /// Notes that a node's stream has ended, unless it has another one meanwhile.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn absent(&self, node: &str, stream: &str) -> Result<(), StoreError> {
        let key = format!("{PRESENT}{node}");
        let known = self.store.get(&key).await?;
        if let Some(known) = known.filter(|known| known.value == stream) {
            self.store.swap(&key, Expected::Version(known.version), None).await?;
        }
        Ok(())
    }

    /// Forgets all that a node announced.
    pub(super) async fn forget_announced_by(&self, node: &str) -> Result<(), StoreError> {
        for (key, record) in self.announced("").await? {
            if record.node == node {
                self.withdraw(&key, node).await?;
            }
        }
        Ok(())
    }
}
