//! How a token buys a certificate.

use std::time::{Duration, SystemTime};

use super::{
    Binding, NodeRecord, Records, SecretHash, TokenRecord,
    change::{Step, change},
    node_key, token_key,
};
use crate::hub::store::StoreError;

/// How long the pair of a token and a key is answered again: the first answer may have been lost on the way.
pub const ANSWERED_AGAIN: Duration = Duration::from_secs(600);

/// A request to join, as far as the records judge it.
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

impl Records {
    /// Binds a token to a node and its key, and grants the node what the token says, durably; or says why not. Answers as
    /// before to the pair it is bound to, for [`ANSWERED_AGAIN`].
    ///
    /// # Errors
    /// When the token does not buy a certificate for this claim.
    pub async fn claim(&self, claim: &JoinClaim) -> Result<NodeRecord, ClaimError> {
        let node_known = self.node(&claim.node).await?.is_some();
        let key = token_key(claim.secret_hash);
        let token = change(&*self.store, &key, |record: Option<&TokenRecord>| {
            let (bound, is_new) = judge(record, node_known, claim)?;
            Ok::<_, ClaimError>(if is_new { Step::Put(bound.clone(), bound) } else { Step::Keep(bound) })
        })
        .await?;
        let node = self.write_node(&token, claim).await?;
        if self.store.get(&key).await?.is_none() {
            // Revoked, or its node removed, since it was bound: what was written above may have come after the removal.
            self.forget_node(claim).await?;
            return Err(ClaimError::Unknown);
        }
        Ok(node)
    }

    /// Writes what a bound token grants, unless another token has made a node of this name meanwhile.
    async fn write_node(&self, token: &TokenRecord, claim: &JoinClaim) -> Result<NodeRecord, ClaimError> {
        let joined = token.bound.as_ref().map_or(claim.at, |binding| binding.at);
        let granted = NodeRecord { identities: token.identities.clone(), token: claim.secret_hash, joined };
        change(&*self.store, &node_key(&claim.node), |known: Option<&NodeRecord>| match known {
            Some(known) if known.token == claim.secret_hash => Ok(Step::Keep(known.clone())),
            Some(_) if token.node.is_none() => Err(ClaimError::NodeTaken(claim.node.clone())),
            // A token that names its node replaces it; but not one that has replaced this one since.
            Some(known) if joined < claim.at && known.joined >= joined => Err(ClaimError::Used),
            _ => Ok(Step::Put(granted.clone(), granted.clone())),
        })
        .await
    }

    /// Forgets a node as far as this claim has made it.
    async fn forget_node(&self, claim: &JoinClaim) -> Result<(), ClaimError> {
        change(&*self.store, &node_key(&claim.node), |known: Option<&NodeRecord>| {
            let is_ours = known.is_some_and(|known| known.token == claim.secret_hash);
            Ok::<_, ClaimError>(if is_ours { Step::Remove(()) } else { Step::Keep(()) })
        })
        .await
    }
}

/// Judges a claim against a token's record; pure. Gives the record with its binding, and whether that is new.
fn judge(
    record: Option<&TokenRecord>,
    node_known: bool,
    claim: &JoinClaim,
) -> Result<(TokenRecord, bool), ClaimError> {
    let mut record = record.ok_or(ClaimError::Unknown)?.clone();
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
