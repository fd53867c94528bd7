//! One kind of object in one place: listed, then followed, and listed again when the server has forgotten where we were.
//!
//! Not kube's own watcher: that one says nothing while it lists again from a stream, hides the bookmarks by which a live
//! watch is told from a dead one, logs every failure, and may begin with a state older than what was seen before.
//!
//! The list comes as the beginning of the watch where the server can do that (`sendInitialEvents`, Kubernetes 1.32), else
//! in pages. Both are read at least as new as the moment of asking, so time never runs backwards.
//!
//! A server that is away for a moment, or that asks to be left alone, is asked again for what comes after the version that
//! was read last: a list of everything is the dearest question there is, and what a server that is just back needs least.
//!
//! It may be back with an old copy of its store. Its versions are lower then than the one that was read last, and a watch
//! from there on would say nothing until they have caught up. So before a watch is taken up that ended too soon, the server
//! is asked where it is. One that was away may have caught up already, with another history: it is asked for what was said
//! last as well. Of a watch that was merely cut, by another server before it for one, nobody lists everything for that.

mod last_said;
mod refusals;

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
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use weft_core::registry::RegistryError;

use super::{
    client::{Client, Lines, Refusal, meaning},
    objects::{Line, Mark, Object, Place, Status, Unreadable},
};
use crate::http_client::jittered;
use last_said::{Doubt, LastSaid};
pub(super) use refusals::MAX_REST;
use refusals::Refusals;

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
/// How long a watch may say nothing: the server marks one that lives about once a minute.
const QUIET: Duration = Duration::from_secs(150);
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
    /// An object that makes no sense is gone.
    GoneUnread(Unreadable),
    /// The full list is over.
    Listed,
    /// The server refuses to be asked: for now nothing is heard of what changes.
    Away,
    /// It does not any more.
    Back,
}

/// What is followed.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    pub(super) place: Place,
    /// Which of them.
    pub(super) selector: Selector,
    /// Whether the server can begin a watch with a list; feeds of one server share what they learn.
    pub(super) streams_lists: Arc<AtomicBool>,
    /// Rung for all feeds of one server when it answers again after a silence: what was written into it may be on its way
    /// for as long again as the silence lasted, so watches are taken up on new connections.
    pub(super) is_back: Arc<Notify>,
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
    /// When it is to end by itself.
    ends: Instant,
    /// None while the list goes on that it began with.
    version: Option<String>,
    opened: Instant,
    heard: Instant,
}

struct Following {
    feed: Feed,
    client: Client,
    state: State,
    brief: u32,
    /// None while all is well.
    refusals: Option<Refusals>,
    /// Whether it was told that the server is away.
    away: bool,
    doubt: Doubt,
    last_said: LastSaid,
}

impl State {
    /// The question that is put in it; none where an answer is being read.
    fn question(&self) -> Option<Self> {
        match self {
            Self::Begin => Some(Self::Begin),
            Self::Page(token) => Some(Self::Page(token.clone())),
            Self::At(version) => Some(Self::At(version.clone())),
            Self::Open(_) | Self::Failed => None,
        }
    }

    /// Whether it can be put once more after such a refusal. Who has nothing yet begins again without a server, and who
    /// has something goes on with it. A server that was away knows last of all who may do what: what it denies then is part
    /// of its outage.
    fn outlives(&self, error: &RegistryError, doubt: Doubt) -> bool {
        match error {
            RegistryError::Overloaded(_) => true,
            RegistryError::Unreachable(_) => matches!(self, Self::At(_)),
            RegistryError::Denied(_) => doubt > Doubt::None && matches!(self, Self::At(_)),
            _ => false,
        }
    }
}

impl Feed {
    /// Follows until an error.
    pub(super) fn follow(self, client: Client) -> impl Stream<Item = Result<Vec<Word>, RegistryError>> {
        let following = Following {
            feed: self,
            client,
            state: State::Begin,
            brief: 0,
            refusals: None,
            away: false,
            doubt: Doubt::None,
            last_said: LastSaid::default(),
        };
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
    pub(super) async fn ask(self, client: Client) -> Result<(), Refusal> {
        let what = self.place.describe("list");
        client.ask(&what, self.list(&what, 1, None)?).await
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
            let state = std::mem::replace(&mut self.state, State::Failed);
            if let Some(refusals) = self.refusals.filter(|_| !matches!(state, State::Open(_))) {
                sleep_until(refusals.not_before).await;
            }
            let asked = state.question();
            let done = match state {
                State::Begin => {
                    words.push(Word::Listing);
                    self.doubt = Doubt::None;
                    self.begin().await
                }
                State::Page(token) => self.page(token, &mut words).await,
                State::At(version) => self.take_up(version).await,
                State::Open(open) => self.read(open, &mut words).await.map_err(Refusal::from),
                State::Failed => return Ok(words),
            };
            self.state = match done {
                Ok(next) => {
                    if matches!(next, State::Open(_)) && std::mem::take(&mut self.away) {
                        words.push(Word::Back);
                    }
                    next
                }
                // The server has forgotten where we were.
                Err(Refusal { error: RegistryError::Gap(_), .. }) if self.brief < MAX_BRIEF => {
                    self.brief += 1;
                    State::Begin
                }
                Err(refusal) => {
                    let again = asked.filter(|asked| asked.outlives(&refusal.error, self.doubt));
                    let Some(again) = again else { return Err(refusal.error) };
                    self.note_away(&refusal.error);
                    self.rest(refusal, &mut words)?;
                    again
                }
            };
            if !words.is_empty() {
                self.last_said.hear(&words);
                return Ok(words);
            }
        }
    }

    fn note_away(&mut self, error: &RegistryError) {
        if matches!(error, RegistryError::Unreachable(_)) {
            self.doubt = Doubt::Away;
        }
    }

    /// The server is away, or wants rest: it is asked again later. An error when that goes on for too long.
    fn rest(&mut self, refusal: Refusal, words: &mut Vec<Word>) -> Result<(), RegistryError> {
        let Some(refusals) = Refusals::after(self.refusals, &refusal) else { return Err(refusal.error) };
        tracing::debug!(error = %refusal.error, "it is asked again");
        self.refusals = Some(refusals);
        if !std::mem::replace(&mut self.away, true) {
            words.push(Word::Away);
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<State, Refusal> {
        if !self.feed.streams_lists.load(Ordering::Relaxed) {
            return Ok(State::Page(None));
        }
        match self.open(None).await {
            // A server that knows the question and does not answer it calls it invalid.
            Err(Refusal { error: RegistryError::Malformed(_), .. }) => {
                self.feed.streams_lists.store(false, Ordering::Relaxed);
                Ok(State::Page(None))
            }
            opened => opened,
        }
    }

    async fn page(&mut self, token: Option<String>, words: &mut Vec<Word>) -> Result<State, Refusal> {
        let what = self.feed.place.describe("list");
        let page = self.client.page(&what, self.feed.list(&what, PAGE, token)?).await?;
        let list = page.read()?;
        for item in list.items.iter().flatten() {
            words.push(match self.feed.place.kind.read(item) {
                Ok(object) => Word::Put(Box::new(object)),
                Err(unreadable) => Word::Unreadable(unreadable),
            });
        }
        self.refusals = None;
        if let Some(token) = list.metadata.continue_token.filter(|token| !token.is_empty()) {
            return Ok(State::Page(Some(token)));
        }
        if list.metadata.resource_version.is_empty() {
            return Err(page.malformed("the list has no version").into());
        }
        words.push(Word::Listed);
        Ok(State::At(list.metadata.resource_version))
    }

    async fn take_up(&mut self, version: String) -> Result<State, Refusal> {
        if self.brief > 0 {
            sleep(jittered(Duration::from_millis(200) * self.brief)).await;
        }
        if self.doubt > Doubt::None && self.went_back(&version).await? {
            return Ok(State::Begin);
        }
        self.doubt = Doubt::None;
        self.open(Some(version)).await
    }

    /// Whether the server is at an earlier version than this, or may have another history up to it.
    async fn went_back(&mut self, version: &str) -> Result<bool, Refusal> {
        let what = self.feed.place.describe("list");
        let asked = Feed { selector: self.last_said.asked_by(&self.feed.selector), ..self.feed.clone() };
        let page = self.client.page(&what, asked.list(&what, 1, None)?).await?;
        let answer = page.read()?;
        let is_another =
            || self.doubt == Doubt::Away && !self.last_said.holds_in(&answer, self.feed.place.kind);
        Ok(is_older(&answer.metadata.resource_version, version) || is_another())
    }

    async fn open(&mut self, version: Option<String>) -> Result<State, Refusal> {
        let what = self.feed.place.describe("watch");
        let lasts = jittered(LASTS);
        let request = self.feed.watch(&what, version.as_deref(), lasts)?;
        let lines = self.client.watch(&what, request).await?;
        let opened = Instant::now();
        Ok(State::Open(Box::new(Open { lines, ends: opened + lasts, version, opened, heard: opened })))
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
            // A watch may be dead although the server answers others: it is another connection, or another server.
            let line = timeout_at((open.ends + GRACE).min(open.heard + QUIET), open.lines.next());
            let line = tokio::select! {
                line = line => line,
                () = self.feed.is_back.notified() => Ok(Ok(None)),
            };
            match line {
                // A connection that broke is like one that was ended: what matters is whether it can be taken up.
                Ok(Err(RegistryError::Unreachable(_))) | Err(_) => None,
                Ok(line) => line?,
            }
        };
        let Some(line) = line else {
            let brief = self.was_brief(&open);
            if Instant::now() + GRACE < open.ends {
                self.doubt = self.doubt.max(Doubt::Cut);
            }
            let Some(version) = open.version else {
                return Err(RegistryError::Unreachable(format!("{what}: it ended within the list")));
            };
            self.brief = if brief { self.brief + 1 } else { 0 };
            if self.brief > MAX_BRIEF {
                return Err(RegistryError::Unreachable(format!("{what}: it ends again and again at once")));
            }
            return Ok(State::At(version));
        };
        open.heard = Instant::now();
        let mut line = Some(line);
        while let Some(next) = line {
            if let Err(error) = self.hear(&what, &next, &mut open, words) {
                return self.ended(&open, error, words);
            }
            line = if words.len() < AT_ONCE { open.lines.buffered() } else { None };
        }
        Ok(State::Open(open))
    }

    /// The server has ended a watch with an error.
    fn ended(
        &mut self,
        open: &Open,
        error: RegistryError,
        words: &mut Vec<Word>,
    ) -> Result<State, RegistryError> {
        self.was_brief(open);
        match &open.version {
            Some(version) if State::At(version.clone()).outlives(&error, self.doubt) => {
                self.note_away(&error);
                self.rest(error.into(), words)?;
                Ok(State::At(version.clone()))
            }
            _ => Err(error),
        }
    }

    /// Whether a watch that is over had hardly begun. One that had shows that the server refuses nothing any more.
    fn was_brief(&mut self, open: &Open) -> bool {
        let brief = open.opened.elapsed() < BRIEF;
        if !brief {
            self.refusals = None;
        }
        brief
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
            } else if let (Some(known), Some(version)) = (&mut open.version, version) {
                if is_older(&version, known) {
                    return Err(RegistryError::Gap(format!(
                        "{what}: it went back from version {known} to {version}"
                    )));
                }
                *known = version;
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
            (Err(unreadable), "DELETED") => Word::GoneUnread(unreadable),
            (Err(unreadable), _) => Word::Unreadable(unreadable),
        });
        Ok(())
    }
}

/// Whether one version is before another. They are numbers wherever Kubernetes keeps them; of others nobody knows.
fn is_older(version: &str, than: &str) -> bool {
    let number = |version: &str| version.parse::<u64>().ok();
    number(version).zip(number(than)).is_some_and(|(version, than)| version < than)
}

fn no_version(what: &str) -> RegistryError {
    RegistryError::Malformed(format!("{what}: the list has no version"))
}

#[cfg(test)]
mod tests;
