//! Lists of a relay that were passed over, because what is held is newer: the relay itself hears nothing of a registry.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{merge::Applied, registry::Scope};

/// The lists that were passed over since everything was listed last.
#[derive(Debug, Default)]
pub(super) struct Outdated {
    /// By scope, when what is held was confirmed.
    scopes: BTreeMap<Scope, Option<SystemTime>>,
    /// When a list is to be asked for, now that the relay knows more.
    due: Option<Instant>,
}

impl Outdated {
    /// Takes note of a commit. A relay that hears from its registry again says what is new to itself, which may leave
    /// out what differs here: it is asked for its list. Not at once, for all who follow it hear it at the same time.
    pub(super) fn note(
        &mut self,
        scope: &Scope,
        committed_at: Option<SystemTime>,
        applied: Applied,
        patience: Duration,
    ) {
        if applied == Applied::Outdated {
            self.scopes.insert(scope.clone(), committed_at);
        } else if self.scopes.get(scope).is_some_and(|held| *held < committed_at) {
            self.scopes.remove(scope);
            self.due.get_or_insert(Instant::now() + patience);
        }
    }

    /// Whether what is held is what was listed.
    pub(super) fn is_empty(&self) -> bool {
        self.scopes.is_empty() && self.due.is_none()
    }

    /// Whether a list is to be asked for now; said once.
    pub(super) fn take_due(&mut self) -> bool {
        self.due.take_if(|due| Instant::now() >= *due).is_some()
    }
}
