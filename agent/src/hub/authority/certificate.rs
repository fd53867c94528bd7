//! What the certificates say (RFC 5280, and the X.509-SVID specification for leaves).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use weft_core::{
    control::BACKDATE,
    identity::{SpiffeId, TrustDomain},
};

/// How long a root is valid.
pub(super) const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long an intermediate is valid.
pub(super) const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// 128 random bits, of which the first is 0, so that the number is positive and takes 16 bytes (RFC 5280 §4.1.2.2).
#[must_use]
pub fn random_serial() -> [u8; 16] {
    let mut serial: [u8; 16] = super::super::token::random();
    // A leading zero byte would be cut off by DER and give the number two spellings.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    serial
}

/// A leaf: one URI, both TLS roles, no CA, an empty subject (which makes the URI critical).
pub(super) fn leaf_parameters(
    identity: &SpiffeId,
    serial: &[u8; 16],
    now: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = parameters(serial, now, not_after);
    parameters.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(parameters)
}

/// A root or an intermediate of `trust_domain`, which its URI names.
pub(super) fn authority_parameters(
    trust_domain: &TrustDomain,
    role: &str,
    below: BasicConstraints,
    now: SystemTime,
    lifetime: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let serial = random_serial();
    let mut parameters = parameters(&serial, now, now + lifetime);
    parameters.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    parameters.is_ca = IsCa::Ca(below);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Two authorities of one role must not share a name: path building goes by it.
    let mark = data_encoding::HEXLOWER.encode(&serial[..4]);
    parameters.distinguished_name.push(DnType::OrganizationName, "Weft");
    parameters.distinguished_name.push(DnType::CommonName, format!("{trust_domain} {role} {mark}"));
    Ok(parameters)
}

fn parameters(serial: &[u8; 16], now: SystemTime, not_after: SystemTime) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut parameters = CertificateParams::default();
    parameters.serial_number = Some(SerialNumber::from_slice(serial));
    parameters.not_before = epoch + since(now).saturating_sub(BACKDATE);
    parameters.not_after = epoch + since(not_after);
    parameters.distinguished_name = DistinguishedName::new();
    parameters.use_authority_key_identifier_extension = true;
    parameters
}
