//! What a hub must not forget: tokens and whom they were bound to, nodes with their grants and last reports, serials, the
//! relay's positions.
//!
//! The one rule that everything hangs on: a token is bound to the key of a request **before** anything is signed, in one
//! transaction that compares and swaps. However often the hub dies in between, one token never buys two keys.

mod embedded;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use weft_core::{control::NodeReport, identity::SpiffeId};

pub use embedded::EmbeddedStore;

/// How long the pair of a token and a key is answered again: the first answer may have been lost on the way.
pub const ANSWERED_AGAIN: Duration = Duration::from_secs(600);

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The identities that it may ask certificates for.
    pub identities: Vec<SpiffeId>,
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

/// A request to join, as far as the store judges it.
#[derive(Clone, Debug)]
pub struct JoinClaim {
    /// The hash of the secret that was shown.
    pub secret_hash: SecretHash,
    /// The node's name.
    pub node: String,
    /// The SHA-256 of its public key.
    pub key_hash: [u8; 32],
    /// Now.
    pub at: SystemTime,
}

/// Why a token buys nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// No such token; nothing more is told to who has none.
    #[error("this token is unknown here, or has expired")]
    Unknown,
    /// Used before, by another key or too long ago.
    #[error("this token has been used; make a new one with `weft ca token create`")]
    Used,
    /// Made for another node.
    #[error("this token is for the node {0}")]
    OtherNode(String),
    /// The name belongs to a host that joined before.
    #[error("a node {0} has joined before; to replace it make a token with `--node {0}`")]
    NodeTaken(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("the store {0} is in use by another process")]
    InUse(String),
    /// The file or a record cannot be read or written.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// One relayed origin, as far as it must be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecord {
    /// The version of its words.
    pub version: u64,
    /// When it last changed, in the relay's own count.
    pub position: u64,
    /// Whether it is gone.
    pub gone: bool,
}

/// The state of a hub. One process owns it.
pub trait Store: Send + Sync {
    /// Keeps a new token.
    ///
    /// # Errors
    /// When it cannot be written.
    fn add_token(&self, hash: SecretHash, record: &TokenRecord) -> Result<(), StoreError>;

    /// All tokens that are kept.
    ///
    /// # Errors
    /// When they cannot be read.
    fn tokens(&self) -> Result<Vec<(SecretHash, TokenRecord)>, StoreError>;

    /// Forgets a token: it buys nothing from here on. Returns whether it was there.
    ///
    /// # Errors
    /// When it cannot be written.
    fn remove_token(&self, hash: SecretHash) -> Result<bool, StoreError>;

    /// Binds a token to a node and its key, and grants the node what the token says, in one durable step; or says why
    /// not. Answers as before to the pair it is bound to, for [`ANSWERED_AGAIN`].
    ///
    /// # Errors
    /// When the token does not buy a certificate for this claim.
    fn claim(&self, claim: &JoinClaim) -> Result<NodeRecord, ClaimError>;

    /// A host that joined.
    ///
    /// # Errors
    /// When it cannot be read.
    fn node(&self, name: &str) -> Result<Option<NodeRecord>, StoreError>;

    /// Every host that joined, by name.
    ///
    /// # Errors
    /// When they cannot be read.
    fn nodes(&self) -> Result<Vec<KnownNode>, StoreError>;

    /// Forgets a host, and the tokens that it used: it gets no certificate any more, and none of them is answered again.
    /// Returns whether it was known.
    ///
    /// # Errors
    /// When it cannot be written.
    fn remove_node(&self, name: &str) -> Result<bool, StoreError>;

    /// Notes what a node told of itself. Nothing is noted of one that is not known.
    ///
    /// # Errors
    /// When it cannot be written.
    fn note_report(&self, name: &str, report: &LastReport) -> Result<(), StoreError>;

    /// Notes a certificate that was signed.
    ///
    /// # Errors
    /// When it cannot be written.
    fn note_serial(&self, serial: &str, identity: &SpiffeId, not_after: SystemTime)
    -> Result<(), StoreError>;

    /// The store's epoch: made at random with the store, and never changed.
    fn epoch(&self) -> [u8; 16];

    /// All relayed origins of a registry.
    ///
    /// # Errors
    /// When they cannot be read.
    fn relayed(&self, registry: &str) -> Result<Vec<(String, RelayRecord)>, StoreError>;

    /// Remembers changed origins of a registry, and forgets those without a record, in one durable step.
    ///
    /// # Errors
    /// When they cannot be written.
    fn remember(&self, registry: &str, changes: &[(&str, Option<RelayRecord>)]) -> Result<(), StoreError>;
}

/// Judges a claim against a token's record; pure. Gives the record to write where the token becomes bound.
fn judge(
    record: Option<TokenRecord>,
    node_known: bool,
    claim: &JoinClaim,
) -> Result<(TokenRecord, bool), ClaimError> {
    let mut record = record.ok_or(ClaimError::Unknown)?;
    if let Some(node) = record.node.as_ref().filter(|node| **node != claim.node) {
        return Err(ClaimError::OtherNode(node.clone()));
    }
    if let Some(binding) = &record.bound {
        let same = binding.node == claim.node && binding.key_hash == claim.key_hash;
        let recent = claim.at.duration_since(binding.at).is_ok_and(|since| since <= ANSWERED_AGAIN);
        return if same && recent { Ok((record, false)) } else { Err(ClaimError::Used) };
    }
    if claim.at >= record.expires {
        return Err(ClaimError::Unknown);
    }
    if node_known && record.node.is_none() {
        return Err(ClaimError::NodeTaken(claim.node.clone()));
    }
    record.bound = Some(Binding { node: claim.node.clone(), key_hash: claim.key_hash, at: claim.at });
    Ok((record, true))
}

#[cfg(test)]
mod tests;
