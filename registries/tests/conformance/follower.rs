//! Follows a registry as an agent does: every word is held against the contract, merged, and asked about.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use weft_core::{
    merge::{Merge, Snapshot},
    name::{RegistryName, ServiceKey},
    registry::{Completeness, Event, Registry, Resume, conformance::held},
    resource::{Endpoint, Service},
};

/// A registry that is followed until this is dropped.
pub(crate) struct Follower {
    name: RegistryName,
    seen: watch::Receiver<Seen>,
    point: Arc<Mutex<Option<Resume>>>,
    task: JoinHandle<()>,
}

/// What was heard so far.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) snapshot: Snapshot,
    pub(crate) commits: usize,
    /// How often a list of everything was begun.
    #[allow(dead_code, reason = "asked by the tests of one backend, which share this")]
    pub(crate) resets: usize,
    pub(crate) errors: Vec<String>,
    pub(crate) completeness: Option<Completeness>,
}

impl Follower {
    pub(crate) fn new(registry: Arc<dyn Registry>, resume: Option<Resume>) -> Self {
        let (told, seen) = watch::channel(Seen::default());
        let (name, point) = (registry.name().clone(), Arc::<Mutex<Option<Resume>>>::default());
        let task = tokio::spawn(follow(registry, resume, told, point.clone()));
        Self { name, seen, point, task }
    }

    /// Waits until `what` holds.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut holds: impl FnMut(&View<'_>) -> bool,
    ) -> Result<(), String> {
        let name = self.name.clone();
        let wait = self.seen.wait_for(|seen| holds(&View { seen, name: &name }));
        let waited = timeout(within, wait).await.map(|heard| heard.map(drop));
        match waited {
            Ok(Ok(())) => Ok(()),
            // The task ends when it panics: the contract is broken.
            Ok(Err(_)) => Err("the stream broke the contract (see above)".into()),
            Err(_) => {
                let seen = self.seen.borrow();
                let last =
                    seen.errors.last().map_or_else(String::new, |error| format!("; last error: {error}"));
                Err(format!(
                    "not within {} s: {what}; {}{last}",
                    within.as_secs(),
                    View { seen: &seen, name: &name }.told()
                ))
            }
        }
    }

    pub(crate) fn view<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        look(&View { seen: &self.seen.borrow(), name: &self.name })
    }

    /// Where to go on.
    pub(crate) fn resume(&self) -> Option<Resume> {
        self.point.lock().unwrap().clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One look at what was heard.
pub(crate) struct View<'a> {
    pub(crate) seen: &'a Seen,
    name: &'a RegistryName,
}

impl View<'_> {
    /// The endpoints of `service.default`; none when the service is unknown.
    pub(crate) fn endpoints(&self, service: &str) -> Option<Vec<Arc<Endpoint>>> {
        let key = ServiceKey { registry: self.name.clone(), service: service.parse().ok()? };
        let entry = self.seen.snapshot.service(&key)?;
        entry.service.as_ref()?;
        Some(entry.endpoints.to_vec())
    }

    /// The record of `service.default`.
    #[allow(dead_code, reason = "asked by the tests of one backend, which share this")]
    pub(crate) fn service(&self, service: &str) -> Option<Arc<Service>> {
        let key = ServiceKey { registry: self.name.clone(), service: service.parse().ok()? };
        self.seen.snapshot.service(&key)?.service.clone()
    }

    pub(crate) fn count(&self, service: &str) -> usize {
        self.endpoints(service).map_or(0, |endpoints| endpoints.len())
    }

    pub(crate) fn has_route(&self, name: &str) -> bool {
        let partition = self.seen.snapshot.partitions.get(self.name);
        partition.is_some_and(|partition| partition.routes.keys().any(|route| route.as_str().contains(name)))
    }

    fn told(&self) -> String {
        let partition = self.seen.snapshot.partitions.get(self.name);
        let services = partition.into_iter().flat_map(|partition| partition.services.iter());
        let mut services: Vec<String> =
            services.map(|(name, entry)| format!("{name}×{}", entry.endpoints.len())).collect();
        services.sort();
        let faults = self.seen.snapshot.scopes.iter().flat_map(|(_, state)| state.origins.values());
        let faults: Vec<_> =
            faults.flat_map(|origin| &origin.faults).map(|it| (&it.place, &it.message)).take(5).collect();
        format!("{} commits, services {services:?}, faults {faults:?}", self.seen.commits)
    }
}

async fn follow(
    registry: Arc<dyn Registry>,
    mut resume: Option<Resume>,
    told: watch::Sender<Seen>,
    point: Arc<Mutex<Option<Resume>>>,
) {
    let mut merge = Merge::new(Default::default());
    loop {
        let mut words = held(&*registry, resume.clone());
        let mut scopes = Vec::new();
        while let Some(word) = words.next().await {
            let event = match word {
                Ok(event) => event,
                Err(error) => {
                    if matches!(error, weft_core::registry::RegistryError::Gap(_)) {
                        resume = None;
                    }
                    told.send_modify(|seen| seen.errors.push(error.to_string()));
                    break;
                }
            };
            if !scopes.contains(event.scope()) {
                scopes.push(event.scope().clone());
            }
            let (committed, ready) = match &event {
                Event::Commit { resume: at, .. } => {
                    resume.clone_from(at);
                    point.lock().unwrap().clone_from(at);
                    (true, None)
                }
                Event::Ready { completeness, .. } => (false, Some(*completeness)),
                _ => (false, None),
            };
            let begins = matches!(event, Event::Reset { .. });
            merge.apply(event, SystemTime::now());
            told.send_modify(|seen| {
                seen.commits += usize::from(committed);
                seen.resets += usize::from(begins);
                seen.completeness = ready.or(seen.completeness);
                if committed {
                    seen.snapshot = merge.snapshot().clone();
                }
            });
        }
        scopes.iter().for_each(|scope| merge.abandon(scope));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
