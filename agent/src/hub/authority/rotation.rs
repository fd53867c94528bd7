//! One root replaces another while everything runs.
//!
//! | step | what changes | who trusts whom meanwhile |
//! |---|---|---|
//! | [`AuthorityFolder::rotate`] | both roots are in the bundle; a new intermediate under the new root signs from here on | everybody everybody: the new root comes with every chain as the old one signed it, so also who has not heard of it follows the chain to the old one |
//! | (agents) | take over the bundle, then renew what leads to the old root only | |
//! | [`AuthorityFolder::retire`] | the old root leaves the bundle | whoever still shows a certificate of the old root is a stranger |
//!
//! Every step is a sequence of replaced files of which each prefix is sound, and may be called again after a crash:
//! `next-root.pem` is there from the first write to the last.

use std::time::SystemTime;

use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use weft_core::identity::TrustDomain;

use super::{
    certificate::random_serial,
    folder::{AuthorityFolder, FolderError, is_issued_by, parse, root_parameters, wrong},
};
use crate::files::{read_text, to_pem, write_private};

/// A root that replaces another.
pub(super) struct NextRoot {
    pub(super) key: KeyPair,
    pub(super) root: CertificateDer<'static>,
    /// The new root as the old one signed it: who trusts the old one only follows a chain over it.
    pub(super) bridge: CertificateDer<'static>,
}

/// Which root replaces which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The new root, in DER.
    pub new: CertificateDer<'static>,
    /// The root that is being replaced, in DER; none when the bundle holds it no more.
    pub old: Option<CertificateDer<'static>>,
}

impl AuthorityFolder {
    /// Makes a root beside the one in force and signs with it from here on. Called again, it completes what a crash
    /// interrupted, and otherwise changes nothing.
    ///
    /// # Errors
    /// When the root's key is not in the folder, or a file is wrong or cannot be written.
    pub fn rotate(&self, now: SystemTime) -> Result<Rotation, FolderError> {
        let next = match self.next_root()? {
            Some(next) => next,
            None => self.make_next_root(now)?,
        };
        let mut roots = self.roots()?;
        if !roots.contains(&next.root) {
            roots.push(next.root.clone());
            self.write_bundle(&roots)?;
        }
        if !is_issued_by(&self.read_intermediate()?.0, &next.root) {
            self.sign_with(next, now)?;
        }
        self.rotation()?.ok_or(FolderError::NotRotating)
    }

    /// Withdraws the root that was replaced. Whether everybody is ready for that is not asked here.
    ///
    /// # Errors
    /// When no root is being replaced, the new one does not sign yet, or a file is wrong or cannot be written.
    pub fn retire(&self) -> Result<(), FolderError> {
        let next = self.next_root()?.ok_or(FolderError::NotRotating)?;
        if !is_issued_by(&self.read_intermediate()?.0, &next.root) {
            return Err(FolderError::NotSigning);
        }
        write_private(&self.file("root.key"), next.key.serialize_pem().as_bytes())?;
        write_private(&self.file("root.pem"), pem([&next.root]).as_bytes())?;
        let mut roots = self.roots()?;
        roots.retain(|root| !is_issued_by(&next.bridge, root));
        self.write_bundle(&roots)?;
        std::fs::remove_file(self.file("next-root.pem"))
            .map_err(|fault| wrong(&self.file("next-root.pem"), format!("cannot be removed: {fault}")))
    }

    /// Which root replaces which; none while one root stands.
    ///
    /// # Errors
    /// When a file is wrong.
    pub fn rotation(&self) -> Result<Option<Rotation>, FolderError> {
        let Some(next) = self.next_root()? else { return Ok(None) };
        let old = self.roots()?.into_iter().find(|root| is_issued_by(&next.bridge, root));
        Ok(Some(Rotation { new: next.root, old }))
    }

    /// Puts an intermediate under the next root in force.
    pub(super) fn sign_with(&self, next: NextRoot, now: SystemTime) -> Result<(), FolderError> {
        let trust_domain = self.trust_domain(&self.file("next-root.pem"), &next.root)?;
        self.make_intermediate_under(&next.root, next.key, None, &trust_domain, now)
    }

    /// Reads `next-root.pem`, where it is.
    pub(super) fn next_root(&self) -> Result<Option<NextRoot>, FolderError> {
        let path = self.file("next-root.pem");
        let text = match read_text(&path) {
            Err(fault) if fault.is_missing() => return Ok(None),
            text => text?,
        };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let certificates = certificates.map_err(|fault| wrong(&path, format!("not PEM: {fault}")))?;
        let [root, bridge] = <[_; 2]>::try_from(certificates)
            .map_err(|_| wrong(&path, "it holds not exactly two certificates"))?;
        Ok(Some(NextRoot { key: self.key("next-root.pem")?, root, bridge }))
    }

    fn make_next_root(&self, now: SystemTime) -> Result<NextRoot, FolderError> {
        let path = self.file("root.pem");
        let old = self.first_certificate("root.pem")?;
        let trust_domain: TrustDomain = self.trust_domain(&path, &old)?;
        let old_ends = parse(&path, &old)?.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&old, self.root_key()?)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut parameters = root_parameters(&trust_domain, now)?;
        let root = parameters.self_signed(&key)?;
        parameters.serial_number = Some(rcgen::SerialNumber::from_slice(&random_serial()));
        parameters.not_after = parameters.not_after.min(old_ends);
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(1));
        let bridge = parameters.signed_by(&key, &issuer)?;
        let text = key.serialize_pem() + &pem([root.der(), bridge.der()]);
        write_private(&self.file("next-root.pem"), text.as_bytes())?;
        Ok(NextRoot { key, root: root.der().clone(), bridge: bridge.der().clone() })
    }

    fn write_bundle(&self, roots: &[CertificateDer<'_>]) -> Result<(), FolderError> {
        Ok(write_private(&self.file("bundle.pem"), pem(roots).as_bytes())?)
    }
}

fn pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> String {
    to_pem("CERTIFICATE", certificates.into_iter().map(AsRef::as_ref))
}
