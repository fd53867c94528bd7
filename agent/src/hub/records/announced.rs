//! What nodes announce, whose each service is, and which nodes have a stream at some hub.
//!
//! An announcement is a record of its own, so that two nodes never write the same key. Whose a service is, is a record too,
//! made by a compare-and-swap, so that of two hubs that are asked at once one gives it away; it stays for a while when the
//! last announcement has gone.

use std::{collections::BTreeSet, time::SystemTime};

use futures_core::stream::BoxStream;
use serde::{Deserialize, Serialize};
use weft_core::{identity::SpiffeId, name::ServiceName, registry::LocalInstance};

use super::{
    Records,
    change::{Step, change, change_entry, encode, parse},
};
use crate::hub::store::{Entry, Expected, LeaseId, Put, StoreError, Told, Version};

/// Before an announcement's key.
pub const ANNOUNCED: &str = "announced/";
/// Before a service's name; the value says whose it is.
pub const OWNERS: &str = "owners/";
/// Before a hub's name and a part of the nodes; the value names those that have a stream there.
pub const PRESENT: &str = "present/";

/// A port of a node's service that is announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncementRecord {
    /// Who announced it.
    pub node: String,
    /// Since when; of announcements that contradict each other the oldest is right.
    pub since: SystemTime,
    /// What is announced.
    pub instance: LocalInstance,
}

/// Whose a service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// As whom alone it is announced.
    pub identity: SpiffeId,
    /// Who announced it first.
    pub node: String,
}

/// Why an announcement is not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepFault {
    /// The key is another node's.
    #[error("node {0} announces it already")]
    Taken(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The announcement of an entry.
///
/// # Errors
/// When it cannot be read.
pub fn read_announced(entry: &Entry) -> Result<AnnouncementRecord, StoreError> {
    parse(entry)
}

/// Whose a service is, of an entry.
///
/// # Errors
/// When it cannot be read.
pub fn read_owner(entry: &Entry) -> Result<OwnerRecord, StoreError> {
    parse(entry)
}

/// The nodes that an entry names.
///
/// # Errors
/// When it cannot be read.
pub fn read_present(entry: &Entry) -> Result<BTreeSet<String>, StoreError> {
    parse(entry)
}

impl Records {
    /// Keeps an announcement, durably. What the same node announced before under this key gives it its age. What cannot be
    /// read there is replaced: the key names the node.
    ///
    /// # Errors
    /// When the key is another node's, or it cannot be written.
    pub async fn announce(&self, key: &str, record: AnnouncementRecord) -> Result<(), KeepFault> {
        change_entry(&*self.store, &format!("{ANNOUNCED}{key}"), |known| {
            let known = known.and_then(|known| read_announced(known).ok());
            if let Some(other) = known.as_ref().filter(|known| known.node != record.node) {
                return Err(KeepFault::Taken(other.node.clone()));
            }
            let since = known.as_ref().map_or(record.since, |known| known.since);
            let now = AnnouncementRecord { since, ..record.clone() };
            Ok(if known.as_ref() == Some(&now) { Step::Keep(()) } else { Step::Put(encode(&now)?, ()) })
        })
        .await
    }

    /// Everything that is announced under keys that begin so, as far as it can be read.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn announced(&self, prefix: &str) -> Result<Vec<(String, AnnouncementRecord)>, StoreError> {
        let entries = self.store.list(&format!("{ANNOUNCED}{prefix}")).await?;
        let readable = |entry: &Entry| Some((bare(&entry.key, ANNOUNCED), read_announced(entry).ok()?));
        Ok(entries.iter().filter_map(readable).collect())
    }

    /// Forgets what `node` announced under this key.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn withdraw(&self, key: &str, node: &str) -> Result<(), StoreError> {
        change_entry(&*self.store, &format!("{ANNOUNCED}{key}"), |known| {
            let is_its = known.is_some_and(|known| is_nodes(known, node));
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

    /// Gives a service to whom it is wanted for, unless it is another's already. With `may_change` the node may give its own
    /// service to another identity. Says whose it is then.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn claim_service(
        &self,
        service: &ServiceName,
        wanted: &OwnerRecord,
        may_change: impl Fn(&OwnerRecord) -> bool,
    ) -> Result<OwnerRecord, StoreError> {
        change(&*self.store, &format!("{OWNERS}{service}"), |known: Option<&OwnerRecord>| {
            Ok::<_, StoreError>(match known {
                Some(known) if known.identity == wanted.identity || !may_change(known) => {
                    Step::Keep(known.clone())
                }
                _ => Step::Put(wanted.clone(), wanted.clone()),
            })
        })
        .await
    }

    /// Frees a service's name, if it is as it was read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn free_service(&self, service: &str, version: Version) -> Result<bool, StoreError> {
        self.store.swap(&format!("{OWNERS}{service}"), Expected::Version(version), None).await
    }

    /// Tells what is under one of the three prefixes, and how that changes, until it fails.
    pub fn follow(&self, prefix: &'static str) -> BoxStream<'_, Result<Told, StoreError>> {
        self.store.watch(prefix)
    }

    /// Notes for as long as a lease which nodes have a stream at a hub, of one part of them.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn present(
        &self,
        place: &str,
        nodes: &BTreeSet<String>,
        lease: &LeaseId,
    ) -> Result<(), StoreError> {
        let put = Put { lease: Some(lease.clone()), may_be_lost: true, ..Put::durable(encode(nodes)?) };
        self.store.swap(&format!("{PRESENT}{place}"), Expected::Any, Some(put)).await.map(drop)
    }

    /// Notes that none of this part has one any more.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn absent(&self, place: &str) -> Result<(), StoreError> {
        self.store.swap(&format!("{PRESENT}{place}"), Expected::Any, None).await.map(drop)
    }

    /// Forgets all that a node announced, also what cannot be read under its name, and frees the services that were its
    /// alone: the operator has said that it is no more.
    pub(super) async fn forget_announced_by(&self, node: &str) -> Result<(), StoreError> {
        let mut left = BTreeSet::new();
        for entry in self.store.list(ANNOUNCED).await? {
            let key = bare(&entry.key, ANNOUNCED);
            if is_nodes(&entry, node) {
                self.forget_announced(&key, entry.version).await?;
            } else {
                left.extend(key.split_once('/').map(|(service, _)| service.to_owned()));
            }
        }
        for entry in self.store.list(OWNERS).await? {
            let service = bare(&entry.key, OWNERS);
            if !left.contains(&service) && read_owner(&entry).is_ok_and(|owner| owner.node == node) {
                self.free_service(&service, entry.version).await?;
            }
        }
        Ok(())
    }
}

/// Whether an instance's name is one of a node's: the node's own, or that and a dot before anything else. Names of nodes
/// hold no dot.
pub fn is_of_node(instance: &str, node: &str) -> bool {
    instance.strip_prefix(node).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a node announced this; where it cannot be read its key says so.
fn is_nodes(entry: &Entry, node: &str) -> bool {
    match read_announced(entry) {
        Ok(record) => record.node == node,
        Err(_) => entry.key.rsplit('/').next().is_some_and(|instance| is_of_node(instance, node)),
    }
}

fn bare(key: &str, prefix: &str) -> String {
    key.strip_prefix(prefix).unwrap_or_default().to_owned()
}
