//! Readiness: a set of held guards that empties.
//!
//! Whoever must come up first takes a [`Guard`] with a name that tells an operator what is missing; dropping it says
//! "here". The agent is ready when nobody holds one, and `/readyz` lists the names of those who do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

/// The set. Cheap to clone; all clones are one set.
#[derive(Clone, Debug)]
pub struct Readiness {
    held: Arc<Mutex<BTreeMap<u64, String>>>,
    changes: watch::Sender<u64>,
}

/// Something that is not there yet.
#[derive(Debug)]
pub struct Guard {
    number: u64,
    set: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { held: Arc::default(), changes: watch::channel(0).0 }
    }
}

impl Readiness {
    /// Says that `what` is missing, until the guard is dropped.
    #[must_use]
    pub fn hold(&self, what: impl Into<String>) -> Guard {
        let mut number = 0;
        self.changes.send_modify(|count| {
            *count += 1;
            number = *count;
            self.lock().insert(number, what.into());
        });
        Guard { number, set: self.clone() }
    }

    /// What is missing, oldest first; empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    /// Waits until nothing is missing.
    pub async fn ready(&self) {
        let mut changes = self.changes.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _waited = changes.wait_for(|_| self.is_ready()).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, String>> {
        // A panic elsewhere cannot leave the map half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.set.lock().remove(&self.number);
        self.set.changes.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_what_is_missing_and_wakes_when_the_last_guard_is_gone() {
        let readiness = Readiness::default();
        let registry = readiness.hold("registry static");
        let certificate = readiness.hold("certificate of web");
        assert_eq!(readiness.missing(), ["registry static", "certificate of web"]);
        drop(registry);
        assert_eq!(readiness.missing(), ["certificate of web"]);
        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(certificate);
        waiter.await.expect("the waiter does not panic");
        assert!(readiness.is_ready());
    }
}
