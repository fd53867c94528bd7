//! The registry that the hub relays: what the hub follows, seen from here, each scope under its own registry's name.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::{sync::mpsc, time::timeout};
use weft_core::{
    control::ResumePoint,
    name::RegistryName,
    registry::{
        Capabilities, Event, Lease, LocalInstance, RegisterError, Registry, RegistryError, Resume, Scope,
    },
};

use super::{
    announce::{HubPlace, since},
    link::{HubLink, LinkState, Watched},
};
use crate::{announcing::keep, narrow::Narrow};

/// How long a watch waits for a link that is about to connect before it says that there is none.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a watch waits for a link whose fault was said already. The link knows best when to try again, and with its
/// return the watch must not be in a pause of its own.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// Follows the relay of a hub.
#[derive(Clone)]
pub struct HubRegistry {
    name: RegistryName,
    link: HubLink,
    /// What is asked for, where that is not everything.
    narrow: Option<Narrow>,
    /// Whether it was said that the link is away, since it was last there.
    said: Arc<AtomicBool>,
    /// Set when it is followed for the first time: whoever does goes on.
    watched: Arc<OnceLock<Watched>>,
    /// The registries that the hub relays, as told before the words that follow.
    relayed: Arc<Mutex<Arc<[RegistryName]>>>,
}

impl HubRegistry {
    /// A registry of this name on the process's link. One link carries one registry: a second one ends the first's
    /// watch.
    #[must_use]
    pub fn new(name: RegistryName, link: HubLink) -> Self {
        let (said, watched, relayed) = Default::default();
        Self { name, link, narrow: None, said, watched, relayed }
    }

    /// As the configuration's factory wants it.
    #[must_use]
    pub fn factory(link: HubLink) -> crate::plan::HubFactory {
        Arc::new(move |name, narrow| {
            let narrow = narrow.cloned();
            Arc::new(Self { narrow, ..Self::new(name.clone(), link.clone()) })
        })
    }

    async fn follow(&self, resume: Option<Resume>) -> Following {
        self.watched.get_or_init(|| self.link.watched());
        let point = match resume.as_ref().map(ResumePoint::from_resume).transpose() {
            Ok(point) => point,
            Err(fault) => {
                let gap = RegistryError::Gap(format!("the kept resume point cannot be read: {fault}"));
                return Following::Ended(Some(gap));
            }
        };
        let mut state = self.link.state();
        let is_connected = |state: &LinkState| match state {
            LinkState::Connected { registries, .. } => {
                *self.relayed.lock().unwrap_or_else(PoisonError::into_inner) = registries.clone();
                true
            }
            _ => false,
        };
        let patience = if self.said.load(Ordering::Relaxed) { LONG_PATIENCE } else { PATIENCE };
        if timeout(patience, state.wait_for(is_connected)).await.is_err() {
            let reason = match &*state.borrow() {
                LinkState::Away { reason, .. } => reason.clone(),
                _ => "the hub has not answered yet".to_owned(),
            };
            self.said.store(true, Ordering::Relaxed);
            return Following::Ended(Some(RegistryError::Unreachable(reason)));
        }
        self.said.store(false, Ordering::Relaxed);
        let stream = since(&state.borrow());
        let events = self.link.follow(self.narrow.clone(), point).await;
        Following::Events(Followed { events, link: self.link.clone(), stream })
    }
}

/// A watch, from its point of view.
enum Following {
    Events(Followed),
    Ended(Option<RegistryError>),
}

/// Words as they come over a stream.
struct Followed {
    events: mpsc::Receiver<Result<Event, RegistryError>>,
    link: HubLink,
    /// Since when that stands.
    stream: Option<SystemTime>,
}

impl Followed {
    async fn next(&mut self) -> Result<Event, RegistryError> {
        let broke = || Err(RegistryError::Unreachable("the stream to the hub broke".to_owned()));
        match self.events.recv().await.unwrap_or_else(broke) {
            Err(RegistryError::Unreachable(reason)) if self.link.has_others() => Err(self.lost(reason).await),
            word => word,
        }
    }

    /// What it means that the stream broke: nothing where the next hub is there at once.
    async fn lost(&self, reason: String) -> RegistryError {
        let mut state = self.link.state();
        let is_next = |state: &LinkState| since(state).is_some_and(|at| Some(at) != self.stream);
        match timeout(PATIENCE, state.wait_for(is_next)).await.map(|next| next.map(|state| state.clone())) {
            Ok(Ok(LinkState::Connected { hub, .. })) => {
                RegistryError::Moved(format!("{reason}; the hub {hub} goes on"))
            }
            _ => RegistryError::Unreachable(reason),
        }
    }
}

impl Registry for HubRegistry {
    fn name(&self) -> &RegistryName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            resume: true,
            health: true,
            configuration: true,
            relay: true,
            register: true,
            ..Capabilities::default()
        }
    }

    /// Must be called within a runtime.
    fn register(&self, instance: Arc<LocalInstance>) -> Result<Lease, RegisterError> {
        let (lease, keeper) = Lease::new(instance);
        tokio::spawn(keep(keeper, HubPlace::new(self.link.clone())));
        Ok(lease)
    }

    fn relayed(&self) -> Arc<[RegistryName]> {
        self.relayed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn watch(&self, _scope: Scope, resume: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        stream::once(self.follow(resume)).flat_map(|following| stream::unfold(following, next)).boxed()
    }
}

/// The next event; the stream ends after its first error, and never without one.
async fn next(following: Following) -> Option<(Result<Event, RegistryError>, Following)> {
    match following {
        Following::Ended(fault) => fault.map(|fault| (Err(fault), Following::Ended(None))),
        Following::Events(mut followed) => Some(match followed.next().await {
            Ok(event) => (Ok(event), Following::Events(followed)),
            Err(fault) => (Err(fault), Following::Ended(None)),
        }),
    }
}
