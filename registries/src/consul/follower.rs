//! The loop: lists that move, services that are read again, and a word every few seconds that all is well.
//!
//! Whatever fails, what is known stays true: something counts as heard when it is kept, and as told when the words about it
//! are given away. So a follower whose server went away goes on when it is back.

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
    client::{Client, DefaultIntention},
    configuration::Part,
    configured::{Configured, Understood},
    convert::{self, Surroundings},
    hiding::Hiding,
    known::{self, Known, Sweep},
    lists::{Heard, List},
    objects::Entry,
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
    /// Knows nothing yet.
    pub(super) fn new(
        client: Client,
        settings: &ConsulSettings,
        around: &Arc<Surroundings>,
        understood: &Understood,
        scope: &Scope,
    ) -> Self {
        let now = Instant::now();
        let configured = || Configured::new(understood.clone(), around.may_name.clone());
        Self {
            client,
            wait: settings.wait,
            around: around.clone(),
            known: Known::default(),
            told: Told::new(scope.clone()),
            sweep: Sweep::Nodes,
            hiding: Hiding::new(settings.configuration),
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
        self.indexes.clear();
        if let Some(configured) = &mut self.configured {
            configured.begin();
        }
        self.waiters = self.waiters.take().map(|_| Waiters::default());
        let ears = self.read_lists().await?;
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
            if !read.entries.is_empty() && self.hiding.shows(&read.name, read.entries.len()) {
                self.convert(&read.name, &read.entries, &mut listing);
            }
        }
        for name in before.all().filter(|name| !self.known.has(name)) {
            self.hiding.note_gone(name);
        }
        if self.hiding.has_lost() {
            self.hiding.judge(&self.client).await?;
        }
        for name in self.hiding.hidden() {
            listing.remove(&convert::origin(name));
        }
        listing.extend(self.configuration().0);
        listing.extend([self.notices()]);
        self.listen(ears);
        self.is_whole = true;
        self.note_told();
        Ok(self.told.tell(listing, self.hiding.completeness(), std::time::Instant::now()))
    }

    /// Goes on where a stream broke off: what the lists show now, and what moved, is read and told.
    async fn come_back(&mut self) -> Result<Vec<Event>, RegistryError> {
        self.check_leader().await?;
        let ears = self.read_lists().await?;
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

    /// Hears every list as it is now. Nobody waits for them yet.
    async fn read_lists(&mut self) -> Result<Ears, RegistryError> {
        let lists = self.lists();
        let (say, ears) = mpsc::channel(lists.len());
        self.say = Some(say);
        for list in lists {
            let word = list.read(&self.client, self.index(list)).await?;
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

    /// Finds out what changed, reads it and tells it.
    async fn round(&mut self) -> Result<Vec<Event>, RegistryError> {
        if self.moved {
            self.find_written().await?;
            self.moved = false;
        }
        let dirty = self.known.take_dirty();
        match self.read_changed(&dirty).await {
            Ok(Some(events)) => {
                self.reconsider = false;
                self.note_told();
                Ok(events)
            }
            Ok(None) => self.list().await,
            Err(error) => {
                // Some of them may be read, and none of them is told.
                self.known.doubt(dirty);
                Err(error)
            }
        }
    }

    /// Reads services that may have changed. Returns what is to be told of them, none where only a whole list may be told.
    async fn read_changed(
        &mut self,
        dirty: &BTreeSet<known::Name>,
    ) -> Result<Option<Vec<Event>>, RegistryError> {
        let (names, unlisted): (BTreeSet<_>, BTreeSet<_>) =
            dirty.iter().cloned().partition(|name| self.known.has(name));
        let mut changed = self.unreadable(&names);
        // Where all is seen, what no list shows is gone.
        let (asked, mut gone) = match self.hiding.is_open() {
            true => (names, unlisted),
            false => {
                let nameless = unlisted.into_iter().filter(|name| convert::checked_name(name).is_err());
                (dirty.clone(), nameless.collect())
            }
        };
        let mut reading = pin!(reading::services(self.client.clone(), asked));
        while let Some(read) = reading.try_next().await? {
            self.hiding.note_read(&read, &self.known);
            self.known.read(&read.name, &read.entries);
            if read.entries.is_empty() {
                gone.insert(read.name);
            } else if self.hiding.shows(&read.name, read.entries.len()) {
                self.convert(&read.name, &read.entries, &mut changed);
            }
        }
        for name in &gone {
            self.hiding.note_gone(name);
            if let Some(configured) = &mut self.configured {
                configured.note(name, None);
            }
        }
        let (configuration, unsaid) = self.configuration();
        changed.extend(configuration);
        // Who is shown more may have been given a right.
        let filtered = self.told.completeness() == Some(Completeness::Filtered);
        if (self.hiding.has_lost() || filtered || !unsaid.is_empty())
            && self.hiding.judge(&self.client).await?
        {
            return Ok(None);
        }
        let unsure = !unsaid.is_empty() && !self.hiding.sight().is_whole();
        if unsure || self.told.completeness() != Some(self.hiding.completeness()) {
            return Ok(None);
        }
        changed.extend([self.notices()]);
        let gone = gone.iter().map(|name| convert::origin(name)).chain(unsaid).collect();
        Ok(self.told.tell_changed(changed, gone))
    }

    /// Takes note that what is known is being told.
    fn note_told(&mut self) {
        self.hiding.note_told();
        if let Some(configured) = &mut self.configured {
            configured.note_told();
        }
    }

    /// What a person should know of the whole.
    fn notices(&self) -> (OriginName, Words) {
        let default = self.configured.as_ref().and_then(Configured::notice);
        notices(self.hiding.notice().into_iter().chain(default))
    }

    /// The set that is asked for indexes; of a peer, nodes have none.
    fn smaller(&self) -> Sweep {
        if self.waiters.is_some() { Sweep::Services } else { self.known.sweep(self.sweep) }
    }

    /// Asks the smaller set for what moved in it. What is heard counts when all of it is.
    async fn find_written(&mut self) -> Result<(), RegistryError> {
        self.sweep = self.smaller();
        let indexes = self.sweep_indexes().await?;
        let moved = indexes.iter().filter(|(name, index)| self.known.is_moved(self.sweep, name, *index));
        let nodes = moved.filter(|_| self.sweep == Sweep::Nodes).map(|(name, _)| name.clone()).collect();
        let found = reading::on_nodes(&self.client, nodes).await?;
        for (name, index) in indexes {
            self.known.index(self.sweep, &name, index);
        }
        for (name, instances) in found {
            self.known.on_node(&name, &instances);
        }
        Ok(())
    }

    async fn sweep_indexes(&self) -> Result<Vec<(known::Name, Option<u64>)>, RegistryError> {
        reading::indexes(&self.client, self.sweep, self.known.members(self.sweep)).await
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
    fn configuration(&mut self) -> (Listing, Vec<OriginName>) {
        match &mut self.configured {
            Some(configured) => configured.tell(self.around.trust_domain.as_ref()),
            None => Default::default(),
        }
    }

    /// Finds out what decides where no intention does, and that nothing is hidden that may be a policy: who was told of
    /// none yet would let everybody in. Who was told keeps what he knows.
    async fn check_policies(&mut self) -> Result<(), RegistryError> {
        let Some(configured) = &mut self.configured else { return Ok(()) };
        configured.decide_by_default(match self.default_intention {
            Some(allowed) => DefaultIntention::Said(allowed),
            None => self.client.default_intention().await?,
        });
        if configured.is_understood() {
            return Ok(());
        }
        if let Some(first) = self.hiding.sight().lacking_for_configuration() {
            let message = format!("the token lacks {first}: without it, policies might be missing");
            return Err(RegistryError::Denied(message));
        }
        let hides = |part: &Part| self.hiding.is_filtered(part.path());
        match [Part::Intentions, Part::Pairs].iter().find(|part| hides(part)) {
            Some(part) => Err(RegistryError::Denied(format!(
                "Consul leaves something out of {} for want of rights: policies might be missing",
                part.path()
            ))),
            None => Ok(()),
        }
    }
}
