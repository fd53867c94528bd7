//! What hubs must not forget, over whichever store they share: tokens and whom they were bound to, nodes with their grants
//! and last reports, what they announce, the serial numbers of certificates.
//!
//! The one rule that everything hangs on: a token is bound to the key of a request **before** anything is signed, by a
//! compare-and-swap. However often a hub dies in between, and however many hubs are asked at once, one token never buys
//! two keys.
//!
//! A store changes one key at a time, so the steps have an order in which every prefix is sound. A claim binds the token,
//! then writes the node, then looks whether the token is still there; a removal takes the tokens away before the node. So
//! of a claim and a removal that meet, either the removal finds the node, or the claim finds its token gone.
//!
//! | key | value |
//! |---|---|
//! | `tokens/` and the secret's SHA-256 | [`TokenRecord`] |
//! | `nodes/` and the name | [`NodeRecord`] |
//! | `reports/` and the node's name | [`LastReport`] |
//! | `serials/` and the node's name | the certificates that were signed for it and are valid |
//! | `announced/`, service, port name and instance | [`AnnouncementRecord`] |
//! | `owners/` and the service | [`OwnerRecord`] |
//! | `present/`, a hub and a part of the nodes | those that have a stream there, for as long as that hub's lease lasts |
//!
//! Records are JSON: a person can read them, and fields can be added.

mod change;
mod announced;
mod claim;
mod serials;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use data_encoding::HEXLOWER;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use weft_core::{control::NodeReport, identity::SpiffeId};

use super::store::{Entry, Expected, Put, Store, StoreError, Told};
use change::{Step, change, change_entry, encode, parse};

pub use announced::{
    ANNOUNCED, AnnouncementRecord, KeepFault, OWNERS, OwnerRecord, PRESENT, is_of_node, read_announced,
    read_owner, read_present,
};
pub use claim::{ANSWERED_AGAIN, ClaimError, JoinClaim};

const TOKENS: &str = "tokens/";
const NODES: &str = "nodes/";
const REPORTS: &str = "reports/";
const SERIALS: &str = "serials/";

/// How long a token's record is kept after it expired, so that its second use can be told from a typing error.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often expired records are looked for.
const SWEPT_EVERY: Duration = Duration::from_secs(3600);

/// The SHA-256 of a token's secret.
pub type SecretHash = [u8; 32];

/// What a token buys, and who bought it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The identities that the node may ask certificates for.
    pub identities: Vec<SpiffeId>,
    /// The only node that may use it; any new one when absent.
    pub node: Option<String>,
    /// From when on it buys nothing more.
    pub expires: SystemTime,
    /// Who used it.
    pub bound: Option<Binding>,
}

/// Who used a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The node's name.
    pub node: String,
    /// The SHA-256 of its public key.
    pub key_hash: [u8; 32],
    /// When.
    pub at: SystemTime,
}

/// A host that joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The identities that it may ask certificates for.
    pub identities: Vec<SpiffeId>,
    /// The hash of the token's secret by which it joined: no other token is answered for it.
    pub token: SecretHash,
    /// When that token was bound.
    pub joined: SystemTime,
}

/// What a node last told of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReport {
    /// When.
    pub at: SystemTime,
    /// Its software, for people.
    pub software: String,
    /// What it holds.
    pub report: NodeReport,
}

/// A node with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownNode {
    /// Its name.
    pub name: String,
    /// What it may be.
    pub record: NodeRecord,
    /// What it last told of itself; none when it never did.
    pub last: Option<LastReport>,
}

/// What a watch of the nodes tells.
pub(super) enum NodesTold {
    /// The names of all that are known.
    All(HashSet<String>),
    /// This one is known no more.
    Gone(String),
    /// Nobody is gone.
    Nothing,
}

/// The records of a mesh.
#[derive(Clone, Debug)]
pub struct Records {
    store: Arc<dyn Store>,
    /// When expired records are looked for again.
    sweep_at: Arc<Mutex<Instant>>,
}

impl Records {
    /// The records in a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, sweep_at: Arc::new(Mutex::new(Instant::now())) }
    }

    /// The store that keeps them.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Keeps a new token.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn add_token(&self, hash: SecretHash, record: &TokenRecord) -> Result<(), StoreError> {
        if let Err(fault) = self.sweep().await {
            tracing::warn!(%fault, "expired records were not removed");
        }
        change(&*self.store, &token_key(hash), |_: Option<&TokenRecord>| Ok(Step::Put(record.clone(), ())))
            .await
    }

    /// All tokens that are kept.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn tokens(&self) -> Result<Vec<(SecretHash, TokenRecord)>, StoreError> {
        let entries = self.store.list(TOKENS).await?;
        entries.iter().map(|entry| Ok((hash_in(&entry.key)?, parse(entry)?))).collect()
    }

    /// Forgets a token: it buys nothing from here on. Returns whether it was there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn remove_token(&self, hash: SecretHash) -> Result<bool, StoreError> {
        self.remove(&token_key(hash)).await
    }

    /// A host that joined.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn node(&self, name: &str) -> Result<Option<NodeRecord>, StoreError> {
        self.store.get(&node_key(name)).await?.as_ref().map(parse).transpose()
    }

    /// Every host that joined, by name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn nodes(&self) -> Result<Vec<KnownNode>, StoreError> {
        let nodes = self.store.list(NODES).await?;
        let reports = self.store.list(REPORTS).await?;
        let reports: HashMap<_, _> =
            reports.iter().filter_map(|report| Some((report.key.strip_prefix(REPORTS)?, report))).collect();
        let known = |entry: &Entry| {
            let name = entry.key.strip_prefix(NODES).unwrap_or_default().to_owned();
            let last = reports.get(&*name).copied().map(parse).transpose()?;
            Ok(KnownNode { name, record: parse(entry)?, last })
        };
        nodes.iter().map(known).collect()
    }

    /// Forgets a host, and the tokens that it used: it gets no certificate any more, and none of them is answered again.
    /// Returns whether it was known.
    ///
    /// # Errors
    /// When it cannot be written. It may be called again.
    pub async fn remove_node(&self, name: &str) -> Result<bool, StoreError> {
        for entry in self.store.list(TOKENS).await? {
            if used_by(&entry).is_some_and(|node| node == name) {
                self.remove(&entry.key).await?;
            }
        }
        let removed = self.remove(&node_key(name)).await?;
        self.forget_announced_by(name).await?;
        self.remove(&report_key(name)).await?;
        Ok(removed)
    }

    /// Notes what a node told of itself. Nothing is noted of one that is not known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn note_report(&self, name: &str, report: &LastReport) -> Result<(), StoreError> {
        if self.node(name).await?.is_none() {
            return Ok(());
        }
        let put = Put { may_be_lost: true, ..Put::durable(encode(report)?) };
        self.store.swap(&report_key(name), Expected::Any, Some(put)).await?;
        // It may have been removed meanwhile.
        if self.node(name).await?.is_none() {
            self.store.swap(&report_key(name), Expected::Any, None).await?;
        }
        Ok(())
    }

    /// Tells which hosts are known, and which are known no more, until the store fails.
    pub(super) fn watch_nodes(&self) -> BoxStream<'_, Result<NodesTold, StoreError>> {
        let name = |key: &str| key.strip_prefix(NODES).unwrap_or_default().to_owned();
        let told = self.store.watch(NODES).map_ok(move |told| match told {
            Told::All(entries) => NodesTold::All(entries.iter().map(|entry| name(&entry.key)).collect()),
            Told::Put(_) => NodesTold::Nothing,
            Told::Gone(key) => NodesTold::Gone(name(&key)),
        });
        told.boxed()
    }

    /// Takes over what a hub has in its own file, from before it shared a store; what is known here already stays as it is.
    /// Says how many records there were.
    ///
    /// # Errors
    /// When a store fails. What was taken over is here, the rest there; it may be called again.
    pub async fn take_over(&self, own: &dyn Store) -> Result<usize, StoreError> {
        let mut taken = 0;
        for prefix in [TOKENS, NODES, OWNERS, ANNOUNCED, REPORTS, SERIALS] {
            for entry in own.list(prefix).await? {
                self.store.swap(&entry.key, Expected::Absent, Some(Put::durable(entry.value))).await?;
                own.swap(&entry.key, Expected::Version(entry.version), None).await?;
                taken += 1;
            }
        }
        Ok(taken)
    }

    /// Removes a key, whether or not its record can be read; says whether it was there.
    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        let mut was_there = false;
        change_entry(&*self.store, key, |known| {
            was_there |= known.is_some();
            Ok::<_, StoreError>(if known.is_some() { Step::Remove(()) } else { Step::Keep(()) })
        })
        .await?;
        Ok(was_there)
    }

    /// Removes what expired long ago, now and then.
    async fn sweep(&self) -> Result<(), StoreError> {
        {
            let mut sweep_at = self.sweep_at.lock().unwrap_or_else(PoisonError::into_inner);
            if *sweep_at > Instant::now() {
                return Ok(());
            }
            *sweep_at = Instant::now() + SWEPT_EVERY;
        }
        let now = SystemTime::now();
        for entry in self.store.list(TOKENS).await? {
            // One that cannot be read keeps no other.
            let Ok(TokenRecord { expires, .. }) = parse(&entry) else { continue };
            if expires.checked_add(KEPT_AFTER_EXPIRY).is_some_and(|forgotten| forgotten <= now) {
                self.store.swap(&entry.key, Expected::Version(entry.version), None).await?;
            }
        }
        self.sweep_serials(now).await
    }
}

/// The node that used a token, as far as that can be read: also where the rest of the record is a newer hub's. A token whose
/// record nobody can read buys nothing.
fn used_by(entry: &Entry) -> Option<String> {
    let record = parse::<serde_json::Value>(entry)
        .inspect_err(|fault| tracing::warn!(%fault, "a token is left as it is"));
    Some(record.ok()?.get("bound")?.get("node")?.as_str()?.to_owned())
}

fn token_key(hash: SecretHash) -> String {
    format!("{TOKENS}{}", HEXLOWER.encode(&hash))
}

fn node_key(name: &str) -> String {
    format!("{NODES}{name}")
}

fn report_key(name: &str) -> String {
    format!("{REPORTS}{name}")
}

fn hash_in(key: &str) -> Result<SecretHash, StoreError> {
    let digits = key.strip_prefix(TOKENS).unwrap_or_default();
    let hash = HEXLOWER.decode(digits.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
    hash.ok_or_else(|| StoreError::Failed(format!("the key {key:?} names no token")))
}

#[cfg(test)]
mod tests;
