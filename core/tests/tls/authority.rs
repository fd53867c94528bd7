//! Certificates of every kind, right and wrong, made in memory.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weft_core::{
    identity::{SpiffeId, TrustDomain},
    tls::{Bundle, Certificate},
};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A root and the intermediate that signs leaves, as the hub has them.
pub(crate) struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// What a leaf is to be; starts right.
pub(crate) struct Wanted {
    pub(crate) uris: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) is_authority: bool,
    pub(crate) key_usages: Vec<KeyUsagePurpose>,
    pub(crate) purposes: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) without_intermediate: bool,
}

impl Wanted {
    pub(crate) fn new(uri: &str) -> Self {
        let now = SystemTime::now();
        Self {
            uris: vec![uri.to_owned()],
            not_before: now - HOUR,
            not_after: now + 24 * HOUR,
            is_authority: false,
            key_usages: vec![KeyUsagePurpose::DigitalSignature],
            purposes: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            without_intermediate: false,
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let signer = |name: String| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(signer(format!("{name} root")), key()).unwrap();
        let intermediate = CertifiedIssuer::signed_by(signer(format!("{name} hub")), key(), &root).unwrap();
        Self { root, intermediate }
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    pub(crate) fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// The chain that a workload shows, and its key.
    pub(crate) fn sign(&self, wanted: &Wanted) -> (Vec<CertificateDer<'static>>, KeyPair) {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            wanted.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
        params.not_before = wanted.not_before.into();
        params.not_after = wanted.not_after.into();
        params.extended_key_usages = wanted.purposes.clone();
        params.key_usages = wanted.key_usages.clone();
        if wanted.is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.intermediate).unwrap().der().clone();
        let mut chain = vec![leaf];
        if !wanted.without_intermediate {
            chain.push(self.intermediate.der().clone());
        }
        (chain, key)
    }

    /// A certificate of the right kind.
    pub(crate) fn certificate(&self, identity: &SpiffeId) -> Certificate {
        self.certificate_as(&Wanted::new(identity.as_str()))
    }

    pub(crate) fn certificate_as(&self, wanted: &Wanted) -> Certificate {
        let (chain, key) = self.sign(wanted);
        Certificate::new(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())).unwrap()
    }

    /// The same for rustls alone, so that wrong ones can be shown as well.
    pub(crate) fn raw(&self, wanted: &Wanted) -> CertifiedKey {
        let (chain, key) = self.sign(wanted);
        let key = any_supported_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into())).unwrap();
        CertifiedKey::new(chain, key)
    }

    pub(crate) fn bundle(&self, trust_domain: &str) -> Bundle {
        bundle(trust_domain, &[self])
    }
}

pub(crate) fn bundle(trust_domain: &str, authorities: &[&Authority]) -> Bundle {
    let roots = authorities.iter().map(|authority| authority.root());
    Bundle::new(TrustDomain::new(trust_domain).unwrap(), roots).unwrap()
}

pub(crate) fn identity(account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://td.mesh/ns/default/sa/{account}")).unwrap()
}
