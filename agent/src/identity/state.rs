//! The agent's identity on disk: plain files, each replaced in one step.
//!
//! | file | content |
//! |---|---|
//! | `node.json` | the host's name, the trust domain, the hub |
//! | `node.pem` | the node's key and certificate |
//! | `bundle.pem` | the roots of the trust domain |
//! | `certificates/<server name>.pem` | key and certificate of one identity of the local workloads |
//! | `joining-….key` | the key of a join that has not been answered yet |

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_core::{
    identity::{SpiffeId, TrustDomain},
    tls::{Bundle, Certificate},
};

use super::key::{Key, read_key_and_chain};
use crate::files::{FileError, make_private_folder, read_text, to_pem, write_private};

/// What a host that joined knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its name.
    pub node: String,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// The hub it joined by, `host:port`.
    pub hub: String,
}

/// Why the identity on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is none.
    #[error("this host has not joined a mesh: {} is missing; join with `weft join`", .0.display())]
    NotJoined(PathBuf),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error("{}: {message}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

/// The files.
#[derive(Clone, Debug)]
pub(super) struct StateFolder(PathBuf);

/// What the files held.
#[derive(Clone, Debug)]
pub(super) struct Restored {
    pub(super) node: NodeState,
    pub(super) certificate: Certificate,
    pub(super) bundle: Bundle,
}

impl StateFolder {
    pub(super) fn of(state_dir: &Path) -> Self {
        Self(state_dir.to_owned())
    }

    /// Reads the node's part.
    pub(super) fn restore(&self) -> Result<Restored, StateError> {
        let path = self.0.join("node.json");
        let text = read_text(&path).map_err(|fault| {
            if fault.is_missing() { StateError::NotJoined(path.clone()) } else { fault.into() }
        })?;
        let node: NodeState = serde_json::from_str(&text).map_err(|fault| wrong(&path, fault))?;
        let path = self.0.join("node.pem");
        let certificate = read_key_and_chain(&read_text(&path)?).map_err(|fault| wrong(&path, fault))?;
        let path = self.0.join("bundle.pem");
        let bundle = Bundle::from_pem(node.trust_domain.clone(), &read_text(&path)?);
        Ok(Restored { node, certificate, bundle: bundle.map_err(|fault| wrong(&path, fault))? })
    }

    /// Whether a host has joined here.
    pub(super) fn has_joined(&self) -> bool {
        self.0.join("node.json").exists()
    }

    /// Keeps what a join gave. What says that the host has joined comes last.
    pub(super) fn write_joined(
        &self,
        node: &NodeState,
        pem: &str,
        bundle: &Bundle,
    ) -> Result<(), StateError> {
        self.write_node(pem)?;
        self.write_bundle(bundle)?;
        let path = self.0.join("node.json");
        let text = serde_json::to_string_pretty(node).map_err(|fault| wrong(&path, fault))?;
        Ok(write_private(&path, text.as_bytes())?)
    }

    pub(super) fn write_node(&self, pem: &str) -> Result<(), FileError> {
        write_private(&self.0.join("node.pem"), pem.as_bytes())
    }

    pub(super) fn write_bundle(&self, bundle: &Bundle) -> Result<(), FileError> {
        let roots = bundle.roots().iter().map(|root| root.certificate().as_ref());
        write_private(&self.0.join("bundle.pem"), to_pem("CERTIFICATE", roots).as_bytes())
    }

    /// The certificate of an identity; none when there is none.
    pub(super) fn read_certificate(&self, identity: &SpiffeId) -> Result<Option<Certificate>, StateError> {
        let path = self.certificate_path(identity);
        let text = match read_text(&path) {
            Err(fault) if fault.is_missing() => return Ok(None),
            other => other?,
        };
        let certificate = read_key_and_chain(&text).map_err(|fault| wrong(&path, fault))?;
        if certificate.identity() != identity {
            return Err(wrong(&path, format!("it names {}", certificate.identity())));
        }
        Ok(Some(certificate))
    }

    pub(super) fn write_certificate(&self, identity: &SpiffeId, pem: &str) -> Result<(), FileError> {
        let path = self.certificate_path(identity);
        make_private_folder(path.parent().unwrap_or(&self.0))?;
        write_private(&path, pem.as_bytes())
    }

    /// The server name is a safe file name, and no two identities share one.
    fn certificate_path(&self, identity: &SpiffeId) -> PathBuf {
        self.0.join("certificates").join(format!("{}.pem", identity.server_name()))
    }

    /// The key for joining with a token: kept before it is used, because an answer may be lost and only the same key may
    /// ask again.
    pub(super) fn joining_key(&self, secret_hash: &[u8; 32]) -> Result<Key, StateError> {
        make_private_folder(&self.0)?;
        let path = self.joining_path(secret_hash);
        match read_text(&path) {
            Ok(text) => Key::from_pem(&text).map_err(|fault| wrong(&path, fault)),
            Err(fault) if fault.is_missing() => {
                let key = Key::generate().map_err(|fault| wrong(&path, fault))?;
                write_private(&path, key.to_pem().as_bytes())?;
                Ok(key)
            }
            Err(fault) => Err(fault.into()),
        }
    }

    pub(super) fn forget_joining_key(&self, secret_hash: &[u8; 32]) {
        // It lies in `node.pem` now; a copy that stays does no harm.
        let _removed = std::fs::remove_file(self.joining_path(secret_hash));
    }

    fn joining_path(&self, secret_hash: &[u8; 32]) -> PathBuf {
        self.0.join(format!("joining-{}.key", data_encoding::HEXLOWER.encode(&secret_hash[..4])))
    }
}

fn wrong(path: &Path, message: impl ToString) -> StateError {
    StateError::Content { path: path.to_owned(), message: message.to_string() }
}
