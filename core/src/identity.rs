//! SPIFFE identities and their one encoding as a TLS server name.
//!
//! An identity is `spiffe://<trust-domain>/ns/<namespace>/sa/<account>` on every platform (SPIFFE-ID specification, with
//! the path form Istio made common). The name dialled in TLS encodes the identity that must answer, so the encoding is
//! injective: two identities never share a server name.

use std::fmt;

use arcstr::ArcStr;
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use crate::{intern::Pool, name::NameError};

/// The longest trust domain, in bytes: leaves room for two labels in a server name of 253 bytes.
pub const MAX_TRUST_DOMAIN: usize = 80;
/// The longest path segment (namespace or account), in bytes.
pub const MAX_SEGMENT: usize = 128;
/// The namespace of the mesh's own identities: the hub, and the agents themselves.
pub const SYSTEM_NAMESPACE: &str = "weft-system";

/// The authority of an identity, such as `prod.example.org`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(ArcStr);

impl TrustDomain {
    /// Checks `text`: 1 to 80 bytes of `[a-z0-9._-]` (SPIFFE-ID §2.1, shortened to what a server name can carry).
    ///
    /// # Errors
    /// Names the rule that `text` breaks.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let fault = |reason| Err(NameError::new("trust domain", text, reason));
        if text.is_empty() {
            return fault("it is empty");
        }
        if text.len() > MAX_TRUST_DOMAIN {
            return fault("it is longer than 80 bytes");
        }
        if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)) {
            return fault("only lower-case letters, digits, '.', '-' and '_' are allowed");
        }
        Ok(Self(text.into()))
    }

    /// The trust domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> String {
        domain.as_str().into()
    }
}

/// One workload's identity. Equality is equality of the URI, byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    /// Its parts are found by their slashes when they are asked for: every endpoint carries an identity.
    uri: ArcStr,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// Makes `spiffe://<trust-domain>/ns/<namespace>/sa/<account>`.
    ///
    /// # Errors
    /// When a segment is empty, longer than 128 bytes, `.` or `..`, or holds anything but `[A-Za-z0-9._-]`.
    pub fn new(trust_domain: &TrustDomain, namespace: &str, account: &str) -> Result<Self, NameError> {
        Self::parse(&format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{account}"))
    }

    /// Reads a SPIFFE URI of this mesh's form; nothing is normalised, so what is accepted is canonical.
    ///
    /// # Errors
    /// Names the rule that `uri` breaks.
    pub fn parse(uri: &str) -> Result<Self, NameError> {
        let fault = |reason| NameError::new("SPIFFE ID", uri, reason);
        let rest = uri.strip_prefix(SCHEME).ok_or_else(|| fault("it does not begin with \"spiffe://\""))?;
        let mut parts = rest.split('/');
        let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(fault("its path is not of the form /ns/<namespace>/sa/<account>"));
        };
        TrustDomain::new(domain).map_err(|e| fault(e.reason))?;
        for segment in [namespace, account] {
            check_segment(segment).map_err(fault)?;
        }
        Ok(Self { uri: uri.into() })
    }

    /// The hub's identity in a trust domain: `spiffe://<trust-domain>/ns/weft-system/sa/hub`.
    ///
    /// # Panics
    /// Never: the segments are constant and valid.
    #[must_use]
    pub fn hub(trust_domain: &TrustDomain) -> Self {
        Self::new(trust_domain, SYSTEM_NAMESPACE, "hub").expect("constant segments that are valid")
    }

    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// Shares the URI with all equal ones of the pool.
    pub(crate) fn intern(&mut self, pool: &mut Pool) {
        pool.text(&mut self.uri);
    }

    /// The trust domain's text.
    #[must_use]
    pub fn trust_domain_str(&self) -> &str {
        self.part(0)
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_str().into())
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.part(2)
    }

    /// The service account.
    #[must_use]
    pub fn account(&self) -> &str {
        self.part(4)
    }

    /// What stands between the slashes after the scheme: trust domain, `ns`, namespace, `sa`, account.
    fn part(&self, index: usize) -> &str {
        self.uri[SCHEME.len()..].split('/').nth(index).unwrap_or_default()
    }

    /// The TLS server name that stands for this identity: `<account>.<namespace>.<trust-domain>`, each part as it is
    /// where it is a plain DNS label and else `x` and 26 characters of the base32 of its SHA-256.
    ///
    /// At most 63 + 1 + 63 + 1 + 80 bytes.
    #[must_use]
    pub fn server_name(&self) -> String {
        let domain = self.trust_domain_str();
        let plain = domain.split('.').all(is_plain_label);
        let domain = if plain { domain.to_owned() } else { hashed_label(domain) };
        format!("{}.{}.{domain}", encode_label(self.account()), encode_label(self.namespace()))
    }
}

fn check_segment(segment: &str) -> Result<(), &'static str> {
    if segment.is_empty() {
        return Err("a path segment is empty");
    }
    if segment.len() > MAX_SEGMENT {
        return Err("a path segment is longer than 128 bytes");
    }
    if segment == "." || segment == ".." {
        return Err("a path segment is \".\" or \"..\"");
    }
    if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err("a path segment holds something else than letters, digits, '.', '-' and '_'");
    }
    Ok(())
}

fn encode_label(text: &str) -> String {
    if is_plain_label(text) { text.to_owned() } else { hashed_label(text) }
}

/// `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`, not all digits (an all-digit last label reads as an address) and not of the
/// form that [`hashed_label`] makes.
fn is_plain_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && !bytes.iter().all(u8::is_ascii_digit)
        && !is_hashed_form(bytes)
}

fn is_hashed_form(bytes: &[u8]) -> bool {
    bytes.len() == 27
        && bytes[0] == b'x'
        && bytes[1..].iter().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(b))
}

fn hashed_label(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let encoded = BASE32_NOPAD.encode(digest.as_ref()).to_ascii_lowercase();
    format!("x{}", &encoded[..26])
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.uri)
    }
}

impl std::str::FromStr for SpiffeId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> String {
        id.as_str().into()
    }
}
