//! What our token is not shown. A list that is shorter than it was proves nothing: Consul answers 200 to who may not see
//! something, and does not always say that it left it out. So whatever shows less is held against our rights, one by one,
//! and kept as it was shown last where these do not reach.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;
use weft_core::registry::{Completeness, RegistryError};

use super::{
    client::Client,
    known::{Known, Name},
    reading::Read,
    rights::{self, Sight},
};
use crate::http_client::{growing_pause, jittered};

/// How often it is asked what our token sees, where it sees everything; before jitter.
const LOOK: Duration = Duration::from_secs(30);
/// How often where it does not, and somebody may be about to give it what it lacks: at first, and in the end.
const LACKING: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(15));
/// How many times before that doubles.
const SOON: u32 = 8;
/// How many of the services that are hidden are asked about then.
const LOOKED_AT: usize = 20;
/// How many services are named that are hidden.
const MAX_NAMED: usize = 5;

/// How a service shows less than it did.
#[derive(Clone, Debug, Default)]
struct Less {
    /// How many instances it showed.
    instances: usize,
    /// On which nodes it shows none any more; empty where nobody knows.
    nodes: BTreeSet<Name>,
    /// Whether Consul said that it left something out.
    filtered: bool,
}

/// What is hidden, as far as anybody can tell.
#[derive(Debug)]
pub(super) struct Hiding {
    /// Whether configuration is wanted, which needs rights of its own.
    configuration: bool,
    sight: Sight,
    /// Whether it is known what our token sees.
    has_looked: bool,
    /// When that is to be asked again, though nothing is hidden.
    due: Instant,
    /// How often in a row it was the same.
    unchanged: u32,
    /// Lists that Consul left something out of.
    filtered: BTreeSet<&'static str>,
    /// Services that show less than they did where we may not be shown all.
    hidden: BTreeMap<Name, Less>,
    /// Services that show less than they did, until it is known why.
    lost: BTreeMap<Name, Less>,
}

impl Hiding {
    pub(super) fn new(configuration: bool) -> Self {
        let (filtered, hidden, lost) = Default::default();
        Self {
            configuration,
            sight: Sight::Open,
            has_looked: false,
            due: Instant::now(),
            unchanged: 0,
            filtered,
            hidden,
            lost,
        }
    }

    /// All lists are about to be read anew.
    pub(super) fn begin(&mut self) {
        self.filtered.clear();
        self.lost.clear();
    }

    /// Whether everybody sees everything.
    pub(super) fn is_open(&self) -> bool {
        self.sight == Sight::Open
    }

    pub(super) fn sight(&self) -> &Sight {
        &self.sight
    }

    /// Takes note of whether Consul left something out of a list. Returns whether that is news.
    pub(super) fn note_list(&mut self, list: &'static str, filtered: bool) -> bool {
        if filtered { self.filtered.insert(list) } else { self.filtered.remove(list) }
    }

    /// Whether Consul left something out of a list.
    pub(super) fn is_filtered(&self, list: &str) -> bool {
        self.filtered.contains(list)
    }

    /// Takes note of a service that was read; `before` is what was known of it.
    pub(super) fn note_read(&mut self, read: &Read, before: &Known) {
        let shown: BTreeSet<&str> = read.entries.iter().map(|entry| entry.node.name.as_str()).collect();
        let (instances, nodes) = before.instances(&read.name);
        let nodes: BTreeSet<Name> = nodes.filter(|node| !shown.contains(&***node)).cloned().collect();
        let mut less = Less { instances, nodes, filtered: read.filtered };
        // What was lost in a round that failed is still to be explained.
        if let Some(earlier) = self.lost.remove(&read.name) {
            less.instances = less.instances.max(earlier.instances);
            less.nodes.extend(earlier.nodes.into_iter().filter(|node| !shown.contains(&**node)));
        }
        if read.entries.len() < less.instances || !less.nodes.is_empty() {
            self.lost.insert(read.name.clone(), less);
        }
    }

    /// Takes note of a service that no list shows any more.
    pub(super) fn note_gone(&mut self, name: &Name) {
        self.lost.entry(name.clone()).or_insert_with(|| Less { instances: 1, ..Less::default() });
    }

    /// Whether anything shows less than it did.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// What was lost is told.
    pub(super) fn note_told(&mut self) {
        self.lost.clear();
    }

    /// Whether so many instances are what is to be told of a service: one of which some are hidden stays as it was.
    pub(super) fn shows(&mut self, name: &Name, instances: usize) -> bool {
        let shows = self.hidden.get(name).is_none_or(|less| instances >= less.instances);
        if shows {
            self.hidden.remove(name);
        }
        shows
    }

    /// The services that are hidden, in part or in whole.
    pub(super) fn hidden(&self) -> impl Iterator<Item = &Name> {
        self.hidden.keys()
    }

    /// Finds out what our token sees. Returns whether that is other than it was.
    pub(super) async fn look(&mut self, client: &Client) -> Result<bool, RegistryError> {
        // Of many that are hidden some tell whether more may be seen.
        let sight = self.ask(client, self.hidden.iter().take(LOOKED_AT)).await?;
        let before = (std::mem::replace(&mut self.sight, sight), self.hidden.len());
        self.hidden.retain(|name, less| !sees(&self.sight, name, less));
        self.has_looked = true;
        let changed = !before.0.lacks_the_same(&self.sight) || before.1 != self.hidden.len();
        self.unchanged = if changed { 0 } else { self.unchanged.saturating_add(1) };
        let pause = match self.completeness() {
            Completeness::Full => jittered(LOOK),
            _ => growing_pause(LACKING, self.unchanged / SOON),
        };
        self.due = Instant::now() + pause;
        Ok(changed)
    }

    /// When that is to be asked again.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The same, where that is due. Returns no change otherwise, nor where nobody can tell yet: the server must have shown that
    /// it is there at all.
    pub(super) async fn look_in_time(&mut self, client: &Client) -> Result<bool, RegistryError> {
        if Instant::now() < self.due {
            return Ok(false);
        }
        Ok(self.look_patiently(client).await?.unwrap_or(false))
    }

    /// Finds out what our token sees after an outage, and returns whether anybody could tell. Before anything is told as gone,
    /// it is asked again.
    pub(super) async fn look_again(&mut self, client: &Client) -> Result<bool, RegistryError> {
        Ok(self.look_patiently(client).await?.is_some())
    }

    /// Finds out what our token sees. A server that was just started has its lists before it can tell, for as long as it takes
    /// to hear of tokens: then it is what it was, and asked for again soon. Returns none then.
    async fn look_patiently(&mut self, client: &Client) -> Result<Option<bool>, RegistryError> {
        match self.look(client).await {
            Err(RegistryError::Unreachable(_)) if self.has_looked => {
                self.due = Instant::now() + jittered(LACKING.0);
                Ok(None)
            }
            looked => looked.map(Some),
        }
    }

    /// Finds out whether what was lost may merely be hidden. Returns whether only a whole list can be told then: because some
    /// of it is, or because something is hidden no more.
    pub(super) async fn judge(&mut self, client: &Client) -> Result<bool, RegistryError> {
        if self.is_open() {
            return Ok(false);
        }
        self.sight = self.ask(client, self.hidden.iter().chain(&self.lost)).await?;
        let unseen = self.lost.iter().filter(|(name, less)| less.filtered || !sees(&self.sight, name, less));
        let unseen: Vec<_> = unseen.map(|(name, less)| (name.clone(), less.clone())).collect();
        let shown = self.hidden.iter().any(|(name, less)| sees(&self.sight, name, less));
        let hides = !unseen.is_empty();
        self.hidden.extend(unseen);
        Ok(hides || shown)
    }

    async fn ask<'a>(
        &self,
        client: &Client,
        about: impl Iterator<Item = (&'a Name, &'a Less)>,
    ) -> Result<Sight, RegistryError> {
        let (mut services, mut nodes) = (BTreeSet::new(), BTreeSet::new());
        for (name, less) in about {
            services.insert(name);
            nodes.extend(&less.nodes);
        }
        rights::sight(client, services, nodes, self.configuration).await
    }

    /// How complete a list of all that is shown is.
    pub(super) fn completeness(&self) -> Completeness {
        let whole = self.sight.is_whole() && self.filtered.is_empty() && self.hidden.is_empty();
        if whole { Completeness::Full } else { Completeness::Filtered }
    }

    /// What hides something, for a person; none where nothing does.
    pub(super) fn notice(&self) -> Option<String> {
        if self.completeness() == Completeness::Full {
            return None;
        }
        let mut lacking: Vec<String> = self.sight.lacking().map(str::to_owned).collect();
        lacking.extend(self.hidden.keys().take(MAX_NAMED).map(|name| format!("service {name:?} read")));
        if let Some(more) = self.hidden.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
            lacking.push(format!("{more} more"));
        }
        let nodes: BTreeSet<&Name> = self.hidden.values().flat_map(|less| &less.nodes).collect();
        lacking.extend(nodes.iter().take(MAX_NAMED).map(|name| format!("node {name:?} read")));
        let lists: Vec<&str> = self.filtered.iter().copied().collect();
        let reason = match (lacking.is_empty(), lists.is_empty()) {
            (false, _) => format!("the token lacks {}", lacking.join(", ")),
            (true, _) => format!("Consul leaves something out of {} for want of rights", lists.join(", ")),
        };
        Some(format!("{reason}: what it may not see is hidden, so what is missing is kept as it was"))
    }
}

fn sees(sight: &Sight, name: &Name, less: &Less) -> bool {
    sight.sees(name, &less.nodes)
}
