//! A view of a running proxy that may be kept apart from it.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    command::{Command, Load, Peers},
    connections::ConnectionInfo,
    record::{Records, TapReceiver},
};

/// Looks at a running proxy. Clones look at the same one; after its end there is nothing left to see.
#[derive(Clone, Debug)]
pub struct Inspector {
    pub(crate) peers: Peers,
    pub(crate) records: Arc<Records>,
    pub(crate) metric_prefix: String,
}

impl Inspector {
    /// The pooled connections to other agents, of all workers.
    pub async fn connections(&self) -> Vec<ConnectionInfo> {
        let mut all = Vec::new();
        for commands in self.peers.commands.iter() {
            let (answer, answered) = oneshot::channel();
            if commands.send(Command::Connections(answer)).await.is_ok() {
                all.extend(answered.await.unwrap_or_default());
            }
        }
        all
    }

    /// Connections of local processes and of other agents that are served now.
    #[must_use]
    pub fn load(&self) -> u32 {
        self.peers.loads.iter().map(Load::get).sum()
    }

    /// All metrics of requests in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.records.render(&self.metric_prefix)
    }

    /// Shows every request from now on.
    #[must_use]
    pub fn tap(&self) -> TapReceiver {
        self.records.tap()
    }
}
