//! One registry that is followed: what it last said about itself, and its state on disk.

mod connection;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use tokio::{sync::Notify, time::Instant};

use connection::Connection;

use super::{
    Source,
    outdated::Outdated,
    status::{RegistryStatus, ScopeStatus},
};
use crate::{
    driver::{Backoff, Counters, Position, Saved, StateFile, Summary, Told},
    merge::{Applied, BELIEVED_AFTER, RequiredTls, ScopeState, Snapshot},
    name::RegistryName,
    registry::{Event, Registry, Scope},
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
    connection: Connection,
    ready: bool,
    /// Whether the end of a list was heard that is not for this source to speak of.
    refused_list: bool,
    /// The scopes that a stream which began without a point to go on from lists; none when it went on, or when all of
    /// them are committed.
    listed: Option<BTreeSet<Scope>>,
    /// Of a relay: the lists that were passed over.
    outdated: Outdated,
    /// Of a relay: the registries it speaks for, most authoritative first.
    relayed: Arc<[RegistryName]>,
    /// Which identities it may name, as a text.
    limits: String,
    /// What decides which of its words are taken over, see [`Summary::rules`].
    rules: String,
    /// Rung, it has the registry list everything again; none before it is followed.
    bell: Option<Arc<Notify>>,
    /// When it was last rung because of what is unconfirmed.
    asked_at: Option<Instant>,
    /// How much longer than it must it waits for that: what makes things unconfirmed does so at all agents at once.
    own_patience: Duration,
    restored_age: Option<Duration>,
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
    summary: Summary,
    required_tls: RequiredTls,
}

impl Save {
    /// Writes; returns how long that took, or why it failed.
    pub(super) fn write(self) -> Result<Duration, String> {
        let began = std::time::Instant::now();
        let written = self.file.write(&self.snapshot, &self.scopes, &self.summary, &self.required_tls);
        written.map(|()| began.elapsed()).map_err(|error| error.to_string())
    }
}

impl Followed {
    pub(super) fn new(number: usize, source: Source, state_file: Option<StateFile>) -> Self {
        let limits = format!("{:?}", source.limits);
        Self {
            number,
            backoff: source.backoff,
            registry: source.registry,
            scopes: BTreeSet::new(),
            position: Position::default(),
            counters: Counters::default(),
            connection: Connection::default(),
            ready: false,
            refused_list: false,
            listed: Some(BTreeSet::new()),
            outdated: Outdated::default(),
            relayed: Arc::default(),
            limits,
            rules: String::new(),
            bell: None,
            asked_at: None,
            own_patience: BELIEVED_AFTER.mul_f64(fastrand::f64() / 4.0),
            restored_age: None,
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
        let Summary { resume, ready, relayed, rules } = saved.summary.clone();
        // Under other rules, what was refused lies behind the point: only a full list brings it.
        self.position = Position::at(resume.filter(|_| rules == self.rules));
        self.begin_stream();
        self.relayed = relayed.into();
        self.ready = ready;
        let oldest = saved.scopes.iter().map(|scope| scope.committed_at).min();
        self.restored_age = oldest.map(|at| now.duration_since(at).unwrap_or_default());
        if let Some(age) = self.restored_age {
            tracing::info!(registry = %self.name(), age_seconds = age.as_secs(), "last good state restored from disk");
        }
        saved
    }

    /// Whether another one of its name may take its place and leave its words in force meanwhile.
    pub(super) fn speaks_alike(&self, other: &Self) -> bool {
        self.is_relay() == other.is_relay()
    }

    /// The same words, followed as `other` says from here on. A point to go on from is the former registry's.
    pub(super) fn followed_as(self, other: Self) -> Self {
        let Self { number, backoff, registry, limits, .. } = other;
        Self {
            number,
            backoff,
            registry,
            limits,
            position: Position::default(),
            listed: Some(BTreeSet::new()),
            outdated: Outdated::default(),
            connection: self.connection.begun_anew(),
            ..self
        }
    }

    /// Takes note of what is followed, in any order. Returns whether other words are taken over from now on than before.
    pub(super) fn set_rules(&mut self, followed: &[RegistryName]) -> bool {
        let mut names: Vec<_> = followed.iter().collect();
        names.sort();
        let text = format!("{names:?} {}", self.limits);
        let rules = HEXLOWER.encode(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..16]);
        std::mem::replace(&mut self.rules, rules.clone()) != rules
    }

    /// Removes the state on disk.
    pub(super) fn forget_state(&self) {
        let Some(file) = &self.state_file else { return };
        if let Err(error) = file.remove() {
            tracing::warn!(registry = %self.name(), %error, "the last good state cannot be removed");
        }
    }

    /// Whether routes and policies may come from here.
    pub(super) fn carries_configuration(&self) -> bool {
        self.registry.capabilities().configuration
    }

    /// Whether this registry speaks for others.
    pub(super) fn is_relay(&self) -> bool {
        self.registry.capabilities().relay
    }

    /// Of a relay: the registries it speaks for, most authoritative first.
    pub(super) fn relayed(&self) -> &[RegistryName] {
        &self.relayed
    }

    /// Takes note of a scope that is this registry's to speak of.
    pub(super) fn note_scope(&mut self, scope: &Scope) {
        if !self.scopes.contains(scope) {
            self.scopes.insert(scope.clone());
        }
    }

    /// Speaks no more of a registry. Returns the scopes of it.
    pub(super) fn leave(&mut self, registry: &RegistryName) -> Vec<Scope> {
        let left: Vec<_> = self.scopes.iter().filter(|it| it.registry == *registry).cloned().collect();
        self.scopes.retain(|scope| scope.registry != *registry);
        left
    }

    /// Takes note of the bell that has the registry list everything again.
    pub(super) fn hang(&mut self, bell: Arc<Notify>) {
        self.bell = Some(bell);
    }

    /// Takes note of what was said, before it is applied; `refused` when it will not be.
    pub(super) fn note(&mut self, told: &Told, refused: bool, now: SystemTime) {
        self.counters.count(told);
        match told {
            Told::Event(event) => {
                self.position.note(event);
                if let (Event::Reset { scope }, Some(listed)) = (event, &mut self.listed) {
                    listed.insert(scope.clone());
                }
                self.connection.is_heard(self.registry.name());
                if refused {
                    self.note_refused(event);
                }
            }
            Told::Ended { error, .. } => {
                self.position.end(error);
                self.begin_stream();
                self.connection.is_lost(self.registry.name(), error, now);
            }
            Told::Aside(_) => {}
            Told::ListedAnew { .. } => {
                self.position.begin_anew();
                self.begin_stream();
            }
        }
    }

    fn begin_stream(&mut self) {
        self.listed = self.position.resume.is_none().then(BTreeSet::new);
        if self.listed.is_some() {
            self.outdated = Outdated::default();
        }
    }

    /// The scopes that a full list of all of them lacks, once it is committed. Those of a registry that the relay still
    /// names are not among them: it has not heard from that one, which proves nothing.
    pub(super) fn unlisted(&mut self) -> Vec<Scope> {
        if !self.position.is_whole() || self.listed.as_ref().is_none_or(BTreeSet::is_empty) {
            return Vec::new();
        }
        let listed = self.listed.take().unwrap_or_default();
        let unlisted = self.scopes.difference(&listed);
        unlisted.filter(|scope| !self.relayed.contains(&scope.registry)).cloned().collect()
    }

    /// Speaks no more of a scope.
    pub(super) fn drop_scope(&mut self, scope: &Scope) {
        self.scopes.remove(scope);
        self.save_soon();
    }

    /// Whether it has said all it has, in this life of the process or in the one whose state was restored.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether it may say all it has any moment, for the first time.
    pub(super) fn is_awaited(&self) -> bool {
        !self.ready && self.counters.disconnects + self.counters.failed_attempts == 0
    }

    /// Whether what it has was known before this process began.
    pub(super) fn was_known(&self) -> bool {
        self.ready && self.restored_age.is_some()
    }

    /// What a relay may not say need not be waited for: it is ready when all else was said, too.
    fn note_refused(&mut self, event: &Event) {
        match event {
            Event::Ready { .. } => self.refused_list = self.is_relay(),
            Event::Commit { .. } if self.refused_list && self.position.is_whole() => self.note_ready(),
            _ => {}
        }
    }

    fn note_ready(&mut self) {
        if !self.ready {
            self.ready = true;
            self.unsaved = Unsaved::Change;
        }
    }

    /// Asks a relay for its order of registries. Returns whether that is another than before.
    pub(super) fn note_relayed(&mut self) -> bool {
        let relayed = self.registry.relayed();
        let changed = relayed != self.relayed;
        if changed {
            self.relayed = relayed;
            self.unsaved = Unsaved::Change;
        }
        changed
    }

    /// Takes note of a commit after it was applied.
    pub(super) fn committed(&mut self, scope: &Scope, state: Option<&ScopeState>, applied: Applied) {
        let committed_at = state.and_then(|state| state.committed_at);
        self.outdated.note(scope, committed_at, applied, self.own_patience);
        if self.position.is_whole() && state.is_some_and(|state| state.completeness.is_some()) {
            self.note_ready();
        }
        self.unsaved = match self.unsaved {
            _ if applied == Applied::Changed => Unsaved::Change,
            Unsaved::Nothing => Unsaved::Confirmation(Instant::now() + CONFIRM_EVERY),
            pending => pending,
        };
    }

    /// Has what is held written soon: the operator's word must outlive the process.
    pub(super) fn save_soon(&mut self) {
        self.unsaved = Unsaved::Change;
        self.next_save = None;
    }

    /// Has the registry list everything again.
    pub(super) fn list_anew(&self) {
        if let Some(bell) = &self.bell {
            bell.notify_one();
        }
    }

    /// Has the registry list everything again when something has been unconfirmed for so long that a list which still
    /// lacks it is believed, and when its last list was passed over; no registry lists by itself while nothing breaks.
    pub(super) fn settle_unconfirmed(&mut self, snapshot: &Snapshot, now: SystemTime) {
        if self.connection.is_up() && self.outdated.take_due() {
            return self.list_anew();
        }
        let believed_after = BELIEVED_AFTER + self.own_patience;
        let rested = self.asked_at.is_none_or(|at| at.elapsed() >= believed_after);
        if !self.connection.is_up() || !rested {
            return;
        }
        let is_old = |since: SystemTime| now.duration_since(since).is_ok_and(|age| age >= believed_after);
        let states = self.scopes.iter().filter_map(|scope| snapshot.scopes.get(scope));
        let mut unconfirmed = states.flat_map(|state| {
            state.unconfirmed.iter().filter_map(|name| state.origins.get(name)?.unconfirmed_since)
        });
        if unconfirmed.any(is_old) {
            self.asked_at = Some(Instant::now());
            self.list_anew();
        }
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
            summary: Summary {
                // What was passed over lies behind the point.
                resume: self.position.resume.clone().filter(|_| self.outdated.is_empty()),
                ready: self.ready,
                relayed: self.relayed.to_vec(),
                rules: self.rules.clone(),
            },
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
            connected: self.connection.is_up(),
            carries_configuration: self.carries_configuration(),
            is_relay: self.is_relay(),
            ready: self.ready,
            restored_age: self.restored_age,
            last_error: self.connection.error().map(str::to_owned),
            down_since: self.connection.down_since(),
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
