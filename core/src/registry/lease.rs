//! A local instance that is announced in a registry: what is announced, by whom it is kept there, and how that goes.
//!
//! A [`Lease`] is what the announcing side holds, a [`Keeper`] what the registry's task holds. The announcing side may
//! change what is announced at any time, without a gap: the registry tells it anew under the same key. It ends a lease
//! in one of two ways: it withdraws (also by dropping it), or it leaves, which says nothing at the server, because
//! another lease keeps the same instance from here on. Neither side ever waits for the other but in [`Lease::withdraw`].

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::resource::{Endpoint, Health, ServicePort};

/// What is announced: one port of one local instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalInstance {
    /// The endpoint, as others shall see it. Its service, port name and instance are its key, which never changes in the
    /// life of a lease.
    pub endpoint: Endpoint,
    /// The service's port, as callers know it.
    pub port: ServicePort,
    /// Why it is not healthy, for people; empty when it is, or when nobody knows.
    pub note: String,
}

impl LocalInstance {
    /// Whether it may be called.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.endpoint.health != Health::Unhealthy
    }
}

/// Why something is not announced at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// This kind of registry takes no announcements.
    #[error("registry takes no announcements")]
    Unsupported,
    /// The registry has no words for it.
    #[error("{0}")]
    Unfit(String),
}

/// How an announcement is at its registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseState {
    /// Since when it is announced there; none while it never was.
    pub since: Option<SystemTime>,
    /// When the registry last said that it has it; none when it never did.
    pub confirmed: Option<SystemTime>,
    /// Why the last word did not reach it or was refused; none when it was taken.
    pub fault: Option<String>,
}

/// What the announcing side wants.
type Wanted = Option<Arc<LocalInstance>>;

/// An announcement in force. Dropping it withdraws the instance.
#[derive(Debug)]
pub struct Lease {
    /// None: the lease is left to another one.
    wanted: watch::Sender<Wanted>,
    state: watch::Receiver<LeaseState>,
}

/// The registry's side of a lease.
#[derive(Debug)]
pub struct Keeper {
    wanted: watch::Receiver<Wanted>,
    last: Arc<LocalInstance>,
    state: watch::Sender<LeaseState>,
}

/// What a keeper is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The time is over: renew.
    Due,
    /// Something else is announced from here on.
    Changed,
    /// Withdraw it, and end.
    Withdraw,
    /// End without a word to the server.
    Leave,
}

impl Lease {
    /// A lease and its keeper.
    #[must_use]
    pub fn new(instance: Arc<LocalInstance>) -> (Self, Keeper) {
        let (wanting, wanted) = watch::channel(Some(instance.clone()));
        let (state, shown) = watch::channel(LeaseState::default());
        (Self { wanted: wanting, state: shown }, Keeper { wanted, last: instance, state })
    }

    /// Announces this from here on; of the same key.
    pub fn change(&self, instance: Arc<LocalInstance>) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.as_ref() != Some(&instance);
            *wanted = Some(instance);
            changed
        });
    }

    /// How it is; may be waited on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }

    /// Withdraws it, and waits until the registry's side has done so or has given up.
    pub async fn withdraw(self) {
        let Self { wanted, mut state } = self;
        drop(wanted);
        while state.changed().await.is_ok() {}
    }

    /// Ends without a word to the server: what keeps the same instance there from here on is another lease.
    pub fn leave(self) {
        self.wanted.send_replace(None);
    }
}

impl Keeper {
    /// What is to be announced now.
    pub fn wanted(&mut self) -> Arc<LocalInstance> {
        if let Some(wanted) = &*self.wanted.borrow_and_update() {
            self.last = wanted.clone();
        }
        self.last.clone()
    }

    /// The registry has what is announced, as of now.
    pub fn confirm(&self) {
        let now = SystemTime::now();
        self.state.send_modify(|state| {
            *state =
                LeaseState { since: Some(state.since.unwrap_or(now)), confirmed: Some(now), fault: None };
        });
    }

    /// The last word did not reach the registry, or was refused. Returns whether that is the first one in a row.
    pub fn failed(&self, fault: String) -> bool {
        let first = self.state.borrow().fault.is_none();
        self.state.send_modify(|state| state.fault = Some(fault));
        first
    }

    /// Waits for `pause` at most, and less when the announcing side wants something. May be dropped at any time.
    pub async fn next(&mut self, pause: Duration) -> Next {
        let until = Instant::now() + pause;
        match tokio::time::timeout_at(until, self.wanted.changed()).await {
            Err(_) => Next::Due,
            Ok(Err(_)) => Next::Withdraw,
            Ok(Ok(())) if self.wanted.borrow().is_none() => Next::Leave,
            Ok(Ok(())) => Next::Changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{name::PortName, resource::AppProtocol};

    const LONG: Duration = Duration::from_secs(3600);

    fn instance(health: Health) -> Arc<LocalInstance> {
        let endpoint = Endpoint { health, ..crate::merge::testing::endpoint("reviews", 1) };
        let port =
            ServicePort { name: PortName::new("http").unwrap(), number: 80, protocol: AppProtocol::Http };
        Arc::new(LocalInstance { endpoint, port, note: String::new() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_changed_left_and_withdrawn() {
        let (lease, mut keeper) = Lease::new(instance(Health::Healthy));
        assert_eq!(keeper.wanted(), instance(Health::Healthy));
        assert_eq!(keeper.next(LONG).await, Next::Due);
        lease.change(instance(Health::Healthy));
        assert_eq!(keeper.next(LONG).await, Next::Due, "nothing changed");
        lease.change(instance(Health::Unhealthy));
        assert_eq!(keeper.next(LONG).await, Next::Changed);
        assert!(!keeper.wanted().is_healthy());
        lease.leave();
        assert_eq!(keeper.next(LONG).await, Next::Leave);
        assert!(!keeper.wanted().is_healthy(), "the last one stays known");

        let (lease, mut keeper) = Lease::new(instance(Health::Healthy));
        let withdrawing = tokio::spawn(lease.withdraw());
        assert_eq!(keeper.next(LONG).await, Next::Withdraw);
        assert!(!withdrawing.is_finished(), "it waits until the keeper is done");
        drop(keeper);
        withdrawing.await.unwrap();
    }

    #[test]
    fn its_state_says_since_when_and_why_not() {
        let (lease, keeper) = Lease::new(instance(Health::Healthy));
        let state = || lease.state().borrow().clone();
        assert_eq!(state(), LeaseState::default());
        assert!(keeper.failed("away".into()) && !keeper.failed("still away".into()));
        assert_eq!(state().fault.as_deref(), Some("still away"));
        keeper.confirm();
        let first = state();
        assert!(first.fault.is_none() && first.since.is_some() && first.confirmed >= first.since);
        keeper.confirm();
        assert_eq!(state().since, first.since);
    }
}
