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

use super::{Merge, snapshot::Partition};
use crate::{
    identity::SpiffeId,
    name::{RegistryName, ServiceKey},
    resource::{Endpoint, Service},
};

/// For how long the names of a service whose last instance is gone stay its own.
pub const KEPT: Duration = Duration::from_secs(600);

/// A service whose last instance is gone.
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
    /// Notes how a service is declared from here on. `now` is none where it went by the operator's word.
    pub(super) fn note_departure(
        &mut self,
        key: &ServiceKey,
        (was, endpoints): (Option<&Arc<Service>>, &[Arc<Endpoint>]),
        is: Option<&Arc<Service>>,
        now: Option<SystemTime>,
    ) {
        match (was, is, now) {
            (_, Some(_), _) | (_, None, None) if self.departed.is_empty() => {}
            (_, Some(_), _) | (_, None, None) => drop(self.departed.remove(&key.service)),
            (Some(was), None, Some(since)) if was.implied => {
                let proved = endpoints.iter().filter(|endpoint| endpoint.is_mutual());
                let identities = proved.filter_map(|endpoint| endpoint.identity.clone()).collect();
                let departed = Departed { service: was.clone(), identities, since };
                self.departed.insert(key.service.clone(), Arc::new(departed));
            }
            (_, None, Some(_)) => {}
        }
    }
}

impl Merge {
    /// Frees the names of services that have been gone for [`KEPT`]. Returns whether there were any.
    pub fn free_names(&mut self, now: SystemTime) -> bool {
        // A clock that was set back keeps them no longer than it was set back by.
        let is_over = |departed: &Departed| now.duration_since(departed.since).is_ok_and(|age| age >= KEPT);
        self.free(|_, departed| is_over(departed))
    }

    /// Frees the names of departed services that are meant.
    pub(super) fn free(&mut self, is_meant: impl Fn(&RegistryName, &Departed) -> bool) -> bool {
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
        let any = !over.is_empty();
        self.changes.services.extend(over);
        any
    }
}
