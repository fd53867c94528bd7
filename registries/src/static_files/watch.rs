//! When to look: the kernel's word about the folder, a slow poll beside it, and a moment's rest so that one save is one
//! look.

use std::{
    collections::VecDeque,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures_core::Stream;
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{sync::mpsc, time::Instant};
use weft_core::registry::{Event, RegistryError, Scope};

use super::{
    StaticSettings,
    folder::{Listing, SETTLED_AFTER},
    told::Told,
};

/// How long the folder must be still before it is looked at: editors and Kubernetes change several names per save.
const QUIET: Duration = Duration::from_millis(50);
/// The longest that looking is put off while changes go on.
const MAX_WAIT: Duration = Duration::from_millis(200);

/// What tells a folder from another one of its name: its device, its number, and when it was made where the file system
/// says so, as a number is given again.
type Place = (u64, u64, Option<SystemTime>);

/// Which folder a registry saw last, over all its watches; the inner none when there was no folder at the last look.
/// Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<Option<Option<Place>>>>);

impl Seen {
    /// Takes note of the folder that is there now. Returns whether that is another one than at the look before.
    fn note(&self, now: Option<Place>) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.replace(now).is_some_and(|before| before != now)
    }
}

/// Follows the folder until its consumer has enough.
pub(super) fn follow(
    settings: StaticSettings,
    scope: Scope,
    seen: Seen,
) -> impl Stream<Item = Result<Event, RegistryError>> {
    let told = Told::new(scope, settings.allow_loopback);
    let state = State {
        settings,
        told,
        seen,
        bell: None,
        listing: Listing::default(),
        queue: VecDeque::new(),
        ended: false,
    };
    futures_util::stream::unfold(state, |mut state| async move {
        let item = state.next().await?;
        Some((item, state))
    })
}

struct State {
    settings: StaticSettings,
    told: Told,
    seen: Seen,
    /// Rings when the folder changes; none before the first look.
    bell: Option<Bell>,
    listing: Listing,
    queue: VecDeque<Event>,
    ended: bool,
}

impl State {
    async fn next(&mut self) -> Option<Result<Event, RegistryError>> {
        while self.queue.is_empty() {
            if self.ended {
                return None;
            }
            if let Err(error) = self.look().await {
                // An error ends the stream; the driver watches again.
                self.ended = true;
                let folder = self.settings.path.display();
                return Some(Err(registry_error(format!("{folder}: {error}"), error.kind())));
            }
        }
        self.queue.pop_front().map(Ok)
    }

    /// Waits until it is time to look (at once for the first time), looks, and queues what is new.
    async fn look(&mut self) -> io::Result<()> {
        let folder = &self.settings.path;
        let anew = match &mut self.bell {
            Some(bell) => {
                let longest = if self.listing.unsettled { SETTLED_AFTER } else { self.settings.poll };
                bell.rung(longest).await;
                bell.is_elsewhere(folder)
            }
            None => true,
        };
        let mut elsewhere = false;
        if anew {
            // The bell is hung before the look, so that no change falls between the two.
            let bell = Bell::hang(folder);
            elsewhere = self.seen.note(bell.hung_at);
            self.bell = Some(bell);
        }
        let (path, before) = (self.settings.path.clone(), std::mem::take(&mut self.listing));
        let read = tokio::task::spawn_blocking(move || Listing::read(&path, &before));
        self.listing = read.await.map_err(io::Error::other)??;
        self.queue.extend(match anew {
            true => self.told.full(&self.listing, elsewhere),
            false => self.told.changes(&self.listing),
        });
        Ok(())
    }
}

fn registry_error(message: String, kind: io::ErrorKind) -> RegistryError {
    match kind {
        io::ErrorKind::PermissionDenied => RegistryError::Denied(message),
        _ => RegistryError::Unreachable(message),
    }
}

/// Rings when something in a folder changes. Where the kernel cannot tell, it never rings and the poll must do.
struct Bell {
    changes: mpsc::Receiver<()>,
    /// A folder that was moved away and made anew is another.
    hung_at: Option<Place>,
    _watcher: Option<RecommendedWatcher>,
}

impl Bell {
    fn hang(folder: &Path) -> Self {
        // One place is enough: a second ring while the first is unheard says nothing more.
        let (ring, changes) = mpsc::channel(1);
        let watcher = watch(folder.to_owned(), ring);
        if let Err(error) = &watcher {
            tracing::warn!(folder = %folder.display(), %error, "cannot watch the folder; it is polled");
        }
        Self { changes, hung_at: place_of(folder), _watcher: watcher.ok() }
    }

    /// Whether the folder's name now means another folder.
    fn is_elsewhere(&self, folder: &Path) -> bool {
        self.hung_at != place_of(folder)
    }

    /// Waits for a ring and then for quiet, or for `poll` to pass.
    async fn rung(&mut self, poll: Duration) {
        match tokio::time::timeout(poll, self.changes.recv()).await {
            Ok(Some(())) => self.quiet().await,
            // No watcher: only the poll is left.
            Ok(None) => tokio::time::sleep(poll).await,
            Err(_elapsed) => {}
        }
    }

    async fn quiet(&mut self) {
        let latest = Instant::now() + MAX_WAIT;
        loop {
            let still = Instant::now() + QUIET;
            match tokio::time::timeout_at(still.min(latest), self.changes.recv()).await {
                Ok(Some(())) if Instant::now() < latest => {}
                _ => return,
            }
        }
    }
}

fn place_of(folder: &Path) -> Option<Place> {
    let metadata = std::fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

fn watch(folder: PathBuf, ring: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is no change; that a writer is done is news.
        let is_done = |kind| matches!(kind, EventKind::Access(AccessKind::Close(AccessMode::Write)));
        if event.is_ok_and(|event| event.kind.is_access() && !is_done(event.kind)) {
            return;
        }
        // Full means that a ring is waiting already; closed means that nobody listens any more.
        let _rung = ring.try_send(());
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
