//! Consul: its catalog and the health of what is in it.
//!
//! ```text
//!   lists (four questions that wait) ──> known (what may have changed) ──> follower (reads it) ──> convert ──> told
//!                                               hiding, rights (is it gone, or hidden?) ──┘
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
//!   gone, it is asked for by its name, as a list that was waited for has the rights of when the waiting began; then whether
//!   our token may see it. If not, it is told as a list that hides something, with the right that is lacking.
//! * An index that goes back (a restored snapshot), or nodes of which none is the one that it was (lost data), has everything read again, and
//!   doubts it: for some minutes, what is missing may be what Consul's agents are about to tell again. So it does where an
//!   index is lower than an agent that starts from its disk knows of.
//! * After an outage the lists are read again, and of the rest what moved: indexes are compared, as one that
//!   was given once is not given again in one catalog, and a lower one shows that the catalog went back. That it is the same catalog its nodes show: where one is gone or was
//!   made anew meanwhile, everything is read.

mod settings;
pub mod objects;
mod absence;
mod access;
mod client;
pub mod known;
mod rights;
pub mod convert;
pub mod entries;
pub mod expression;
mod duration;
mod conditions;
pub mod chain;
pub mod bearers;
pub mod intentions;
pub mod configuration;
mod reading;
mod hiding;
mod configured;
mod replay;
mod lists;
mod waiters;
mod owed;
mod follower;
mod watch;
mod register;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::StreamExt;
use tokio::{sync::RwLock, time::timeout};
use weft_core::{
    name::{RegistryName, ServiceName},
    registry::{
        Capabilities, Event, Lease, LocalInstance, RegisterError, Registry, RegistryError, Resume, Right,
        Scope,
    },
};

pub use replay::replay;
pub use settings::{ConsulSettings, LoginSettings, credential, read};

use absence::Absence;
use access::Access;
use client::Client;
use configured::Understood;
use convert::Surroundings;
use owed::Doubt;
use watch::{Left, Source};

use crate::{announcing::keep, plan::Environment};

/// How long announcements through a registry that is closed may still take to be withdrawn.
const CLOSING: Duration = Duration::from_secs(6);

/// The registry.
pub struct ConsulRegistry {
    name: RegistryName,
    settings: Arc<ConsulSettings>,
    around: Arc<Surroundings>,
    access: Arc<Access>,
    understood: Understood,
    left: Left,
    absence: Absence,
    doubt: Doubt,
    /// Held by each announcement, which needs what the registry holds at its server.
    announcing: Arc<RwLock<()>>,
}

impl ConsulRegistry {
    /// Opens nothing yet: [`Registry::watch`] does.
    #[must_use]
    pub fn new(name: RegistryName, settings: Arc<ConsulSettings>, environment: &Environment) -> Self {
        let around = Surroundings {
            rules: settings.rules.clone(),
            trust_domain: environment.trust_domain.clone(),
            may_name: environment.limits.may_name.clone(),
            domain: settings.domain.clone(),
            datacenter: settings.datacenter.clone(),
            peer: settings.peer.clone(),
        };
        let access = Access::new(settings.credential.clone(), settings.login.clone());
        let (around, access) = (Arc::new(around), Arc::new(access));
        let (understood, left, absence, doubt, announcing) = Default::default();
        Self { name, settings, around, access, understood, left, absence, doubt, announcing }
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
            returns: true,
            ..Capabilities::default()
        }
    }

    /// Begins with a full list, as Consul's indexes tell that something changed and not what; but for a stream that comes
    /// after one that broke off in this process, which knows what that one knew.
    fn watch(&self, scope: Scope, resume: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        let source = Source {
            settings: self.settings.clone(),
            around: self.around.clone(),
            access: self.access.clone(),
            understood: self.understood.clone(),
            left: self.left.clone(),
            absence: self.absence.clone(),
            doubt: self.doubt.clone(),
        };
        watch::follow(source, scope, resume).boxed()
    }

    /// Announces it through the agent that is asked. Must be called within a runtime.
    fn register(&self, instance: Arc<LocalInstance>) -> Result<Lease, RegisterError> {
        register::check(&instance, &self.settings)?;
        let place = register::ConsulPlace::new(self.settings.clone(), self.access.clone());
        let announcing = self.announcing.clone().try_read_owned();
        let announcing = announcing.map_err(|_| RegisterError::Unfit("it is being closed".into()))?;
        let (lease, keeper) = Lease::new(instance);
        tokio::spawn(async move {
            keep(keeper, place).await;
            drop(announcing);
        });
        Ok(lease)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // What is withdrawn needs the token; what takes longer runs out by itself.
            let _withdrawn = timeout(CLOSING, self.announcing.write()).await;
            match Client::new(&self.settings, self.access.clone()) {
                Ok(client) => client.log_out().await,
                Err(error) => tracing::debug!(%error, "not logged out of Consul: the login ends by itself"),
            }
        })
    }

    fn rights(&self) -> BoxFuture<'_, Result<Vec<Right>, RegistryError>> {
        Box::pin(async move {
            let client = Client::new(&self.settings, self.access.clone())?;
            let rights = rights::rights(&client, &self.settings).await;
            rights.map_err(|error| self.absence.explain(error, Instant::now()))
        })
    }

    fn rights_to_announce<'r>(
        &'r self,
        services: &'r [ServiceName],
    ) -> BoxFuture<'r, Result<Vec<Right>, RegistryError>> {
        Box::pin(async move {
            let client = Client::new(&self.settings, self.access.clone())?;
            let rights = rights::to_announce(&client, services).await;
            rights.map_err(|error| self.absence.explain(error, Instant::now()))
        })
    }
}

#[cfg(test)]
mod tests;
