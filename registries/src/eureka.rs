//! Netflix's Eureka: applications that register themselves, in memory, under leases that they renew.
//!
//! Followed as Eureka's own clients follow it: a whole list, then the changes of the last minutes again and again, held
//! against the count of statuses that the server sends along. Its servers copy from each other without consensus, so
//! another one may lack what the one before had; and they keep nothing over a restart. So that a list lacks an instance
//! says something only of a server that remembers (the `catalog` module).
//!
//! ```text
//!   watch (+ pace: when to ask) ──> client ──> list ──> objects ──> catalog (+ convert) ──> told ──> events
//! ```

mod objects;
mod list;
mod convert;
mod catalog;
mod settings;
mod client;
mod pace;
mod watch;
mod register;
pub mod api;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{FutureExt, StreamExt};
use weft_core::{
    name::RegistryName,
    registry::{
        Capabilities, Event, Lease, LocalInstance, RegisterError, Registry, RegistryError, Resume, Right,
        Scope,
    },
};

pub use settings::{EurekaSettings, read};

use crate::{announcing::keep, told::Listing};

/// The registry.
#[derive(Clone, Debug)]
pub struct EurekaRegistry {
    name: RegistryName,
    settings: Arc<EurekaSettings>,
    known: watch::Known,
}

impl EurekaRegistry {
    /// Opens nothing yet: [`Registry::watch`] does.
    #[must_use]
    pub fn new(name: RegistryName, settings: EurekaSettings) -> Self {
        Self { name, settings: Arc::new(settings), known: watch::Known::default() }
    }
}

/// What a server's list becomes, as a registry without rules takes it: what is fuzzed.
///
/// # Errors
/// When it is no list at all.
pub fn listing(document: &[u8]) -> Result<Listing, serde_json::Error> {
    let context = convert::Context::default();
    catalog::Whole::take(&context, 0, |each| client::instances(document, each)).map(|whole| whole.listing)
}

impl Registry for EurekaRegistry {
    fn name(&self) -> &RegistryName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { health: true, register: true, ..Capabilities::default() }
    }

    /// Always begins with a whole list: Eureka tells the changes of the last three minutes and no point to go on from.
    fn watch(&self, scope: Scope, _: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        watch::follow(self.settings.clone(), scope, self.known.clone()).boxed()
    }

    /// Eureka knows one right: whoever may ask may read and register all.
    fn rights(&self) -> BoxFuture<'_, Result<Vec<Right>, RegistryError>> {
        let settings = self.settings.clone();
        async move {
            let given = match client::Client::new(&settings, 0)?.all().await {
                Ok(_) => true,
                Err(RegistryError::Denied(_)) => false,
                Err(error) => return Err(error),
            };
            let needed_for = "every service of the registry".into();
            Ok(vec![Right { name: "GET /apps".into(), given: Some(given), needed_for, optional: false }])
        }
        .boxed()
    }

    /// Must be called within a runtime.
    fn register(&self, instance: Arc<LocalInstance>) -> Result<Lease, RegisterError> {
        register::check(&instance)?;
        let (lease, keeper) = Lease::new(instance);
        tokio::spawn(keep(keeper, register::EurekaPlace::new(self.settings.clone())));
        Ok(lease)
    }
}
