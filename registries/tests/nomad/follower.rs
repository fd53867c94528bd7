//! A follower as the driver is one: it watches, applies what is committed, and watches again after an error.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use tokio::{sync::watch, task::JoinHandle};
use weft_core::{
    registry::{Completeness, Event, OriginFault, Registry, RegistryError, conformance},
    resource::{Endpoint, Health, Resource, Service},
};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What is known after the last commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) origins: BTreeMap<String, (Vec<Resource>, Vec<OriginFault>)>,
    pub(crate) errors: Vec<RegistryError>,
    pub(crate) commits: usize,
    pub(crate) lists: usize,
    pub(crate) completeness: Option<Completeness>,
}

impl View {
    pub(crate) fn endpoints(&self, service: &str) -> Vec<Endpoint> {
        let of = |resource: &Resource| match resource {
            Resource::Endpoint(endpoint) if endpoint.service.as_str() == service => {
                Some(Endpoint::clone(endpoint))
            }
            _ => None,
        };
        self.resources().filter_map(of).collect()
    }

    pub(crate) fn services(&self) -> Vec<String> {
        let of = |resource: &Resource| match resource {
            Resource::Service(service) => Some(service.name.to_string()),
            _ => None,
        };
        self.resources().filter_map(of).collect()
    }

    pub(crate) fn service(&self, name: &str) -> Option<Service> {
        let of = |resource: &Resource| match resource {
            Resource::Service(service) if service.name.as_str() == name => Some(Service::clone(service)),
            _ => None,
        };
        self.resources().find_map(of)
    }

    pub(crate) fn addresses(&self, service: &str) -> Vec<String> {
        let mut addresses: Vec<String> =
            self.endpoints(service).iter().map(|endpoint| endpoint.address.to_string()).collect();
        addresses.sort();
        addresses
    }

    pub(crate) fn healths(&self, service: &str) -> Vec<Health> {
        self.endpoints(service).iter().map(|endpoint| endpoint.health).collect()
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let all = self.origins.values().flat_map(|(_, faults)| faults);
        all.map(|fault| format!("{}: {}", fault.place, fault.message)).collect()
    }

    fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.origins.values().flat_map(|(resources, _)| resources)
    }
}

/// Follows a registry until it is dropped.
pub(crate) struct Follower {
    view: watch::Receiver<View>,
    task: JoinHandle<()>,
}

impl Follower {
    pub(crate) fn of(registry: Arc<dyn Registry>) -> Self {
        let (sender, view) = watch::channel(View::default());
        let task = tokio::spawn(async move {
            loop {
                let error = follow(&*registry, &sender).await;
                sender.send_modify(|view| view.errors.push(error));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { view, task }
    }

    pub(crate) fn now(&self) -> View {
        self.view.borrow().clone()
    }

    /// Waits until what is known is so.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&View) -> bool) -> View {
        let begin = Instant::now();
        let found = tokio::time::timeout(DEADLINE, self.view.wait_for(|view| is_so(view))).await;
        let found = found.map(|view| view.expect("the follower goes on").clone());
        let view = found.unwrap_or_else(|_| panic!("not so in time: {what}\n{:#?}", self.now()));
        eprintln!("after {:5} ms: {what}", begin.elapsed().as_millis());
        view
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(registry: &dyn Registry, sender: &watch::Sender<View>) -> RegistryError {
    let mut words = conformance::held(registry, None);
    let mut staged = sender.borrow().clone();
    let (mut listed, mut is_listing) = (BTreeMap::new(), false);
    while let Some(word) = words.next().await {
        match word {
            Err(error) => return error,
            Ok(Event::Reset { .. }) => {
                listed.clear();
                is_listing = true;
            }
            Ok(Event::Replace { origin, resources, faults, .. }) => {
                let target = if is_listing { &mut listed } else { &mut staged.origins };
                if resources.is_empty() && faults.is_empty() {
                    target.remove(origin.as_str());
                } else if resources.is_empty() && faults.iter().any(|fault| fault.keeps_last_good) {
                    let last = staged.origins.get(origin.as_str()).map(|(last, _)| last.clone());
                    let target = if is_listing { &mut listed } else { &mut staged.origins };
                    target.insert(origin.to_string(), (last.unwrap_or_default(), faults));
                } else {
                    target.insert(origin.to_string(), (resources, faults));
                }
            }
            Ok(Event::Ready { completeness, .. }) => {
                is_listing = false;
                staged.completeness = Some(completeness);
                staged.lists += 1;
                match completeness {
                    Completeness::Full => staged.origins = std::mem::take(&mut listed),
                    Completeness::Filtered => staged.origins.append(&mut listed),
                }
            }
            Ok(Event::Commit { .. }) => {
                staged.commits += 1;
                sender.send_modify(|view| {
                    staged.errors.clone_from(&view.errors);
                    view.clone_from(&staged);
                });
            }
        }
    }
    RegistryError::Unreachable("the stream ended".into())
}
