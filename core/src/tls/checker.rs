//! Checks chains, and remembers those that stood.
//!
//! Every connection's chain is checked twice, in the handshake and after it, and the same few peers come back for days.
//! Whether a chain leads to a root depends on its bytes, the roots and the time alone, so a verdict is remembered for
//! as long as the roots stay the same, and used only while every certificate involved is in its time. Only good
//! verdicts are remembered; strangers cannot fill the memory.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::digest::{Context, SHA256};
use foldhash::fast::RandomState;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{
    bundle::Usage,
    credentials::Credentials,
    leaf::Validity,
    moment::system_time,
    peer::{Peer, PeerError, check},
};
use crate::publish::Reader;

/// How many chains are remembered; one more and all are forgotten, which costs each of them one full check.
const MOST_REMEMBERED: usize = 4096;

/// Checks peers against the credentials in force.
pub(super) struct Checker {
    credentials: Reader<Credentials>,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    trust_generation: u64,
    peers: HashMap<[u8; 32], (Peer, Validity), RandomState>,
}

impl Checker {
    pub(super) fn new(credentials: Reader<Credentials>) -> Self {
        Self { credentials, remembered: Mutex::default() }
    }

    /// The full check of a chain, the peer's own certificate first.
    pub(super) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<Peer, PeerError> {
        let key = key(leaf, intermediates, usage);
        let credentials = self.credentials.load();
        if let Some(peer) = self.recall(&key, credentials.trust_generation(), system_time(now)) {
            return Ok(peer);
        }
        let (peer, window) = check(&credentials, leaf, intermediates, usage, now)?;
        if let Some(window) = window {
            self.remember(key, peer.clone(), window);
        }
        Ok(peer)
    }

    fn recall(&self, key: &[u8; 32], trust_generation: u64, now: SystemTime) -> Option<Peer> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (peer, window) = remembered.peers.get(key)?;
        let holds = remembered.trust_generation == trust_generation && window.contains(now);
        holds.then(|| peer.clone())
    }

    fn remember(&self, key: [u8; 32], peer: Peer, window: Validity) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.trust_generation != peer.trust_generation || remembered.peers.len() >= MOST_REMEMBERED {
            remembered.peers.clear();
            remembered.trust_generation = peer.trust_generation;
        }
        remembered.peers.insert(key, (peer, window));
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// The SHA-256 over usage and chain, each certificate after its length.
fn key(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], usage: Usage) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&[usage as u8]);
    for certificate in std::iter::once(leaf).chain(intermediates) {
        context.update(&certificate.len().to_be_bytes());
        context.update(certificate);
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}
