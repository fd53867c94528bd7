//! The questions that wait for one service of a peer each: no list of Consul's tells of a peer's services together.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use weft_core::registry::RegistryError;

use super::{
    client::Client,
    known::Name,
    lists::{Heard, follow_instances},
};

/// How many services are waited for: half of the connections that Consul gives one client. Of the others every index is
/// asked for whenever the list of what is exported is.
pub(super) const MOST: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: BTreeMap<Name, AbortHandle>,
}

impl Waiters {
    /// Waits for these services, and no others any more. Returns whether it is for all of them.
    pub(super) fn follow(
        &mut self,
        services: &[Name],
        tasks: &mut JoinSet<()>,
        client: &Client,
        wait: Duration,
        say: &mpsc::Sender<Result<Heard, RegistryError>>,
    ) -> bool {
        self.waiting.retain(|name, task| {
            let stays = services.contains(name);
            if !stays {
                task.abort();
            }
            stays
        });
        for service in services {
            if self.waiting.len() < MOST && !self.waiting.contains_key(service) {
                let task = follow_instances(client.clone(), service.clone(), wait, say.clone());
                self.waiting.insert(service.clone(), tasks.spawn(task));
            }
        }
        self.waiting.len() == services.len()
    }
}
