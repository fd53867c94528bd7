//! Warnings that whoever is on the other end can cause as often as it likes: one of a kind now and then, with the number of
//! those that were kept back.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use weft_core::{
    name::WorkloadName,
    tls::{PeerError, explain_handshake, peer_fault},
};

/// How long a warning keeps back others of its kind.
const PAUSE: Duration = Duration::from_secs(10);
/// How many kinds are remembered; more than that at a time are not told apart.
const KINDS: usize = 4096;

/// What a warning is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum About {
    /// Another agent that is dialled.
    Called(SocketAddr),
    /// A workload in whose name nothing can be dialled.
    Own(WorkloadName),
    /// Whoever dials from there.
    Caller(IpAddr),
    /// A local process that uses a workload's listener.
    Local(WorkloadName),
    /// The bound on connections of the listener with this number.
    Connections(u64),
    /// Anything, when there is too much to tell apart.
    Other,
}

/// Which warnings were given lately, by all workers.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<HashMap<About, Given>>);

#[derive(Debug)]
struct Given {
    at: Instant,
    kept_back: u64,
}

impl Quiet {
    /// Whether to give a warning now, and then how many of its kind were kept back since the last.
    pub(crate) fn admit(&self, about: About) -> Option<u64> {
        self.admit_at(about, Instant::now())
    }

    /// Tells of a handshake with `address` that failed; gives what is wrong with the other side's certificate, where that is
    /// why.
    pub(crate) fn handshake_failed<'e>(
        &self,
        about: About,
        address: SocketAddr,
        error: &'e io::Error,
    ) -> Option<&'e PeerError> {
        let fault = peer_fault(error);
        match fault {
            Some(fault) => self.certificate_refused(about, address, fault),
            None => tracing::debug!(%address, reason = %explain_handshake(error), "a handshake failed"),
        }
        fault
    }

    /// Tells of a certificate that `address` showed and that is not to be believed.
    pub(crate) fn certificate_refused(&self, about: About, address: SocketAddr, error: &PeerError) {
        let called = matches!(about, About::Called(_));
        let what = if called { "another agent is not who it should be" } else { "a caller is not trusted" };
        match self.admit(about) {
            Some(kept_back) => tracing::warn!(%address, %error, kept_back, "{what}"),
            None => tracing::debug!(%address, %error, "{what}"),
        }
    }

    fn admit_at(&self, about: About, now: Instant) -> Option<u64> {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= KINDS {
            given.retain(|_, given| now.saturating_duration_since(given.at) < PAUSE);
        }
        let about = if given.len() < KINDS || given.contains_key(&about) { about } else { About::Other };
        let Some(before) = given.get_mut(&about) else {
            given.insert(about, Given { at: now, kept_back: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(before.at) < PAUSE {
            before.kept_back += 1;
            return None;
        }
        before.at = now;
        Some(std::mem::take(&mut before.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(number: u32) -> About {
        About::Caller(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn one_of_a_kind_passes_and_the_others_are_counted() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        assert_eq!(quiet.admit_at(from(1), start), Some(0));
        for _ in 0..7 {
            assert_eq!(quiet.admit_at(from(1), start + PAUSE / 2), None);
        }
        assert_eq!(quiet.admit_at(from(2), start), Some(0), "another is not kept back");
        assert_eq!(quiet.admit_at(from(1), start + PAUSE), Some(7));
        assert_eq!(quiet.admit_at(from(1), start + PAUSE * 2), Some(0));
    }

    #[test]
    fn memory_is_bounded() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        let many = u32::try_from(KINDS).unwrap() * 2;
        let passed = (0..many).filter(|number| quiet.admit_at(from(*number), start).is_some()).count();
        assert_eq!(passed, KINDS + 1, "and one for all the others");
        assert_eq!(quiet.admit_at(from(many), start + PAUSE), Some(0));
        assert_eq!(quiet.0.lock().unwrap().len(), 1);
    }
}
