//! Ends Leases that were not renewed, and removes the keys of those that have ended.
//!
//! A Lease is over when it was seen unchanged for its time by this process's own clock: clocks of different hosts are not
//! compared. It was renewed at the latest when it was first seen as it is, so it never ends early.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Answered, Inner, Kind,
    objects::{ConfigMap, LEASE, Lease},
};
use crate::hub::store::StoreError;

/// How often Leases are looked for where none is known: another hub's, which may have died.
const AT_REST: Duration = Duration::from_secs(30);
/// How often they are looked at, at most and at least, where some are known: four times in the time of the shortest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// A Lease as it was last seen.
struct Seen {
    version: String,
    /// Since when it is as it is.
    since: Instant,
}

/// Looks after the Leases, for as long as the store is used.
pub(super) async fn look_after(store: Weak<Inner>, sooner: Arc<Notify>) {
    let mut seen = HashMap::new();
    loop {
        // At first somebody waits for something else.
        let pause = AT_REST.min(next_look(&store, &mut seen).await);
        if store.strong_count() == 0 {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 4.0)) => {}
            () = sooner.notified() => {}
        }
    }
}

/// Looks once; gives the time until the next look.
async fn next_look(store: &Weak<Inner>, seen: &mut HashMap<String, Seen>) -> Duration {
    let Some(inner) = store.upgrade() else { return AT_REST };
    match look(&inner, seen).await {
        Ok(next) => next,
        Err(fault) => {
            // What is away is told by who needs it.
            tracing::debug!(%fault, "the leases could not be looked after");
            LOOKS.1
        }
    }
}

async fn look(inner: &Inner, seen: &mut HashMap<String, Seen>) -> Result<Duration, StoreError> {
    // Keys before Leases: a Lease that is not listed then has ended, and was not made since.
    let (keys, _) = inner.list::<ConfigMap>(Kind::ConfigMaps, &format!(",{LEASE}")).await?;
    let (leases, _) = inner.list::<Lease>(Kind::Leases, "").await?;
    let now = Instant::now();
    for key in keys {
        let lease = key.metadata.lease().unwrap_or_default();
        if leases.iter().all(|known| known.metadata.name != lease) {
            inner.delete(Kind::ConfigMaps, &key.metadata.name, Some(&key.metadata.resource_version)).await?;
        }
    }
    seen.retain(|name, _| leases.iter().any(|lease| lease.metadata.name == *name));
    let mut next = AT_REST;
    for lease in &leases {
        let (name, version) = (&lease.metadata.name, &lease.metadata.resource_version);
        let known = seen.entry(name.clone()).or_insert_with(|| Seen { version: version.clone(), since: now });
        if known.version != *version {
            *known = Seen { version: version.clone(), since: now };
        }
        next = next.min((lease.lasts() / 4).clamp(LOOKS.0, LOOKS.1));
        if now.duration_since(known.since) > lease.lasts()
            && let Answered::Done(_) = inner.delete(Kind::Leases, name, Some(version)).await?
        {
            inner.remove_keys_of(name).await?;
        }
    }
    Ok(next)
}
