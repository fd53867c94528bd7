//! When leases end, by this process's clock.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::Inner;

/// How long a lease that is over waits when the file failed.
const FILE_PAUSE: Duration = Duration::from_secs(1);
/// How long to sleep where there is no lease; a new one wakes.
const NOTHING_TO_DO: Duration = Duration::from_secs(3600);

/// The leases that last.
#[derive(Debug, Default)]
pub(super) struct Leases(HashMap<u64, Lease>);

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    ends: Instant,
}

impl FromIterator<(u64, Duration)> for Leases {
    fn from_iter<I: IntoIterator<Item = (u64, Duration)>>(known: I) -> Self {
        let mut leases = Self::default();
        known.into_iter().for_each(|(lease, ttl)| leases.keep(lease, ttl));
        leases
    }
}

impl Leases {
    /// Lets a lease last for so long from now on.
    pub(super) fn keep(&mut self, lease: u64, ttl: Duration) {
        self.0.insert(lease, Lease { ttl, ends: Instant::now() + ttl });
    }

    /// Lets a lease last for its whole time again; false when it has ended.
    pub(super) fn renew(&mut self, lease: u64) -> bool {
        let now = Instant::now();
        let known = self.0.get_mut(&lease).filter(|known| known.ends > now);
        known.map(|known| known.ends = now + known.ttl).is_some()
    }

    pub(super) fn forget(&mut self, lease: u64) {
        self.0.remove(&lease);
    }

    /// A lease that is over, or else when the next one is.
    fn due(&self) -> Result<u64, Instant> {
        let now = Instant::now();
        match self.0.iter().min_by_key(|(_, lease)| lease.ends) {
            Some((number, lease)) if lease.ends <= now => Ok(*number),
            Some((_, lease)) => Err(lease.ends),
            None => Err(now + NOTHING_TO_DO),
        }
    }
}

/// Ends every lease when it is over, for as long as the store is used.
pub(super) async fn end_when_due(store: Weak<Inner>, sooner: Arc<Notify>) {
    while let Some(inner) = store.upgrade() {
        let due = inner.leases().due();
        let next = match due {
            Ok(lease) => {
                let ended = tokio::task::spawn_blocking(move || inner.end(lease)).await;
                let Ok(Err(fault)) = ended else { continue };
                tracing::error!(%fault, "a lease that is over could not be ended");
                Instant::now() + FILE_PAUSE
            }
            Err(next) => {
                drop(inner);
                next
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = sooner.notified() => {}
        }
    }
}
