//! The tasks that follow registries: begun, ended, and begun anew when one breaks.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinError, JoinSet},
};

use super::followed::Followed;
use crate::{
    driver::{Driver, Message},
    registry::RegistryError,
};

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
    running: HashMap<usize, AbortHandle, RandomState>,
    telling: mpsc::Sender<Message>,
    told: mpsc::Receiver<Message>,
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
        let driver = Driver::new(registry, followed.number, followed.backoff.clone(), resume);
        followed.hang(driver.bell());
        let telling = self.telling.clone();
        let task = self.tasks.spawn(async move {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            driver.run(telling).await;
        });
        self.running.insert(followed.number, task);
    }

    /// Follows a registry no more.
    pub(super) fn end(&mut self, number: usize) {
        if let Some(task) = self.running.remove(&number) {
            task.abort();
        }
    }

    /// Follows none any more.
    pub(super) fn stop(&mut self) {
        self.tasks.abort_all();
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
        let has_id = |task: &AbortHandle, id: Id| task.id() == id;
        let number =
            self.running.iter().find(|(_, task)| has_id(task, error.id())).map(|(number, _)| *number)?;
        self.running.remove(&number);
        error.is_panic().then_some(number)
    }
}
