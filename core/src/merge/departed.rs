//! What is kept of a service whose last instance is gone, where its instances are all that it was known by.
//!
//! At a redeploy such a service is gone for moments. Were its names free then, whoever may write to another registry could
//! have them by waiting, without a word to anybody. So they stay its own for [`KEPT`]: calls find no endpoint, or, where
//! the service is joined, those endpoints of the others that prove who its own proved to be.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Merge,
    snapshot::{Partition, ServiceEntry},
};
use crate::{
    identity::SpiffeId,
    name::{RegistryName, ServiceKey},
    resource::Service,
};

/// For how long the names of a service whose last instance is gone stay its own.
pub const KEPT: Duration = Duration::from_secs(600);

/// A service whose last instance is gone, whether or not it is still declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// As it was declared last.
    pub service: Arc<Service>,
    /// Whom its endpoints proved to be.
    pub identities: BTreeSet<SpiffeId>,
    /// When it went.
    pub since: SystemTime,
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
        let lives = !is.endpoints.is_empty() || is.service.as_ref().is_some_and(|service| service.declared);
        let Some(since) = now.filter(|_| !lives) else {
            if !self.departed.is_empty() {
                self.departed.remove(&key.service);
            }
            return;
        };
        let Some(was) = was.filter(|was| !was.endpoints.is_empty() || is.service.is_none()) else { return };
        let Some(service) = was.service.as_ref().filter(|service| !service.declared) else { return };
        // What is declared without endpoints proves nothing new.
        let before = self.departed.get(&key.service).filter(|_| was.endpoints.is_empty());
        let proved = was.endpoints.iter().filter(|endpoint| endpoint.is_mutual());
        let identities = match before {
            Some(departed) => departed.identities.clone(),
            None => proved.filter_map(|endpoint| endpoint.identity.clone()).collect(),
        };
        let departed = Departed { service: service.clone(), identities, since };
        self.departed.insert(key.service.clone(), Arc::new(departed));
    }
}

impl Merge {
    /// Puts in force which services keep their names, as kept over a restart. Comes after [`Merge::restore`].
    pub fn restore_departed(&mut self, services: impl IntoIterator<Item = (ServiceKey, Departed)>) {
        for (key, departed) in services {
            let partition = self.snapshot.partitions.entry(key.registry.clone()).or_default();
            let is_back =
                partition.services.get(&key.service).is_some_and(|entry| !entry.endpoints.is_empty());
            if !is_back && self.intake.may_own(&key.registry, &key.service) {
                partition.departed.insert(key.service.clone(), Arc::new(departed));
                self.changes.services.insert(key);
            }
        }
    }

    /// Frees the names of services that have been gone for [`KEPT`]. Returns whether there were any.
    pub fn free_names(&mut self, now: SystemTime) -> bool {
        // A clock that was set back keeps them no longer than it was set back by.
        let is_over = |departed: &Departed| now.duration_since(departed.since).is_ok_and(|age| age >= KEPT);
        self.free(|_, departed| is_over(departed)) > 0
    }

    /// Frees what services of a registry that departed kept of their names: the operator's word.
    pub fn free_names_of(&mut self, registry: &RegistryName) {
        self.free(|of, _| of == registry);
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
