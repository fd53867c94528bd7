//! What all registries say, at one moment: immutable, and cheap to copy because copies share what is equal.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use imbl::{OrdMap, OrdSet, Vector};

use super::Departed;
use crate::{
    name::{OriginName, RegistryName, RuleName, ServiceKey, ServiceName, ServicePattern},
    registry::{Completeness, OriginFault, Scope, Version},
    resource::{Endpoint, Policy, Resource, ResourceKey, Route, Service},
    table::SharedMap,
};

/// All that was committed, of all registries.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts commits that changed something.
    pub generation: u64,
    /// What each scope holds, origin by origin: what a relay passes on.
    pub scopes: OrdMap<Scope, ScopeState>,
    /// The same by resource: what the compiler reads. One partition per registry; no registry adds to another's.
    pub partitions: OrdMap<RegistryName, Partition>,
    pub(super) journal: Journal,
}

/// One scope of a registry.
#[derive(Clone, Debug, Default)]
pub struct ScopeState {
    /// What each origin says.
    pub origins: SharedMap<OriginName, Arc<Origin>>,
    /// What the last full list was; none before the first one ended.
    pub completeness: Option<Completeness>,
    /// When the registry last said that this is so; none before the first commit.
    pub committed_at: Option<SystemTime>,
    /// Restored from a file more than an hour old and not confirmed since: only endpoints that speak mutual TLS are in
    /// force (an address may be someone else's by now; an identity may not).
    pub stale: bool,
    /// Kept over a restart and not confirmed since: it may be older than what was passed on before.
    pub restored: bool,
    /// Origins that are unconfirmed.
    pub unconfirmed: OrdSet<OriginName>,
    /// Origins with faults.
    pub faulty: OrdSet<OriginName>,
}

/// What one origin says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its name within its scope.
    pub name: OriginName,
    /// Its version. Only equality means anything.
    pub version: Version,
    /// What it says, one resource per key, services with their endpoints first. Last good words where a fault keeps them.
    pub resources: Box<[Resource]>,
    /// What could not be taken over.
    pub faults: Vec<OriginFault>,
    /// Whether it ever made sense as a whole, so that what it says, or said then, is what a fault keeps. What stands for words
    /// that never did, such as a denial, gives way to whatever stands for the next.
    pub made_sense: bool,
    /// Since when it is missing from lists that may have hidden it; its endpoints are ranked after those that are ready.
    pub unconfirmed_since: Option<SystemTime>,
}

/// One registry's resources.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    /// Everything about each service, whichever origins say it.
    pub services: SharedMap<ServiceName, Arc<ServiceEntry>>,
    /// Services whose last instance is gone, and whose names stay their own for a while.
    pub departed: OrdMap<ServiceName, Arc<Departed>>,
    /// Routes by name.
    pub routes: OrdMap<RuleName, Arc<Route>>,
    /// Policies by name.
    pub policies: OrdMap<RuleName, Arc<Policy>>,
    /// Of which services it may speak as its own; none means of any.
    pub may_own: Option<Arc<[ServicePattern]>>,
}

/// Everything a registry says about one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The service; none when there are only endpoints or routes for it.
    pub service: Option<Arc<Service>>,
    /// Its endpoints, by port and instance.
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// Whether endpoints are left out because they prove nothing and what is known of them is old.
    pub filtered: bool,
    /// Its routes, by name.
    pub routes: Box<[Arc<Route>]>,
    /// Which origins speak of the service or its endpoints, in order.
    pub origins: Box<[OriginKey]>,
}

impl ServiceEntry {
    /// Whether any of its endpoints may be called.
    #[must_use]
    pub fn can_be_called(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.can_be_called())
    }
}

/// An origin within its registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginKey {
    /// The scope's part.
    pub part: Arc<str>,
    /// The origin.
    pub name: OriginName,
}

impl Snapshot {
    /// Everything about one service.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<ServiceEntry>> {
        self.partitions.get(&key.registry)?.services.get(&key.service)
    }

    /// What is kept of a service whose last instance is gone.
    #[must_use]
    pub fn departed(&self, key: &ServiceKey) -> Option<&Arc<Departed>> {
        self.partitions.get(&key.registry)?.departed.get(&key.service)
    }

    /// Which services, routes and policies changed after `generation`, by registry and each once, deletions included
    /// (they are missing from their partition); none when that is too long ago to be known, and everything must be
    /// compared.
    #[must_use]
    pub fn changes_since(&self, generation: u64) -> Option<BTreeSet<(RegistryName, ResourceKey)>> {
        self.journal.since(generation, self.generation)
    }

    /// Since when some of what a registry says of a service is missing from lists that may have hidden it, at least.
    #[must_use]
    pub fn unconfirmed_since(&self, registry: &RegistryName, entry: &ServiceEntry) -> Option<SystemTime> {
        let since = entry.origins.iter().filter_map(|key| {
            let scope = Scope { registry: registry.clone(), part: key.part.clone() };
            self.scopes.get(&scope)?.origins.get(&key.name)?.unconfirmed_since
        });
        since.max()
    }

    /// Every unconfirmed origin with the time since when it is so, by scope.
    #[must_use]
    pub fn unconfirmed(&self) -> BTreeMap<Scope, Vec<(OriginName, SystemTime)>> {
        let mut found = BTreeMap::<Scope, Vec<_>>::new();
        for (scope, state) in self.scopes.iter().filter(|(_, state)| !state.unconfirmed.is_empty()) {
            let origins = state.unconfirmed.iter().filter_map(|name| state.origins.get(name));
            let list = origins.filter_map(|origin| Some((origin.name.clone(), origin.unconfirmed_since?)));
            found.insert(scope.clone(), list.collect());
        }
        found
    }
}

impl Origin {
    /// Whether nothing would be lost without it.
    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.faults.is_empty()
    }
}

/// The last changes, so that a relay compares just what changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    /// Oldest first; the number is the generation that the change led to.
    changes: Vector<(u64, RegistryName, ResourceKey)>,
    /// Changes up to and with this generation may be missing.
    complete_after: u64,
}

/// How many changes the journal keeps: whoever missed more compares everything.
const JOURNAL_LENGTH: usize = 4096;

impl Journal {
    pub(super) fn note(&mut self, generation: u64, registry: &RegistryName, key: ResourceKey) {
        self.changes.push_back((generation, registry.clone(), key));
        if self.changes.len() > JOURNAL_LENGTH
            && let Some((dropped, ..)) = self.changes.pop_front()
        {
            self.complete_after = dropped;
        }
    }

    fn since(&self, generation: u64, now: u64) -> Option<BTreeSet<(RegistryName, ResourceKey)>> {
        if generation < self.complete_after || generation > now {
            return None;
        }
        let newer = self.changes.iter().rev().take_while(|(at, ..)| *at > generation);
        Some(newer.map(|(_, registry, key)| (registry.clone(), key.clone())).collect())
    }
}
