//! The tasks that follow registries: begun, ended, and begun anew when one breaks.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use futures_util::future::join_all;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::timeout,
};

use super::followed::Followed;
use crate::{
    driver::{Driver, Message},
    registry::{Registry, RegistryError},
};

/// How long a registry that is followed no more may take to give back what it holds at its server.
const CLOSING: Duration = Duration::from_secs(8);

/// What the flow hears.
pub(super) enum Heard {
    /// A driver told something.
    Told(Message),
    /// The driver of this number panicked.
    Broke(usize),
}

/// All drivers, and the channel that they tell over.
pub(super) struct Drivers {
    tasks: JoinSet<()>,
    /// The task of each registry that is followed, by its number.
    running: HashMap<usize, Running, RandomState>,
    telling: mpsc::Sender<Message>,
    told: mpsc::Receiver<Message>,
}

struct Running {
    task: AbortHandle,
    registry: Arc<dyn Registry>,
}

impl Drivers {
    pub(super) fn new(channel: usize) -> Self {
        let (telling, told) = mpsc::channel(channel);
        Self { tasks: JoinSet::new(), running: HashMap::default(), telling, told }
    }

    /// Follows a registry from its position on; nothing happens when it is followed.
    pub(super) fn start(&mut self, followed: &mut Followed) {
        if !self.running.contains_key(&followed.number) {
            self.spawn(followed, None);
        }
    }

    /// Follows a registry whose driver broke, after a pause.
    pub(super) fn start_again(&mut self, followed: &mut Followed, error: &RegistryError) {
        let pause = followed.backoff.next(error);
        self.spawn(followed, Some(pause));
    }

    fn spawn(&mut self, followed: &mut Followed, pause: Option<std::time::Duration>) {
        let (registry, resume) = (followed.registry.clone(), followed.position.resume.clone());
        let driver = Driver::new(registry.clone(), followed.number, followed.backoff.clone(), resume);
        followed.hang(driver.bell());
        let telling = self.telling.clone();
        let task = self.tasks.spawn(async move {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            driver.run(telling).await;
        });
        self.running.insert(followed.number, Running { task, registry });
    }

    /// Follows a registry no more.
    pub(super) fn end(&mut self, number: usize) {
        if let Some(Running { task, registry }) = self.running.remove(&number) {
            task.abort();
            tokio::spawn(close(registry));
        }
    }

    /// Follows none any more. What is returned ends when all have given back what they hold, or have had time enough.
    pub(super) fn stop(&mut self) -> impl Future<Output = ()> + use<> {
        self.tasks.abort_all();
        let closing: Vec<_> = self.running.drain().map(|(_, running)| close(running.registry)).collect();
        async move { drop(join_all(closing).await) }
    }

    /// Waits for the next news. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            tokio::select! {
                // We keep a sender, so it never ends.
                Some(message) = self.told.recv() => return Heard::Told(message),
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Err(error) = ended
                        && let Some(number) = self.broken(&error)
                    {
                        return Heard::Broke(number);
                    }
                }
            }
        }
    }

    /// What was told and not heard yet, if anything.
    pub(super) fn told(&mut self) -> Option<Message> {
        self.told.try_recv().ok()
    }

    fn broken(&mut self, error: &JoinError) -> Option<usize> {
        let has_id = |running: &Running, id: Id| running.task.id() == id;
        let number = self.running.iter().find(|(_, it)| has_id(it, error.id())).map(|(number, _)| *number)?;
        self.running.remove(&number);
        error.is_panic().then_some(number)
    }
}

async fn close(registry: Arc<dyn Registry>) {
    if timeout(CLOSING, registry.close()).await.is_err() {
        tracing::warn!(registry = %registry.name(), "what it holds at its server could not be given back in time");
    }
}
