//! The registry contract: what a catalog of services says, as one stream of events.
//!
//! A registry is followed, never polled by the rest of Weft: [`Registry::watch`] yields events for ever, and the driver
//! around it reconnects, turns gaps into resets and keeps the last good state. The invariants a consumer may rely on:
//! nothing is visible before its [`Event::Commit`]; what was not committed is lost on disconnect; an origin always
//! speaks as a whole; silence is never absence.

pub mod conformance;
mod error;
mod lease;
#[cfg(any(test, feature = "testing"))]
pub mod scripted;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_core::{future::BoxFuture, stream::BoxStream};
use serde::{Deserialize, Serialize};

pub use error::RegistryError;
pub use lease::{Keeper, Lease, LeaseState, LocalInstance, Next, RegisterError};

use crate::{
    name::{OriginName, RegistryName, ServiceName},
    resource::Resource,
};

/// A part of a registry that is listed and followed as a whole. Always names the registry: a relay carries several.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Scope {
    /// The registry.
    pub registry: RegistryName,
    /// The part of it (a namespace, a folder); empty for the whole.
    pub part: Arc<str>,
}

impl Scope {
    /// The whole of a registry.
    #[must_use]
    pub fn whole(registry: RegistryName) -> Self {
        Self { registry, part: "".into() }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.registry)?;
        if self.part.is_empty() { Ok(()) } else { write!(f, "/{}", self.part) }
    }
}

/// Where to go on after a disconnect, in the registry's own terms; opaque to all others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resume(pub Bytes);

/// The version of an origin's words. Only equality means anything.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Version(pub Arc<str>);

/// Whether a full list is known to be all there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// All there is.
    Full,
    /// The server hid something, or may have: what is missing from the list may still exist.
    Filtered,
}

/// Something in an origin that could not be taken over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OriginFault {
    /// What is wrong and what was expected, for a person.
    pub message: String,
    /// Where: a file with line and column, an object's field.
    pub place: String,
    /// Whether the origin's last good resources stay in force (a file that does not parse), or just the faulty part
    /// was left out. Of what such an origin says all the same, the health of endpoints counts that are among the last good.
    pub keeps_last_good: bool,
}

/// One word of a registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Supersedes all that this origin said before; no resources means it is gone. Its earlier faults go with it.
    Replace {
        /// Where the origin belongs.
        scope: Scope,
        /// Who speaks.
        origin: OriginName,
        /// The origin's version.
        version: Version,
        /// All it says now.
        resources: Vec<Resource>,
        /// All that could not be taken over.
        faults: Vec<OriginFault>,
    },
    /// A full list begins: origins of the scope that are not replaced before [`Event::Ready`] are missing from it.
    Reset {
        /// What is listed.
        scope: Scope,
    },
    /// The full list is over.
    Ready {
        /// What was listed.
        scope: Scope,
        /// Whether the list is all there is.
        completeness: Completeness,
    },
    /// All since the last commit becomes visible, at once. Sent empty too, as "still true".
    Commit {
        /// What is confirmed.
        scope: Scope,
        /// Where to go on after a disconnect; none when the registry cannot resume.
        resume: Option<Resume>,
        /// How long ago it was confirmed: zero, but for a relay, which passes on when its own registry did.
        age: Duration,
    },
}

impl Event {
    /// The scope that the event speaks of.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        match self {
            Self::Replace { scope, .. }
            | Self::Reset { scope }
            | Self::Ready { scope, .. }
            | Self::Commit { scope, .. } => scope,
        }
    }
}

/// What a registry can do. The check of [`conformance`] asks for what is declared and for nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// Goes on after a disconnect without a full list.
    pub resume: bool,
    /// The same within one process only: what it knows dies with that, and from a point of another one it lists anew.
    pub returns: bool,
    /// Knows whether instances are healthy.
    pub health: bool,
    /// Local instances can be announced.
    pub register: bool,
    /// Carries routes and policies.
    pub configuration: bool,
    /// Speaks for other registries (a relay): events may name scopes of several. A relay begins a full list of every
    /// scope ([`Event::Reset`]) before its first commit: whoever follows it is ready when all of them are committed.
    pub relay: bool,
}

/// One right at a registry's server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Right {
    /// Its name in the server's own terms: `list endpointslices.discovery.k8s.io`, `node_prefix "" read`.
    pub name: String,
    /// Whether it is given; none where the server does not tell.
    pub given: Option<bool>,
    /// What is missing without it, in a few words.
    pub needed_for: String,
    /// Whether all else is as well without it: who does not want what it is needed for need not give it.
    #[serde(default)]
    pub optional: bool,
}

/// A catalog that is followed. Object-safe: the agent holds a list of them.
pub trait Registry: Send + Sync {
    /// The configured name, which partitions all service names.
    fn name(&self) -> &RegistryName;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Of a relay: the registries that it speaks for, most authoritative first, as told before the words that follow. A
    /// registry that is missing comes after those, by name.
    fn relayed(&self) -> Arc<[RegistryName]> {
        Arc::default()
    }

    /// Follows `scope` for ever, from `resume` where that is still possible. A stream that cannot go on without a gap
    /// ends with [`RegistryError::Gap`]; the driver then watches again without a resume point, and the registry
    /// begins with [`Event::Reset`].
    fn watch(&self, scope: Scope, resume: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>>;

    /// Words that no stream brings: what is found out, while its server is away, about what it committed before. Each of
    /// them is whole, ends with a commit of the age of what it is about, and comes while no stream has uncommitted words.
    fn asides(&self) -> BoxStream<'_, Vec<Event>> {
        Box::pin(futures_util::stream::empty())
    }

    /// Whether its configuration asks for an origin. What an earlier one asked for and this one does not is gone by the
    /// operator's word, whether its server answers or not.
    fn asks_for(&self, _origin: &OriginName) -> bool {
        true
    }

    /// The rights that it needs at its server, asked for one by one: what a person is told who looks why services are
    /// missing. Empty where a server knows none.
    ///
    /// # Errors
    /// When the server cannot be asked at all.
    fn rights(&self) -> BoxFuture<'_, Result<Vec<Right>, RegistryError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// The rights that it needs at its server beside [`Registry::rights`] so that instances of `services` can be announced
    /// there. Asked for one by one; nothing is written. Empty where a server knows none.
    ///
    /// # Errors
    /// When the server cannot be asked at all.
    fn rights_to_announce<'r>(
        &'r self,
        _services: &'r [ServiceName],
    ) -> BoxFuture<'r, Result<Vec<Right>, RegistryError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Announces a local instance, and keeps it there until the lease is dropped. Never waits for the server: how that
    /// goes is the lease's [`LeaseState`].
    ///
    /// # Errors
    /// When the platform does not allow it, or has no words for this instance.
    fn register(&self, _instance: Arc<LocalInstance>) -> Result<Lease, RegisterError> {
        Err(RegisterError::Unsupported)
    }

    /// Gives back what it holds at its server for us, such as a login: it is followed no more. Waits, not for long, for
    /// what is still announced through it.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
