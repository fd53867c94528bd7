//! A certificate authority of a test's own, for agents with `identity.kind = "files"`.

use std::{fs, path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

pub struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf and its key, as PEM.
pub struct Leaf {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(trust_domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("{trust_domain} test root"));
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into().unwrap())];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { root: CertifiedIssuer::self_signed(params, key()).unwrap() }
    }

    /// The root, as PEM.
    pub fn bundle(&self) -> String {
        self.root.pem()
    }

    /// A leaf for `identity` that is valid from an hour ago for so long from now.
    pub fn leaf(&self, identity: &str, lifetime: Duration) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = std::time::SystemTime::now();
        params.not_before = (now - Duration::from_secs(3600)).into();
        params.not_after = (now + lifetime).into();
        self.sign(&params)
    }

    /// A certificate of exactly this content, right or wrong.
    pub fn sign(&self, params: &CertificateParams) -> Leaf {
        let key = key();
        let certificate = params.signed_by(&key, &self.root).unwrap();
        Leaf { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Writes what an agent reads: `<workload>.pem`, `<workload>.key` and `bundle.pem`.
    pub fn write(&self, folder: &Path, workload: &str, identity: &str) {
        fs::create_dir_all(folder).unwrap();
        let leaf = self.leaf(identity, Duration::from_secs(24 * 3600));
        fs::write(folder.join(format!("{workload}.key")), leaf.key).unwrap();
        fs::write(folder.join(format!("{workload}.pem")), leaf.certificate).unwrap();
        fs::write(folder.join("bundle.pem"), self.bundle()).unwrap();
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}
