//! When to tell what: the first full list when all kinds are listed, changes as they come, a full list again after a
//! kind was listed anew, and "still true" while the API server goes on to answer.

mod nodes;

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_core::{Stream, future::BoxFuture, stream::BoxStream};
use futures_util::{
    FutureExt, StreamExt, TryFutureExt,
    stream::{SelectAll, try_unfold},
};
use tokio::time::{Instant, Sleep, sleep};
use weft_core::{
    name::OriginName,
    registry::{Completeness, Event, OriginFault, RegistryError, Scope},
};

use super::{
    catalog::{Catalog, Source},
    client::{Client, Refusal, connect},
    compact::Id,
    conditions::Conditions,
    convert::{self, Conversion},
    feed::{Feed, MAX_REST, Word},
    objects::Kind,
    rights::feeds,
    settings::KubernetesSettings,
};
use crate::{
    http_client::jittered,
    names::{fault, origin_name},
    told::Words,
};
pub(super) use nodes::KnownNodes;
use nodes::{Due, NO_NODES, Nodes};

/// How long after an answer the API server is asked again whether it is there, before it is spread.
const ASK: Duration = Duration::from_secs(8);
/// How soon it is asked again when it did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How long it may go without an answer before the stream ends.
const PATIENCE: Duration = Duration::from_secs(25);
/// How often what nothing uses any more is let go of.
const TIDY: Duration = Duration::from_secs(600);
/// How long lies between two looks for pods that slices point to: who is missing at two of them is told.
const LOOK: Duration = Duration::from_secs(3);
/// The fault that tells that conditions cannot be written.
const CONDITIONS: &str = "conditions";

/// Follows all that the settings ask for.
pub(super) fn follow(
    settings: KubernetesSettings,
    conversion: Arc<Conversion>,
    known: KnownNodes,
    scope: Scope,
) -> impl Stream<Item = Result<Event, RegistryError>> {
    // An error ends the stream; the driver watches again.
    let begun = Following::begin(settings, conversion, known, scope).map_ok(|following| {
        try_unfold(Box::new(following), |mut following| async move {
            Ok(Some((following.next().await?, following)))
        })
    });
    begun.try_flatten_stream()
}

type Spoken = (usize, Result<Vec<Word>, RegistryError>);

struct Following {
    scope: Scope,
    client: Client,
    catalog: Catalog,
    feeds: Vec<Followed>,
    spoken: SelectAll<BoxStream<'static, Spoken>>,
    /// What is to be told, oldest first.
    telling: VecDeque<Telling>,
    /// Whether a list that was begun anew is over, so that a full list is to be told.
    listed: bool,
    /// A question under way, or the wait for the next one.
    asking: Asking,
    /// Writes into our objects how they were understood, where that is wanted.
    conditions: Option<Conditions>,
    /// Which feed is asked for next.
    turn: usize,
    answered: Instant,
    /// Whether it was silent when it was asked last.
    was_silent: bool,
    tidy_at: Pin<Box<Sleep>>,
    /// When it is looked for pods that slices point to and that are not known; none while there are none.
    look_at: Option<Pin<Box<Sleep>>>,
    nodes: Nodes,
}

struct Followed {
    feed: Feed,
    /// What the list under way has brought so far; none when none is under way.
    listing: Option<HashSet<Id>>,
    /// Whether it was ever listed, or is done without.
    ready: bool,
    /// Whether it is done without: a right is missing.
    absent: bool,
    /// Whether the server refuses it for now: what changes is not heard of.
    away: bool,
}

enum Asking {
    Wait(Pin<Box<Sleep>>),
    Asked(usize, BoxFuture<'static, Result<(), Refusal>>),
}

enum Telling {
    Reset,
    Origin(Source),
    Ready,
    Commit,
}

impl Following {
    async fn begin(
        settings: KubernetesSettings,
        conversion: Arc<Conversion>,
        known: KnownNodes,
        scope: Scope,
    ) -> Result<Self, RegistryError> {
        let client = connect(&settings.access()).await?;
        client.await_answer().await?;
        let mut catalog = Catalog::new(conversion);
        catalog.remember_nodes(known.get());
        let mut following = Self {
            scope,
            catalog,
            feeds: Vec::new(),
            spoken: SelectAll::new(),
            telling: VecDeque::new(),
            listed: false,
            asking: Asking::Wait(Box::pin(sleep(jittered(ASK)))),
            conditions: settings.write_status.then(|| Conditions::new(client.clone())),
            client,
            turn: 0,
            answered: Instant::now(),
            was_silent: false,
            tidy_at: Box::pin(sleep(jittered(TIDY))),
            look_at: None,
            nodes: Nodes::new(known),
        };
        let feeds = feeds(&settings);
        // Without its store the server lists from memory: it would be taken for one that is back until it is asked next, and
        // so again and again.
        if let Some(first) = feeds.first()
            && let Err(Refusal { error: error @ RegistryError::Unreachable(_), .. }) =
                first.clone().ask(following.client.clone()).await
        {
            return Err(error);
        }
        for (index, feed) in feeds.into_iter().enumerate() {
            following.feeds.push(Followed { feed, listing: None, ready: false, absent: false, away: false });
            following.start(index);
        }
        Ok(following)
    }

    fn start(&mut self, index: usize) {
        let followed = self.feeds[index].feed.clone().follow(self.client.clone());
        self.spoken.push(followed.map(move |said| (index, said)).boxed());
    }

    async fn next(&mut self) -> Result<Event, RegistryError> {
        loop {
            if let Some(telling) = self.telling.pop_front() {
                return Ok(self.event(telling));
            }
            self.step().await?;
            self.settle();
        }
    }

    /// Waits until something happens, and takes it in.
    async fn step(&mut self) -> Result<(), RegistryError> {
        let asking = async {
            match &mut self.asking {
                Asking::Wait(until) => {
                    until.await;
                    None
                }
                Asking::Asked(index, answer) => Some((*index, answer.await)),
            }
        };
        tokio::select! {
            Some(spoken) = self.spoken.next() => {
                self.hear(spoken)?;
                // What else is there already is told with it.
                while let Some(Some(spoken)) = self.spoken.next().now_or_never() {
                    self.hear(spoken)?;
                }
            }
            asked = asking => self.asked(asked)?,
            fault = written(&mut self.conditions) => self.catalog.set_fault(&CONDITIONS.into(), fault),
            due = self.nodes.due() => match due {
                Due::Again(index) => self.start(index),
                Due::Seen => self.catalog.set_fault(&NO_NODES.into(), None),
            },
            () = due(&mut self.look_at) => {
                self.look_at = None;
                self.catalog.look_for_pods();
            }
            () = &mut self.tidy_at => {
                self.tidy_at = Box::pin(sleep(jittered(TIDY)));
                self.catalog.tidy();
            }
        }
        Ok(())
    }

    fn hear(&mut self, (index, said): Spoken) -> Result<(), RegistryError> {
        match said {
            Ok(words) => words.into_iter().for_each(|word| self.take(index, word)),
            Err(error) if self.may_go_without(index, &error) => self.go_without_nodes(index, &error),
            Err(RegistryError::Malformed(why))
                if why.contains(": 404: ") && self.feeds[index].feed.place.kind.is_configuration() =>
            {
                let help = "`configuration = true` needs deploy/kubernetes/crds.yaml in the cluster";
                return Err(RegistryError::Malformed(format!("{why}; {help}")));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn take(&mut self, index: usize, word: Word) {
        let followed = &mut self.feeds[index];
        let id = match word {
            Word::Listing => {
                followed.listing = Some(HashSet::new());
                None
            }
            Word::Put(object) => self.catalog.put(*object),
            Word::Gone(object) => {
                self.catalog.remove(&object);
                None
            }
            Word::Unreadable(unreadable) => self.catalog.unreadable(unreadable),
            Word::GoneUnread(unreadable) => {
                self.catalog.remove_unread(followed.feed.place.kind, &unreadable);
                None
            }
            Word::Away | Word::Back => {
                followed.away = matches!(word, Word::Away);
                None
            }
            Word::Listed => {
                let place = &followed.feed.place;
                let seen = followed.listing.take().unwrap_or_default();
                self.catalog.sweep(place, &seen);
                let are_nodes = place.kind == Kind::Nodes;
                if are_nodes {
                    self.nodes.are_listed();
                }
                // Nodes have no words of their own: where all was told before, those of others that changed with them are due.
                self.listed |= !are_nodes || !followed.ready;
                (followed.ready, followed.absent) = (true, false);
                None
            }
        };
        if let (Some(id), Some(listing)) = (id, &mut followed.listing) {
            listing.insert(id);
        }
    }

    /// Decides what is to be told of what was taken in.
    fn settle(&mut self) {
        if !self.feeds.iter().all(|followed| followed.ready && followed.listing.is_none()) {
            // Until a list is whole, what is missing from it is not known. What others say waits that long.
            return;
        }
        self.catalog.look_for_named();
        if let Some(conditions) = &mut self.conditions {
            conditions.want(self.catalog.take_verdicts());
        }
        if std::mem::take(&mut self.listed) {
            self.catalog.be_patient();
            self.telling.push_back(Telling::Reset);
            self.telling.extend(self.catalog.all().into_iter().map(Telling::Origin));
            self.telling.extend([Telling::Ready, Telling::Commit]);
        } else {
            let due = self.catalog.take_due();
            if !due.is_empty() {
                self.telling.extend(due.into_iter().map(Telling::Origin));
                self.telling.push_back(Telling::Commit);
            }
        }
        if self.look_at.is_none() && self.catalog.awaits_pods() {
            self.look_at = Some(Box::pin(sleep(LOOK)));
        }
    }

    fn event(&self, telling: Telling) -> Event {
        let scope = self.scope.clone();
        match telling {
            Telling::Reset => Event::Reset { scope },
            Telling::Ready => Event::Ready { scope, completeness: Completeness::Full },
            Telling::Commit => Event::Commit { scope, resume: None, age: Duration::ZERO },
            Telling::Origin(source) => {
                let convert::Words { resources, faults } = self.catalog.words(&source);
                let Words { version, resources, faults } = Words::new(resources, faults);
                Event::Replace { scope, origin: origin(&source), version, resources, faults }
            }
        }
    }

    /// It is time to ask, or there is an answer.
    fn asked(&mut self, answer: Option<(usize, Result<(), Refusal>)>) -> Result<(), RegistryError> {
        let Some((index, answer)) = answer else {
            self.ask();
            return Ok(());
        };
        let rest = answer.as_ref().err().and_then(|refusal| refusal.retry_after).unwrap_or_default();
        let pause = match answer.map_err(|refusal| refusal.error) {
            Ok(()) => {
                self.answered = Instant::now();
                if std::mem::take(&mut self.was_silent) {
                    self.feeds[index].feed.is_back.notify_waiters();
                }
                if self.feeds[index].feed.place.kind == Kind::Nodes {
                    self.catalog.set_fault(&NO_NODES.into(), None);
                }
                // What is being listed anew, or is not heard of, may not be true any more.
                let followed = |it: &Followed| it.ready && it.listing.is_none() && !it.away;
                if self.feeds.iter().all(followed) {
                    self.telling.push_back(Telling::Commit);
                }
                ASK
            }
            Err(RegistryError::Denied(_)) if self.is_not_yet() => ASK_AGAIN,
            Err(RegistryError::Denied(why)) if self.feeds[index].feed.place.kind == Kind::Nodes => {
                let message = format!("not allowed: {why}");
                self.catalog.set_fault(&NO_NODES.into(), Some(fault(NO_NODES, message)));
                ASK_AGAIN
            }
            Err(RegistryError::Denied(why)) => return Err(RegistryError::Denied(why)),
            Err(error) if self.answered.elapsed() > PATIENCE => return Err(error),
            Err(error) => {
                self.was_silent = matches!(error, RegistryError::Unreachable(_));
                ASK_AGAIN
            }
        };
        self.asking = Asking::Wait(Box::pin(sleep(rest.min(MAX_REST) + jittered(pause))));
        Ok(())
    }

    /// Whether the server was away just now: who may do what is what it knows last.
    fn is_not_yet(&self) -> bool {
        let was_away = self.was_silent || self.feeds.iter().any(|followed| followed.away);
        was_away && self.answered.elapsed() <= PATIENCE
    }

    fn ask(&mut self) {
        let present = self.feeds.iter().enumerate().filter(|(_, followed)| !followed.absent);
        let present: Vec<usize> = present.map(|(index, _)| index).collect();
        // Services, slices and pods are always asked for.
        let index = present[self.turn % present.len()];
        self.turn = self.turn.wrapping_add(1);
        let question = self.feeds[index].feed.clone().ask(self.client.clone());
        self.asking = Asking::Asked(index, question.boxed());
    }
}

/// Waits until it is time, for ever where no time is set.
async fn due(at: &mut Option<Pin<Box<Sleep>>>) {
    match at {
        Some(at) => at.await,
        None => std::future::pending().await,
    }
}

/// Waits until a condition was written or could not be, for ever where none are; the fault that there is since.
async fn written(conditions: &mut Option<Conditions>) -> Option<OriginFault> {
    match conditions {
        Some(conditions) => {
            let why = conditions.next().await?;
            Some(fault(CONDITIONS, format!("it is not written into objects how they are understood: {why}")))
        }
        None => std::future::pending().await,
    }
}

/// What a source is called.
pub(super) fn origin(source: &Source) -> OriginName {
    match source {
        Source::Service(key) => origin_name(&["service", key]),
        Source::Slice(key) => origin_name(&["endpointslice", key]),
        Source::Configured(Kind::Policies, key) => origin_name(&["meshpolicy", key]),
        Source::Configured(_, key) => origin_name(&["meshroute", key]),
        Source::Fault(key) => origin_name(&["fault", key]),
    }
}
