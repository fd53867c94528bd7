//! Where hubs keep the records that they share: keys with values, compare-and-swap, leases, watches.
//!
//! A single hub keeps them in its own file ([`EmbeddedStore`]). Several hubs use a store that the team already runs. Weft
//! replicates nothing and elects nobody: what a store answers as written is as durable as that store makes it, and what
//! only one may do is decided by a compare-and-swap of one key.
//!
//! What holds of every implementation, and is tested on each:
//!
//! * A swap that was answered is durable, and every later read by anybody sees it. Of swaps that compete from the same
//!   version one succeeds.
//! * A swap that failed with [`StoreError::Unreachable`] may have happened nevertheless. Whoever must know reads again.
//! * The keys of a lease vanish with it: when it is revoked, or was not kept alive for its time. It never ends earlier; a
//!   store may let it last longer (Consul: up to twice as long).
//! * A watch begins with all there is and misses no key's last state; states between may be passed over.

mod servers;
mod lines;
mod embedded;
mod etcd;
mod consul;
mod kubernetes;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_core::{future::BoxFuture, stream::BoxStream};
use weft_core::identity::TrustDomain;

pub use consul::ConsulStore;
pub use embedded::EmbeddedStore;
pub use etcd::EtcdStore;
pub use kubernetes::KubernetesStore;

use super::file::FileFault;
use crate::config::SharedStore;

/// What a store answers later.
pub type Later<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Which write of a key this is: of use to whoever compares, opaque otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub(super) Box<str>);

/// A lease, by the name that its store gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub(super) Box<str>);

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// What it holds.
    pub value: Bytes,
    /// Of which write.
    pub version: Version,
}

/// How a key must be for a swap to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It must not be there.
    Absent,
    /// It must be there, as it was read.
    Version(Version),
    /// As it may be.
    Any,
}

/// A value to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The value.
    pub value: Bytes,
    /// The lease with which the key vanishes; none for one that stays.
    pub lease: Option<LeaseId>,
    /// Whether a crash may lose it: what is told again anyway need not wait for the disk. Only a store in this process
    /// makes use of it.
    pub may_be_lost: bool,
}

impl Put {
    /// A value that stays, and is durable when it is answered.
    #[must_use]
    pub fn durable(value: impl Into<Bytes>) -> Self {
        Self { value: value.into(), lease: None, may_be_lost: false }
    }
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// All there is under the prefix. Comes first, and again after a gap: what is not in it is gone.
    All(Vec<Entry>),
    /// A key was written.
    Put(Entry),
    /// A key is gone.
    Gone(String),
}

/// The store cannot do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("the store {0} is in use by another process")]
    InUse(String),
    /// It gives no answer now. What was to be written may be written or not.
    #[error("the store is away: {0}")]
    Unreachable(String),
    /// It refuses us.
    #[error("the store refuses: {0}")]
    Denied(String),
    /// The lease has ended: nothing was written.
    #[error("the lease has ended")]
    LeaseGone,
    /// It, or a record in it, cannot be read or written.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl From<FileFault> for StoreError {
    fn from(fault: FileFault) -> Self {
        match fault {
            FileFault::InUse(what) => Self::InUse(what),
            FileFault::Failed(why) => Self::Failed(why),
        }
    }
}

/// Opens the store that several hubs share, for the records of one mesh, on the runtime that this is called on. Nothing is
/// connected before something is asked.
///
/// # Errors
/// When a certificate that it names cannot be read.
pub fn shared(prefix: &str, server: &SharedStore, mesh: &TrustDomain) -> Result<Arc<dyn Store>, StoreError> {
    // Two meshes may share a store and its default: a node of one must not be known to the other.
    let prefix = format!("{prefix}{mesh}/");
    Ok(match server {
        SharedStore::Etcd { servers, login } => Arc::new(EtcdStore::new(servers, login.clone(), &prefix)?),
        SharedStore::Consul { servers, credential } => {
            Arc::new(ConsulStore::new(servers, credential.clone(), &prefix)?)
        }
        SharedStore::Kubernetes { access, namespace } => {
            Arc::new(KubernetesStore::new(access.clone(), namespace, &prefix))
        }
    })
}

/// A store of keys. Keys are text of visible ASCII, up to 300 bytes.
pub trait Store: Send + Sync + fmt::Debug {
    /// What it is and where, for people; never a secret.
    fn describe(&self) -> String;

    /// A key as it is now.
    fn get<'a>(&'a self, key: &'a str) -> Later<'a, Option<Entry>>;

    /// All keys that begin with `prefix`, in their order, as they are at one moment.
    fn list<'a>(&'a self, prefix: &'a str) -> Later<'a, Vec<Entry>>;

    /// Writes a key, or removes it where `put` is none, if it is as expected; says whether it was. To remove what is
    /// absent succeeds when anything is expected.
    fn swap<'a>(&'a self, key: &'a str, expected: Expected, put: Option<Put>) -> Later<'a, bool>;

    /// A lease that lasts for `ttl` unless it is kept alive: from two seconds to a day. It is rounded up to a second, and to
    /// the least that the store knows (Consul: ten seconds).
    fn grant(&self, ttl: Duration) -> Later<'_, LeaseId>;

    /// Lets a lease last for its whole time again, from now on; false when it has ended.
    fn keep_alive<'a>(&'a self, lease: &'a LeaseId) -> Later<'a, bool>;

    /// Ends a lease: its keys vanish. Nothing happens when it has ended.
    fn revoke<'a>(&'a self, lease: &'a LeaseId) -> Later<'a, ()>;

    /// Tells how the keys are that begin with `prefix`, and how they change, until it fails.
    fn watch<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Told, StoreError>>;
}
