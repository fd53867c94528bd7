//! Consul: its catalog and the health of what is in it.
//!
//! ```text
//!   lists (four questions that wait) ──> known (what may have changed) ──> watch (reads it) ──> convert ──> told
//!                                                    rights (is it gone, or hidden?) ──┘
//! ```
//!
//! # Which questions
//!
//! A question per service would be exact, but each holds a connection while it waits, and Consul gives one client address
//! 200 of them. So four lists are waited for: services, nodes, checks that warn and checks that fail. What these show
//! (a service that is new or gone, its tags, a check that fails) names the services to read again. A write that they do
//! not show (an address, meta, a second instance) moves their indexes; then every node is asked for its index alone, with
//! a filter that leaves nothing of the answer, and what runs on a node that moved is compared. Where there are fewer
//! services than nodes, services are asked instead.
//!
//! Measured on Consul 1.22.5, 1 000 services of 10 instances on 100 nodes, one client with 8 connections, two cores:
//!
//! | question | time | of the server's CPU | bytes |
//! |---|---|---|---|
//! | a list of services, of nodes, of checks that fail | 13, 1, 2 ms | 10, 1, 1 ms | 32, 16, 0 KB |
//! | every node's index (100 questions) | 25 ms | 20 ms | 40 KB |
//! | every service's index (1 000 questions) | 280 ms | 200 ms | 400 KB |
//! | every service (1 000 questions): the first list | 410 ms | 330 ms | 7.5 MB |
//! | `health/state/any`: moves with the output of every check that passes | 47 ms | 50 ms | 2.7 MB |
//! | `internal/ui/nodes`, which has it all, and promises nothing | 115 ms | 110 ms | 5.6 MB |
//!
//! Four questions wait and up to eight are asked beside them: 18 connections were open at most. Through a thousand services
//! so found, a change was told 58 ms after it was written, the slowest of 40 after 154 ms (a debug build, beside others).
//! Rounds take at most half of the time in the long run, so that a busy server is not kept busy by those who follow it.
//!
//! Of a peer's services no list tells (asked about a peer, Consul answers with its own). What it exports is asked for every
//! five seconds, and each of its services is waited for, up to a hundred of them.
//!
//! # What is believed
//!
//! * Answers of Consul's streaming backend say 200 for a minute after the last leader died. None of these questions is
//!   answered by it, and whether there is a leader is asked beside them; without one the watch ends with an error.
//! * A token that may not see something gets shorter lists with status 200. Before anything is taken away that seems
//!   gone, Consul is asked whether our token may see it; if not, it is told as a list that hides something.
//! * An index that goes back (a restored snapshot) has everything read again.

mod settings;
pub mod objects;
mod access;
mod client;
mod rights;
pub mod known;
pub mod convert;
pub mod entries;
pub mod expression;
pub mod chain;
pub mod bearers;
pub mod intentions;
pub mod configuration;
mod configured;
mod replay;
mod lists;
mod waiters;
mod watch;
mod register;

use std::sync::Arc;

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::StreamExt;
use weft_core::{
    name::RegistryName,
    registry::{
        Capabilities, Event, Lease, LocalInstance, RegisterError, Registry, RegistryError, Resume, Right,
        Scope,
    },
};

pub use replay::replay;
pub use settings::{ConsulSettings, LoginSettings, read};

use access::Access;
use client::Client;
use configured::Understood;
use convert::Surroundings;

use crate::{announcing::keep, plan::Environment};

/// The registry.
pub struct ConsulRegistry {
    name: RegistryName,
    settings: Arc<ConsulSettings>,
    around: Arc<Surroundings>,
    access: Arc<Access>,
    understood: Understood,
}

impl ConsulRegistry {
    /// Opens nothing yet: [`Registry::watch`] does.
    #[must_use]
    pub fn new(name: RegistryName, settings: Arc<ConsulSettings>, environment: &Environment) -> Self {
        let around = Surroundings {
            rules: settings.rules.clone(),
            trust_domain: environment.trust_domain.clone(),
            may_name: environment.may_name.clone(),
            domain: settings.domain.clone(),
            datacenter: settings.datacenter.clone(),
            peer: settings.peer.clone(),
        };
        let access = Access::new(settings.credential.clone(), settings.login.clone());
        let (around, access) = (Arc::new(around), Arc::new(access));
        Self { name, settings, around, access, understood: Understood::default() }
    }
}

impl Registry for ConsulRegistry {
    fn name(&self) -> &RegistryName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            health: true,
            configuration: self.settings.configuration,
            register: true,
            ..Capabilities::default()
        }
    }

    /// Always begins with a full list: Consul's indexes tell that something changed, not what.
    fn watch(&self, scope: Scope, _: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        let (around, access) = (self.around.clone(), self.access.clone());
        watch::follow(self.settings.clone(), around, access, self.understood.clone(), scope).boxed()
    }

    /// Announces it through the agent that is asked. Must be called within a runtime.
    fn register(&self, instance: Arc<LocalInstance>) -> Result<Lease, RegisterError> {
        register::check(&instance, &self.settings)?;
        let client = Client::new(&self.settings, self.access.clone());
        let client = client.map_err(|error| RegisterError::Unfit(error.to_string()))?;
        let (lease, keeper) = Lease::new(instance);
        tokio::spawn(keep(keeper, register::ConsulPlace(client)));
        Ok(lease)
    }

    fn rights(&self) -> BoxFuture<'_, Result<Vec<Right>, RegistryError>> {
        Box::pin(async move {
            let client = Client::new(&self.settings, self.access.clone())?;
            rights::rights(&client, self.settings.configuration).await
        })
    }
}

#[cfg(test)]
mod tests;
