//! Session tickets whose keys live no longer than the trust they were issued under.
//!
//! A ticket holds the client's certificate and is honoured without asking a verifier, so it would outlive a removed
//! root. A new key whenever the bundles change makes all older tickets worthless; the handshake is then a full one. So
//! does a new key when a certificate of our own is renewed: a resumed session would go on showing the old one.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::server::ProducesTickets;

use super::{credentials::Credentials, moment::seconds};
use crate::publish::Reader;

/// The longest life of a ticket, in seconds.
const LONGEST_LIFETIME: u64 = 3600;

/// Encrypts tickets with a key that changes with the roots and with our own certificates.
pub(super) struct MeshTicketer {
    credentials: Reader<Credentials>,
    current: Mutex<Option<(u64, Arc<dyn ProducesTickets>)>>,
}

impl MeshTicketer {
    pub(super) fn new(credentials: Reader<Credentials>) -> Self {
        Self { credentials, current: Mutex::new(None) }
    }

    /// The ticketer of the credentials in force; none when there is no randomness for a key, and then no ticket is given.
    fn current(&self) -> Option<Arc<dyn ProducesTickets>> {
        let generation = generation(&self.credentials.load());
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((made_under, ticketer)) if *made_under == generation => Some(ticketer.clone()),
            _ => {
                let fresh = rustls::crypto::aws_lc_rs::Ticketer::new().ok();
                *current = fresh.clone().map(|ticketer| (generation, ticketer));
                fresh
            }
        }
    }
}

/// Names what tickets hang on. No order among our certificates, so their digests are added up.
fn generation(credentials: &Credentials) -> u64 {
    let digest = |serial: &str| {
        let mut hasher = DefaultHasher::new();
        serial.hash(&mut hasher);
        hasher.finish()
    };
    let own = credentials.identities().map(|own| digest(&own.leaf().serial));
    own.fold(credentials.trust_generation(), u64::wrapping_add)
}

impl ProducesTickets for MeshTicketer {
    fn enabled(&self) -> bool {
        true
    }

    /// At most an hour, and no longer than the first of our own certificates lives: the client would find the one that
    /// its session remembers expired. One that has ended begins no session, and does not count.
    fn lifetime(&self) -> u32 {
        let now = seconds(SystemTime::now());
        let credentials = self.credentials.load();
        let left = credentials
            .identities()
            .filter_map(|own| seconds(own.leaf().validity.not_after).checked_sub(now));
        u32::try_from(left.fold(LONGEST_LIFETIME, u64::min)).unwrap_or(0)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.current()?.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.current()?.decrypt(cipher)
    }
}

impl fmt::Debug for MeshTicketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshTicketer")
    }
}
