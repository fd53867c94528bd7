//! The certificate authority: a root made once, an intermediate per hub, leaves for identities.
//!
//! All keys are P-256. The root's key signs intermediates and its successor and nothing else, so it may be kept off the
//! hub; the hub needs the intermediate's. A leaf holds exactly one name, the SPIFFE URI; nothing that a request asks for is taken over but
//! its key, and that only with the proof that the asker has it.

mod certificate;
mod folder;
mod rotation;

use std::time::{Duration, SystemTime};

use rcgen::{CertificateSigningRequestParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::CertificateDer;
use weft_core::identity::{SpiffeId, TrustDomain};

pub use certificate::random_serial;
pub use folder::{AuthorityFolder, FolderError, random_trust_domain};
pub use rotation::Rotation;

use certificate::leaf_parameters;

/// How long a leaf is valid after its issue, unless configured otherwise.
pub const DEFAULT_LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The longest signing request that is read, in bytes. One of a P-256 key takes about 250.
const MAX_SIGNING_REQUEST: usize = 4096;
/// Bytes of an uncompressed point of P-256.
const POINT: usize = 65;

/// Signs leaves with a hub's intermediate.
pub struct Authority {
    trust_domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    /// What follows a leaf: the intermediate, and while one root replaces another the new one as the old one signed it.
    above: Vec<CertificateDer<'static>>,
    intermediate_ends: SystemTime,
    issuer: Issuer<'static, KeyPair>,
    leaf_lifetime: Duration,
}

/// A signed leaf.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The leaf, then what leads to a root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The serial number in hexadecimal, lower case.
    pub serial: String,
    /// Whom it names.
    pub identity: SpiffeId,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// Why no certificate was signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request cannot be read, or its signature does not prove its key.
    #[error("the signing request is refused: {0}")]
    Request(String),
    /// Another kind of key.
    #[error("the signing request is refused: its key is not of the curve P-256")]
    Key,
    /// Another mesh's identity.
    #[error("{0} is not of the trust domain {1}")]
    TrustDomain(SpiffeId, TrustDomain),
    /// The hub's own certificate is over.
    #[error("the hub's intermediate certificate has expired; renew it with `weft ca intermediate`")]
    Expired,
    /// The signature failed.
    #[error("cannot sign: {0}")]
    Signing(#[from] rcgen::Error),
}

/// A signing request whose signature proves its key.
#[derive(Debug)]
pub struct ProvenRequest {
    key: rcgen::PublicKey,
}

impl ProvenRequest {
    /// Reads a PKCS #10 request and checks the proof of its key.
    ///
    /// # Errors
    /// When it cannot be read, its signature is wrong, or its key is not of P-256.
    pub fn read(der: &[u8]) -> Result<Self, IssueError> {
        if der.len() > MAX_SIGNING_REQUEST {
            return Err(IssueError::Request(format!("it is longer than {MAX_SIGNING_REQUEST} bytes")));
        }
        let request = CertificateSigningRequestParams::from_der(&der.into())
            .map_err(|fault| IssueError::Request(fault.to_string()))?;
        let key = request.public_key;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != POINT {
            return Err(IssueError::Key);
        }
        Ok(Self { key })
    }

    /// The SHA-256 of the public key: what a token is bound to.
    #[must_use]
    pub fn key_hash(&self) -> [u8; 32] {
        super::token::sha256(&self.key.subject_public_key_info())
    }
}

impl Authority {
    /// The trust domain that it signs for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots that the mesh trusts, in DER. The first is the one that leaves lead to.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Until when the intermediate is valid.
    #[must_use]
    pub fn intermediate_ends(&self) -> SystemTime {
        self.intermediate_ends
    }

    /// Signs a leaf for `identity` and the request's key, valid from 65 minutes ago and for the configured time.
    ///
    /// Whether the asker may have this identity is not asked here.
    ///
    /// # Errors
    /// When the identity is of another trust domain or the intermediate has expired.
    pub fn issue(
        &self,
        identity: &SpiffeId,
        request: &ProvenRequest,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        self.issue_for(self.leaf_lifetime, identity, request, now)
    }

    /// Signs a leaf of Weft's own (a node, a hub): valid for a day at least, so that short-lived workload certificates do
    /// not make the mesh's own machinery fragile.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_system(
        &self,
        identity: &SpiffeId,
        request: &ProvenRequest,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        self.issue_for(self.leaf_lifetime.max(DEFAULT_LEAF_LIFETIME), identity, request, now)
    }

    fn issue_for(
        &self,
        lifetime: Duration,
        identity: &SpiffeId,
        request: &ProvenRequest,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        if identity.trust_domain_str() != self.trust_domain.as_str() {
            return Err(IssueError::TrustDomain(identity.clone(), self.trust_domain.clone()));
        }
        if now >= self.intermediate_ends {
            return Err(IssueError::Expired);
        }
        let not_after = (now + lifetime).min(self.intermediate_ends);
        let serial = random_serial();
        let parameters = leaf_parameters(identity, &serial, now, not_after)?;
        let leaf = parameters.signed_by(&request.key, &self.issuer)?;
        Ok(Issued {
            chain: std::iter::once(leaf.der()).chain(&self.above).cloned().collect(),
            serial: data_encoding::HEXLOWER.encode(&serial),
            identity: identity.clone(),
            not_after,
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
