//! What the operator and the configuration may ask of a running flow.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Source;
use crate::{
    compile::Join,
    locality::Locality,
    name::{PortName, RegistryName, ServiceKey},
    workload::Workload,
};

/// Which registries are to be followed from here on.
#[derive(Debug)]
pub struct Registries {
    /// All of them, most authoritative first. One that is followed already and not in `fresh` stays as it is.
    pub order: Vec<RegistryName>,
    /// Those that are new, or to be followed in another way than before.
    pub fresh: Vec<Source>,
    /// Which services of different registries are one.
    pub joins: Vec<Join>,
    /// Where this process runs.
    pub locality: Locality,
}

/// One request to the flow's task.
#[derive(Debug)]
pub(super) enum Command {
    Workloads(Vec<Arc<Workload>>, oneshot::Sender<()>),
    Registries(Registries, oneshot::Sender<()>),
    DropUnconfirmed(Option<RegistryName>, oneshot::Sender<usize>),
    AllowPlaintext(ServiceKey, Option<PortName>, oneshot::Sender<bool>),
}

/// Asks things of a running [`Flow`](super::Flow). Every method returns when what was asked is in force, and `None`
/// when the flow has ended.
#[derive(Clone, Debug)]
pub struct FlowHandle {
    pub(super) commands: mpsc::Sender<Command>,
}

impl FlowHandle {
    /// Replaces the local workloads; views follow.
    pub async fn set_workloads(&self, workloads: Vec<Arc<Workload>>) -> Option<()> {
        self.ask(|reply| Command::Workloads(workloads, reply)).await
    }

    /// Replaces which registries are followed, their precedence and the joins. What a registry that stays says is in
    /// force all the while; one that is followed in another way keeps its last words until its new list is whole; one
    /// that is gone takes its words with it, on disk too: at once, or where another one is new, when that one has
    /// spoken, at most five seconds later.
    pub async fn set_registries(&self, registries: Registries) -> Option<()> {
        self.ask(|reply| Command::Registries(registries, reply)).await
    }

    /// Drops the unconfirmed origins of one registry, or of all: the operator's word that they are gone. Returns how
    /// many went. Outlives the process.
    pub async fn drop_unconfirmed(&self, registry: Option<RegistryName>) -> Option<usize> {
        self.ask(|reply| Command::DropUnconfirmed(registry, reply)).await
    }

    /// Lets endpoints speak plaintext again at one port of a service, or at all, where their registry says so, which is
    /// asked for a full list at once. Returns whether any port was held to TLS. Outlives the process.
    pub async fn allow_plaintext(&self, service: ServiceKey, port: Option<PortName>) -> Option<bool> {
        self.ask(|reply| Command::AllowPlaintext(service, port, reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
