//! Names of the domain name system as services: whatever has a name and no registry.
//!
//! ```text
//!   watch ──> questions (which is due) ──> resolver (who is asked) ──> reading ──> answers (what stands)
//!         ──> convert ──> told ──> events
//! ```
//!
//! A question is a name and a type of record; each has its own life. What was answered holds until its time to live has
//! passed, and then until there is another answer: a server that fails, refuses or says nothing takes nothing away, nor
//! does a denial without the record of who may deny (SOA). Only the zone itself can say that a name is gone. DNS knows
//! no health: the proxy finds out. What no server has confirmed for an hour is called only when nothing else can be.

mod settings;
mod answers;
mod convert;
mod reading;
mod resolver;
mod questions;
mod watch;
mod replay;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use weft_core::{
    name::{OriginName, RegistryName},
    registry::{Capabilities, Event, Registry, RegistryError, Resume, Scope},
};

pub use replay::replay;
pub use settings::{DnsSettings, Followed, Mode, Source, read};

/// The registry.
#[derive(Clone, Debug)]
pub struct DnsRegistry {
    name: RegistryName,
    settings: DnsSettings,
    memory: watch::Memory,
}

impl DnsRegistry {
    /// Asks nobody yet: [`Registry::watch`] does.
    #[must_use]
    pub fn new(name: RegistryName, settings: DnsSettings) -> Self {
        Self { name, settings, memory: watch::Memory::default() }
    }
}

impl Registry for DnsRegistry {
    fn name(&self) -> &RegistryName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn asks_for(&self, origin: &OriginName) -> bool {
        let is_name = |followed: &Followed| convert::origin(followed) == *origin;
        *origin == watch::notices() || self.settings.followed.iter().any(is_name)
    }

    /// Always begins with a full list: a name's whole answer is one packet.
    fn watch(&self, scope: Scope, _: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        watch::follow(self.settings.clone(), scope, self.memory.clone()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_core::locality::Locality;

    use super::*;

    #[test]
    fn a_name_that_the_configuration_lacks_is_asked_for_no_more() {
        let followed = |service: &str| Followed {
            service: service.parse().unwrap(),
            source: Source::Host("db.example".into(), 5432),
            mode: Mode::Strict,
            locality: Locality::default(),
        };
        let (kept, removed) = (followed("db.default"), followed("old.default"));
        let settings = DnsSettings {
            resolvers: Vec::new(),
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(300),
            followed: vec![kept.clone()],
            rules: crate::speaking::Rules::default(),
            trust_domain: None,
        };
        let registry = DnsRegistry::new(RegistryName::new("dns").unwrap(), settings);
        assert!(registry.asks_for(&convert::origin(&kept)) && registry.asks_for(&watch::notices()));
        assert!(!registry.asks_for(&convert::origin(&removed)));
    }
}
