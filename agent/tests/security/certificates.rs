//! Certificates that must not be believed, one for each reason.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};

use crate::support::{Authority, authority::Leaf, mesh::TRUST_DOMAIN};

const HOUR: Duration = Duration::from_secs(3600);

/// A certificate that is right for these identities.
pub(crate) fn params(uris: &[&str]) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (now - HOUR).into();
    params.not_after = (now + HOUR).into();
    params
}

/// Every way in which somebody could claim to be `identity`, or somebody else, wrongly.
pub(crate) fn wrong(authority: &Authority, identity: &str) -> Vec<(&'static str, Leaf)> {
    let now = SystemTime::now();
    let foreign = identity.replace(TRUST_DOMAIN, "other.mesh");
    let changed = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = params(&[identity]);
        change(&mut params);
        authority.sign(&params)
    };
    let authority_of_its_own = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    vec![
        ("another trust domain, its own root", Authority::new("other.mesh").sign(&params(&[&foreign]))),
        ("another trust domain, our root", authority.sign(&params(&[&foreign]))),
        ("our trust domain, another root", Authority::new(TRUST_DOMAIN).sign(&params(&[identity]))),
        ("expired", changed(&|params| params.not_after = (now - Duration::from_secs(60)).into())),
        ("not yet valid", changed(&|params| params.not_before = (now + Duration::from_secs(600)).into())),
        ("no URI", authority.sign(&params(&[]))),
        ("two URIs", authority.sign(&params(&[identity, "spiffe://test.mesh/ns/default/sa/second"]))),
        ("a CA as leaf", changed(&authority_of_its_own)),
        ("may sign certificates", changed(&|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))),
    ]
}
