//! Who gets which certificate: the rules between the records, which know, and the authority, which signs.
//!
//! A node gets its own identity again and the identities that its token granted, each for a key that the request proves.
//! Everything else is refused by name.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use weft_core::{
    control::message::RefusalCode,
    identity::{SYSTEM_NAMESPACE, SpiffeId},
    name::NameError,
};

use super::{
    authority::{Authority, IssueError, Issued, ProvenRequest},
    operator::{NodeNameError, new_node_identity, node_identity},
    records::{ClaimError, JoinClaim, Records},
    store::StoreError,
    token::sha256,
};

/// The desk that signs.
pub struct Office {
    records: Records,
    authority: RwLock<Arc<Authority>>,
    signed: AtomicU64,
    refused: AtomicU64,
}

/// Why a host did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinRefusal {
    /// A name that no node can have.
    #[error("the node's name: {0}")]
    Node(#[from] NodeNameError),
    /// The token does not buy this.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The request is wrong, or signing failed.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// Why a certificate was not given.
#[derive(Debug, thiserror::Error)]
pub enum CertificateRefusal {
    /// Not granted, or not known here.
    #[error("node {node} was not granted {identity}")]
    NotGranted {
        /// Who asked.
        node: String,
        /// For what.
        identity: String,
    },
    /// Not a SPIFFE URI of this mesh's form.
    #[error(transparent)]
    Identity(#[from] NameError),
    /// The request is wrong, or signing failed.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CertificateRefusal {
    /// As the protocol says it.
    #[must_use]
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::NotGranted { .. } | Self::Issue(IssueError::TrustDomain(..)) => RefusalCode::NotGranted,
            Self::Identity(_) | Self::Issue(IssueError::Request(_) | IssueError::Key) => {
                RefusalCode::Malformed
            }
            Self::Issue(IssueError::Expired | IssueError::Signing(_)) | Self::Store(_) => {
                RefusalCode::Unavailable
            }
        }
    }
}

/// A host that joined.
#[derive(Debug)]
pub struct Joined {
    /// The node's certificate.
    pub certificate: Issued,
    /// What it may be.
    pub granted: Vec<SpiffeId>,
}

impl Office {
    /// A desk with these records and this authority.
    #[must_use]
    pub fn new(records: Records, authority: Arc<Authority>) -> Self {
        Self {
            records,
            authority: RwLock::new(authority),
            signed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The authority in force.
    #[must_use]
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Signs with another authority from here on.
    pub fn replace_authority(&self, authority: Arc<Authority>) {
        *self.authority.write().unwrap_or_else(PoisonError::into_inner) = authority;
    }

    /// The records.
    #[must_use]
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// How many certificates it has signed, and refused, since the process began.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.signed.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    fn count<T, E>(&self, outcome: Result<T, E>) -> Result<T, E> {
        let counter = if outcome.is_ok() { &self.signed } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    /// Lets a host join. The claim is durable before anything is signed.
    ///
    /// # Errors
    /// When the token does not buy a certificate for this key and node, or the request is wrong.
    pub async fn join(
        &self,
        secret: &[u8],
        node: &str,
        signing_request: &[u8],
        now: SystemTime,
    ) -> Result<Joined, JoinRefusal> {
        self.count(self.join_uncounted(secret, node, signing_request, now).await)
    }

    async fn join_uncounted(
        &self,
        secret: &[u8],
        node: &str,
        signing_request: &[u8],
        now: SystemTime,
    ) -> Result<Joined, JoinRefusal> {
        let authority = self.authority();
        let identity = new_node_identity(authority.trust_domain(), node)?;
        let request = ProvenRequest::read(signing_request)?;
        let claim = JoinClaim {
            secret_hash: sha256(secret),
            node: node.to_owned(),
            key_hash: request.key_hash(),
            at: now,
        };
        let record = self.records.claim(&claim).await?;
        let certificate = authority.issue_system(&identity, &request, now)?;
        self.note(node, &certificate).await;
        Ok(Joined { certificate, granted: record.identities })
    }

    /// What a node may be, beside itself; none when it is not known here.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn granted(&self, node: &str) -> Result<Option<Vec<SpiffeId>>, StoreError> {
        Ok(self.records.node(node).await?.map(|record| record.identities))
    }

    /// Signs for a node whose stream is authenticated.
    ///
    /// # Errors
    /// Names what was refused.
    pub async fn issue(
        &self,
        node: &str,
        wanted: &str,
        signing_request: &[u8],
        now: SystemTime,
    ) -> Result<Issued, CertificateRefusal> {
        self.count(self.issue_uncounted(node, wanted, signing_request, now).await)
    }

    async fn issue_uncounted(
        &self,
        node: &str,
        wanted: &str,
        signing_request: &[u8],
        now: SystemTime,
    ) -> Result<Issued, CertificateRefusal> {
        let authority = self.authority();
        let identity = SpiffeId::parse(wanted)?;
        let not_granted =
            || CertificateRefusal::NotGranted { node: node.to_owned(), identity: wanted.to_owned() };
        let granted = self.granted(node).await?.ok_or_else(not_granted)?;
        let is_own = node_identity(authority.trust_domain(), node).is_ok_and(|own| own == identity);
        if !is_own && (identity.namespace() == SYSTEM_NAMESPACE || !granted.contains(&identity)) {
            return Err(not_granted());
        }
        let request = ProvenRequest::read(signing_request)?;
        let issued = if is_own {
            authority.issue_system(&identity, &request, now)?
        } else {
            authority.issue(&identity, &request, now)?
        };
        self.note(node, &issued).await;
        Ok(issued)
    }

    /// The trail is no condition: a certificate that cannot be noted is still given.
    async fn note(&self, node: &str, issued: &Issued) {
        tracing::info!(identity = %issued.identity, serial = %issued.serial, "signed");
        let noted = self.records.note_serial(node, &issued.serial, &issued.identity, issued.not_after).await;
        if let Err(fault) = noted {
            tracing::warn!(%fault, serial = %issued.serial, "the serial number was not noted");
        }
    }
}

impl std::fmt::Debug for Office {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Office").field("authority", &self.authority()).finish_non_exhaustive()
    }
}
