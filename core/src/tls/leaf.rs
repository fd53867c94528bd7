//! What a workload's certificate says, and whether it has the form of one (SPIFFE X.509-SVID §2 to §4).
//!
//! This looks at one certificate alone; whether anybody trusted signed it is the business of [`super::Bundle`]. It is
//! the first thing that touches what a peer sent, so it must not panic on any bytes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    time::ASN1Time,
};

use super::moment::rfc3339;
use crate::{identity::SpiffeId, name::NameError};

/// The context-specific tag of `uniformResourceIdentifier` in a `GeneralName` (RFC 5280 §4.2.1.6).
const URI_TAG: u32 = 6;

/// When a certificate is valid; both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// Whether a moment lies between the two ends.
    #[must_use]
    pub fn contains(self, at: SystemTime) -> bool {
        self.not_before <= at && at <= self.not_after
    }

    /// When both are valid.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }

    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { not_before: system_time(validity.not_before), not_after: system_time(validity.not_after) }
    }
}

/// A workload's certificate, read and of the right form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The one identity it names.
    pub identity: SpiffeId,
    /// Lower-case hexadecimal, without separators.
    pub serial: String,
    /// When it is valid.
    pub validity: Validity,
}

/// Why a certificate cannot be a workload's, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// No certificate at all.
    #[error("it is not an X.509 certificate in DER")]
    NotX509,
    /// Something follows the certificate.
    #[error("{count} bytes follow the certificate")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// An extension that matters here cannot be read or stands twice.
    #[error("certificate {serial}: its {extension} cannot be read or stands twice")]
    Extension {
        /// The certificate's serial number.
        serial: String,
        /// Which one.
        extension: &'static str,
    },
    /// It may sign other certificates.
    #[error("certificate {serial} is a certificate authority's ({subject}), not a workload's")]
    Authority {
        /// The certificate's serial number.
        serial: String,
        /// Its subject.
        subject: String,
    },
    /// It names no URI.
    #[error("certificate {serial} ({subject}) holds no SPIFFE URI, so it names no workload")]
    NoUri {
        /// The certificate's serial number.
        serial: String,
        /// Its subject.
        subject: String,
    },
    /// It names several URIs, so it is not clear whose it is.
    #[error("certificate {serial} holds {} URIs ({}), and exactly one is allowed", uris.len(), uris.join(", "))]
    SeveralUris {
        /// The certificate's serial number.
        serial: String,
        /// All of them.
        uris: Vec<String>,
    },
    /// Its URI is no identity of the mesh's form.
    #[error("certificate {serial}: {source}")]
    Identity {
        /// The certificate's serial number.
        serial: String,
        /// Which rule it breaks.
        source: NameError,
    },
}

impl Leaf {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// Says which rule the certificate breaks, with its serial number where it has one.
    pub fn parse(der: &[u8]) -> Result<Self, LeafError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| LeafError::NotX509)?;
        if !rest.is_empty() {
            return Err(LeafError::TrailingBytes { count: rest.len() });
        }
        let serial = serial_hex(&certificate);
        refuse_authority(&certificate, &serial)?;
        let uri = only_uri(&certificate, &serial)?;
        let identity =
            SpiffeId::parse(&uri).map_err(|source| LeafError::Identity { serial: serial.clone(), source })?;
        Ok(Self { identity, serial, validity: Validity::of(&certificate) })
    }
}

/// Refuses what could sign: a CA, and whoever's key usage names signing certificates or revocation lists.
fn refuse_authority(certificate: &X509Certificate<'_>, serial: &str) -> Result<(), LeafError> {
    let unreadable = |extension| LeafError::Extension { serial: serial.to_owned(), extension };
    let constraints = certificate.basic_constraints().map_err(|_| unreadable("basic constraints"))?;
    let usage = certificate.key_usage().map_err(|_| unreadable("key usage"))?;
    let signs = usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
    if signs || constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(LeafError::Authority { serial: serial.to_owned(), subject: subject(certificate) });
    }
    let parsed =
        certificate.extensions().iter().map(x509_parser::extensions::X509Extension::parsed_extension);
    if parsed.into_iter().any(|extension| matches!(extension, ParsedExtension::ParseError { .. })) {
        return Err(unreadable("extensions"));
    }
    Ok(())
}

fn only_uri(certificate: &X509Certificate<'_>, serial: &str) -> Result<String, LeafError> {
    let names = certificate.subject_alternative_name().map_err(|_| LeafError::Extension {
        serial: serial.to_owned(),
        extension: "subject alternative names",
    })?;
    let mut uris: Vec<String> =
        names.map_or_else(Vec::new, |names| names.value.general_names.iter().filter_map(uri_text).collect());
    match (uris.pop(), uris.is_empty()) {
        (Some(uri), true) => Ok(uri),
        (None, _) => Err(LeafError::NoUri { serial: serial.to_owned(), subject: subject(certificate) }),
        (Some(last), false) => {
            uris.push(last);
            Err(LeafError::SeveralUris { serial: serial.to_owned(), uris })
        }
    }
}

/// A name's text if it is a URI; one whose bytes are no text counts too, or a second one could hide behind bad bytes.
fn uri_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        GeneralName::Invalid(tag, bytes) if tag.0 == URI_TAG => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        _ => None,
    }
}

pub(super) fn subject(certificate: &X509Certificate<'_>) -> String {
    let text = certificate.subject().to_string();
    if text.is_empty() { "empty subject".to_owned() } else { text.chars().take(120).collect() }
}

fn serial_hex(certificate: &X509Certificate<'_>) -> String {
    data_encoding::HEXLOWER.encode(certificate.raw_serial())
}

fn system_time(at: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or(0))
}

impl std::fmt::Display for Validity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", rfc3339(self.not_before), rfc3339(self.not_after))
    }
}
