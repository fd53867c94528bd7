//! One announced port: its application is looked after, and every registry told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::sync::watch;
use weft_core::{
    name::RegistryName,
    registry::{Lease, LocalInstance, Registry},
    resource::{Endpoint, Health},
};
use weft_registries::{
    check::{CheckSettings, Tally, ask},
    http_client::jittered,
};

use super::{Board, Card, Key, Wish};

/// How long an announcement without a check rests between two looks at nothing.
const UNCHECKED: Duration = Duration::from_secs(3600);

pub(super) struct Task {
    key: Key,
    wish: watch::Receiver<Arc<Wish>>,
    board: Board,
    leases: BTreeMap<RegistryName, Held>,
    check: Option<CheckSettings>,
    tally: Tally,
    note: String,
}

/// An announcement in one registry, or why there is none, which stays so until the registry is another one.
struct Held {
    registry: Arc<dyn Registry>,
    lease: Result<Lease, String>,
}

impl Task {
    pub(super) fn new(key: Key, wish: watch::Receiver<Arc<Wish>>, board: Board) -> Self {
        let (leases, tally) = (BTreeMap::new(), Tally::default());
        Self { key, wish, board, leases, check: None, tally, note: String::new() }
    }

    /// Runs until nobody wishes it any more, and then withdraws.
    pub(super) async fn run(mut self) {
        loop {
            let wish = self.wish.borrow_and_update().clone();
            // Nothing is announced before the first look: an agent that starts again must not say of an application what
            // it does not know.
            let looked = tokio::select! {
                looked = look(&wish) => looked,
                changed = self.wish.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break,
                },
            };
            self.judge(&wish, looked);
            self.tell(&wish);
            let pause = wish.check.as_ref().map_or(UNCHECKED, |check| jittered(check.interval));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = self.wish.changed() => if changed.is_err() { break },
            }
        }
        self.board.lock().remove(&self.key);
        let leases = std::mem::take(&mut self.leases).into_values().filter_map(|held| held.lease.ok());
        join_all(leases.map(Lease::withdraw)).await;
    }

    fn judge(&mut self, wish: &Wish, looked: Result<(), String>) {
        if self.check != wish.check {
            self.check.clone_from(&wish.check);
            self.tally = Tally::default();
        }
        let Some(check) = &self.check else {
            self.note.clear();
            return;
        };
        let changed = self.tally.take(check, looked.is_ok());
        let (service, _, instance) = &self.key;
        match (self.tally.healthy(), looked) {
            (Some(false), Err(reason)) => {
                let note = format!("{} at {}: {reason}", check.question, wish.application);
                if changed {
                    tracing::warn!(%service, %instance, reason = note, "its application fails its check: it is announced as unhealthy where that is taken");
                }
                self.note = note;
            }
            (Some(true), _) => {
                if changed {
                    tracing::info!(%service, %instance, "its application passes its check: it is announced as healthy where that is taken");
                }
                self.note.clear();
            }
            _ => {}
        }
    }

    /// Tells every registry what is so now.
    fn tell(&mut self, wish: &Wish) {
        let is_healthy = self.check.is_none() || self.tally.healthy() == Some(true);
        let health = if is_healthy { wish.instance.endpoint.health } else { Health::Unhealthy };
        let endpoint = Endpoint { health, ..wish.instance.endpoint.clone() };
        let instance = LocalInstance { endpoint, port: wish.instance.port.clone(), note: self.note.clone() };
        let instance = Arc::new(instance);
        // What is dropped here is withdrawn.
        self.leases.retain(|name, _| wish.registries.contains_key(name));
        for (name, registry) in &wish.registries {
            let held = self.leases.get(name).filter(|held| Arc::ptr_eq(&held.registry, registry));
            match held.map(|held| &held.lease) {
                Some(Ok(lease)) => lease.change(instance.clone()),
                Some(Err(_)) => {}
                None => self.register(name, registry, instance.clone()),
            }
        }
        let shown = |held: &Held| held.lease.as_ref().map(Lease::state).map_err(Clone::clone);
        let card = Card {
            healthy: self.check.as_ref().and(self.tally.healthy()),
            note: self.note.clone(),
            registries: self.leases.iter().map(|(name, held)| (name.clone(), shown(held))).collect(),
        };
        self.board.lock().insert(self.key.clone(), card);
    }

    /// Announces it in another registry, or in one of the same name whose section changed: the former lease is left to
    /// the new one.
    fn register(&mut self, name: &RegistryName, registry: &Arc<dyn Registry>, instance: Arc<LocalInstance>) {
        let lease = registry.register(instance).map_err(|fault| fault.to_string());
        if let Err(fault) = &lease {
            tracing::warn!(service = %self.key.0, registry = %name, fault, "cannot be announced");
        }
        let before = self.leases.insert(name.clone(), Held { registry: registry.clone(), lease });
        if let Some(Ok(lease)) = before.map(|held| held.lease) {
            lease.leave();
        }
    }
}

async fn look(wish: &Wish) -> Result<(), String> {
    match &wish.check {
        Some(check) => ask(check, wish.application).await,
        None => Ok(()),
    }
}
