//! The loop: what to read when, and what of it is new.
//!
//! Two rhythms. A wake-up names what to read again, which takes milliseconds. A look every few seconds asks for the names of
//! all services and their one index: where that is known, everything is still true, and is confirmed; where it is not,
//! nobody woke us, and everything is read again.

mod reading;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_core::Stream;
use futures_util::{TryFutureExt, stream::try_unfold};
use tokio::time::{Instant, sleep_until, timeout};
use weft_core::registry::{Completeness, Event, RegistryError, Scope};

use super::{
    access::{self, Seen},
    catalog::{Catalog, Joining, Name, Verdicts},
    client::Client,
    events::is_of_no_version,
    link::{Heard, Link},
    objects::StreamEvent,
    polls::{self, Polls},
    settings::{Namespaces, NomadSettings},
    variables::{Understood, Variables},
};
use crate::{
    http_client::jittered,
    shared::Text,
    told::{Listing, Told, notices},
};

/// How often names and index are asked for. What is true is confirmed so often.
const LOOK: Duration = Duration::from_secs(8);
/// How often everything is read where the index moves and the stream says nothing of it: changes that are hidden from us
/// move it too.
const SWEEP: Duration = Duration::from_secs(60);
/// How often nodes are read again, and what the server did not know is asked for again.
const RENEW: Duration = Duration::from_secs(300);
/// How long the first list waits for the results of checks.
const FIRST_CHECKS: Duration = Duration::from_secs(2);
/// The most namespaces that are followed by a stream each: a client address has a hundred connections, for all that run
/// there.
const MOST_STREAMS: usize = 16;
/// A stream that lived shorter is no better than none.
const SHORT_LIFE: Duration = Duration::from_secs(5);

/// Follows Nomad until its consumer has enough.
pub(super) fn follow(
    settings: NomadSettings,
    scope: Scope,
    memory: Memory,
) -> impl Stream<Item = Result<Event, RegistryError>> {
    // An error ends the stream; the driver watches again.
    let begun = Follow::begin(settings, scope, memory).map_ok(|follow| {
        try_unfold(Box::new(follow), |mut follow| async move { Ok(Some((follow.next().await?, follow))) })
    });
    begun.try_flatten_stream()
}

/// What outlives a stream. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    understood: Understood,
    seen: Seen,
    verdicts: Arc<Mutex<Verdicts>>,
}

/// What hinders and does not prevent, once each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Notice {
    Namespaces,
    Nodes,
    Region,
    Stream,
    Checks,
}

impl Drop for Follow {
    fn drop(&mut self) {
        *held(&self.verdicts) = self.catalog.verdicts();
    }
}

fn held(verdicts: &Mutex<Verdicts>) -> MutexGuard<'_, Verdicts> {
    verdicts.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Follow {
    settings: NomadSettings,
    client: Client,
    told: Told,
    catalog: Catalog,
    polls: Polls,
    link: Link,
    variables: Option<Variables>,
    /// All changes of services up to this index are in the catalog.
    index: u64,
    /// What that was when the link was opened.
    opened_at: u64,
    region: String,
    may_read_nodes: bool,
    completeness: Completeness,
    /// Namespaces that are named and may not be read.
    denied: Vec<String>,
    /// Namespaces that had services at the last look, or showed some since.
    seen: Seen,
    /// Where what checks said goes when the stream ends.
    verdicts: Arc<Mutex<Verdicts>>,
    /// Allocations whose checks may not be read.
    without_checks: BTreeSet<Text>,
    /// Allocations and nodes that the server does not know.
    unknown: BTreeSet<Text>,
    notices: BTreeMap<Notice, String>,
    /// Whether the notices are other ones than were told.
    noticed: bool,
    look_at: Instant,
    renew_at: Instant,
    swept: Instant,
    queue: VecDeque<Event>,
}

impl Follow {
    /// Reads everything and queues the full list.
    async fn begin(settings: NomadSettings, scope: Scope, memory: Memory) -> Result<Self, RegistryError> {
        let now = Instant::now();
        let verdicts = mem::take(&mut *held(&memory.verdicts));
        let mut follow = Self {
            client: Client::new(&settings)?,
            told: Told::new(scope),
            catalog: Catalog::remembering(verdicts),
            polls: Polls::new(settings.health_interval),
            link: Link::Down,
            variables: None,
            index: 0,
            opened_at: 0,
            region: String::new(),
            may_read_nodes: false,
            completeness: Completeness::Filtered,
            denied: Vec::new(),
            without_checks: BTreeSet::new(),
            seen: memory.seen,
            verdicts: memory.verdicts,
            unknown: BTreeSet::new(),
            notices: BTreeMap::new(),
            noticed: false,
            look_at: now + jittered(LOOK),
            renew_at: now + jittered(RENEW),
            swept: now,
            queue: VecDeque::new(),
            settings,
        };
        follow.client.await_answer().await?;
        if let Some(place) = follow.settings.variables.clone() {
            follow.variables = Some(Variables::begin(&follow.client, place, memory.understood).await?);
        }
        follow.ask_who_we_are().await?;
        let names = access::list(&follow.client, &follow.settings.namespaces).await?;
        follow.judge(&names).await?;
        follow.read_all(&names).await?;
        follow.complete(true).await?;
        follow.catalog.forget_others();
        follow.first_checks().await;
        follow.open_link();
        follow.tell(true);
        Ok(follow)
    }

    async fn next(&mut self) -> Result<Event, RegistryError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(event);
            }
            tokio::select! {
                heard = self.link.next() => self.hear(heard).await?,
                answer = self.polls.next(self.client.asking_for_checks()) => self.take_checks(answer),
                are_new = woken(&mut self.variables, &self.client) => {
                    if let Some(variables) = self.variables.as_mut().filter(|_| matches!(are_new, Ok(true))) {
                        variables.read(&self.client).await?;
                        self.tell(false);
                    }
                    are_new?;
                }
                () = sleep_until(self.look_at) => self.look().await?,
            }
        }
    }

    /// Takes a wake-up.
    async fn hear(&mut self, heard: Heard) -> Result<(), RegistryError> {
        match heard {
            Heard::Opened => {
                self.notice(Notice::Stream, None);
                self.catch_up().await?;
            }
            Heard::Events(events) => self.read_what_changed(events).await?,
            Heard::Anything => self.sweep().await?,
            Heard::Index(index) => {
                if index != self.index {
                    self.sweep().await?;
                }
                // Unless a stream was opened meanwhile.
                if let Some(blocking) = self.link.blocking_for() {
                    self.block(Instant::now() - blocking);
                }
            }
            Heard::Lost(error, lived) => {
                tracing::debug!(%error, "nomad's event stream is lost");
                // Whether the server is there, and we may still ask, is seen here.
                self.sweep().await?;
                if lived >= SHORT_LIFE {
                    self.open_link();
                } else {
                    let old = if is_of_no_version(&error) {
                        ". Servers before 1.11.3 answer it with a version of HTTP that there is not"
                    } else {
                        ""
                    };
                    let message = format!(
                        "the event stream cannot be followed ({error}); changes are found by blocking queries, later and \
                         at a greater cost{old}"
                    );
                    self.notice(Notice::Stream, Some(message));
                    self.block(Instant::now());
                }
            }
            Heard::Failed(error) => return Err(error),
        }
        if self.noticed {
            self.tell(false);
        }
        Ok(())
    }

    /// Asks whether all is as it was.
    async fn look(&mut self) -> Result<(), RegistryError> {
        self.look_at = Instant::now() + jittered(LOOK);
        let names = access::list(&self.client, &self.settings.namespaces).await?;
        let renews = Instant::now() >= self.renew_at;
        let hides = self.completeness == Completeness::Filtered;
        let lacks = !names.denied.is_empty() || !names.odd.is_empty() || names.services.is_empty();
        let has_moved = !self.seen.is(&names) || lacks;
        let reopens = (renews || hides || has_moved) && self.judge(&names).await?;
        if renews {
            self.renew_at = Instant::now() + jittered(RENEW);
            self.unknown.clear();
            self.ask_who_we_are().await?;
        }
        if renews || reopens {
            self.read_nodes_again().await?;
        }
        let went_back = names.index < self.index;
        let is_due = self.swept.elapsed() >= SWEEP || !self.link.is_open();
        if went_back || reopens || (names.index != self.index && is_due) {
            self.read_all(&names).await?;
        } else {
            self.read_names(&names).await?;
        }
        if !self.link.is_open() {
            self.read_allocations_again().await?;
        }
        self.complete(false).await?;
        self.forget_denials();
        if went_back || self.link.blocking_for().is_some_and(|blocking| blocking >= SWEEP) {
            // A rebuilt cluster counts from the beginning: the stream would wait for what was long ago.
            self.open_link();
        }
        self.tell(false);
        Ok(())
    }

    /// Reads what happened before the stream was open. The server keeps a hundred events of all kinds: where the one that
    /// was asked for is no longer among them, it begins with the next that it has, and does not say so.
    async fn catch_up(&mut self) -> Result<(), RegistryError> {
        let names = access::list(&self.client, &self.settings.namespaces).await?;
        if names.index != self.index {
            return self.sweep().await;
        }
        self.read_rest().await
    }

    /// Reads everything, and says what is different.
    async fn sweep(&mut self) -> Result<(), RegistryError> {
        let names = access::list(&self.client, &self.settings.namespaces).await?;
        if self.judge(&names).await? {
            self.read_nodes_again().await?;
        }
        self.read_all(&names).await?;
        self.read_rest().await
    }

    /// Reads what a list of services says nothing of, and says what is different.
    async fn read_rest(&mut self) -> Result<(), RegistryError> {
        self.read_allocations_again().await?;
        self.complete(false).await?;
        self.tell(false);
        Ok(())
    }

    /// Decides whether what is missing from the list is gone. Returns whether streams are opened anew because of what may be
    /// read now: what those before them had not told yet is lost, and with several of them our index may be beyond it.
    async fn judge(&mut self, names: &access::Names) -> Result<bool, RegistryError> {
        let judged = access::judge(&self.client, &self.settings.namespaces, names, &self.seen).await?;
        let before = (mem::replace(&mut self.completeness, judged.0), mem::take(&mut self.denied));
        self.denied.clone_from(&names.denied);
        self.notice(Notice::Namespaces, judged.1);
        // What may be read decides which streams there are.
        let reopens = before != (self.completeness, self.denied.clone()) && !self.link.is_down();
        if reopens {
            self.open_link();
        }
        Ok(reopens)
    }

    fn notice(&mut self, notice: Notice, message: Option<String>) {
        let is_new = self.notices.get(&notice) != message.as_ref();
        self.noticed |= is_new;
        match message {
            Some(message) => drop(self.notices.insert(notice, message)),
            None => drop(self.notices.remove(&notice)),
        }
    }

    /// Events that may be followed: one topic too many, and Nomad answers 200 and silence.
    fn open_link(&mut self) {
        let topics: &[&str] =
            if self.may_read_nodes { &["Service", "Allocation", "Node"] } else { &["Service", "Allocation"] };
        self.opened_at = self.index;
        match self.streams() {
            Some(namespaces) => self.link = Link::open(&self.client, topics, namespaces, self.index),
            None => {
                self.notice(Notice::Stream, None);
                self.block(Instant::now());
            }
        }
    }

    fn block(&mut self, since: Instant) {
        self.link = Link::block(&self.client, self.namespace(), self.index, since);
    }

    /// The namespaces that are followed by a stream each, without those that may not be read. None where there are too many,
    /// and where not all of all may be read: a stream of all (`*`) is then 200 and silence.
    fn streams(&self) -> Option<Vec<String>> {
        let Namespaces::These(named) = &self.settings.namespaces else {
            return (self.completeness == Completeness::Full).then(|| vec!["*".to_owned()]);
        };
        let may_be_read = named.iter().filter(|namespace| !self.denied.contains(namespace));
        let namespaces: Vec<String> = may_be_read.cloned().collect();
        (namespaces.len() <= MOST_STREAMS).then_some(namespaces)
    }

    fn namespace(&self) -> &str {
        match &self.settings.namespaces {
            Namespaces::These(namespaces) if namespaces.len() == 1 => &namespaces[0],
            _ => "*",
        }
    }

    /// Waits a little for the results of checks, so that what fails is told so from the beginning.
    async fn first_checks(&mut self) {
        let answers = async {
            while !self.polls.are_idle() {
                let answer = self.polls.next(self.client.asking_for_checks()).await;
                self.note_checks(answer);
            }
        };
        // What comes later is told later.
        let _ = timeout(FIRST_CHECKS, answers).await;
    }

    fn take_checks(&mut self, answer: polls::Answer) {
        self.note_checks(answer);
        if self.catalog.has_changes() || self.noticed {
            self.tell(false);
        }
    }

    fn note_checks(&mut self, (allocation, answer): polls::Answer) {
        let answer = match answer {
            Ok(answer) => {
                self.without_checks.remove(&allocation);
                answer
            }
            Err(error) => {
                if matches!(error, RegistryError::Denied(_)) {
                    self.without_checks.insert(allocation.clone());
                    let message = format!("the results of checks are not known: {error}");
                    self.notice(Notice::Checks, Some(message));
                }
                tracing::debug!(%error, %allocation, "the checks of an allocation cannot be asked for");
                None
            }
        };
        self.forget_denials();
        self.catalog.take_checks(&allocation, answer.as_ref());
        if self.catalog.allocations.contains_key(&allocation) {
            self.polls.ask_again(&allocation, answer.as_ref());
        }
    }

    /// Takes back that checks may not be read once none of those are left.
    fn forget_denials(&mut self) {
        self.without_checks.retain(|allocation| self.catalog.allocations.contains_key(allocation));
        if self.without_checks.is_empty() {
            self.notice(Notice::Checks, None);
        }
    }

    /// Queues what is new, and a commit.
    fn tell(&mut self, whole: bool) {
        let joining = Joining {
            is_whole: self.completeness == Completeness::Full,
            region: &self.region,
            rules: &self.settings.rules,
            trust_domain: self.settings.trust_domain.as_ref(),
        };
        self.noticed = false;
        let now = std::time::Instant::now();
        let notices = notices(self.notices.values().cloned());
        // What is gone from a list that may hide something is not known to be gone.
        let is_certain = self.completeness == Completeness::Full
            && self.told.completeness() == Some(Completeness::Full)
            && !self.told.is_in_doubt(now);
        if !whole && is_certain {
            let (mut some, mut gone) = self.catalog.changes(&joining);
            some.extend([notices.clone()]);
            if let Some(variables) = &mut self.variables {
                some.extend(variables.listing.clone());
                gone.extend(variables.take_gone());
            }
            if let Some(events) = self.told.tell_changed(some, gone) {
                return self.enqueue(events);
            }
        }
        let mut all: Listing = self.catalog.whole(&joining);
        all.extend([notices]);
        all.extend(self.variables.iter().flat_map(|variables| variables.listing.clone()));
        let events = self.told.tell(all, self.completeness, now);
        self.enqueue(events);
    }

    fn enqueue(&mut self, events: Vec<Event>) {
        if self.queue.is_empty() {
            // Not into the one that there is: it would keep room for a whole list.
            self.queue = events.into();
        } else {
            self.queue.extend(events);
        }
    }
}

/// Waits for a change of variables; for ever where none are read.
async fn woken(variables: &mut Option<Variables>, client: &Client) -> Result<bool, RegistryError> {
    match variables {
        Some(variables) => variables.woken(client).await,
        None => std::future::pending().await,
    }
}
