//! One kind of object in one place: listed, then followed, and listed again when the server has forgotten where we were.
//!
//! Not kube's own watcher: that one says nothing while it lists again from a stream, hides the bookmarks by which a live
//! watch is told from a dead one, logs every failure, and may begin with a state older than what was seen before.
//!
//! The list comes as the beginning of the watch where the server can do that (`sendInitialEvents`, Kubernetes 1.32), else
//! in pages. Both are read at least as new as the moment of asking, so time never runs backwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use http::Request;
use kube::{
    api::{ListParams, WatchParams},
    core::Request as Path,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use weft_core::registry::RegistryError;

use super::{
    client::{Client, Lines, meaning},
    objects::{Line, List, Mark, Object, Place, Status, Unreadable},
};
use crate::http_client::jittered;

/// How long a watch is asked to last, before it is spread.
const LASTS: Duration = Duration::from_secs(230);
/// How much longer than asked for a watch may last before it is taken for dead.
const GRACE: Duration = Duration::from_secs(15);
/// How long a list may be silent as the beginning of a watch before the server is taken for one that knows no such list.
const SILENT: Duration = Duration::from_secs(15);
/// Objects on one page of a list.
const PAGE: u32 = 500;
/// A watch that ends sooner did not really begin.
const BRIEF: Duration = Duration::from_secs(2);
/// So many brief watches in a row are a fault.
const MAX_BRIEF: u32 = 3;
/// At most so many lines are one word: then others have their turn.
const AT_ONCE: usize = 256;

/// What a feed says.
#[derive(Debug)]
pub(super) enum Word {
    /// A full list begins.
    Listing,
    /// An object is there, or is another than before.
    Put(Box<Object>),
    /// An object is gone.
    Gone(Box<Object>),
    /// An object makes no sense.
    Unreadable(Unreadable),
    /// The full list is over.
    Listed,
}

/// What is followed.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    pub(super) place: Place,
    /// Which of them.
    pub(super) selector: Selector,
    /// Whether the server can begin a watch with a list; feeds of one server share what they learn.
    pub(super) streams_lists: Arc<AtomicBool>,
}

/// Which objects of a kind are followed; all where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
}

enum State {
    Begin,
    /// In the middle of a list, at its next page.
    Page(Option<String>),
    /// Listed, or followed, up to a version.
    At(String),
    Open(Box<Open>),
    Failed,
}

struct Open {
    lines: Lines,
    /// None while the list goes on that it began with.
    version: Option<String>,
    opened: Instant,
    until: Instant,
}

struct Following {
    feed: Feed,
    client: Client,
    state: State,
    brief: u32,
}

impl Feed {
    /// Follows until an error.
    pub(super) fn follow(self, client: Client) -> impl Stream<Item = Result<Vec<Word>, RegistryError>> {
        let following = Following { feed: self, client, state: State::Begin, brief: 0 };
        futures_util::stream::unfold(following, |mut following| async move {
            if matches!(following.state, State::Failed) {
                return None;
            }
            Some((following.next().await, following))
        })
    }

    /// A question that only its store can answer, and that is cheap: one object of the list.
    ///
    /// # Errors
    /// What the refusal means.
    pub(super) async fn ask(self, client: Client) -> Result<(), RegistryError> {
        let what = self.place.describe("list");
        client.short(&what, self.list(&what, 1, None)?).await.map(drop)
    }

    fn path(&self) -> Path {
        Path::new(self.place.kind.path(self.place.namespace.as_deref()))
    }

    fn list(&self, what: &str, limit: u32, token: Option<String>) -> Result<Request<Vec<u8>>, RegistryError> {
        let params = ListParams {
            label_selector: self.selector.labels.clone(),
            field_selector: self.selector.fields.clone(),
            limit: Some(limit),
            continue_token: token,
            ..ListParams::default()
        };
        self.path().list(&params).map_err(|error| unaskable(what, error))
    }

    fn watch(
        &self,
        what: &str,
        version: Option<&str>,
        lasts: Duration,
    ) -> Result<Request<Vec<u8>>, RegistryError> {
        let params = WatchParams {
            label_selector: self.selector.labels.clone(),
            field_selector: self.selector.fields.clone(),
            timeout: u32::try_from(lasts.as_secs()).ok(),
            bookmarks: true,
            send_initial_events: version.is_none(),
        };
        // An empty version asks for a state at least as new as now.
        self.path().watch(&params, version.unwrap_or_default()).map_err(|error| unaskable(what, error))
    }
}

fn unaskable(what: &str, error: impl std::fmt::Display) -> RegistryError {
    RegistryError::Malformed(format!("{what} cannot be asked: {error}"))
}

impl Following {
    async fn next(&mut self) -> Result<Vec<Word>, RegistryError> {
        loop {
            let mut words = Vec::new();
            let done = match std::mem::replace(&mut self.state, State::Failed) {
                State::Begin => {
                    words.push(Word::Listing);
                    self.begin().await
                }
                State::Page(token) => self.page(token, &mut words).await,
                State::At(version) => self.take_up(version).await,
                State::Open(open) => self.read(open, &mut words).await,
                State::Failed => return Ok(words),
            };
            self.state = match done {
                Ok(state) => state,
                // The server has forgotten where we were.
                Err(RegistryError::Gap(_)) if self.brief < MAX_BRIEF => {
                    self.brief += 1;
                    State::Begin
                }
                Err(error) => return Err(error),
            };
            if !words.is_empty() {
                return Ok(words);
            }
        }
    }

    async fn begin(&mut self) -> Result<State, RegistryError> {
        if !self.feed.streams_lists.load(Ordering::Relaxed) {
            return Ok(State::Page(None));
        }
        match self.open(None).await {
            // A server that knows the question and does not answer it calls it invalid.
            Err(RegistryError::Malformed(_)) => {
                self.feed.streams_lists.store(false, Ordering::Relaxed);
                Ok(State::Page(None))
            }
            opened => opened,
        }
    }

    async fn page(&mut self, token: Option<String>, words: &mut Vec<Word>) -> Result<State, RegistryError> {
        let what = self.feed.place.describe("list");
        let answer = self.client.page(&what, self.feed.list(&what, PAGE, token)?).await?;
        let malformed = |why: String| RegistryError::Malformed(format!("{what}: {why}"));
        let list: List<'_> = serde_json::from_slice(&answer).map_err(|error| malformed(error.to_string()))?;
        for item in list.items.iter().flatten() {
            words.push(match self.feed.place.kind.read(item) {
                Ok(object) => Word::Put(Box::new(object)),
                Err(unreadable) => Word::Unreadable(unreadable),
            });
        }
        if let Some(token) = list.metadata.continue_token.filter(|token| !token.is_empty()) {
            return Ok(State::Page(Some(token)));
        }
        if list.metadata.resource_version.is_empty() {
            return Err(malformed("the list has no version".into()));
        }
        words.push(Word::Listed);
        Ok(State::At(list.metadata.resource_version))
    }

    async fn take_up(&mut self, version: String) -> Result<State, RegistryError> {
        if self.brief > 0 {
            sleep(jittered(Duration::from_millis(200) * self.brief)).await;
        }
        self.open(Some(version)).await
    }

    async fn open(&mut self, version: Option<String>) -> Result<State, RegistryError> {
        let what = self.feed.place.describe("watch");
        let lasts = jittered(LASTS);
        let request = self.feed.watch(&what, version.as_deref(), lasts)?;
        let lines = self.client.lines(&what, request).await?;
        let opened = Instant::now();
        Ok(State::Open(Box::new(Open { lines, version, opened, until: opened + lasts + GRACE })))
    }

    /// Reads the next line, and those that came with it.
    async fn read(&mut self, mut open: Box<Open>, words: &mut Vec<Word>) -> Result<State, RegistryError> {
        let what = self.feed.place.describe("watch");
        let line = if open.version.is_none() {
            match timeout(SILENT, open.lines.next()).await {
                Ok(line) => line?,
                Err(_) => {
                    self.feed.streams_lists.store(false, Ordering::Relaxed);
                    return Ok(State::Begin);
                }
            }
        } else {
            match timeout_at(open.until, open.lines.next()).await {
                // A connection that broke is like one that was ended: what matters is whether it can be taken up.
                Ok(Err(RegistryError::Unreachable(_))) | Err(_) => None,
                Ok(line) => line?,
            }
        };
        let Some(line) = line else {
            let Some(version) = open.version else {
                return Err(RegistryError::Unreachable(format!("{what}: it ended within the list")));
            };
            self.brief = if open.opened.elapsed() < BRIEF { self.brief + 1 } else { 0 };
            if self.brief > MAX_BRIEF {
                return Err(RegistryError::Unreachable(format!("{what}: it ends again and again at once")));
            }
            return Ok(State::At(version));
        };
        self.hear(&what, &line, &mut open, words)?;
        while words.len() < AT_ONCE
            && let Some(line) = open.lines.buffered()
        {
            self.hear(&what, &line, &mut open, words)?;
        }
        Ok(State::Open(open))
    }

    fn hear(
        &self,
        what: &str,
        line: &Bytes,
        open: &mut Open,
        words: &mut Vec<Word>,
    ) -> Result<(), RegistryError> {
        let malformed = |error| RegistryError::Malformed(format!("{what}: {error}"));
        let line: Line<'_> = serde_json::from_slice(line).map_err(malformed)?;
        if line.word == "ERROR" {
            let status: Status = serde_json::from_str(line.object.get()).map_err(malformed)?;
            return Err(meaning(what, status.code, &format!("{} {}", status.reason, status.message)));
        }
        if line.word == "BOOKMARK" {
            let mark: Mark = serde_json::from_str(line.object.get()).map_err(malformed)?;
            let version = Some(mark.metadata.resource_version).filter(|version| !version.is_empty());
            let marks = mark.metadata.annotations.unwrap_or_default();
            if open.version.is_none() && marks.contains_key("k8s.io/initial-events-end") {
                words.push(Word::Listed);
                open.version = Some(version.ok_or_else(|| no_version(what))?);
            } else if open.version.is_some() {
                open.version = version.or(open.version.take());
            }
            return Ok(());
        }
        let object = self.feed.place.kind.read(line.object);
        if let (Ok(object), Some(version)) = (&object, &mut open.version)
            && !object.meta().resource_version.is_empty()
        {
            version.clone_from(&object.meta().resource_version);
        }
        words.push(match (object, &*line.word) {
            (Ok(object), "DELETED") => Word::Gone(Box::new(object)),
            (Ok(object), _) => Word::Put(Box::new(object)),
            (Err(unreadable), _) => Word::Unreadable(unreadable),
        });
        Ok(())
    }
}

fn no_version(what: &str) -> RegistryError {
    RegistryError::Malformed(format!("{what}: the list has no version"))
}
