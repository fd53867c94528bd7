//! A trust domain's roots. Several work at once, which is what a root rotation needs.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    CertificateError as Reason, Error, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    certificate::{Certificate, provider},
    leaf::{Validity, subject},
    moment::{rfc3339, system_time},
    pem::{PemError, read_certificates},
};
use crate::identity::TrustDomain;

/// A certificate authority that a bundle trusts.
#[derive(Clone, Debug)]
pub struct Root {
    certificate: CertificateDer<'static>,
    fingerprint: [u8; 32],
    subject: String,
    validity: Validity,
    store: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// The roots of one trust domain; never empty.
#[derive(Clone, Debug)]
pub struct Bundle {
    trust_domain: TrustDomain,
    roots: Vec<Root>,
}

/// Why certificates are no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// No certificate at all.
    #[error("the bundle of {0} holds no certificate")]
    Empty(TrustDomain),
    /// The file.
    #[error("bundle file: {0}")]
    Pem(#[source] PemError),
    /// Not a certificate.
    #[error("certificate {0} of the bundle is not an X.509 certificate in DER")]
    NotX509(usize),
    /// A workload's certificate, which can vouch for nobody.
    #[error("certificate {position} of the bundle ({subject}) is not a certificate authority's")]
    NotAuthority {
        /// Which one, from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
    /// rustls refuses it as a root.
    #[error("certificate {position} of the bundle cannot be a root: {reason}")]
    Unusable {
        /// Which one, from 1.
        position: usize,
        /// What rustls says.
        reason: String,
    },
}

/// In which role a certificate was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// By whoever connects.
    Client,
    /// By whoever accepts.
    Server,
}

impl Root {
    fn new(certificate: CertificateDer<'static>, position: usize) -> Result<Self, BundleError> {
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|_| BundleError::NotX509(position))?;
        let (subject, validity) = (subject(&parsed), Validity::of(&parsed));
        if !parsed.is_ca() {
            return Err(BundleError::NotAuthority { position, subject });
        }
        let unusable = |reason: String| BundleError::Unusable { position, reason };
        let mut store = RootCertStore::empty();
        store.add(certificate.clone()).map_err(|error| unusable(error.to_string()))?;
        let store = Arc::new(store);
        let clients = WebPkiClientVerifier::builder_with_provider(store.clone(), provider().clone())
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { fingerprint: sha256(&certificate), certificate, subject, validity, store, clients })
    }

    /// The certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The SHA-256 of the certificate in DER.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// The certificate's subject, for people.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// When the root is valid; outside of that it vouches for nobody.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<(), Error> {
        match usage {
            Usage::Client => self.clients.verify_client_cert(leaf, intermediates, now).map(|_| ()),
            Usage::Server => verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(leaf)?,
                &self.store,
                intermediates,
                now,
                provider().signature_verification_algorithms.all,
            ),
        }
    }
}

impl Bundle {
    /// Takes the roots of a trust domain, in DER; copies of one root count once.
    ///
    /// # Errors
    /// When there is none, or one is not a certificate authority's.
    pub fn new(
        trust_domain: TrustDomain,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        let mut roots: Vec<Root> = Vec::new();
        for (index, certificate) in certificates.into_iter().enumerate() {
            let root = Root::new(certificate, index + 1)?;
            if roots.iter().all(|known| known.fingerprint != root.fingerprint) {
                roots.push(root);
            }
        }
        if roots.is_empty() {
            Err(BundleError::Empty(trust_domain))
        } else {
            Ok(Self { trust_domain, roots })
        }
    }

    /// Reads the roots of a trust domain from a PEM text.
    ///
    /// # Errors
    /// As [`Self::new`], and when the text is not the PEM it should be.
    pub fn from_pem(trust_domain: TrustDomain, text: &str) -> Result<Self, BundleError> {
        let certificates = read_certificates(text).map_err(BundleError::Pem)?;
        Self::new(trust_domain, certificates.into_iter().map(CertificateDer::from))
    }

    /// Whose roots they are.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots, at least one.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Whether both hold the same roots, in whatever order.
    #[must_use]
    pub fn same_roots(&self, other: &Self) -> bool {
        let holds = |root: &Root| other.roots.iter().any(|r| r.fingerprint == root.fingerprint);
        self.trust_domain == other.trust_domain
            && self.roots.len() == other.roots.len()
            && self.roots.iter().all(holds)
    }

    /// The first root that a certificate of ours leads to; none when none vouches for it (any more).
    #[must_use]
    pub fn root_of(&self, certificate: &Certificate, now: SystemTime) -> Option<&Root> {
        let (leaf, intermediates) = certificate.chain().split_first()?;
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).ok()?);
        self.verify(leaf, intermediates, Usage::Client, now).ok()
    }

    /// Checks that a chain leads to one of the roots. Each root is asked on its own: an expired one is skipped, which
    /// path building alone would not do, and the error can name the roots. Returns the root.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<&Root, String> {
        let at = system_time(now);
        let mut telling = None;
        for root in &self.roots {
            if !root.validity.contains(at) {
                continue;
            }
            match root.verify(leaf, intermediates, usage, now) {
                Ok(()) => return Ok(root),
                Err(Error::InvalidCertificate(Reason::UnknownIssuer | Reason::BadSignature)) => {}
                Err(error) => telling = Some(error),
            }
        }
        Err(telling.map_or_else(|| self.unknown_issuer(at), |error| chain_fault(&error)))
    }

    fn unknown_issuer(&self, at: std::time::SystemTime) -> String {
        let roots = self.roots.iter().map(|root| {
            let short = &data_encoding::HEXLOWER.encode(&root.fingerprint)[..16];
            match root.validity {
                Validity { not_after, .. } if not_after < at => {
                    format!("{short} (expired since {})", rfc3339(not_after))
                }
                Validity { not_before, .. } if at < not_before => {
                    format!("{short} (not valid before {})", rfc3339(not_before))
                }
                _ => short.to_owned(),
            }
        });
        format!("no root that we trust signed it; we have {}", roots.collect::<Vec<_>>().join(", "))
    }
}

/// rustls' verdict on a chain whose first certificate is known to be in its time.
fn chain_fault(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(Reason::ExpiredContext { not_after, .. }) => {
            format!("an intermediate certificate expired on {}", rfc3339(system_time(*not_after)))
        }
        Error::InvalidCertificate(Reason::NotValidYetContext { not_before, .. }) => {
            format!("an intermediate certificate is not valid before {}", rfc3339(system_time(*not_before)))
        }
        Error::InvalidCertificate(Reason::InvalidPurposeContext { .. } | Reason::InvalidPurpose) => {
            "its extended key usage does not allow this side of a TLS connection".to_owned()
        }
        other => other.to_string(),
    }
}

/// When all these certificates are valid; none when one cannot be read.
pub(super) fn common_validity(first: Validity, certificates: &[CertificateDer<'_>]) -> Option<Validity> {
    certificates.iter().try_fold(first, |window, certificate| {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        Some(window.and(Validity::of(&parsed)))
    })
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    digest
}
