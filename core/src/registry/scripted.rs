//! A registry that says what a test tells it to.

use std::sync::{Arc, Mutex, PoisonError};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};

use super::{Capabilities, Event, Registry, RegistryError, Resume, Scope};
use crate::name::RegistryName;

type Word = Result<Event, RegistryError>;

/// A registry whose words come from a [`Script`].
#[derive(Debug)]
pub struct Scripted {
    name: RegistryName,
    capabilities: Capabilities,
    words: AsyncMutex<mpsc::Receiver<Word>>,
    watched: watch::Sender<Vec<Option<Resume>>>,
    relayed: Arc<Mutex<Arc<[RegistryName]>>>,
}

/// Tells a [`Scripted`] registry what to say.
#[derive(Debug)]
pub struct Script {
    words: mpsc::Sender<Word>,
    watched: Mutex<watch::Receiver<Vec<Option<Resume>>>>,
    relayed: Arc<Mutex<Arc<[RegistryName]>>>,
}

/// A registry and its script. Every stream goes on with what was not said on the one before.
#[must_use]
pub fn scripted(name: RegistryName, capabilities: Capabilities) -> (Arc<Scripted>, Script) {
    let (words, receiver) = mpsc::channel(1024);
    let (watched, watching) = watch::channel(Vec::new());
    let relayed = Arc::<Mutex<_>>::default();
    let registry =
        Scripted { name, capabilities, words: AsyncMutex::new(receiver), watched, relayed: relayed.clone() };
    (Arc::new(registry), Script { words, watched: Mutex::new(watching), relayed })
}

impl Script {
    /// Says something; waits while a thousand words are unsaid.
    pub async fn say(&self, event: Event) {
        // A registry that is gone hears nothing.
        let _gone = self.words.send(Ok(event)).await;
    }

    /// Ends the stream.
    pub async fn fail(&self, error: RegistryError) {
        let _gone = self.words.send(Err(error)).await;
    }

    /// Tells, as a relay, which registries it speaks for, most authoritative first.
    pub fn relay(&self, registries: &[RegistryName]) {
        *self.relayed.lock().unwrap_or_else(PoisonError::into_inner) = registries.into();
    }

    /// With which resume points streams were asked for so far.
    #[must_use]
    pub fn watched(&self) -> Vec<Option<Resume>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).borrow().clone()
    }

    /// Waits until so many streams were asked for.
    pub async fn watched_times(&self, times: usize) {
        let mut watching = self.watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let _gone = watching.wait_for(|watched| watched.len() >= times).await;
    }
}

impl Registry for Scripted {
    fn name(&self) -> &RegistryName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn relayed(&self) -> Arc<[RegistryName]> {
        self.relayed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn watch(&self, _scope: Scope, resume: Option<Resume>) -> BoxStream<'_, Word> {
        self.watched.send_modify(|watched| watched.push(resume));
        let next = async |registry: &Self| registry.words.lock().await.recv().await;
        stream::unfold(self, move |registry| async move {
            let word = next(registry).await?;
            Some((word, registry))
        })
        .boxed()
    }
}
