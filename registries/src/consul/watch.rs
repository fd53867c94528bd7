//! The loop: lists that move, services that are read again, and a word every few seconds that all is well.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};
use weft_core::{
    name::OriginName,
    registry::{Completeness, Event, RegistryError, Scope},
};

use super::{
    access::Access,
    client::{Client, encoded},
    configuration::Part,
    configured::{Configured, Understood},
    convert::{self, Surroundings},
    known::{self, Known, Sweep},
    lists::{Heard, List},
    objects::{Entry, NodeServices},
    rights::{self, Sight},
    settings::ConsulSettings,
    waiters::Waiters,
};
use crate::{
    http_client::jittered,
    told::{Listing, Told},
};

/// How many questions are asked at once beside those that wait.
const AT_ONCE: usize = 8;
/// How long other lists may take to tell of the same write.
const TOGETHER: Duration = Duration::from_millis(5);
/// How often it is asked whether there is a leader, which what was told rests on; before jitter.
const LEADER: Duration = Duration::from_secs(7);
/// How much longer than they take rounds are rested from, in the long run: many agents on a busy server slow each other
/// down, so that none of them does.
const REST: u32 = 1;
/// How much rest may be owed before a round waits for it: single changes are told at once.
const OWED: Duration = Duration::from_millis(1500);
/// The longest rest that is owed after one round.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Follows the catalog until its consumer has enough.
pub(super) fn follow(
    settings: Arc<ConsulSettings>,
    around: Arc<Surroundings>,
    access: Arc<Access>,
    understood: Understood,
    scope: Scope,
) -> impl Stream<Item = Result<Event, RegistryError>> {
    let start = State::Begin { settings, around, access, understood, scope };
    stream::unfold(start, |mut state| async move {
        let item = state.next().await?;
        Some((item, state))
    })
}

enum State {
    Begin {
        settings: Arc<ConsulSettings>,
        around: Arc<Surroundings>,
        access: Arc<Access>,
        understood: Understood,
        scope: Scope,
    },
    Following(Box<Follower>, VecDeque<Event>),
    Over,
}

impl State {
    async fn next(&mut self) -> Option<Result<Event, RegistryError>> {
        loop {
            let events = match self {
                Self::Over => return None,
                Self::Begin { settings, around, access, understood, scope } => {
                    match Follower::new(settings, around, access, understood, scope) {
                        Ok(follower) => {
                            *self = Self::Following(Box::new(follower), VecDeque::new());
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                }
                Self::Following(follower, queue) => match queue.pop_front() {
                    Some(event) => return Some(Ok(event)),
                    None => follower.next().await.map(|events| queue.extend(events)),
                },
            };
            if let Err(error) = events {
                // The driver watches again.
                *self = Self::Over;
                return Some(Err(error));
            }
        }
    }
}

struct Follower {
    client: Client,
    wait: Duration,
    around: Arc<Surroundings>,
    known: Known,
    told: Told,
    sweep: Sweep,
    sight: Sight,
    /// None where configuration is not wanted.
    configured: Option<Configured>,
    /// What the file says about callers that no intention mentions.
    default_intention: Option<bool>,
    /// Lists that the server left something out of.
    filtered: BTreeSet<&'static str>,
    /// Whether that is other than it was when something was told.
    reconsider: bool,
    /// Services that show less than they did where we may not be shown all, and what they showed.
    hidden: BTreeMap<known::Name, usize>,
    /// None before the first list.
    heard: Option<mpsc::Receiver<Result<Heard, RegistryError>>>,
    followers: JoinSet<()>,
    /// Of a peer: who waits for its services, and whom they tell. None otherwise.
    waiters: Option<Waiters>,
    say: Option<mpsc::Sender<Result<Heard, RegistryError>>>,
    /// Whether something was written that lists do not show.
    moved: bool,
    /// Whether everything is to be read again.
    anew: bool,
    leader_due: Instant,
    /// When all rounds so far have been rested from.
    rested_at: Instant,
}

/// One service as it was read.
struct Read {
    name: known::Name,
    entries: Vec<Entry>,
}

impl Follower {
    fn new(
        settings: &ConsulSettings,
        around: &Arc<Surroundings>,
        access: &Arc<Access>,
        understood: &Understood,
        scope: &Scope,
    ) -> Result<Self, RegistryError> {
        let now = Instant::now();
        let configured = || Configured::new(understood.clone(), around.may_name.clone());
        Ok(Self {
            client: Client::new(settings, access.clone())?,
            wait: settings.wait,
            around: around.clone(),
            known: Known::default(),
            told: Told::new(scope.clone()),
            sweep: Sweep::Nodes,
            sight: Sight::Open,
            configured: settings.configuration.then(configured),
            default_intention: settings.default_intention,
            filtered: BTreeSet::new(),
            reconsider: false,
            hidden: BTreeMap::new(),
            heard: None,
            followers: JoinSet::new(),
            waiters: settings.peer.is_some().then(Waiters::default),
            say: None,
            moved: false,
            anew: false,
            leader_due: now,
            rested_at: now,
        })
    }

    /// The next words: changes, or that all is as it was.
    async fn next(&mut self) -> Result<Vec<Event>, RegistryError> {
        loop {
            let Some(heard) = &mut self.heard else { return self.list().await };
            tokio::select! {
                word = heard.recv() => self.hear(word)?,
                () = sleep_until(self.leader_due) => {
                    self.client.check_leader().await?;
                    self.leader_due = Instant::now() + jittered(LEADER);
                    return Ok(vec![self.told.confirm()]);
                }
            }
            if !self.is_due() {
                continue;
            }
            self.gather().await?;
            let began = Instant::now();
            let events = if self.anew { self.list().await? } else { self.round().await? };
            let took = began.elapsed();
            self.rested_at = self.rested_at.max(Instant::now()) + (took * REST).min(LONGEST_REST);
            return Ok(events);
        }
    }

    fn is_due(&self) -> bool {
        let configured = self.configured.as_ref().is_some_and(Configured::is_changed);
        self.anew || self.moved || self.reconsider || configured || self.known.is_dirty()
    }

    fn hear(&mut self, word: Option<Result<Heard, RegistryError>>) -> Result<(), RegistryError> {
        let ended = || Err(RegistryError::Unreachable("nobody asks Consul any more".into()));
        let heard = word.unwrap_or_else(ended)?;
        let name = heard.list.name();
        let changed = if heard.filtered { self.filtered.insert(name) } else { self.filtered.remove(name) };
        self.reconsider |= changed;
        self.anew |= heard.went_back;
        self.moved |= heard.moved && matches!(heard.list, List::Services | List::Nodes);
        let list = heard.list;
        heard.tell(&mut self.known, &mut self.configured);
        if list == List::Imported {
            self.wait_for_services();
        }
        Ok(())
    }

    /// Has every service of the peer waited for.
    fn wait_for_services(&mut self) {
        let (Some(waiters), Some(say)) = (&mut self.waiters, &self.say) else { return };
        let services = self.known.members(Sweep::Services);
        let all = waiters.follow(&services, &mut self.followers, &self.client, self.wait, say);
        self.moved |= !all;
    }

    /// Hears what else there is to be heard: of the same write, and until there was rest enough.
    async fn gather(&mut self) -> Result<(), RegistryError> {
        let together = Instant::now() + TOGETHER;
        let until = self.rested_at.checked_sub(OWED).map_or(together, |rested| rested.max(together));
        while let Some(heard) = &mut self.heard {
            match timeout_at(until, heard.recv()).await {
                Ok(word) => self.hear(word)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Reads everything and tells it.
    async fn list(&mut self) -> Result<Vec<Event>, RegistryError> {
        self.client.check_leader().await?;
        self.leader_due = Instant::now() + jittered(LEADER);
        self.followers = JoinSet::new();
        self.known = Known::default();
        self.filtered.clear();
        if let Some(configured) = &mut self.configured {
            configured.begin();
        }
        let lists = List::all(self.configured.is_some(), self.waiters.is_some());
        let (say, heard) = mpsc::channel(lists.len());
        self.waiters = self.waiters.take().map(|_| Waiters::default());
        self.say = Some(say.clone());
        let mut indexes = Vec::with_capacity(lists.len());
        for list in lists {
            let word = list.read(&self.client).await?;
            indexes.push((list, word.index));
            self.hear(Some(Ok(word)))?;
        }
        (self.anew, self.moved, self.reconsider) = (false, false, false);
        let hidden: Vec<String> = self.hidden.keys().map(ToString::to_string).collect();
        self.sight = rights::sight(&self.client, &hidden, self.configured.is_some()).await?;
        self.hidden.retain(|name, _| !self.sight.sees(name));
        self.check_policies().await?;
        // Indexes first: what is written while services are read then shows as moved.
        self.sweep = self.smaller();
        for (name, index) in self.indexes().await? {
            self.known.index(self.sweep, &name, index);
        }
        let names = self.known.take_dirty();
        let mut listing = self.unreadable(&names);
        let mut read = pin!(read(self.client.clone(), names));
        while let Some(Read { name, entries }) = read.try_next().await? {
            self.known.read(&name, &entries);
            let shown = self.hidden.get(&name).copied().unwrap_or(1);
            if entries.len() >= shown {
                self.hidden.remove(&name);
                self.convert(&name, &entries, &mut listing);
            }
        }
        listing.extend(self.configuration()?.0);
        // Last of all: Consul keeps the connection of a question that waits, also when nobody is there any more, so that
        // lists that fail one after the other would use up what it allows one address.
        for (list, index) in indexes {
            self.followers.spawn(list.follow(self.client.clone(), index, self.wait, say.clone()));
        }
        self.heard = Some(heard);
        Ok(self.told.tell(listing, self.completeness(), std::time::Instant::now()))
    }

    /// Finds out what changed, reads it and tells it.
    async fn round(&mut self) -> Result<Vec<Event>, RegistryError> {
        if std::mem::take(&mut self.moved) {
            self.find_written().await?;
        }
        self.reconsider = false;
        let dirty = self.known.take_dirty();
        let (names, mut gone): (BTreeSet<_>, BTreeSet<_>) =
            dirty.into_iter().partition(|name| self.known.has(name));
        let mut changed = self.unreadable(&names);
        let mut lost: BTreeMap<known::Name, usize> = BTreeMap::new();
        let mut read = pin!(read(self.client.clone(), names));
        while let Some(Read { name, entries }) = read.try_next().await? {
            let before = self.known.read(&name, &entries);
            if entries.len() < before {
                lost.insert(name.clone(), before);
            }
            if entries.is_empty() {
                gone.insert(name);
            } else {
                self.convert(&name, &entries, &mut changed);
            }
        }
        for name in &gone {
            if let Some(configured) = &mut self.configured {
                configured.note(name, None);
            }
        }
        let (configuration, unsaid) = self.configuration()?;
        changed.extend(configuration);
        if self.is_shown_less(&gone, lost, !unsaid.is_empty()).await? {
            return self.list().await;
        }
        let gone = gone.iter().map(|name| convert::origin(name)).chain(unsaid).collect();
        if self.told.completeness() == Some(self.completeness())
            && let Some(events) = self.told.tell_changed(changed, gone)
        {
            return Ok(events);
        }
        self.list().await
    }

    /// Whether something that seems gone may merely be hidden from us: then it is not taken away.
    async fn is_shown_less(
        &mut self,
        gone: &BTreeSet<known::Name>,
        mut lost: BTreeMap<known::Name, usize>,
        unsaid: bool,
    ) -> Result<bool, RegistryError> {
        lost.extend(gone.iter().map(|name| (name.clone(), 1)));
        let filtered = self.told.completeness() == Some(Completeness::Filtered);
        if (lost.is_empty() && !filtered && !unsaid) || self.sight == Sight::Open {
            return Ok(false);
        }
        let names: Vec<String> = lost.keys().chain(self.hidden.keys()).map(ToString::to_string).collect();
        self.sight = rights::sight(&self.client, &names, self.configured.is_some()).await?;
        lost.retain(|name, _| !self.sight.sees(name));
        self.hidden.retain(|name, _| !self.sight.sees(name));
        let shown_less = !lost.is_empty();
        self.hidden.extend(lost);
        Ok(shown_less || (unsaid && !self.sight.is_whole()))
    }

    /// The set that is asked for indexes; of a peer, nodes have none.
    fn smaller(&self) -> Sweep {
        if self.waiters.is_some() { Sweep::Services } else { self.known.sweep(self.sweep) }
    }

    fn completeness(&self) -> Completeness {
        let whole = self.sight.is_whole() && self.filtered.is_empty() && self.hidden.is_empty();
        if whole { Completeness::Full } else { Completeness::Filtered }
    }

    /// Asks the smaller set for what moved in it.
    async fn find_written(&mut self) -> Result<(), RegistryError> {
        self.sweep = self.smaller();
        let mut moved = Vec::new();
        for (name, index) in self.indexes().await? {
            if self.known.index(self.sweep, &name, index) && self.sweep == Sweep::Nodes {
                moved.push(name);
            }
        }
        let client = &self.client;
        let read = stream::iter(moved).map(|name| async move {
            let path = format!("/v1/catalog/node-services/{}", encoded(&name));
            let found: Option<NodeServices> = client.read(&path).await?.json()?;
            Ok::<_, RegistryError>((name, found.unwrap_or_default()))
        });
        let found: Vec<_> = read.buffer_unordered(AT_ONCE).try_collect().await?;
        for (name, found) in found {
            self.known.on_node(&name, &found.services);
        }
        Ok(())
    }

    /// The index of each member of the set, asked for with a filter that leaves nothing of the rest.
    async fn indexes(&self) -> Result<Vec<(known::Name, Option<u64>)>, RegistryError> {
        let (path, filter) = match self.sweep {
            Sweep::Nodes => ("/v1/catalog/node-services/", "ID == \"\""),
            Sweep::Services => ("/v1/catalog/service/", "ServiceID == \"\""),
        };
        let (client, filter) = (&self.client, encoded(filter));
        let filter = filter.as_str();
        let names = self.known.members(self.sweep).into_iter();
        let names = names.filter(|name| self.sweep == Sweep::Nodes || convert::checked_name(name).is_ok());
        let asked = stream::iter(names).map(|name| async move {
            let reading = client.read(&format!("{path}{}?filter={filter}", encoded(&name))).await?;
            Ok::<_, RegistryError>((name, reading.index))
        });
        asked.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// What is said of services whose names cannot be ours.
    fn unreadable(&self, names: &BTreeSet<known::Name>) -> Listing {
        let told = names.iter().filter_map(|name| Some((name, convert::checked_name(name).err()?)));
        told.map(|(name, words)| (convert::origin(name), words)).collect()
    }

    fn convert(&mut self, name: &str, entries: &[Entry], listing: &mut Listing) {
        let Ok(service) = convert::checked_name(name) else { return };
        let declared = self.configured.as_ref().and_then(|configured| configured.protocol(name));
        let words = convert::service(&service, entries, declared, &self.around);
        if let Some(configured) = &mut self.configured {
            configured.note(name, Some(&words));
        }
        listing.insert(convert::origin(name), words);
    }

    /// What configuration says, where it is other than it was told; and what it said and says no more.
    fn configuration(&mut self) -> Result<(Listing, Vec<OriginName>), RegistryError> {
        match &mut self.configured {
            Some(configured) => configured.tell(self.around.trust_domain.as_ref()),
            None => Ok(Default::default()),
        }
    }

    /// Finds out what decides where no intention does, and that nothing is hidden that may be a policy: who was told of
    /// none yet would let everybody in. Who was told keeps what he knows.
    async fn check_policies(&mut self) -> Result<(), RegistryError> {
        let Some(configured) = &mut self.configured else { return Ok(()) };
        configured.decide_by_default(match self.default_intention {
            Some(allowed) => Some(allowed),
            None => self.client.default_intention().await?,
        });
        if configured.is_understood() {
            return Ok(());
        }
        if let [first, ..] = self.sight.lacking() {
            let message = format!("the token lacks {first}: without it, policies might be missing");
            return Err(RegistryError::Denied(message));
        }
        let hides = |part: &Part| self.filtered.contains(part.path());
        match [Part::Intentions, Part::Pairs].iter().find(|part| hides(part)) {
            Some(part) => Err(RegistryError::Denied(format!(
                "Consul leaves something out of {} for want of rights: policies might be missing",
                part.path()
            ))),
            None => Ok(()),
        }
    }
}

/// Reads services; those that cannot be ours by their names are left out. Each is given away as it comes: all of them at
/// once, as JSON has them, would be several times what is kept of them.
fn read(client: Client, names: BTreeSet<known::Name>) -> impl Stream<Item = Result<Read, RegistryError>> {
    let names = names.into_iter().filter(|name| convert::checked_name(name).is_ok());
    let asked = stream::iter(names).map(move |name| {
        let client = client.clone();
        async move {
            let path = format!("/v1/health/service/{}", encoded(&name));
            let entries: Option<Vec<Entry>> = client.read(&path).await?.json()?;
            Ok(Read { name, entries: entries.unwrap_or_default() })
        }
    });
    asked.buffer_unordered(AT_ONCE)
}
