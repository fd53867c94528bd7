//! How often a server is asked again that is away or wants to be left alone, and when that goes on for too long.

use std::time::Duration;

use tokio::time::Instant;
use weft_core::registry::RegistryError;

use crate::{http_client::growing_pause, kubernetes::client::Refusal};

/// How long a server may refuse to be asked again before that is an outage, beside the rest that it asks for; and, once it
/// answers again, how long it may deny what it is asked before it means it.
pub(super) const PATIENCE: Duration = Duration::from_secs(6);
/// How long to wait after the first refusal, doubled after each that follows, and at most.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// The longest wait that a server may ask for.
pub(in crate::kubernetes) const MAX_REST: Duration = Duration::from_secs(60);

/// Refusals in a row.
#[derive(Clone, Copy)]
pub(super) struct Refusals {
    since: Instant,
    count: u32,
    pub(super) not_before: Instant,
    /// Whether one of them was an answer, that we may not.
    denied: bool,
}

impl Refusals {
    /// Those before with one more; none when that goes on for too long.
    pub(super) fn after(before: Option<Self>, refusal: &Refusal) -> Option<Self> {
        let now = Instant::now();
        let mut refusals = before.unwrap_or(Self { since: now, count: 0, not_before: now, denied: false });
        if matches!(refusal.error, RegistryError::Denied(_)) && !refusals.denied {
            (refusals.denied, refusals.since) = (true, now);
        }
        if now.duration_since(refusals.since) >= PATIENCE {
            return None;
        }
        let wanted = refusal.retry_after.map(|rest| rest.min(MAX_REST)).unwrap_or_default();
        // All whom it refused at once come back at different times.
        refusals.not_before = now + wanted + growing_pause(REST, refusals.count);
        refusals.since += wanted;
        refusals.count += 1;
        Some(refusals)
    }
}
