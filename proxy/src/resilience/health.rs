//! Passive health: an endpoint that fails leaves the choice for a while, and is let back by one request that succeeds.
//!
//! An endpoint that is not there (it refuses, resets, or is silent) leaves at once and is probed again after a second,
//! then after ever longer. One that answers with gateway errors, resets streams or is slow leaves after some failures in
//! a row, for the base time multiplied by how often it left in a row, and only while at most a share of its service is
//! out: a fault they all have in common is not theirs. See [`crate::balance`] for how the way back is probed.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use weft_core::table::{EndpointSet, EndpointState};

use crate::{
    balance::{PROBE, Picked},
    fault::Fault,
};

/// When endpoints are ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Failures in a row that eject, at least 1.
    pub consecutive_failures: u32,
    /// How long the first ejection lasts; the n-th in a row lasts n times as long.
    pub base: Duration,
    /// The longest ejection.
    pub longest: Duration,
    /// How many percent of the healthy endpoints may be ejected for failing, 0 to 100; one may always.
    pub max_percent: u8,
}

impl Default for HealthSettings {
    fn default() -> Self {
        let (base, longest) = (Duration::from_secs(30), Duration::from_secs(300));
        Self { consecutive_failures: 5, base, longest, max_percent: 50 }
    }
}

/// What a request says of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// It works.
    Success,
    /// It is there, and failed.
    Failure,
    /// It is not there.
    Gone,
    /// It asks to be left alone for so long: it drains, or is overloaded.
    Away(Duration),
    /// Nothing.
    Nothing,
}

impl Observation {
    /// Reads a response. `fault` is what another agent named in it ([`crate::fault::named`]): its application may be gone
    /// while the agent answers for it.
    #[must_use]
    pub fn of_response(status: u16, fault: Option<Fault>) -> Self {
        match fault {
            Some(fault) => Self::of_fault(fault),
            None if matches!(status, 502..=504) => Self::Failure,
            None => Self::Success,
        }
    }

    /// Reads a fault.
    #[must_use]
    pub fn of_fault(fault: Fault) -> Self {
        match fault {
            Fault::ConnectRefused
            | Fault::ConnectFailed
            | Fault::ConnectTimeout
            | Fault::TlsFailed
            | Fault::WrongIdentity
            | Fault::NoIdentity
            | Fault::NotHere
            | Fault::PeerDraining
            | Fault::Draining
            | Fault::Drained
            | Fault::NotReady
            | Fault::HelloFailed
            | Fault::PeerUntrusted
            | Fault::ConnectionLost
            | Fault::PeerSilent => Self::Gone,
            Fault::StreamReset
            | Fault::BadResponse
            | Fault::ResponseTimeout
            | Fault::ResponseCut
            | Fault::PeerOverloaded
            | Fault::Overloaded
            | Fault::Internal => Self::Failure,
            Fault::NoHost
            | Fault::BadHost
            | Fault::AmbiguousLength
            | Fault::BadPath
            | Fault::EncodedSlash
            | Fault::BadRequest
            | Fault::HeaderTooLarge
            | Fault::CallerTooSlow
            | Fault::CallerGone
            | Fault::CallerRefused
            | Fault::NoDestination
            | Fault::NoPort
            | Fault::NoBackend
            | Fault::NoEndpoint
            | Fault::Denied
            | Fault::DeniedExternally
            | Fault::Untrusted
            | Fault::RateLimited
            | Fault::WrongFraming
            | Fault::PeerDenied
            | Fault::NotDispatched => Self::Nothing,
        }
    }
}

/// The first time an endpoint that is not there is left alone.
const FIRST_ABSENCE: Duration = Duration::from_secs(1);

/// Takes note of what a request said of the endpoint it was sent to, which is one of `set`. `now` is in
/// [milliseconds](crate::clock::milliseconds). Returns for how long the endpoint was ejected, if it was.
pub fn observe(
    settings: &HealthSettings,
    set: &EndpointSet,
    picked: &Picked,
    observation: Observation,
    now: u64,
) -> Option<Duration> {
    let state = &*picked.state;
    match observation {
        Observation::Nothing => None,
        Observation::Success => {
            recover(state, picked.is_probe());
            None
        }
        Observation::Gone => {
            let doubled = 1 << state.ejections.load(Relaxed).min(16);
            eject(picked, (FIRST_ABSENCE * doubled).min(settings.base), now)
        }
        // It is well: this does not lengthen its next absence.
        Observation::Away(time) => leave_alone(picked, time.min(settings.longest), now),
        Observation::Failure => {
            let failures = state.failures.fetch_add(1, Relaxed).saturating_add(1);
            let due = picked.is_probe() || failures >= settings.consecutive_failures;
            if !due || !may_eject(settings, set, state, now) {
                return None;
            }
            let times = state.ejections.load(Relaxed).saturating_add(1);
            eject(picked, settings.base.saturating_mul(times).min(settings.longest), now)
        }
    }
}

/// The usual case reads one cache line and writes nothing. A request that was under way before the ejection proves
/// nothing of the present.
fn recover(state: &EndpointState, is_probe: bool) {
    if state.failures.load(Relaxed) != 0 {
        state.failures.store(0, Relaxed);
    }
    if is_probe && state.ejected_until.swap(0, Relaxed) != 0 {
        state.ejections.store(0, Relaxed);
    }
}

/// Leaves an endpoint alone that failed; the next time is the longer for it.
fn eject(picked: &Picked, time: Duration, now: u64) -> Option<Duration> {
    let ejected = leave_alone(picked, time, now)?;
    picked.state.ejections.fetch_add(1, Relaxed);
    Some(ejected)
}

/// Requests that were on their way together see the same failure; only the first of them ejects, and later the probe.
fn leave_alone(picked: &Picked, time: Duration, now: u64) -> Option<Duration> {
    let state = &picked.state;
    let until = state.ejected_until.load(Relaxed);
    let is_out = until > now;
    let is_probed = picked.is_probe() && until <= now.saturating_add(PROBE);
    if is_out && !is_probed {
        return None;
    }
    let next = now.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    state.ejected_until.compare_exchange(until, next, Relaxed, Relaxed).ok()?;
    state.failures.store(0, Relaxed);
    Some(time)
}

/// Whether one more may leave for failing. Looks at all healthy endpoints: it is asked rarely.
fn may_eject(settings: &HealthSettings, set: &EndpointSet, state: &EndpointState, now: u64) -> bool {
    let healthy = set.all.get(..set.first_choice).unwrap_or(&set.all);
    let others = healthy.iter().filter(|upstream| !std::ptr::eq(&raw const **upstream.state, state));
    let out = others.filter(|upstream| upstream.state.ejected_until.load(Relaxed) > now).count();
    out == 0 || (out + 1) * 100 <= healthy.len() * usize::from(settings.max_percent)
}

#[cfg(test)]
mod tests;
