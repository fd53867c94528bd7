//! A local workload's certificate with its private key.

use std::sync::Arc;

use rustls::{InconsistentKeys, crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    leaf::{Leaf, LeafError},
    pem::{PemError, read_certificates, read_private_key},
};
use crate::identity::SpiffeId;

/// A certificate of a local workload, its chain up to but without the root, and the key that goes with it.
#[derive(Clone, Debug)]
pub struct Certificate {
    leaf: Leaf,
    key: Arc<CertifiedKey>,
}

/// Why a certificate and key cannot be used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The chain is empty.
    #[error("the certificate chain is empty")]
    Empty,
    /// The file with the certificates.
    #[error("certificate file: {0}")]
    CertificatePem(#[source] PemError),
    /// The file with the key.
    #[error("private key file: {0}")]
    KeyPem(#[source] PemError),
    /// The first certificate is not a workload's.
    #[error("the first certificate of the chain: {0}")]
    Leaf(#[source] LeafError),
    /// The key cannot be read.
    #[error("the private key cannot be used: {0}")]
    Key(String),
    /// Key and certificate were made for each other's neighbours.
    #[error("the private key does not belong to the certificate {serial} of {identity}")]
    Mismatch {
        /// Whose certificate it is.
        identity: SpiffeId,
        /// Its serial number.
        serial: String,
    },
}

impl Certificate {
    /// Takes a chain in DER, the workload's own certificate first and without the root, and its key.
    ///
    /// # Errors
    /// When the first certificate is not a workload's, the key cannot be used or does not belong to it.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let leaf =
            Leaf::parse(chain.first().ok_or(CertificateError::Empty)?).map_err(CertificateError::Leaf)?;
        let key = CertifiedKey::from_der(chain, key, provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                CertificateError::Mismatch { identity: leaf.identity.clone(), serial: leaf.serial.clone() }
            }
            other => CertificateError::Key(other.to_string()),
        })?;
        Ok(Self { leaf, key: Arc::new(key) })
    }

    /// Reads a chain and a key from PEM texts.
    ///
    /// # Errors
    /// As [`Self::new`], and when a text is not the PEM it should be.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, CertificateError> {
        let chain = read_certificates(chain).map_err(CertificateError::CertificatePem)?;
        let key = read_private_key(key).map_err(CertificateError::KeyPem)?;
        let key = match key.label.as_str() {
            "EC PRIVATE KEY" => PrivateKeyDer::Sec1(key.content.into()),
            "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(key.content.into()),
            _ => PrivateKeyDer::Pkcs8(key.content.into()),
        };
        Self::new(chain.into_iter().map(CertificateDer::from).collect(), key)
    }

    /// What the workload's own certificate says.
    #[must_use]
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &SpiffeId {
        &self.leaf.identity
    }

    /// The chain in DER, the workload's own certificate first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// Chain and key as rustls wants them.
    #[must_use]
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

/// The one cryptography provider: aws-lc-rs, X25519MLKEM768 first.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}
