//! Who is on the other side, and if nobody can tell, why.

use std::{io, time::SystemTime};

use rustls::{AlertDescription, CertificateError, Error};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{
    bundle::{Usage, common_validity},
    credentials::Credentials,
    leaf::{Leaf, LeafError, Validity},
    moment::{rfc3339, span, system_time},
};
use crate::identity::{SpiffeId, TrustDomain};

/// A peer whose certificate was checked. A connection keeps it for as long as it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub identity: SpiffeId,
    /// The serial number of its certificate, in lower-case hexadecimal.
    pub serial: String,
    /// Until when its certificate is valid. Age alone ends no connection.
    pub not_after: SystemTime,
    /// The [`Credentials::trust_generation`] under which it was checked; when that moves on, check again.
    pub trust_generation: u64,
}

/// Why a peer is nobody to us. The text names the certificate, who it claims to be and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// Its certificate has not the form of a workload's.
    #[error("the peer's certificate is not a workload's: {0}")]
    Form(#[from] LeafError),
    /// We have no roots for its trust domain.
    #[error("the peer is {presented} (certificate {serial}), and there is no bundle for its trust domain {}; {}",
        presented.trust_domain_str(), known_domains(known))]
    UnknownTrustDomain {
        /// Who it claims to be.
        presented: SpiffeId,
        /// Its certificate's serial number.
        serial: String,
        /// The trust domains that have a bundle, sorted.
        known: Vec<TrustDomain>,
    },
    /// It is before its certificate's time.
    #[error("the certificate {serial} of {presented} is not valid before {}; it is {} now, is a clock wrong?",
        rfc3339(*from), rfc3339(*now))]
    NotYetValid {
        /// Who it claims to be.
        presented: SpiffeId,
        /// Its certificate's serial number.
        serial: String,
        /// From when on it is valid.
        from: SystemTime,
        /// When it was checked.
        now: SystemTime,
    },
    /// It is past its certificate's time.
    #[error("the certificate {serial} of {presented} expired on {}, {} ago", rfc3339(*since), span(*since, *now))]
    Expired {
        /// Who it claims to be.
        presented: SpiffeId,
        /// Its certificate's serial number.
        serial: String,
        /// The last moment of its validity.
        since: SystemTime,
        /// When it was checked.
        now: SystemTime,
    },
    /// Its certificate does not lead to a root of its trust domain.
    #[error("the certificate {serial} claims to be {presented}, but the bundle of {} does not bear it out: {reason}",
        presented.trust_domain_str())]
    NotSigned {
        /// Who it claims to be.
        presented: SpiffeId,
        /// Its certificate's serial number.
        serial: String,
        /// What failed.
        reason: String,
    },
    /// It is a valid workload, but not the one that was dialled.
    #[error("expected {expected}, but {presented} answered (certificate {serial})")]
    WrongIdentity {
        /// Who it is.
        presented: SpiffeId,
        /// Its certificate's serial number.
        serial: String,
        /// Who was expected: an identity, or the server name that encodes it.
        expected: String,
    },
    /// Joining: the hub's chain does not hold the root that the token names.
    #[error(
        "the hub's certificate chain does not hold the root {expected} that the token names; it is not the hub that made the token"
    )]
    NotPinned {
        /// The SHA-256 that the token carries, in hexadecimal.
        expected: String,
    },
}

fn known_domains(known: &[TrustDomain]) -> String {
    if known.is_empty() {
        return "there are no bundles at all".to_owned();
    }
    let names: Vec<_> = known.iter().map(TrustDomain::as_str).collect();
    format!("there are bundles for {}", names.join(", "))
}

impl PeerError {
    /// A short name that does not change, for metrics and flags.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Form(_) => "not_a_workload",
            Self::UnknownTrustDomain { .. } => "unknown_trust_domain",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Expired { .. } => "expired",
            Self::NotSigned { .. } => "not_signed",
            Self::WrongIdentity { .. } => "wrong_identity",
            Self::NotPinned { .. } => "not_pinned",
        }
    }
}

impl From<PeerError> for Error {
    fn from(error: PeerError) -> Self {
        Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error))))
    }
}

/// The full check of a chain, the peer's own certificate first. Also says while when the verdict holds, as long as the
/// roots stay the same; nothing when that cannot be told.
pub(super) fn check(
    credentials: &Credentials,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    usage: Usage,
    now: UnixTime,
) -> Result<(Peer, Option<Validity>), PeerError> {
    let Leaf { identity: presented, serial, validity } = Leaf::parse(leaf)?;
    let Some(bundle) = credentials.bundle(&presented.trust_domain()) else {
        let mut known: Vec<_> = credentials.bundles().map(|bundle| bundle.trust_domain().clone()).collect();
        known.sort();
        return Err(PeerError::UnknownTrustDomain { presented, serial, known });
    };
    let at = system_time(now);
    if at < validity.not_before {
        return Err(PeerError::NotYetValid { presented, serial, from: validity.not_before, now: at });
    }
    if validity.not_after < at {
        return Err(PeerError::Expired { presented, serial, since: validity.not_after, now: at });
    }
    let root = match bundle.verify(leaf, intermediates, usage, now) {
        Ok(root) => root,
        Err(reason) => return Err(PeerError::NotSigned { presented, serial, reason }),
    };
    let window = common_validity(validity.and(root.validity()), intermediates);
    let trust_generation = credentials.trust_generation();
    let peer = Peer { identity: presented, serial, not_after: validity.not_after, trust_generation };
    Ok((peer, window))
}

/// The fault that a verifier of ours found, inside a failed handshake's error.
#[must_use]
pub fn peer_fault(error: &io::Error) -> Option<&PeerError> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

/// Says in a sentence why a handshake failed, also when it was the other side that refused.
#[must_use]
pub fn explain_handshake(error: &io::Error) -> String {
    if let Some(fault) = peer_fault(error) {
        return fault.to_string();
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => explain_alert(*alert),
        Some(Error::NoCertificatesPresented) => PeerError::NoCertificate.to_string(),
        Some(Error::General(text)) if text == "no server certificate chain resolved" => {
            "the caller asked for an identity that no workload of this agent has".to_owned()
        }
        Some(Error::PeerIncompatible(why)) => {
            format!("the peer's TLS does not fit ours (TLS 1.3 only): {why:?}")
        }
        Some(Error::InvalidMessage(_)) => "the peer does not speak TLS".to_owned(),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the peer closed the connection in the middle of the handshake".to_owned()
        }
        _ => error.to_string(),
    }
}

fn explain_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::AccessDenied => {
            "the agent there has no certificate for the identity that was dialled".to_owned()
        }
        AlertDescription::CertificateUnknown
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::UnknownCA
        | AlertDescription::UnsupportedCertificate => {
            format!("the peer refused our certificate ({alert:?}); its own log names the reason")
        }
        AlertDescription::CertificateRequired => "the peer requires a certificate and got none".to_owned(),
        AlertDescription::NoApplicationProtocol => {
            "the peer speaks none of the framings that were offered".to_owned()
        }
        AlertDescription::ProtocolVersion => "the peer does not speak TLS 1.3".to_owned(),
        other => format!("the peer ended the handshake: {other:?}"),
    }
}
