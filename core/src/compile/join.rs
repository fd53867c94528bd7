//! Which services of different registries are one.

use serde::{Deserialize, Serialize};

use crate::name::{RegistryName, ServiceKey, ServiceName};

/// A declaration that services of the same name in several registries are one. They need equal identities, proved by
/// mutual TLS: what only one of them names would let that registry add endpoints to another's service. The measure is
/// the most authoritative registry that has endpoints at the time: while it has none, the next one serves the name alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The registries, most authoritative first: it names the service, its ports and its routes. At least two.
    pub registries: Vec<RegistryName>,
    /// The services; none at all means every name that they share.
    pub services: Vec<ServiceName>,
}

impl Join {
    fn covers(&self, key: &ServiceKey) -> bool {
        self.registries.contains(&key.registry)
            && (self.services.is_empty() || self.services.contains(&key.service))
    }
}

/// The keys that are one with `key`, itself included, most authoritative first. The first one stands for all.
pub(super) fn members(joins: &[Join], key: &ServiceKey) -> Vec<ServiceKey> {
    match joins.iter().find(|join| join.covers(key)) {
        None => vec![key.clone()],
        Some(join) => {
            let registries = join.registries.iter();
            registries.map(|r| ServiceKey { registry: r.clone(), service: key.service.clone() }).collect()
        }
    }
}

/// The key that stands for `key`.
pub(super) fn canonical(joins: &[Join], key: &ServiceKey) -> ServiceKey {
    let join = joins.iter().find(|join| join.covers(key));
    let registry = join.and_then(|join| join.registries.first()).unwrap_or(&key.registry);
    ServiceKey { registry: registry.clone(), service: key.service.clone() }
}
