//! The authority's files.
//!
//! | file | content |
//! |---|---|
//! | `root.pem`, `root.key` | the root; the key may be moved away once the hubs have their intermediates |
//! | `intermediate.pem` | this hub's intermediate, its key before it; in the folder of a further hub, while one root replaces another, the new root behind it as the old one signed it |
//! | `bundle.pem` | the roots that the mesh trusts; several while one replaces another |
//! | `next-root.pem` | only while one root replaces another: the new one's key, itself, and itself as the old one signed it |

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{BasicConstraints, CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use weft_core::identity::TrustDomain;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{
    Authority,
    certificate::{INTERMEDIATE_LIFETIME, ROOT_LIFETIME, authority_parameters},
};
use crate::files::{FileError, make_private_folder, read_text, to_pem, write_private};

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
    /// A root is to be replaced, or a hub set up, without the root's key.
    #[error("{} is missing: only the root's key can do this; put it back for as long as it takes", .0.display())]
    NoRootKey(PathBuf),
    /// There is nothing to withdraw.
    #[error("no root is being replaced; `weft ca rotate` begins it")]
    NotRotating,
    /// The new root does not sign yet.
    #[error("the new root does not sign yet; call `weft ca rotate` again")]
    NotSigning,
    /// The key of an authority could not be used.
    #[error("cannot sign: {0}")]
    Signing(#[from] rcgen::Error),
}

impl AuthorityFolder {
    /// The files that decide what is trusted and who signs: whoever follows the authority follows these.
    pub const IN_FORCE: [&str; 3] = ["bundle.pem", "intermediate.pem", "next-root.pem"];

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

    /// Until when an authority's certificate is valid; none when it is none.
    #[must_use]
    pub fn ends(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let ends = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
        UNIX_EPOCH.checked_add(Duration::from_secs(ends))
    }

    /// Makes the root and this hub's intermediate.
    ///
    /// # Errors
    /// When there is a root already, or a file cannot be written.
    pub fn initialise(&self, trust_domain: &TrustDomain, now: SystemTime) -> Result<(), FolderError> {
        let root_file = self.file("root.pem");
        // A bundle without a root is one of another hub, or of a call that ended half way: it is named, not replaced.
        if let Some(there) = [&root_file, &self.file("bundle.pem")].into_iter().find(|file| file.exists()) {
            return Err(FolderError::Exists(there.clone()));
        }
        make_private_folder(&self.0)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let root = root_parameters(trust_domain, now)?.self_signed(&key)?;
        write_private(&self.file("root.key"), key.serialize_pem().as_bytes())?;
        self.make_intermediate_under(root.der(), key, None, trust_domain, now)?;
        write_private(&self.file("bundle.pem"), root.pem().as_bytes())?;
        // Last: what is there with it is complete.
        Ok(write_private(&root_file, root.pem().as_bytes())?)
    }

    /// Makes the folder of another hub: an intermediate of its own under the root that signs, and what the mesh trusts. The
    /// keys of roots stay here. Called again, it renews them.
    ///
    /// # Errors
    /// When the root's key is not in this folder, the other is of another mesh, or a file is wrong or cannot be written.
    pub fn make_hub(&self, other: &Self, now: SystemTime) -> Result<(), FolderError> {
        let (ours, theirs) = (self.file("root.pem"), other.file("root.pem"));
        let root = self.first_certificate("root.pem")?;
        let trust_domain = self.trust_domain(&ours, &root)?;
        let is_of_another_mesh = || -> Result<bool, FolderError> {
            Ok(theirs.exists()
                && other.trust_domain(&theirs, &other.first_certificate("root.pem")?)? != trust_domain)
        };
        if other.file("root.key").exists() || is_of_another_mesh()? {
            return Err(FolderError::Exists(theirs));
        }
        let (root, key, bridge) = match self.next_root()? {
            Some(next) => (next.root, next.key, Some(next.bridge)),
            None => (root, self.root_key()?, None),
        };
        make_private_folder(&other.0)?;
        // Trusted before anything is signed under it.
        for name in ["bundle.pem", "root.pem"] {
            write_private(&other.file(name), read_text(&self.file(name))?.as_bytes())?;
        }
        other.make_intermediate_under(&root, key, bridge.as_ref(), &trust_domain, now)
    }

    /// Makes a new intermediate with the root's key, and puts it in force.
    ///
    /// # Errors
    /// When the root's key is not in the folder, or a file is wrong.
    pub fn renew_intermediate(&self, now: SystemTime) -> Result<(), FolderError> {
        if let Some(next) = self.next_root()? {
            return self.sign_with(next, now);
        }
        let root = self.first_certificate("root.pem")?;
        let key = self.root_key()?;
        let trust_domain = self.trust_domain(&self.file("root.pem"), &root)?;
        self.make_intermediate_under(&root, key, None, &trust_domain, now)
    }

    pub(super) fn make_intermediate_under(
        &self,
        root: &CertificateDer<'_>,
        root_key: KeyPair,
        bridge: Option<&CertificateDer<'_>>,
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
        let above = std::iter::once(certificate.der()).chain(bridge);
        let all = key.serialize_pem() + &to_pem("CERTIFICATE", above.map(AsRef::as_ref));
        Ok(write_private(&self.file("intermediate.pem"), all.as_bytes())?)
    }

    /// Opens the authority for signing. An intermediate in its last third is renewed first where the root's key is at
    /// hand.
    ///
    /// # Errors
    /// When a file is missing or does not hold what it should.
    pub fn open(&self, leaf_lifetime: Duration, now: SystemTime) -> Result<Authority, FolderError> {
        let next = self.next_root()?;
        let ends = self.read_intermediate()?.1;
        let root_is_here = next.is_some() || self.file("root.key").exists();
        if ends < now + INTERMEDIATE_LIFETIME / 3 && root_is_here {
            self.renew_intermediate(now)?;
        }
        let (intermediate, intermediate_ends) = self.read_intermediate()?;
        let path = self.file("intermediate.pem");
        let key = self.key("intermediate.pem")?;
        let trust_domain = self.trust_domain(&path, &intermediate)?;
        let mut roots = self.roots()?;
        // The first is the one that leaves lead to.
        roots.sort_by_key(|root| !is_issued_by(&intermediate, root));
        let issuer = Issuer::from_ca_cert_der(&intermediate, key)?;
        let mut above = self.certificates("intermediate.pem")?;
        above.extend(next.filter(|next| is_issued_by(&intermediate, &next.root)).map(|next| next.bridge));
        Ok(Authority { trust_domain, roots, above, intermediate_ends, issuer, leaf_lifetime })
    }

    /// The roots that the mesh trusts, at least one.
    ///
    /// # Errors
    /// When the bundle's file is missing or holds something else than certificates of authorities.
    pub fn roots(&self) -> Result<Vec<CertificateDer<'static>>, FolderError> {
        let (path, roots) = (self.file("bundle.pem"), self.certificates("bundle.pem")?);
        if roots.is_empty() {
            return Err(wrong(&path, "it holds no certificate"));
        }
        for root in &roots {
            self.trust_domain(&path, root)?;
        }
        Ok(roots)
    }

    pub(super) fn read_intermediate(&self) -> Result<(CertificateDer<'static>, SystemTime), FolderError> {
        let certificate = self.first_certificate("intermediate.pem")?;
        let path = self.file("intermediate.pem");
        let ends = Self::ends(&certificate).ok_or_else(|| wrong(&path, "not a certificate"))?;
        Ok((certificate, ends))
    }

    /// All certificates of a file.
    fn certificates(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, FolderError> {
        let path = self.file(name);
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(read_text(&path)?.as_bytes()).collect();
        all.map_err(|fault| wrong(&path, format!("not PEM: {fault}")))
    }

    pub(super) fn first_certificate(&self, name: &str) -> Result<CertificateDer<'static>, FolderError> {
        let path = self.file(name);
        CertificateDer::from_pem_slice(read_text(&path)?.as_bytes())
            .map_err(|fault| wrong(&path, format!("no certificate in it: {fault}")))
    }

    /// The root's key, where it has not been moved away.
    pub(super) fn root_key(&self) -> Result<KeyPair, FolderError> {
        let path = self.file("root.key");
        if path.exists() { self.key("root.key") } else { Err(FolderError::NoRootKey(path)) }
    }

    pub(super) fn key(&self, name: &str) -> Result<KeyPair, FolderError> {
        let path = self.file(name);
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(read_text(&path)?.as_bytes())
            .map_err(|fault| wrong(&path, format!("no PKCS #8 key in it: {fault}")))?;
        KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|fault| wrong(&path, format!("its key cannot be used: {fault}")))
    }

    /// The trust domain that an authority's certificate names.
    pub(super) fn trust_domain(
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

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A root. Below it stand its successor, while that replaces it, and an intermediate.
pub(super) fn root_parameters(
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    authority_parameters(trust_domain, "root", BasicConstraints::Constrained(2), now, ROOT_LIFETIME)
}

/// Whether a certificate names `issuer` as its issuer: two authorities never share a name.
pub(super) fn is_issued_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let parsed = |der: &CertificateDer<'_>, name: fn(&X509Certificate<'_>) -> Vec<u8>| {
        X509Certificate::from_der(der).ok().map(|(_, parsed)| name(&parsed))
    };
    let named = parsed(certificate, |parsed| parsed.issuer().as_raw().to_vec());
    named.is_some() && named == parsed(issuer, |parsed| parsed.subject().as_raw().to_vec())
}

pub(super) fn parse<'a>(
    path: &Path,
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, FolderError> {
    let parsed = X509Certificate::from_der(certificate);
    parsed.map(|(_, parsed)| parsed).map_err(|fault| wrong(path, format!("not a certificate: {fault}")))
}

pub(super) fn wrong(path: &Path, message: impl Into<String>) -> FolderError {
    FolderError::Content { path: path.to_owned(), message: message.into() }
}

/// A trust domain that no other mesh has, so that two meshes can meet later.
#[must_use]
pub fn random_trust_domain() -> TrustDomain {
    let random: [u8; 8] = super::super::token::random();
    let text = data_encoding::BASE32_NOPAD.encode(&random).to_ascii_lowercase();
    TrustDomain::new(&format!("{text}.weft")).expect("base32 and a label make a trust domain")
}
