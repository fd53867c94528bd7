//! The words of registries, taken in: those of their streams, and what is found out beside a stream while that is silent.

use std::time::SystemTime;

use super::{Flow, faults, followed::committed_scope};
use crate::{merge::Applied, registry::Event};

impl Flow {
    /// Takes in one word. Returns whether it was a commit.
    pub(super) fn apply(&mut self, source: usize, event: Event, now: SystemTime) -> bool {
        let Some(scope) = committed_scope(&event) else {
            self.merge.apply(event, now);
            return false;
        };
        let before = self.merge.snapshot().scopes.get(&scope).cloned();
        let applied = self.merge.apply(event, now);
        let state = self.merge.snapshot().scopes.get(&scope);
        if applied == Applied::Changed {
            faults::tell(&scope, before.as_ref(), state);
        }
        self.followed[source].committed(&scope, state, applied);
        self.pending.snapshot = true;
        true
    }

    /// Takes in what was found out beside the stream: it says nothing of whether the registry is there.
    pub(super) fn take_aside(&mut self, source: usize, events: Vec<Event>, now: SystemTime) {
        for event in events {
            if self.may_say(source, event.scope()) {
                self.apply(source, event, now);
            }
        }
    }
}
