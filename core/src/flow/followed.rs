//! One registry that is followed: what it last said about itself, and its state on disk.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    Source,
    status::{RegistryStatus, ScopeStatus},
};
use crate::{
    driver::{Backoff, Counters, Position, Saved, StateFile, Told},
    merge::{RequiredTls, ScopeState, Snapshot},
    name::RegistryName,
    registry::{Event, Registry, RegistryError, Scope},
};

/// How long changes wait at least before they are written.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// How long a mere "still true" waits before it is written: it only makes the state's age right.
const CONFIRM_EVERY: Duration = Duration::from_secs(300);
/// A write takes at most one part in so many of the time.
const SAVE_SHARE: u32 = 20;

pub(super) struct Followed {
    /// Tells it from all others, also from those of its name that came before it.
    pub(super) number: usize,
    /// How it is tried again.
    pub(super) backoff: Backoff,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) scopes: BTreeSet<Scope>,
    pub(super) position: Position,
    counters: Counters,
    connected: bool,
    ready: bool,
    restored_age: Option<Duration>,
    last_error: Option<String>,
    down_since: Option<SystemTime>,
    state_file: Option<StateFile>,
    state_error: Option<String>,
    unsaved: Unsaved,
    next_save: Option<Instant>,
}

/// What the file on disk lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unsaved {
    Nothing,
    Confirmation(Instant),
    Change,
}

/// One write of a registry's state, to be done where it may block.
pub(super) struct Save {
    file: StateFile,
    snapshot: Snapshot,
    scopes: Vec<Scope>,
    position: Position,
    required_tls: RequiredTls,
}

impl Save {
    /// Writes; returns how long that took, or why it failed.
    pub(super) fn write(self) -> Result<Duration, String> {
        let began = std::time::Instant::now();
        let resume = self.position.resume.as_ref();
        let written = self.file.write(&self.snapshot, &self.scopes, resume, &self.required_tls);
        written.map(|()| began.elapsed()).map_err(|error| error.to_string())
    }
}

impl Followed {
    pub(super) fn new(number: usize, source: Source, state_file: Option<StateFile>) -> Self {
        Self {
            number,
            backoff: source.backoff,
            registry: source.registry,
            scopes: BTreeSet::new(),
            position: Position::default(),
            counters: Counters::default(),
            connected: false,
            ready: false,
            restored_age: None,
            last_error: None,
            down_since: None,
            state_file,
            state_error: None,
            unsaved: Unsaved::Nothing,
            next_save: None,
        }
    }

    pub(super) fn name(&self) -> &RegistryName {
        self.registry.name()
    }

    /// Reads the state on disk. What cannot be read is said and left aside: the registry is then listed anew.
    pub(super) fn restore(&mut self, now: SystemTime) -> Saved {
        let read = self.state_file.as_ref().map_or(Ok(None), StateFile::read);
        let saved = read.unwrap_or_else(|error| {
            tracing::warn!(registry = %self.name(), %error, "the last good state cannot be used: starting without it");
            self.state_error = Some(error.to_string());
            None
        });
        let saved = saved.unwrap_or_default();
        self.scopes = saved.scopes.iter().map(|scope| scope.scope.clone()).collect();
        self.position = Position::at(saved.resume.clone());
        let oldest = saved.scopes.iter().map(|scope| scope.committed_at).min();
        self.restored_age = oldest.map(|at| now.duration_since(at).unwrap_or_default());
        self.ready = saved.scopes.iter().any(|scope| scope.completeness.is_some());
        if let Some(age) = self.restored_age {
            tracing::info!(registry = %self.name(), age_seconds = age.as_secs(), "last good state restored from disk");
        }
        saved
    }

    /// Whether another one of its name may take its place and leave its words in force meanwhile.
    pub(super) fn speaks_alike(&self, other: &Self) -> bool {
        self.registry.capabilities().relay == other.registry.capabilities().relay
    }

    /// The same words, followed as `other` says from here on. A point to go on from is the former registry's.
    pub(super) fn followed_as(self, other: Self) -> Self {
        let Self { number, backoff, registry, .. } = other;
        Self { number, backoff, registry, position: Position::default(), connected: false, ..self }
    }

    /// Removes the state on disk.
    pub(super) fn forget_state(&self) {
        let Some(file) = &self.state_file else { return };
        if let Err(error) = file.remove() {
            tracing::warn!(registry = %self.name(), %error, "the last good state cannot be removed");
        }
    }

    /// Whether this registry may speak of a scope at all: its own, and as a relay those of others.
    pub(super) fn may_speak_of(&self, scope: &Scope) -> bool {
        scope.registry == *self.name() || self.registry.capabilities().relay
    }

    /// Takes note of what was said, before it is applied.
    pub(super) fn note(&mut self, told: &Told, now: SystemTime) {
        self.counters.count(told);
        match told {
            Told::Event(event) => {
                self.position.note(event);
                self.scopes.insert(event.scope().clone());
                self.note_connected();
            }
            Told::Ended { error, .. } => {
                self.position.end(error);
                self.note_disconnected(error, now);
            }
        }
    }

    /// Takes note of a commit after it was applied.
    pub(super) fn committed(&mut self, state: Option<&ScopeState>, changed: bool) {
        self.ready |= self.position.is_whole() && state.is_some_and(|state| state.completeness.is_some());
        self.unsaved = match self.unsaved {
            _ if changed => Unsaved::Change,
            Unsaved::Nothing => Unsaved::Confirmation(Instant::now() + CONFIRM_EVERY),
            pending => pending,
        };
    }

    fn note_connected(&mut self) {
        if !self.connected {
            self.connected = true;
            if self.last_error.take().is_some() {
                tracing::info!(registry = %self.name(), "registry is back");
            }
            self.down_since = None;
        }
    }

    /// The log tells an outage once; its later errors are in the status.
    fn note_disconnected(&mut self, error: &RegistryError, now: SystemTime) {
        if self.last_error.is_none() {
            tracing::warn!(registry = %self.name(), %error, "registry lost: what it said last stays in force");
        }
        self.connected = false;
        self.last_error = Some(error.to_string());
        self.down_since.get_or_insert(now);
    }

    /// Whether there is a first full list that no file holds: it is written at once, so that a process which dies right
    /// after it was ready can start from it.
    pub(super) fn was_never_saved(&self) -> bool {
        self.state_file.is_some() && self.ready && self.next_save.is_none() && self.unsaved == Unsaved::Change
    }

    /// The write that is due, if any; `last` asks for whatever is unsaved.
    pub(super) fn due_save(
        &mut self,
        snapshot: &Snapshot,
        required_tls: &RequiredTls,
        last: bool,
    ) -> Option<Save> {
        let file = self.state_file.clone()?;
        let now = Instant::now();
        let wanted = match self.unsaved {
            Unsaved::Nothing => false,
            Unsaved::Confirmation(at) => last || now >= at,
            Unsaved::Change => last || self.next_save.is_none_or(|at| now >= at),
        };
        if !wanted {
            return None;
        }
        self.unsaved = Unsaved::Nothing;
        self.next_save = Some(now + SAVE_EVERY);
        Some(Save {
            file,
            snapshot: snapshot.clone(),
            scopes: self.scopes.iter().cloned().collect(),
            position: self.position.clone(),
            required_tls: required_tls.clone(),
        })
    }

    /// Takes note of how a write went.
    pub(super) fn saved(&mut self, outcome: Result<Duration, String>) {
        match outcome {
            Ok(took) => {
                self.state_error = None;
                self.next_save = Some(Instant::now() + SAVE_EVERY.max(took * SAVE_SHARE));
            }
            Err(error) => {
                if self.state_error.is_none() {
                    tracing::warn!(registry = %self.name(), %error, "the last good state cannot be written");
                }
                self.state_error = Some(error);
                self.unsaved = Unsaved::Change;
            }
        }
    }

    pub(super) fn status(&self, snapshot: &Snapshot) -> RegistryStatus {
        let scopes =
            self.scopes.iter().filter_map(|scope| Some(scope_status(scope, snapshot.scopes.get(scope)?)));
        RegistryStatus {
            name: self.name().clone(),
            connected: self.connected,
            carries_configuration: self.registry.capabilities().configuration,
            ready: self.ready,
            restored_age: self.restored_age,
            last_error: self.last_error.clone(),
            down_since: self.down_since,
            state_error: self.state_error.clone(),
            counters: self.counters,
            scopes: scopes.collect(),
        }
    }
}

/// The scope that an event commits, if it does.
pub(super) fn committed_scope(event: &Event) -> Option<Scope> {
    match event {
        Event::Commit { scope, .. } => Some(scope.clone()),
        _ => None,
    }
}

fn scope_status(scope: &Scope, state: &ScopeState) -> ScopeStatus {
    let faulty = state.faulty.iter().filter_map(|name| state.origins.get(name));
    let unconfirmed = state.unconfirmed.iter().filter_map(|name| state.origins.get(name));
    ScopeStatus {
        scope: scope.clone(),
        committed_at: state.committed_at,
        completeness: state.completeness,
        stale: state.stale,
        origins: state.origins.len(),
        faults: faulty.map(|origin| (origin.name.clone(), origin.faults.clone())).collect(),
        unconfirmed: unconfirmed.filter_map(|o| Some((o.name.clone(), o.unconfirmed_since?))).collect(),
    }
}
