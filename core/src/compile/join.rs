//! Which services of different registries are one.

use std::{collections::HashSet, sync::Arc};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::{
    identity::SpiffeId,
    merge::Departed,
    name::{RegistryName, ServiceKey, ServiceName},
    resource::{Endpoint, TlsMode},
};

/// A declaration that services of the same name in several registries are one. They need equal identities, proved by
/// mutual TLS: what only one of them names would let that registry add endpoints to another's service. The measure is
/// the most authoritative registry that has endpoints that can be called, or had some: for as long as it declares the service,
/// and for a short while otherwise. Then the next one serves the name alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The registries, most authoritative first: it names the service, its ports and its routes. At least two.
    pub registries: Vec<RegistryName>,
    /// The services; none at all means every name that they share.
    pub services: Vec<ServiceName>,
    /// Whose endpoints callers prefer.
    pub prefer: Prefer,
}

/// Which endpoints of a joined service get the requests while they can take them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// All alike.
    #[default]
    Any,
    /// Those of the first of these registries; of the next one when none of them can; and those of registries that are
    /// missing here last.
    Registries(Vec<RegistryName>),
    /// Those nearest to the caller.
    Nearest,
}

impl Prefer {
    /// How many others come before this registry's endpoints.
    pub(super) fn position(&self, registry: &RegistryName) -> u8 {
        let Self::Registries(order) = self else { return 0 };
        let position = order.iter().position(|known| known == registry).unwrap_or(order.len());
        u8::try_from(position).unwrap_or(u8::MAX)
    }
}

impl Join {
    /// Whether the service that this registry has under this name is part of it.
    #[must_use]
    pub fn covers(&self, registry: &RegistryName, service: &ServiceName) -> bool {
        self.registries.contains(registry) && (self.services.is_empty() || self.services.contains(service))
    }
}

/// How many identities are named to people.
const DESCRIBED: usize = 3;

/// The identities that a registry's endpoints prove: whoever answers there must have a certificate for one. An identity in
/// plaintext is a mere text.
#[derive(Debug)]
pub struct Proved<'a>(HashSet<&'a SpiffeId, RandomState>);

impl<'a> Proved<'a> {
    /// The measure of a joined service, of what its registries say of it, most authoritative first: the first one that has
    /// endpoints that can be called, or had and keeps ([`Departed`]), with what these prove.
    pub fn measure<'r>(
        mut said: impl Iterator<Item = (&'r RegistryName, &'a [Arc<Endpoint>], Option<&'a Departed>)>,
    ) -> Option<(&'r RegistryName, Self)> {
        said.find_map(|(registry, endpoints, departed)| match departed {
            Some(departed) => Some((registry, Self(departed.identities.iter().collect()))),
            None if endpoints.iter().any(|endpoint| endpoint.can_be_called()) => {
                Some((registry, Self::by(endpoints)))
            }
            None => None,
        })
    }

    /// By these endpoints: by those of them that can be called.
    fn by(endpoints: &'a [Arc<Endpoint>]) -> Self {
        let called = endpoints.iter().filter(|endpoint| endpoint.can_be_called());
        Self(called.filter_map(|endpoint| proved(endpoint)).collect())
    }

    /// The identities, for people: some of them where there are many.
    pub(super) fn describe(&self) -> String {
        let mut known: Vec<&str> = self.0.iter().map(|identity| identity.as_str()).collect();
        known.sort_unstable();
        let more = known.len().saturating_sub(DESCRIBED);
        known.truncate(DESCRIBED);
        match (known.is_empty(), more) {
            (true, _) => "nothing".to_owned(),
            (false, 0) => known.join(" and "),
            (false, _) => format!("{} and {more} more", known.join(", ")),
        }
    }

    /// Whether an endpoint proves one of the identities.
    #[must_use]
    pub fn admits(&self, endpoint: &Endpoint) -> bool {
        proved(endpoint).is_some_and(|identity| self.0.contains(identity))
    }
}

fn proved(endpoint: &Endpoint) -> Option<&SpiffeId> {
    endpoint.identity.as_ref().filter(|_| endpoint.tls == TlsMode::Required)
}

/// The join that a service is part of, if any.
pub(super) fn of<'j>(joins: &'j [Join], key: &ServiceKey) -> Option<&'j Join> {
    joins.iter().find(|join| join.covers(&key.registry, &key.service))
}

/// The keys that are one with `key`, itself included, most authoritative first. The first one stands for all.
pub(super) fn members(joins: &[Join], key: &ServiceKey) -> Vec<ServiceKey> {
    match of(joins, key) {
        None => vec![key.clone()],
        Some(join) => {
            let registries = join.registries.iter();
            registries.map(|r| ServiceKey { registry: r.clone(), service: key.service.clone() }).collect()
        }
    }
}

/// The key that stands for `key`.
pub(super) fn canonical(joins: &[Join], key: &ServiceKey) -> ServiceKey {
    let registry = of(joins, key).and_then(|join| join.registries.first()).unwrap_or(&key.registry);
    ServiceKey { registry: registry.clone(), service: key.service.clone() }
}
