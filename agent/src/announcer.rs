//! Local services that are announced: what the configuration says of them, kept in the registries that it names.
//!
//! One task for each announced port looks after the application and tells every registry, over a lease in each, what it
//! found. A new configuration changes what the leases say and never ends one that stays, so that others see no gap. A
//! lease in a registry whose own section changed is left to a new one. At the end all are withdrawn, and that is waited
//! for, before the agent stops to take calls.

mod host;
mod task;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, task::JoinHandle, time::timeout};
use weft_core::{
    name::{InstanceName, PortName, RegistryName, ServiceName},
    registry::{LeaseState, LocalInstance, Registry},
};
use weft_registries::check::CheckSettings;

pub use host::{Host, HostError, own_address};

use crate::{admin::pages, view};
use task::Task;

/// How long others may take to hear of what was withdrawn, before calls are refused here. A refusal costs a mesh client
/// a second try elsewhere; who found the address in a registry of another kind has no such thing.
const SPREAD: Duration = Duration::from_secs(1);

/// What tells an announcement from all others of this agent.
type Key = (ServiceName, PortName, InstanceName);

/// One port of a local workload that is to be announced.
pub struct Wish {
    /// What is announced while all is well.
    pub instance: LocalInstance,
    /// Where the application listens.
    pub application: SocketAddr,
    /// How it is looked after; none when it is not.
    pub check: Option<CheckSettings>,
    /// Where it is announced.
    pub registries: BTreeMap<RegistryName, Arc<dyn Registry>>,
}

impl Wish {
    fn key(&self) -> Key {
        let endpoint = &self.instance.endpoint;
        (endpoint.service.clone(), endpoint.port_name.clone(), endpoint.instance.clone())
    }
}

/// All that is announced. Dropping it withdraws everything, without waiting.
#[derive(Default)]
pub struct Announcer {
    running: BTreeMap<Key, Running>,
    board: Board,
}

struct Running {
    wish: watch::Sender<Arc<Wish>>,
    task: JoinHandle<()>,
}

/// How the announcements are, for whoever looks. Clones are one.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<Key, Card>>>);

/// What is known of one announcement.
struct Card {
    /// None before the first look.
    healthy: Option<bool>,
    /// Why it is not healthy.
    note: String,
    /// Of each registry, how it is there, or why not at all.
    registries: BTreeMap<RegistryName, Result<watch::Receiver<LeaseState>, String>>,
}

impl Announcer {
    /// Announces these from here on and withdraws all others. Must be called within a runtime.
    pub fn change(&mut self, wishes: Vec<Wish>) {
        let mut wishes: BTreeMap<Key, Arc<Wish>> =
            wishes.into_iter().map(|wish| (wish.key(), Arc::new(wish))).collect();
        self.running.retain(|key, _| wishes.contains_key(key));
        for (key, running) in &self.running {
            if let Some(wish) = wishes.remove(key) {
                running.wish.send_replace(wish);
            }
        }
        for (key, wish) in wishes {
            let (sender, wish) = watch::channel(wish);
            let task = Task::new(key.clone(), wish, self.board.clone());
            let task = tokio::spawn(task.run());
            self.running.insert(key, Running { wish: sender, task });
        }
    }

    /// How the announcements are.
    #[must_use]
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Withdraws all, waits until the registries have taken it, at most `within`, and until others may have heard of it.
    pub async fn withdraw(&mut self, within: Duration) {
        let were_there = self.board.any_confirmed();
        let tasks: Vec<_> = std::mem::take(&mut self.running).into_values().map(|it| it.task).collect();
        let all = async {
            for task in tasks {
                // One that broke has dropped its leases, which withdraws them too.
                let _ended = task.await;
            }
        };
        if timeout(within, all).await.is_err() {
            tracing::warn!("not all announcements could be withdrawn in time: they run out by themselves");
        }
        if were_there {
            tracing::info!("announcements withdrawn");
            tokio::time::sleep(SPREAD.min(within)).await;
        }
    }
}

impl Board {
    /// One row for each registry of each announcement.
    #[must_use]
    pub fn rows(&self) -> Vec<view::Announcement> {
        let cards = self.lock();
        let rows = cards.iter().flat_map(|(key, card)| {
            card.registries.iter().map(move |(registry, held)| row(key, card, registry, held))
        });
        rows.collect()
    }

    fn any_confirmed(&self) -> bool {
        let is_there = |held: &Result<watch::Receiver<LeaseState>, String>| {
            held.as_ref().is_ok_and(|state| state.borrow().confirmed.is_some())
        };
        self.lock().values().any(|card| card.registries.values().any(is_there))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Card>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn row(
    (service, port, instance): &Key,
    card: &Card,
    registry: &RegistryName,
    held: &Result<watch::Receiver<LeaseState>, String>,
) -> view::Announcement {
    let state = match held {
        Ok(state) => state.borrow().clone(),
        Err(fault) => LeaseState { fault: Some(fault.clone()), ..LeaseState::default() },
    };
    let at = |time: SystemTime| pages::seconds(time);
    view::Announcement {
        registry: registry.to_string(),
        service: service.to_string(),
        port: port.to_string(),
        instance: instance.to_string(),
        health: match card.healthy {
            Some(true) => "healthy",
            Some(false) => "unhealthy",
            None => "unknown",
        }
        .into(),
        reason: Some(card.note.clone()).filter(|note| !note.is_empty()),
        since_s: state.since.map(at),
        confirmed_s: state.confirmed.map(at),
        fault: state.fault,
    }
}
