//! A certificate authority for tests.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::PrivateKeyDer;
use std::time::{Duration, SystemTime};
use weft_core::{
    identity::{SpiffeId, TrustDomain},
    tls::{Bundle, Certificate, Credentials},
};

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, "test root");
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn bundle(&self, trust_domain: &str) -> Bundle {
        Bundle::new(TrustDomain::new(trust_domain).unwrap(), [self.issuer.der().clone()]).unwrap()
    }

    pub(crate) fn issue(&self, identity: &SpiffeId) -> Certificate {
        self.issue_for(identity, Duration::from_secs(3600))
    }

    pub(crate) fn issue_for(&self, identity: &SpiffeId, life: Duration) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(identity.as_str().try_into().unwrap()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        params.not_after = (SystemTime::now() + life).into();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Certificate::new(vec![certificate.der().clone()], key).unwrap()
    }

    pub(crate) fn credentials(&self, identities: &[&SpiffeId]) -> Credentials {
        let mut credentials = Credentials::default();
        for identity in identities {
            credentials = credentials.with_identity(self.issue(identity));
            credentials = credentials.with_bundle(self.bundle(identity.trust_domain_str()));
        }
        credentials
    }
}
