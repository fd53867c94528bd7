//! Nomad's own services, by its HTTP API.
//!
//! ```text
//!   events (something changed) ─┐
//!   polls (checks of instances) ├─> watch (what to read) ──> client ──> catalog ──> convert ──> told ──> events
//!   time (still true?)  ────────┘
//! ```
//!
//! The event stream is the wake-up and the lists are the truth: an event names what is to be read again and is never
//! applied. Where the stream is lost, silent or unreadable, lists tell the same a little later; so nothing depends on it.
//! The catalog has addresses and tags, and neither metadata nor health: tags `key=value` are metadata here, the meta of
//! the node says where its agent takes mesh traffic, and `health` says what makes an instance healthy. One index counts all
//! changes of services, so that one small answer proves that nothing has changed.

pub(crate) mod objects;
mod compact;
mod settings;
mod client;
mod health;
mod convert;
mod catalog;
mod events;
mod link;
mod polls;
mod access;
mod variables;
mod watch;
mod rights;
mod replay;

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::StreamExt;
use weft_core::{
    name::RegistryName,
    registry::{Capabilities, Event, Registry, RegistryError, Resume, Right, Scope},
};

pub use replay::replay;
pub use settings::{Namespaces, NomadSettings, Variables, read};

/// The registry.
#[derive(Clone, Debug)]
pub struct NomadRegistry {
    name: RegistryName,
    settings: NomadSettings,
    memory: watch::Memory,
}

impl NomadRegistry {
    /// Connects to nothing yet: [`Registry::watch`] does.
    #[must_use]
    pub fn new(name: RegistryName, settings: NomadSettings) -> Self {
        Self { name, settings, memory: watch::Memory::default() }
    }
}

impl Registry for NomadRegistry {
    fn name(&self) -> &RegistryName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            health: true,
            configuration: self.settings.variables.is_some(),
            ..Capabilities::default()
        }
    }

    /// Always begins with a full list: events that Nomad no longer holds could not be asked for.
    fn watch(&self, scope: Scope, _: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        watch::follow(self.settings.clone(), scope, self.memory.clone()).boxed()
    }

    fn rights(&self) -> BoxFuture<'_, Result<Vec<Right>, RegistryError>> {
        Box::pin(rights::ask(&self.settings))
    }
}
