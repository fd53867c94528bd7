//! Kubernetes: the API server's services, endpoint slices, pods and nodes, followed by watches.
//!
//! ```text
//!   client (who asks, and how) ──> feed (one kind's list and watch) ──> catalog (compact, joined)
//!                                                                          │ what is due
//!                                                          watch (when to tell) ──> convert (pure) ──> events
//! ```
//!
//! An origin is one Service, one EndpointSlice with its endpoints, or one of our own objects, a route or a policy. Invariants: nothing is told before services,
//! slices, pods and nodes are all listed; a list that had to be begun anew is told as a full list, which merge judges;
//! an endpoint that is a pod is withheld until that very pod (its uid) is known, for its identity is the pod's service
//! account; "still true" is said only after the API server has answered a question that its store had to answer.

mod objects;
mod compact;
mod client;
mod settings;
mod convert;
mod configured;
mod catalog;
mod conditions;
mod feed;
mod rights;
mod watch;
mod replay;

use std::sync::Arc;

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::StreamExt;
use weft_core::{
    identity::TrustDomain,
    name::RegistryName,
    registry::{Capabilities, Event, Registry, RegistryError, Resume, Right, Scope},
};

use convert::Conversion;

/// The API server's own calls, for who keeps objects there.
pub mod api {
    pub use super::client::{Access, Client, Lines, connect, refused};
}

pub use replay::replay;
pub use settings::{KubernetesSettings, read};
use watch::KnownNodes;

/// The registry.
#[derive(Clone, Debug)]
pub struct KubernetesRegistry {
    name: RegistryName,
    settings: KubernetesSettings,
    conversion: Arc<Conversion>,
    nodes: KnownNodes,
}

impl KubernetesRegistry {
    /// Opens nothing yet: [`Registry::watch`] does. Pods have identities of `trust_domain`.
    #[must_use]
    pub fn new(name: RegistryName, settings: KubernetesSettings, trust_domain: TrustDomain) -> Self {
        let conversion = Arc::new(Conversion {
            rules: settings.rules.clone(),
            trust_domain,
            cluster_domain: settings.cluster_domain.clone(),
            narrow: settings.narrow.clone(),
            root_namespace: settings.root_namespace.clone(),
        });
        Self { name, settings, conversion, nodes: KnownNodes::default() }
    }
}

impl Registry for KubernetesRegistry {
    fn name(&self) -> &RegistryName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { health: true, configuration: self.settings.configuration, ..Capabilities::default() }
    }

    /// Always begins with a full list. Watches that break are taken up where they were, within one stream.
    fn watch(&self, scope: Scope, _: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        watch::follow(self.settings.clone(), self.conversion.clone(), self.nodes.clone(), scope).boxed()
    }

    fn rights(&self) -> BoxFuture<'_, Result<Vec<Right>, RegistryError>> {
        Box::pin(rights::ask(&self.settings))
    }
}
