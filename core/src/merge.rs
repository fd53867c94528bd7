//! Turns the events of all registries into one [`Snapshot`]. Pure: no clock, no socket, no file.
//!
//! Invariants:
//! - what was not committed is never visible, and is forgotten when the registry's stream ends ([`Merge::abandon`]);
//! - no registry adds to what another says: each has its own partition;
//! - nothing goes because a registry did not answer, or may have hidden something (the `absence` module);
//! - no other registry gets a service's names because its last instance is gone for a moment (the `departed` module);
//! - no full list replaces a newer one, whoever passed it on;
//! - the outcome does not depend on how the events of different registries are interleaved;
//! - what a commit costs depends on what it changes, not on how much is held.

mod absence;
mod departed;
mod intake;
mod limits;
mod order;
mod partition;
mod snapshot;
mod staging;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use foldhash::fast::RandomState;
use imbl::OrdSet;

pub use absence::{BELIEVED_AFTER, DOUBTED_FROM, OLDER_BY};
pub use departed::{Departed, KEPT};
pub use intake::{RequiredTls, STAYS_IN_TLS};
pub use limits::Limits;
pub use snapshot::{Origin, OriginKey, Partition, ScopeState, ServiceEntry, Snapshot};

use absence::{Absence, Fate, is_outdated};
use intake::Intake;
use partition::Touched;
use staging::Staging;

use crate::{
    diagnostic::Diagnostic,
    name::{OriginName, PortName, RegistryName, ServiceKey},
    registry::{Completeness, Event, Scope},
    resource::{Endpoint, Health, Resource, ResourceKey},
};

/// How old a restored scope may be for its plaintext endpoints to be used.
pub const PLAINTEXT_FROM_STATE: Duration = Duration::from_secs(3600);

/// All that registries said, committed and staged.
#[derive(Debug, Default)]
pub struct Merge {
    snapshot: Snapshot,
    staged: HashMap<Scope, Staging, RandomState>,
    intake: Intake,
    /// Who says each route and policy: the first by part and origin is in force.
    claims: HashMap<(RegistryName, ResourceKey), BTreeMap<OriginKey, Resource>, RandomState>,
    conflicts: BTreeMap<(RegistryName, ResourceKey), Diagnostic>,
    changes: Changes,
}

/// What changed since it was last asked: the compiler's work list.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Services of which anything changed: ports, endpoints, routes; also those that came or went.
    pub services: HashSet<ServiceKey, RandomState>,
    /// Whether any policy changed.
    pub policies: bool,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && !self.policies
    }
}

/// What an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It waits for a commit.
    Staged,
    /// It was a commit that said nothing new.
    Confirmed,
    /// It was a commit that made something visible.
    Changed,
    /// It was the commit of a list that is older than what is held, and was passed over.
    Outdated,
}

/// One scope as it was kept over a restart.
#[derive(Debug)]
pub struct SavedScope {
    /// Which scope.
    pub scope: Scope,
    /// What its last full list was.
    pub completeness: Option<Completeness>,
    /// When the registry last said that this is so.
    pub committed_at: SystemTime,
    /// Everything it held.
    pub origins: Vec<Origin>,
}

impl Merge {
    /// Starts empty. `limits` are of a registry and of whatever comes through it; one that is missing there has none.
    #[must_use]
    pub fn new(limits: BTreeMap<RegistryName, Limits>) -> Self {
        Self { intake: Intake::new(limits), ..Self::default() }
    }

    /// Takes one event in. `now` is the time at which it came. A commit of what is older than
    /// [`PLAINTEXT_FROM_STATE`] is in force like [`Self::restore`]d state of that age.
    pub fn apply(&mut self, event: Event, now: SystemTime) -> Applied {
        match event {
            Event::Reset { scope } => {
                let held = self.snapshot.scopes.get(&scope).map_or(0, |state| state.origins.len());
                self.staged.entry(scope).or_default().reset(held);
            }
            Event::Replace { scope, origin, version, resources, faults } => {
                let resources = resources.into();
                let made_sense = !faults.iter().any(|fault| fault.keeps_last_good);
                let words =
                    Origin { name: origin, version, resources, faults, made_sense, unconfirmed_since: None };
                self.stage(scope, words);
            }
            Event::Ready { scope, completeness } => self.staged.entry(scope).or_default().ready(completeness),
            Event::Commit { scope, age, .. } => return self.commit(&scope, now, age),
        }
        Applied::Staged
    }

    /// Forgets what a scope said since its last commit: its registry's stream has ended.
    pub fn abandon(&mut self, scope: &Scope) {
        self.staged.remove(scope);
    }

    /// Forgets all that a scope ever said: its registry is followed no more.
    pub fn forget(&mut self, scope: &Scope) {
        self.abandon(scope);
        let Some(state) = self.snapshot.scopes.get(scope).cloned() else { return };
        let gone = state.origins.keys().map(|name| (name.clone(), None)).collect();
        self.install(scope, state, gone, false, None);
        self.snapshot.scopes.remove(scope);
        if self.snapshot.scopes.keys().all(|other| other.registry != scope.registry) {
            self.snapshot.partitions.remove(&scope.registry);
        }
    }

    /// A relay's full list of all that it speaks for lacks the scope altogether. Silence is not absence: its origins are
    /// unconfirmed first, and go with a list that lacks the scope still [`BELIEVED_AFTER`] later. Returns whether nothing
    /// of it is left.
    pub fn lack(&mut self, scope: &Scope, now: SystemTime) -> bool {
        let Some(state) = self.snapshot.scopes.get(scope).cloned() else { return true };
        let changes = absent(&state, Absence::of_scope(), |_| true, now);
        self.install(scope, state, changes, false, Some(now));
        if self.snapshot.scopes.get(scope).is_some_and(|state| !state.origins.is_empty()) {
            return false;
        }
        self.forget(scope);
        true
    }

    /// Replaces of what a registry may speak, from its next words on.
    pub fn set_limits(&mut self, registry: &RegistryName, limits: Limits) {
        self.intake.limits.insert(registry.clone(), limits);
        let known: Vec<_> = self.snapshot.partitions.keys().cloned().collect();
        for name in known {
            let Some(mut partition) = self.snapshot.partitions.get(&name).cloned() else { continue };
            if self.note_limits(&name, &mut partition) {
                self.snapshot.partitions.insert(name, partition);
                self.snapshot.generation += 1;
            }
        }
    }

    /// From here on, what is said of `registry` comes through `relay`, whose limits rule it; with none it speaks for
    /// itself.
    pub fn set_relay(&mut self, registry: &RegistryName, relay: Option<&RegistryName>) {
        match relay {
            Some(relay) => drop(self.intake.relays.insert(registry.clone(), relay.clone())),
            None => drop(self.intake.relays.remove(registry)),
        }
    }

    /// Puts in force what was kept over a restart. What is older than [`PLAINTEXT_FROM_STATE`] yields only endpoints
    /// that speak mutual TLS, until the registry confirms it.
    pub fn restore(&mut self, saved: SavedScope, now: SystemTime) {
        // A clock that was set back tells no age: the worst is taken.
        let is_young = |age: Duration| age <= PLAINTEXT_FROM_STATE;
        let state = ScopeState {
            completeness: saved.completeness,
            committed_at: Some(saved.committed_at),
            restored: true,
            stale: !now.duration_since(saved.committed_at).is_ok_and(is_young),
            ..ScopeState::default()
        };
        let mut changes = Vec::with_capacity(saved.origins.len());
        for mut origin in saved.origins {
            origin.resources =
                self.intake.restored(&saved.scope.registry, origin.resources, &mut origin.faults);
            changes.push((origin.name.clone(), Some(Arc::new(origin))));
        }
        // Which ports stay in TLS was kept with the state. The state itself says it no more: part of it is what was
        // made of the registry's words.
        let required_tls = self.intake.required_tls.clone();
        self.install(&saved.scope, state, changes, false, Some(now));
        self.intake.required_tls = required_tls;
    }

    /// Puts in force which ports stay in TLS, as kept over a restart. Comes before [`Merge::restore`].
    pub fn restore_required_tls(&mut self, ports: impl IntoIterator<Item = (ServiceKey, PortName)>) {
        self.intake.required_tls.extend(ports);
    }

    /// The ports that stay in TLS whatever their registry says.
    #[must_use]
    pub fn required_tls(&self) -> &RequiredTls {
        &self.intake.required_tls
    }

    /// Lets endpoints speak plaintext again at one port of a service, or at all, where its registry says so from now on:
    /// the operator's word. Returns whether any port was held to TLS.
    pub fn allow_plaintext(&mut self, service: &ServiceKey, port: Option<&PortName>) -> bool {
        let before = self.intake.required_tls.len();
        let is_meant =
            |held: &(ServiceKey, PortName)| held.0 == *service && port.is_none_or(|it| *it == held.1);
        let kept = self.intake.required_tls.iter().filter(|held| !is_meant(held)).cloned().collect();
        self.intake.required_tls = kept;
        self.intake.required_tls.len() < before
    }

    /// Drops the unconfirmed origins of a registry, or of all: the operator's word that they are gone; and what
    /// services that departed there kept of their names. Returns how many.
    pub fn drop_unconfirmed(&mut self, only: Option<&RegistryName>) -> usize {
        let mut dropped = self.free(|registry, _| only.is_none_or(|only| only == registry));
        let unconfirmed = self.snapshot.unconfirmed();
        let is_meant = |scope: &Scope| only.is_none_or(|registry| *registry == scope.registry);
        for (scope, origins) in unconfirmed.into_iter().filter(|(scope, _)| is_meant(scope)) {
            dropped += origins.len();
            let state = self.snapshot.scopes.get(&scope).cloned().unwrap_or_default();
            let changes = origins.into_iter().map(|(name, _)| (name, None)).collect();
            self.install(&scope, state, changes, false, None);
        }
        dropped
    }

    /// All that is committed.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Contradictions within registries.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.conflicts.values()
    }

    /// Checks and tidies at once what is not visible yet: a first list of a hundred thousand endpoints then never lies
    /// in memory untidied.
    fn stage(&mut self, scope: Scope, words: Origin) {
        let visible = self.snapshot.scopes.get(&scope).and_then(|state| state.origins.get(&words.name));
        let staging = self.staged.entry(scope.clone()).or_default();
        let old = staging.origin(&words.name).or(visible);
        let origin = self.intake.origin(&scope.registry, words, old);
        staging.replace(Arc::new(origin));
    }

    fn commit(&mut self, scope: &Scope, now: SystemTime, age: Duration) -> Applied {
        let staged = self.staged.get_mut(scope).map(Staging::take).unwrap_or_default();
        let mut state = self.snapshot.scopes.get(scope).cloned().unwrap_or_default();
        let said_at = now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        if staged.ended.is_some() && is_outdated(&state, said_at, now) {
            return Applied::Outdated;
        }
        // Of two that passed on the same the newer word counts, unless the clock was set back since.
        let known = state.committed_at.filter(|known| *known <= now);
        state.committed_at = Some(known.map_or(said_at, |known| known.max(said_at)));
        let mut changes = Vec::with_capacity(staged.replaced.len());
        for (name, origin) in staged.replaced {
            // Last good words that were kept are not confirmed by this: what is stale stays so.
            let is_kept = state.stale && origin.faults.iter().any(|fault| fault.keeps_last_good);
            let origin = match is_kept && state.origins.contains_key(&name) {
                true => Arc::new(unconfirmed(&origin, true, now)),
                false => origin,
            };
            changes.push((name, (!origin.is_empty()).then_some(origin)));
        }
        if let Some(ended) = staged.ended {
            state.completeness = Some(ended.completeness);
            let missing = |origin: &Origin| !ended.seen.contains(&origin.name);
            let count = state.origins.values().filter(|origin| missing(origin)).count();
            let absence = Absence::new(ended.completeness, ended.held, count);
            changes.extend(absent(&state, absence, missing, now));
        }
        // A part of a list confirms nothing about the rest of it. And a relay may pass on what is old: what holds for a
        // file of that age holds for it.
        let listing = self.staged.get(scope).is_some_and(Staging::is_listing);
        let stale = age > PLAINTEXT_FROM_STATE || (listing && state.stale);
        state.restored &= listing;
        let judged_anew = std::mem::replace(&mut state.stale, stale) != stale;
        if self.install(scope, state, changes, judged_anew, Some(now)) {
            Applied::Changed
        } else {
            Applied::Confirmed
        }
    }

    /// Replaces origins of a scope and brings everything derived from them up to date. `all` asks to derive every
    /// service of the scope anew. What goes `now` by its registry's word keeps its names for a while. Returns whether anything
    /// changed.
    fn install(
        &mut self,
        scope: &Scope,
        mut state: ScopeState,
        changes: Vec<(OriginName, Option<Arc<Origin>>)>,
        all: bool,
        now: Option<SystemTime>,
    ) -> bool {
        let mut touched = Touched::default();
        let mut any = false;
        if all {
            state.origins.values().for_each(|origin| touched.services_of(origin));
        }
        for (name, new) in changes {
            let old = match &new {
                Some(origin) => state.origins.insert(name.clone(), origin.clone()),
                None => state.origins.remove(&name),
            };
            if old == new {
                continue;
            }
            let new_ref = new.as_deref();
            mark(
                &mut state.unconfirmed,
                &name,
                new_ref.is_some_and(|origin| origin.unconfirmed_since.is_some()),
            );
            mark(&mut state.faulty, &name, new_ref.is_some_and(|origin| !origin.faults.is_empty()));
            touched.origin(scope, &name, old.as_deref(), new.as_deref());
            any = true;
        }
        self.snapshot.scopes.insert(scope.clone(), state);
        if !any && touched.is_empty() {
            return false;
        }
        self.snapshot.generation += 1;
        self.derive(&scope.registry, touched, now);
        true
    }
}

fn mark(set: &mut OrdSet<OriginName>, name: &OriginName, is_in: bool) {
    if is_in {
        set.insert(name.clone());
    } else {
        set.remove(name);
    }
}

/// What becomes of the origins that a full list lacks.
fn absent(
    state: &ScopeState,
    absence: Absence,
    missing: impl Fn(&Origin) -> bool,
    now: SystemTime,
) -> Vec<(OriginName, Option<Arc<Origin>>)> {
    let missing = state.origins.values().filter(|origin| missing(origin));
    let fates = missing.map(|origin| (origin, absence.fate(origin.unconfirmed_since, now)));
    fates
        .filter_map(|(origin, fate)| match fate {
            Fate::Goes => Some((origin.name.clone(), None)),
            Fate::Stays if !state.stale => None,
            Fate::Unconfirmed | Fate::Stays => {
                Some((origin.name.clone(), Some(Arc::new(unconfirmed(origin, state.stale, now)))))
            }
        })
        .collect()
}

/// The same origin with its endpoints ranked after those that are ready, and without those that prove nothing where its words are stale. Its
/// routes and policies stay as they are.
fn unconfirmed(origin: &Origin, stale: bool, now: SystemTime) -> Origin {
    let kept = origin.resources.iter().filter_map(|resource| match resource {
        Resource::Endpoint(endpoint) if stale && !endpoint.is_mutual() => None,
        Resource::Endpoint(endpoint) => {
            // Who was said to take no calls is not better for being out of sight.
            Some(Resource::Endpoint(match endpoint.health {
                Health::Healthy => {
                    Arc::new(Endpoint { health: Health::Unconfirmed, ..Endpoint::clone(endpoint) })
                }
                _ => endpoint.clone(),
            }))
        }
        other => Some(other.clone()),
    });
    let unconfirmed_since = origin.unconfirmed_since.or(Some(now));
    Origin { resources: kept.collect(), unconfirmed_since, ..origin.clone() }
}

#[cfg(test)]
mod tests;
