//! The loop: lists that move, services that are read again, and a word every few seconds that all is well.
//!
//! Whatever fails, what is known stays true: something counts as heard when it is kept, and as told when the words about it
//! are given away. So a follower whose server went away goes on when it is back.

mod rounds;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::TryStreamExt;
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
    client::Client,
    configured::{Configured, Understood},
    convert::{self, Surroundings},
    hiding::Hiding,
    known::{self, Known, Sweep},
    lists::{Heard, List},
    objects::Entry,
    owed::{Doubt, Owed},
    reading,
    settings::ConsulSettings,
    waiters::Waiters,
};
use crate::{
    http_client::jittered,
    told::{Listing, Told, Words, notices},
};

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

/// What is heard of lists, by whoever waits for them.
type Ears = mpsc::Receiver<Result<Heard, RegistryError>>;

/// Follows a catalog, over one stream and the next.
pub(super) struct Follower {
    client: Client,
    wait: Duration,
    around: Arc<Surroundings>,
    known: Known,
    told: Told,
    sweep: Sweep,
    hiding: Hiding,
    owed: Owed,
    /// How far the catalog had come when this process knew nothing of it yet.
    held: Option<u64>,
    /// None where configuration is not wanted.
    configured: Option<Configured>,
    /// What the file says about callers that no intention mentions.
    default_intention: Option<bool>,
    /// Whether something else is hidden than when something was told.
    reconsider: bool,
    /// At which index each list was heard last.
    indexes: BTreeMap<&'static str, Option<u64>>,
    /// None while nobody waits for lists.
    heard: Option<Ears>,
    followers: JoinSet<()>,
    /// Of a peer: who waits for its services, and whom they tell. None otherwise.
    waiters: Option<Waiters>,
    say: Option<mpsc::Sender<Result<Heard, RegistryError>>>,
    /// Whether something was written that lists do not show.
    moved: bool,
    /// Whether everything is to be read again.
    anew: bool,
    /// Whether all that was told is known: not while everything is read.
    is_whole: bool,
    leader_due: Instant,
    /// When all rounds so far have been rested from.
    rested_at: Instant,
}

impl Follower {
    /// Knows nothing yet, but how far the catalog had `held` come when it was told last.
    pub(super) fn new(
        client: Client,
        settings: &ConsulSettings,
        around: &Arc<Surroundings>,
        understood: &Understood,
        scope: &Scope,
        (doubt, held): (Doubt, Option<u64>),
    ) -> Self {
        let now = Instant::now();
        let configured = || {
            Configured::new(understood.clone(), around.may_name.clone())
                .closed(settings.default_intention == Some(false))
        };
        Self {
            client,
            wait: settings.wait,
            around: around.clone(),
            known: Known::default(),
            told: Told::new(scope.clone()),
            sweep: Sweep::Nodes,
            hiding: Hiding::new(settings.configuration),
            owed: Owed::new(doubt, held),
            held,
            configured: settings.configuration.then(configured),
            default_intention: settings.default_intention,
            reconsider: false,
            indexes: BTreeMap::new(),
            heard: None,
            followers: JoinSet::new(),
            waiters: settings.peer.is_some().then(Waiters::default),
            say: None,
            moved: false,
            anew: false,
            is_whole: false,
            leader_due: now,
            rested_at: now,
        }
    }

    /// Asks by another client from here on.
    pub(super) fn ask_by(&mut self, client: Client) {
        self.client = client;
        self.owed.was_away(Instant::now());
    }

    /// Asks nothing until it is asked again.
    pub(super) fn rest(&mut self) {
        self.followers = JoinSet::new();
        (self.heard, self.say) = (None, None);
    }

    /// The next words: changes, or that all is as it was.
    pub(super) async fn next(&mut self) -> Result<Vec<Event>, RegistryError> {
        loop {
            let Some(heard) = &mut self.heard else {
                // Of a peer's services no list tells what changed.
                let returns = self.is_whole && self.waiters.is_none();
                return if returns { self.come_back().await } else { self.list().await };
            };
            tokio::select! {
                word = heard.recv() => self.hear(word)?,
                () = sleep_until(self.leader_due.min(self.hiding.due())) => {
                    // First of all: who cannot tell what our token sees may not be there at all.
                    self.check_leader().await?;
                    // A list that is waited for is answered with the rights of when that began.
                    self.anew |= self.hiding.look_in_time(&self.client).await?;
                    self.anew |= self.owed.is_over(Instant::now());
                    if !self.anew {
                        return Ok(vec![self.told.confirm()]);
                    }
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
        if heard.is_of_older_state(&self.known) {
            self.owed.went_back(Instant::now());
        }
        self.reconsider |= self.hiding.note_list(name, heard.filtered);
        self.anew |= heard.went_back;
        self.moved |= heard.moved && matches!(heard.list, List::Services | List::Nodes);
        let list = heard.list;
        self.indexes.insert(name, heard.index);
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

    async fn check_leader(&mut self) -> Result<(), RegistryError> {
        self.client.check_leader().await?;
        self.leader_due = Instant::now() + jittered(LEADER);
        Ok(())
    }

    /// Reads everything and tells it.
    async fn list(&mut self) -> Result<Vec<Event>, RegistryError> {
        self.is_whole = false;
        let before = std::mem::take(&mut self.known);
        let events = self.list_after(&before).await;
        if events.is_err() {
            // Nothing of it was told: what is missing next time is missing from what was known before.
            self.known = before;
        }
        events
    }

    async fn list_after(&mut self, before: &Known) -> Result<Vec<Event>, RegistryError> {
        self.check_leader().await?;
        self.followers = JoinSet::new();
        self.hiding.begin();
        self.owed.settle(Instant::now());
        self.waiters = self.waiters.take().map(|_| Waiters::default());
        let ears = self.read_lists(before).await?;
        if self.held.take().is_some_and(|held| self.reached().is_some_and(|now| now < held)) {
            self.owed.went_back_before(Instant::now());
        }
        if let Some(configured) = self.configured.as_mut().filter(|_| !self.owed.is_in_doubt()) {
            configured.begin();
        }
        (self.anew, self.moved, self.reconsider) = (false, false, false);
        self.look().await?;
        // Indexes first: what is written while services are read then shows as moved.
        self.sweep = self.smaller();
        for (name, index) in self.sweep_indexes().await? {
            self.known.index(self.sweep, &name, index);
        }
        let names = self.known.take_dirty();
        let mut listing = self.unreadable(&names);
        let mut reading = pin!(reading::services(self.client.clone(), names));
        while let Some(read) = reading.try_next().await? {
            self.hiding.note_read(&read, before);
            self.known.read(&read.name, &read.entries);
            self.owed.read(&read.name, &read.entries);
            if !read.entries.is_empty() && self.hiding.shows(&read.name, read.entries.len()) {
                self.convert(&read.name, &read.entries, &mut listing);
            }
        }
        self.owed.retain(|name| self.known.has(name));
        for name in before.all().filter(|name| !self.known.has(name)) {
            self.hiding.note_gone(name);
        }
        if self.hiding.has_lost() {
            self.hiding.judge(&self.client).await?;
        }
        for name in self.hiding.hidden() {
            listing.remove(&convert::origin(name));
            listing.remove(&convert::part(name));
        }
        let nothing = || Words::new(Vec::new(), Vec::new());
        listing.extend(self.owed.completed().map(|name| (convert::part(name), nothing())));
        listing.extend(self.configuration().0);
        listing.extend([self.notices()]);
        self.listen(ears);
        self.is_whole = true;
        self.note_told();
        Ok(self.told.tell(listing, self.completeness(), std::time::Instant::now()))
    }

    /// Goes on where a stream broke off: what the lists show now, and what moved, is read and told.
    async fn come_back(&mut self) -> Result<Vec<Event>, RegistryError> {
        self.check_leader().await?;
        let ears = self.read_lists(&Known::default()).await?;
        if self.anew {
            return self.list().await;
        }
        if self.hiding.look_again(&self.client).await? {
            self.check_policies().await?;
        }
        let events = self.round().await?;
        if self.heard.is_none() {
            self.listen(ears);
        }
        Ok(events)
    }

    fn lists(&self) -> Vec<List> {
        List::all(self.configured.is_some(), self.waiters.is_some())
    }

    /// How complete a list of all that is shown is.
    fn completeness(&self) -> Completeness {
        if self.owed.is_in_doubt() { Completeness::Filtered } else { self.hiding.completeness() }
    }

    /// How far the catalog had come when its lists were heard; none where that cannot be said.
    fn reached(&self) -> Option<u64> {
        [List::Nodes, List::Services].into_iter().filter_map(|list| self.index(list)).max()
    }

    /// How far the catalog must have come for what it lacks to be gone, for who starts with what was told.
    pub(super) fn told_to(&self) -> Option<u64> {
        self.owed.reached(self.reached())
    }

    /// Hears every list as it is now; `before` is known beside what is. Nobody waits for them yet.
    async fn read_lists(&mut self, before: &Known) -> Result<Ears, RegistryError> {
        let lists = self.lists();
        let (say, ears) = mpsc::channel(lists.len());
        self.say = Some(say);
        for list in lists {
            let word = list.read(&self.client, self.index(list)).await?;
            if word.is_of_older_state(before) {
                self.owed.went_back(Instant::now());
            }
            self.anew |= self.is_whole && word.is_of_another_catalog(&self.known);
            self.hear(Some(Ok(word)))?;
        }
        Ok(ears)
    }

    fn index(&self, list: List) -> Option<u64> {
        self.indexes.get(list.name()).copied().flatten()
    }

    /// Has every list waited for, from where it was heard. Last of all: Consul keeps the connection of a question that
    /// waits, also when nobody is there any more, so that lists that fail one after the other would use up what it allows
    /// one address.
    fn listen(&mut self, ears: Ears) {
        for list in self.lists() {
            let Some(say) = self.say.clone() else { return };
            self.followers.spawn(list.follow(self.client.clone(), self.index(list), self.wait, say));
        }
        self.heard = Some(ears);
    }

    /// Finds out what our token sees, and that it hides no policy that was never told.
    async fn look(&mut self) -> Result<(), RegistryError> {
        self.hiding.look(&self.client).await?;
        self.check_policies().await
    }

    async fn check_policies(&mut self) -> Result<(), RegistryError> {
        match &mut self.configured {
            Some(configured) => {
                configured.check_policies(&self.client, &self.hiding, self.default_intention).await
            }
            None => Ok(()),
        }
    }

    /// Takes note that what is known is being told.
    fn note_told(&mut self) {
        self.hiding.note_told();
        self.owed.note_told(self.known.node_count());
        if let Some(configured) = &mut self.configured {
            configured.note_told();
        }
    }

    /// What a person should know of the whole.
    fn notices(&self) -> (OriginName, Words) {
        let default = self.configured.as_ref().and_then(Configured::notice);
        notices(self.hiding.notice().into_iter().chain(self.owed.notice()).chain(default))
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
        let is_part = self.owed.lacks(name);
        match &mut self.configured {
            Some(configured) if is_part => configured.note_part(name, &words),
            Some(configured) => configured.note(name, Some(&words)),
            None => {}
        }
        if is_part {
            self.owed.note_part(name);
            listing.insert(convert::part(name), convert::words_of_part(words));
        } else {
            listing.insert(convert::origin(name), words);
        }
    }

    /// What configuration says, where it is other than it was told; and what it said and says no more.
    fn configuration(&mut self) -> (Listing, Vec<OriginName>) {
        match &mut self.configured {
            Some(configured) => configured.tell(self.around.trust_domain.as_ref()),
            None => Default::default(),
        }
    }
}
