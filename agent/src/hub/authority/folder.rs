//! The authority's files.
//!
//! | file | content |
//! |---|---|
//! | `root.pem`, `root.key` | the root; the key may be moved away once the hubs have their intermediates |
//! | `intermediate.pem`, `intermediate.key` | this hub's intermediate |
//! | `bundle.pem` | the roots that the mesh trusts; several while one replaces another |

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{BasicConstraints, CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use weft_core::identity::TrustDomain;
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use super::{
    Authority,
    certificate::{INTERMEDIATE_LIFETIME, ROOT_LIFETIME, authority_parameters},
};
use crate::files::{FileError, make_private_folder, read_text, write_private};

/// The folder that holds an authority's files.
#[derive(Clone, Debug)]
pub struct AuthorityFolder(PathBuf);

/// What is wrong with an authority's files.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is an authority already.
    #[error("{} is there already: a root is made once; remove the folder to begin a new mesh", .0.display())]
    Exists(PathBuf),
    /// A file does not hold what it should.
    #[error("{}: {message}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The key of an authority could not be used.
    #[error("cannot sign: {0}")]
    Signing(#[from] rcgen::Error),
}

impl AuthorityFolder {
    /// The authority's files of a hub's state directory.
    #[must_use]
    pub fn of_state(state_dir: &Path) -> Self {
        Self(state_dir.join("ca"))
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the root and this hub's intermediate.
    ///
    /// # Errors
    /// When there is a root already, or a file cannot be written.
    pub fn initialise(&self, trust_domain: &TrustDomain, now: SystemTime) -> Result<(), FolderError> {
        let root_file = self.file("root.pem");
        if root_file.exists() || self.file("bundle.pem").exists() {
            return Err(FolderError::Exists(root_file));
        }
        make_private_folder(&self.0)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let below = BasicConstraints::Constrained(1);
        let root =
            authority_parameters(trust_domain, "root", below, now, ROOT_LIFETIME)?.self_signed(&key)?;
        write_private(&self.file("root.key"), key.serialize_pem().as_bytes())?;
        self.make_intermediate_under(root.der(), key, trust_domain, now)?;
        write_private(&self.file("bundle.pem"), root.pem().as_bytes())?;
        // Last: what is there with it is complete.
        Ok(write_private(&root_file, root.pem().as_bytes())?)
    }

    /// Makes a new intermediate with the root's key, and puts it in force.
    ///
    /// # Errors
    /// When the root's key is not in the folder, or a file is wrong.
    pub fn renew_intermediate(&self, now: SystemTime) -> Result<(), FolderError> {
        let root = self.first_certificate("root.pem")?;
        let key = self.key("root.key")?;
        let trust_domain = self.trust_domain(&self.file("root.pem"), &root)?;
        self.make_intermediate_under(&root, key, &trust_domain, now)
    }

    fn make_intermediate_under(
        &self,
        root: &CertificateDer<'_>,
        root_key: KeyPair,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<(), FolderError> {
        let issuer = Issuer::from_ca_cert_der(root, root_key)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let below = BasicConstraints::Constrained(0);
        let parameters: CertificateParams =
            authority_parameters(trust_domain, "hub", below, now, INTERMEDIATE_LIFETIME)?;
        let certificate = parameters.signed_by(&key, &issuer)?;
        // One file, one rename: a crash never leaves a key with another's certificate.
        let both = format!("{}{}", key.serialize_pem(), certificate.pem());
        Ok(write_private(&self.file("intermediate.pem"), both.as_bytes())?)
    }

    /// Opens the authority for signing. An intermediate in its last third is renewed first where the root's key is at
    /// hand.
    ///
    /// # Errors
    /// When a file is missing or does not hold what it should.
    pub fn open(&self, leaf_lifetime: Duration, now: SystemTime) -> Result<Authority, FolderError> {
        let ends = self.read_intermediate()?.1;
        if ends < now + INTERMEDIATE_LIFETIME / 3 && self.file("root.key").exists() {
            self.renew_intermediate(now)?;
        }
        let (intermediate, intermediate_ends) = self.read_intermediate()?;
        let path = self.file("intermediate.pem");
        let key = self.key("intermediate.pem")?;
        let trust_domain = self.trust_domain(&path, &intermediate)?;
        let roots = self.roots()?;
        Ok(Authority {
            trust_domain,
            roots,
            intermediate_ends,
            issuer: Issuer::from_ca_cert_der(&intermediate, key)?,
            intermediate,
            leaf_lifetime,
        })
    }

    /// The roots that the mesh trusts, at least one.
    ///
    /// # Errors
    /// When the bundle's file is missing or holds something else than certificates of authorities.
    pub fn roots(&self) -> Result<Vec<CertificateDer<'static>>, FolderError> {
        let path = self.file("bundle.pem");
        let text = read_text(&path)?;
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let roots = roots.map_err(|fault| wrong(&path, format!("not PEM: {fault}")))?;
        if roots.is_empty() {
            return Err(wrong(&path, "it holds no certificate"));
        }
        for root in &roots {
            self.trust_domain(&path, root)?;
        }
        Ok(roots)
    }

    fn read_intermediate(&self) -> Result<(CertificateDer<'static>, SystemTime), FolderError> {
        let certificate = self.first_certificate("intermediate.pem")?;
        let path = self.file("intermediate.pem");
        let ends = parse(&path, &certificate)?.validity().not_after.timestamp();
        Ok((certificate, UNIX_EPOCH + Duration::from_secs(u64::try_from(ends).unwrap_or(0))))
    }

    fn first_certificate(&self, name: &str) -> Result<CertificateDer<'static>, FolderError> {
        let path = self.file(name);
        CertificateDer::from_pem_slice(read_text(&path)?.as_bytes())
            .map_err(|fault| wrong(&path, format!("no certificate in it: {fault}")))
    }

    fn key(&self, name: &str) -> Result<KeyPair, FolderError> {
        let path = self.file(name);
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(read_text(&path)?.as_bytes())
            .map_err(|fault| wrong(&path, format!("no PKCS #8 key in it: {fault}")))?;
        KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|fault| wrong(&path, format!("its key cannot be used: {fault}")))
    }

    /// The trust domain that an authority's certificate names.
    fn trust_domain(
        &self,
        path: &Path,
        certificate: &CertificateDer<'_>,
    ) -> Result<TrustDomain, FolderError> {
        let parsed = parse(path, certificate)?;
        if !parsed.is_ca() {
            return Err(wrong(path, "it holds a certificate that is not an authority's"));
        }
        let names = parsed.subject_alternative_name().map_err(|fault| wrong(path, fault.to_string()))?;
        let names = names.map(|extension| &extension.value.general_names[..]).unwrap_or_default();
        let [GeneralName::URI(uri)] = names else {
            return Err(wrong(path, "its certificate does not name exactly one trust domain"));
        };
        let domain = uri.strip_prefix("spiffe://").unwrap_or_default();
        TrustDomain::new(domain).map_err(|fault| wrong(path, fault.to_string()))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn parse<'a>(
    path: &Path,
    certificate: &'a CertificateDer<'_>,
) -> Result<x509_parser::certificate::X509Certificate<'a>, FolderError> {
    let parsed = x509_parser::certificate::X509Certificate::from_der(certificate);
    parsed.map(|(_, parsed)| parsed).map_err(|fault| wrong(path, format!("not a certificate: {fault}")))
}

fn wrong(path: &Path, message: impl Into<String>) -> FolderError {
    FolderError::Content { path: path.to_owned(), message: message.into() }
}

/// A trust domain that no other mesh has, so that two meshes can meet later.
#[must_use]
pub fn random_trust_domain() -> TrustDomain {
    let random: [u8; 8] = super::super::token::random();
    let text = data_encoding::BASE32_NOPAD.encode(&random).to_ascii_lowercase();
    TrustDomain::new(&format!("{text}.weft")).expect("base32 and a label make a trust domain")
}
