//! What the store tells of announcements, as one hub has heard it.
//!
//! Nothing is taken away because something cannot be read, or because nobody tells: what was known last stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::hub::{
    records::{
        ANNOUNCED, AnnouncementRecord, OWNERS, OwnerRecord, PRESENT, read_announced, read_owner, read_present,
    },
    store::{Entry, StoreError, Told, Version},
};

/// What is followed.
pub(super) const FOLLOWED: [&str; 3] = [ANNOUNCED, OWNERS, PRESENT];

/// An announcement that is kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// As it could be read last.
    pub(super) record: AnnouncementRecord,
    pub(super) version: Version,
}

/// For how long that is listed still which a list of the store's lacks all at once: until its node's hub has written it again,
/// where it is alive, also when there are thousands.
pub(super) const LOST_FOR: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Stored {
    /// None before they were read.
    kept: Option<BTreeMap<String, Kept>>,
    /// What a full list lacked that was kept before, and since when: nobody said that it is gone. A store that was set back to
    /// an earlier time lacks what is alive.
    lost: BTreeMap<String, (Kept, Instant)>,
    /// The keys that each node announces.
    of_node: BTreeMap<String, BTreeSet<String>>,
    /// Whose each service is, by its name; none before they were read.
    owners: Option<BTreeMap<String, (OwnerRecord, Version)>>,
    /// Where each node has a stream: names of a hub and a part.
    places: BTreeMap<String, BTreeSet<String>>,
    /// Which nodes each of these names.
    present: BTreeMap<String, BTreeSet<String>>,
    /// What cannot be read, by its whole key, and why not.
    unreadable: BTreeMap<String, String>,
    /// Since when each of [`FOLLOWED`] is told without a fault.
    told_since: BTreeMap<&'static str, Instant>,
    /// Whether the store gives no answer.
    away: bool,
}

impl Stored {
    /// Takes over what the store tells of one of [`FOLLOWED`].
    pub(super) fn take(&mut self, prefix: &'static str, told: Told) {
        self.told_since.entry(prefix).or_insert_with(Instant::now);
        match told {
            Told::All(entries) => {
                self.unreadable.retain(|key, _| !key.starts_with(prefix));
                self.begin(prefix, &entries);
                entries.iter().for_each(|entry| self.put(prefix, entry));
            }
            Told::Put(entry) => self.put(prefix, &entry),
            Told::Gone(key) => {
                self.unreadable.remove(&key);
                let bare = key.strip_prefix(prefix).unwrap_or_default();
                if prefix == ANNOUNCED {
                    self.lost.remove(bare);
                }
                self.forget(prefix, bare);
            }
        }
    }

    /// One of [`FOLLOWED`] is told no more for now.
    pub(super) fn lose(&mut self, prefix: &'static str) {
        self.told_since.remove(prefix);
    }

    /// The store does not answer, or does again. Who waits for what changes hears neither: of a store that lost its quorum, a
    /// member that lives goes on to tell that nothing does. Returns whether that is news.
    pub(super) fn note_away(&mut self, away: bool, now: Instant) -> bool {
        let news = std::mem::replace(&mut self.away, away) != away;
        if news && !away {
            self.told_since.values_mut().for_each(|since| *since = now);
        }
        news
    }

    /// For how long one of [`FOLLOWED`] has been told without a fault; none when it is not.
    pub(super) fn told_for(&self, prefix: &str, now: Instant) -> Option<Duration> {
        self.told_since.get(prefix).filter(|_| !self.away).map(|since| now.saturating_duration_since(*since))
    }

    /// For how long all of it has been told without a fault; none when something is not.
    pub(super) fn steady(&self, now: Instant) -> Option<Duration> {
        let all: Option<Vec<_>> = FOLLOWED.iter().map(|prefix| self.told_for(prefix, now)).collect();
        all?.into_iter().min()
    }

    /// Forgets what a full list does not have; announcements it only loses.
    fn begin(&mut self, prefix: &'static str, entries: &[Entry]) {
        let listed: BTreeSet<&str> = entries.iter().filter_map(|it| it.key.strip_prefix(prefix)).collect();
        let gone = |known: Vec<&String>| {
            let gone = known.into_iter().filter(|key| !listed.contains(key.as_str()));
            gone.cloned().collect::<Vec<_>>()
        };
        let gone = match prefix {
            ANNOUNCED => gone(self.kept.get_or_insert_default().keys().collect()),
            OWNERS => gone(self.owners.get_or_insert_default().keys().collect()),
            _ => gone(self.present.keys().collect()),
        };
        for key in gone {
            if let Some(kept) = self.get(&key).filter(|_| prefix == ANNOUNCED).cloned() {
                self.lost.insert(key.clone(), (kept, Instant::now()));
            }
            self.forget(prefix, &key);
        }
    }

    fn put(&mut self, prefix: &'static str, entry: &Entry) {
        let key = entry.key.strip_prefix(prefix).unwrap_or_default();
        let put = match prefix {
            ANNOUNCED => self.put_announced(key, entry),
            OWNERS => read_owner(entry).map(|owner| {
                let owner = (owner, entry.version.clone());
                self.owners.get_or_insert_default().insert(key.to_owned(), owner);
            }),
            _ => read_present(entry).map(|nodes| self.put_present(key, nodes)),
        };
        match put {
            Ok(()) => drop(self.unreadable.remove(&entry.key)),
            Err(fault) => {
                if self.unreadable.insert(entry.key.clone(), fault.to_string()).is_none() {
                    tracing::warn!(%fault, "a record is left out");
                }
            }
        }
    }

    fn put_announced(&mut self, key: &str, entry: &Entry) -> Result<(), StoreError> {
        let kept = self.kept.get_or_insert_default();
        let version = entry.version.clone();
        let record = match read_announced(entry) {
            Ok(record) => record,
            Err(fault) => {
                // What it said last stays in force.
                kept.entry(key.to_owned()).and_modify(|kept| kept.version = version);
                return Err(fault);
            }
        };
        let node = record.node.clone();
        self.lost.remove(key);
        let before = kept.insert(key.to_owned(), Kept { record, version });
        if let Some(before) = before.filter(|before| before.record.node != node) {
            self.unlink(&before.record.node, key);
        }
        self.of_node.entry(node).or_default().insert(key.to_owned());
        Ok(())
    }

    fn put_present(&mut self, place: &str, nodes: BTreeSet<String>) {
        self.forget(PRESENT, place);
        for node in &nodes {
            self.places.entry(node.clone()).or_default().insert(place.to_owned());
        }
        self.present.insert(place.to_owned(), nodes);
    }

    fn forget(&mut self, prefix: &'static str, key: &str) {
        match prefix {
            ANNOUNCED => {
                if let Some(before) = self.kept.as_mut().and_then(|kept| kept.remove(key)) {
                    self.unlink(&before.record.node, key);
                }
            }
            OWNERS => drop(self.owners.as_mut().and_then(|owners| owners.remove(key))),
            _ => {
                for node in self.present.remove(key).unwrap_or_default() {
                    if let Some(places) = self.places.get_mut(&node)
                        && places.remove(key)
                        && places.is_empty()
                    {
                        self.places.remove(&node);
                    }
                }
            }
        }
    }

    fn unlink(&mut self, node: &str, key: &str) {
        if let Some(keys) = self.of_node.get_mut(node)
            && keys.remove(key)
            && keys.is_empty()
        {
            self.of_node.remove(node);
        }
    }

    /// Whether the announcements, and whose the services are, were read.
    pub(super) fn is_read(&self) -> bool {
        self.kept.is_some() && self.owners.is_some()
    }

    pub(super) fn kept(&self) -> impl Iterator<Item = (&String, &Kept)> {
        self.kept.iter().flatten()
    }

    /// What was lost and may be alive.
    pub(super) fn lost(&self) -> impl Iterator<Item = (&String, &Kept)> {
        self.lost.iter().map(|(key, (kept, _))| (key, kept))
    }

    /// Forgets what was lost long ago; says whether there was anything.
    pub(super) fn forget_lost(&mut self, now: Instant) -> bool {
        let before = self.lost.len();
        self.lost.retain(|_, (_, since)| now.saturating_duration_since(*since) < LOST_FOR);
        self.lost.len() != before
    }

    /// Forgets what was lost and its node withdraws; says whether it was there.
    pub(super) fn withdraw_lost(&mut self, key: &str, node: &str) -> bool {
        let is_its = self.lost.get(key).is_some_and(|(kept, _)| kept.record.node == node);
        is_its && self.lost.remove(key).is_some()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Kept> {
        self.kept.as_ref()?.get(key)
    }

    /// What is kept of one service.
    pub(super) fn of_service(&self, service: &str) -> impl Iterator<Item = (&String, &AnnouncementRecord)> {
        let prefix = format!("{service}/");
        let kept = self.kept.iter().flat_map({
            let prefix = prefix.clone();
            move |kept| kept.range(prefix.clone()..)
        });
        kept.take_while(move |(key, _)| key.starts_with(&prefix)).map(|(key, kept)| (key, &kept.record))
    }

    /// The nodes that announce something.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &String> {
        self.of_node.keys()
    }

    /// The keys that a node announces.
    pub(super) fn of_node(&self, node: &str) -> Option<&BTreeSet<String>> {
        self.of_node.get(node)
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = (&String, &(OwnerRecord, Version))> {
        self.owners.iter().flatten()
    }

    pub(super) fn owner(&self, service: &str) -> Option<&OwnerRecord> {
        Some(&self.owners.as_ref()?.get(service)?.0)
    }

    /// Whether a node has a stream at some hub.
    pub(super) fn is_present(&self, node: &str) -> bool {
        self.places.contains_key(node)
    }

    /// Whether it has one at another hub than this.
    pub(super) fn is_elsewhere(&self, node: &str, hub: &str) -> bool {
        let is_other = |place: &String| place.split_once('/').is_none_or(|(other, _)| other != hub);
        self.places.get(node).is_some_and(|places| places.iter().any(is_other))
    }

    /// Which nodes a part of a hub's names.
    pub(super) fn present_at(&self, place: &str) -> Option<&BTreeSet<String>> {
        self.present.get(place)
    }

    /// What cannot be read, by its whole key.
    pub(super) fn unreadable(&self) -> &BTreeMap<String, String> {
        &self.unreadable
    }
}
