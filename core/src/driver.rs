//! Follows one registry for ever: reconnects with jittered backoff, turns a gap into a full list, counts.
//!
//! The driver keeps no state but where to go on. What it hears it passes on over a bounded channel, so a slow consumer
//! slows the registry instead of filling memory; that a stream ended is passed on too, because everything uncommitted
//! ends with it.

mod backoff;
mod state;

use std::{collections::HashSet, sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

pub use backoff::Backoff;
pub use state::{Saved, StateError, StateFile, Summary};

use crate::registry::{Event, Registry, RegistryError, Resume, Scope};

/// How long a stream must have lasted since its first commit for its end to be the first failure again.
pub(crate) const STEADY: Duration = Duration::from_secs(10);

/// What a driver tells.
#[derive(Debug)]
pub enum Told {
    /// The registry said something.
    Event(Event),
    /// The stream ended: nothing uncommitted of these scopes will ever be committed.
    Ended {
        /// Scopes with uncommitted words.
        uncommitted: Vec<Scope>,
        /// Why.
        error: RegistryError,
    },
    /// The stream was ended because a full list was wanted, which the next one begins with: nothing uncommitted of these
    /// scopes will ever be committed.
    ListedAnew {
        /// Scopes with uncommitted words.
        uncommitted: Vec<Scope>,
    },
    /// Something was found out about what was committed, beside the stream ([`Registry::asides`]).
    Aside(Vec<Event>),
}

/// A driver's word with the position of the registry in the list of those that are followed.
#[derive(Debug)]
pub struct Message {
    /// Which registry, by its position.
    pub source: usize,
    /// What it said.
    pub told: Told,
}

/// What has happened on one registry's stream since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Events of every kind.
    pub events: u64,
    /// Commits, empty ones included.
    pub commits: u64,
    /// Full lists that began.
    pub resets: u64,
    /// Outages: streams that had committed something, and ended.
    pub disconnects: u64,
    /// Attempts that ended before anything was committed: those within an outage, and a registry that never was there.
    pub failed_attempts: u64,
    /// Streams that ended because words were lost.
    pub gaps: u64,
    /// Whether the registry was there when it was heard last.
    #[serde(skip)]
    was_there: bool,
}

impl Counters {
    /// Counts one word.
    pub fn count(&mut self, told: &Told) {
        match told {
            Told::Event(event) => {
                self.events += 1;
                let is_commit = matches!(event, Event::Commit { .. });
                self.commits += u64::from(is_commit);
                self.was_there |= is_commit;
                self.resets += u64::from(matches!(event, Event::Reset { .. }));
            }
            Told::Ended { error: RegistryError::Moved(_), .. } => {}
            Told::Ended { error, .. } => {
                let count = if self.was_there { &mut self.disconnects } else { &mut self.failed_attempts };
                *count += 1;
                self.was_there = false;
                self.gaps += u64::from(matches!(error, RegistryError::Gap(_)));
            }
            Told::ListedAnew { .. } | Told::Aside(_) => {}
        }
    }
}

/// Follows one registry.
pub struct Driver {
    registry: Arc<dyn Registry>,
    source: usize,
    backoff: Backoff,
    position: Position,
    /// When the stream first committed something.
    committed_at: Option<Instant>,
    wanted: Arc<Notify>,
}

/// How a stream ended.
enum End {
    /// Nobody listens any more.
    Unheard,
    /// A full list is wanted.
    Wanted,
    Failed(RegistryError),
}

/// Where to go on after a disconnect.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    pub(crate) resume: Option<Resume>,
    /// Scopes with words since their last commit.
    open: HashSet<Scope, RandomState>,
    /// Scopes of which a full list is under way.
    listing: HashSet<Scope, RandomState>,
}

impl Position {
    pub(crate) fn at(resume: Option<Resume>) -> Self {
        Self { resume, ..Self::default() }
    }

    /// Whether everything that was said is committed, and no full list is under way.
    pub(crate) fn is_whole(&self) -> bool {
        self.open.is_empty() && self.listing.is_empty()
    }

    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            Event::Replace { scope, .. } | Event::Ready { scope, .. } => {
                if matches!(event, Event::Ready { .. }) {
                    self.listing.remove(scope);
                }
                if !self.open.contains(scope) {
                    self.open.insert(scope.clone());
                }
            }
            Event::Reset { scope } => {
                self.listing.insert(scope.clone());
                self.open.insert(scope.clone());
            }
            Event::Commit { scope, resume, .. } => {
                self.open.remove(scope);
                // A point in the middle of a list, or with words of another scope in the air, would lose those.
                if self.is_whole() {
                    self.resume.clone_from(resume);
                }
            }
        }
    }

    /// The stream is over. Returns the scopes of which something is left unsaid: words, or the end of a list.
    pub(crate) fn end(&mut self, error: &RegistryError) -> Vec<Scope> {
        if matches!(error, RegistryError::Gap(_)) {
            self.resume = None;
        }
        self.open.extend(self.listing.drain());
        self.open.drain().collect()
    }

    /// The stream was ended to get a full list.
    pub(crate) fn begin_anew(&mut self) -> Vec<Scope> {
        self.resume = None;
        self.open.extend(self.listing.drain());
        self.open.drain().collect()
    }
}

impl Driver {
    /// Follows `registry`, known as number `source`, from `resume` where there is one.
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>, source: usize, backoff: Backoff, resume: Option<Resume>) -> Self {
        let position = Position::at(resume);
        Self { registry, source, backoff, position, committed_at: None, wanted: Arc::default() }
    }

    /// Rung, it has the registry list everything again.
    #[must_use]
    pub fn bell(&self) -> Arc<Notify> {
        self.wanted.clone()
    }

    /// Follows until nobody listens any more.
    pub async fn run(mut self, telling: mpsc::Sender<Message>) {
        let registry = self.registry.clone();
        let mut asides = registry.asides();
        loop {
            let (told, pause) = match self.follow(&telling, &mut asides).await {
                End::Unheard => return,
                End::Wanted => (Told::ListedAnew { uncommitted: self.position.begin_anew() }, Duration::ZERO),
                End::Failed(error) => {
                    let uncommitted = self.position.end(&error);
                    // One whose lists come and whose changes fail is asked ever less often all the same.
                    if self.committed_at.is_some_and(|at| at.elapsed() >= STEADY) {
                        self.backoff.succeeded();
                    }
                    let pause = self.backoff.next(&error);
                    (Told::Ended { uncommitted, error }, pause)
                }
            };
            let mut told = Some(told);
            let end = Instant::now() + pause;
            while let Some(word) = told {
                if telling.send(Message { source: self.source, told: word }).await.is_err() {
                    return;
                }
                told = tokio::select! {
                    () = tokio::time::sleep_until(end) => None,
                    Some(aside) = asides.next() => Some(Told::Aside(aside)),
                };
            }
        }
    }

    /// One stream, from its beginning to its end.
    async fn follow(
        &mut self,
        telling: &mpsc::Sender<Message>,
        asides: &mut BoxStream<'_, Vec<Event>>,
    ) -> End {
        let scope = Scope::whole(self.registry.name().clone());
        let mut stream = self.registry.watch(scope, self.position.resume.clone());
        self.committed_at = None;
        loop {
            let next = tokio::select! {
                next = stream.next() => next,
                Some(aside) = asides.next() => {
                    if telling.send(Message { source: self.source, told: Told::Aside(aside) }).await.is_err() {
                        return End::Unheard;
                    }
                    continue;
                }
                () = self.wanted.notified() => return End::Wanted,
                () = telling.closed() => return End::Unheard,
            };
            let event = match next {
                Some(Ok(event)) => event,
                Some(Err(error)) => return End::Failed(error),
                None => return End::Failed(RegistryError::Unreachable("the stream ended".into())),
            };
            self.position.note(&event);
            if matches!(event, Event::Commit { .. }) {
                self.committed_at.get_or_insert_with(Instant::now);
            }
            if telling.send(Message { source: self.source, told: Told::Event(event) }).await.is_err() {
                return End::Unheard;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::testing::{commit, reset, scope};

    /// Commits, lives for so long, and breaks.
    struct Frail(crate::name::RegistryName, Duration);

    impl Registry for Frail {
        fn name(&self) -> &crate::name::RegistryName {
            &self.0
        }

        fn capabilities(&self) -> crate::registry::Capabilities {
            crate::registry::Capabilities::default()
        }

        fn watch(
            &self,
            scope: Scope,
            _resume: Option<Resume>,
        ) -> BoxStream<'_, Result<Event, RegistryError>> {
            let lives = self.1;
            let breaks = futures_util::stream::once(async move {
                tokio::time::sleep(lives).await;
                Err(RegistryError::Unreachable("closed".into()))
            });
            futures_util::stream::iter([Ok(commit(&scope))]).chain(breaks).boxed()
        }
    }

    /// How many streams there were in two minutes.
    async fn streams(lives: Duration) -> usize {
        let (telling, mut told) = mpsc::channel(64);
        let registry = Arc::new(Frail("x".parse().unwrap(), lives));
        let driver = tokio::spawn(Driver::new(registry, 0, Backoff::default(), None).run(telling));
        let until = Instant::now() + Duration::from_secs(120);
        let mut count = 0;
        while let Ok(Some(message)) = tokio::time::timeout_at(until, told.recv()).await {
            count += usize::from(matches!(message.told, Told::Ended { .. }));
        }
        driver.abort();
        count
    }

    #[tokio::test(start_paused = true)]
    async fn who_breaks_right_after_its_list_is_asked_ever_less_often_and_who_lives_long_is_not() {
        let count = streams(Duration::from_millis(50)).await;
        assert!((20..60).contains(&count), "{count} streams");
        let count = streams(STEADY).await;
        assert_eq!(count, 11, "each pause is a short one");
    }

    #[test]
    fn an_outage_is_counted_once_however_often_it_is_tried() {
        let mut counters = Counters::default();
        let (reset, commit) = (|| Told::Event(reset(&scope("x"))), || Told::Event(commit(&scope("x"))));
        let ended = || Told::Ended { uncommitted: Vec::new(), error: RegistryError::Unreachable("x".into()) };
        let anew = Told::ListedAnew { uncommitted: Vec::new() };
        for told in [ended(), reset(), commit(), anew, ended(), ended(), reset(), ended()] {
            counters.count(&told);
        }
        assert_eq!((counters.disconnects, counters.failed_attempts), (1, 3));
        let moved = Told::Ended { uncommitted: Vec::new(), error: RegistryError::Moved("x".into()) };
        for told in [commit(), moved, ended()] {
            counters.count(&told);
        }
        assert_eq!((counters.disconnects, counters.failed_attempts), (2, 3));
    }
}
