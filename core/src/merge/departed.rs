//! What is kept of a service whose last instance is gone.
//!
//! At a redeploy a service that is known by its instances alone is gone for moments. Were its names free then, whoever may
//! write to another registry could have them by waiting, without a word to anybody. So they stay its own for [`KEPT`]: calls
//! find no endpoint, or, where the service is joined, those endpoints of the others that prove who its own proved to be.
//!
//! One that is declared keeps its names by that. What its endpoints proved is kept for as long as it is declared: a service
//! that is scaled to nothing, or restarts its only instance, hands its part of a join to nobody else. Who takes a
//! declaration away gives up the names at once, and whoever is next has them; not so the measure of a join, which what is
//! deleted and created again would leave open for a moment to whoever waits in another registry.
//!
//! An instance that nobody can call is none here: it proves nothing.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use imbl::OrdMap;

use super::{
    Merge,
    snapshot::{Partition, ServiceEntry, Snapshot},
};
use crate::{
    identity::SpiffeId,
    name::{RegistryName, ServiceKey},
    resource::Service,
    table::SharedMap,
};

/// For how long the names of a service whose last instance is gone stay its own.
pub const KEPT: Duration = Duration::from_secs(600);

/// A service whose last instance is gone, or can be called no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// As it was declared last.
    pub service: Arc<Service>,
    /// Whom its endpoints proved to be.
    pub identities: BTreeSet<SpiffeId>,
    /// When it went.
    pub since: SystemTime,
    /// Whether its declaration was taken away: all that is kept is what its part in a join is measured by.
    pub is_withdrawn: bool,
}

impl Departed {
    /// Whether it is declared still: then it is kept for as long.
    fn is_declared(&self) -> bool {
        self.service.declared && !self.is_withdrawn
    }
}

impl Partition {
    /// Notes what is said of a service from here on. `now` is none where it goes by the operator's word.
    pub(super) fn note_departure(
        &mut self,
        key: &ServiceKey,
        was: Option<&ServiceEntry>,
        is: &ServiceEntry,
        now: Option<SystemTime>,
    ) {
        match now.filter(|_| !is.can_be_called()) {
            None if self.departed.is_empty() => {}
            None => drop(self.departed.remove(&key.service)),
            Some(since) => self.depart(key, was, is, since),
        }
    }

    fn depart(&mut self, key: &ServiceKey, was: Option<&ServiceEntry>, is: &ServiceEntry, since: SystemTime) {
        let left = was.filter(|was| was.can_be_called());
        let before = self.departed.get(&key.service);
        let identities = match (left, before) {
            (Some(was), _) => proved(was),
            (None, Some(before)) => before.identities.clone(),
            (None, None) => BTreeSet::new(),
        };
        let (service, is_withdrawn) = match &is.service {
            // What is declared and has never been called has nothing to keep. Who was called in plaintext proved nothing, and
            // nobody is joined with that either.
            Some(service) if service.declared && left.is_none() && before.is_none() => return,
            Some(service) if service.declared => (service, false),
            Some(_) if left.is_none() => return,
            _ => match was.and_then(|was| was.service.as_ref()) {
                None => return,
                Some(service) if service.declared && left.is_none() && before.is_none() => return,
                Some(service) => (service, service.declared),
            },
        };
        let departed = Departed { service: service.clone(), identities, since, is_withdrawn };
        self.departed.insert(key.service.clone(), Arc::new(departed));
    }
}

/// Whom the endpoints of a service prove to be.
fn proved(entry: &ServiceEntry) -> BTreeSet<SpiffeId> {
    let called = entry.endpoints.iter().filter(|endpoint| endpoint.can_be_called());
    let proved = called.filter(|endpoint| endpoint.is_mutual());
    proved.filter_map(|endpoint| endpoint.identity.clone()).collect()
}

impl Snapshot {
    /// The same while nobody may call what these registries have: as if the last instances of all their services had just
    /// gone, so that their names are nobody else's meanwhile, and what is joined with them is measured by them.
    pub(crate) fn holding_back(&self, registries: &[RegistryName]) -> Cow<'_, Self> {
        let mut held = Cow::Borrowed(self);
        for registry in registries {
            if let Some(partition) = self.partitions.get(registry) {
                held.to_mut().partitions.insert(registry.clone(), partition.held_back());
            }
        }
        held
    }
}

impl Partition {
    fn held_back(&self) -> Self {
        let (mut services, mut departed) = (SharedMap::default(), self.departed.clone());
        for (name, entry) in self.services.iter() {
            let Some(service) = &entry.service else { continue };
            if service.declared {
                let declared = ServiceEntry { service: Some(service.clone()), ..ServiceEntry::default() };
                services.insert(name.clone(), Arc::new(declared));
            }
            if entry.can_be_called() || !(service.declared || departed.contains_key(name)) {
                let (service, since) = (service.clone(), SystemTime::UNIX_EPOCH);
                let gone = Departed { service, identities: proved(entry), since, is_withdrawn: false };
                departed.insert(name.clone(), Arc::new(gone));
            }
        }
        Self { services, departed, routes: OrdMap::default(), ..self.clone() }
    }
}

impl Merge {
    /// Puts in force which services keep their names, as kept over a restart. Comes after [`Merge::restore`].
    pub fn restore_departed(&mut self, services: impl IntoIterator<Item = (ServiceKey, Departed)>) {
        for (key, departed) in services {
            let partition = self.snapshot.partitions.entry(key.registry.clone()).or_default();
            let entry = partition.services.get(&key.service);
            let is_back = entry.is_some_and(|entry| entry.can_be_called());
            let is_declared = || entry.and_then(|it| it.service.as_ref()).is_some_and(|it| it.declared);
            let is_over = is_back || (departed.is_declared() && !is_declared());
            if !is_over && self.intake.may_own(&key.registry, &key.service) {
                partition.departed.insert(key.service.clone(), Arc::new(departed));
                self.changes.services.insert(key);
            }
        }
    }

    /// Frees the names of services that have been gone for [`KEPT`]. Returns whether there were any.
    pub fn free_names(&mut self, now: SystemTime) -> bool {
        // A clock that was set back keeps them no longer than it was set back by.
        let is_over = |departed: &Departed| {
            !departed.is_declared() && now.duration_since(departed.since).is_ok_and(|age| age >= KEPT)
        };
        self.free(|_, departed| is_over(departed)) > 0
    }

    /// Frees what services of a registry that departed kept of their names, where nothing declares them any more: it is
    /// followed in another way.
    pub fn free_names_of(&mut self, registry: &RegistryName) {
        self.free(|of, departed| of == registry && !departed.is_declared());
    }

    /// Frees the names of departed services that are meant. Returns of how many.
    pub(super) fn free(&mut self, is_meant: impl Fn(&RegistryName, &Departed) -> bool) -> usize {
        let departed = self.snapshot.partitions.iter().flat_map(|(registry, partition)| {
            let meant = partition.departed.iter().filter(|(_, departed)| is_meant(registry, departed));
            meant.map(|(name, _)| ServiceKey { registry: registry.clone(), service: name.clone() })
        });
        let over: Vec<_> = departed.collect();
        for key in &over {
            if let Some(partition) = self.snapshot.partitions.get_mut(&key.registry) {
                partition.departed.remove(&key.service);
            }
        }
        let count = over.len();
        self.snapshot.generation += u64::from(count > 0);
        self.changes.services.extend(over);
        count
    }
}
