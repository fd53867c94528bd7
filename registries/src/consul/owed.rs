//! What a server may have forgotten, and is going to be told again. Pure.
//!
//! Consul's catalog is what its agents told it, and they tell it again now and then. One whose state went back (an older
//! snapshot was restored, the data were lost) lacks for a while what runs on and was registered since. So what was shown
//! before is owed until it is shown again, or until the agents have had the time to tell it: meanwhile, that something is
//! missing proves nothing. What is shown is used at once. A service of which some instances are owed stays as it was told
//! last, unconfirmed, and what is shown of it is told beside it, as a part.
//!
//! Whoever begins to follow while that lasts does not know what was shown before, so of every service what is shown is a
//! part to him.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    known::{Name, digest_of},
    objects::Entry,
};

/// How long the agents are given to tell a server again what they run. In a cluster of up to [`SMALL`] nodes an agent does
/// so after one to two minutes, whatever else happens.
const TOLD_AGAIN: Duration = Duration::from_secs(180);
/// For each doubling of these nodes, Consul's agents take as much time more.
const SMALL: usize = 128;

/// Until when something may be owed, and how far the catalog had come before. Clones are one: it outlives who follows.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubt(Arc<Mutex<(Option<Instant>, Option<u64>)>>);

impl Doubt {
    fn with<T>(&self, look: impl FnOnce(&mut Option<Instant>, &mut Option<u64>) -> T) -> T {
        let mut doubt = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, reached) = &mut *doubt;
        look(until, reached)
    }

    /// None while the state is believed.
    fn until(&self) -> Option<Instant> {
        self.with(|until, _| *until)
    }
}

/// What was shown of a catalog, and what of it is owed.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// The instances of each service as it was read last.
    shown: BTreeMap<Name, Box<[u64]>>,
    /// Those that were shown before the state went back, and not since.
    owed: BTreeMap<Name, BTreeSet<u64>>,
    /// The services that a part was told of.
    parts: BTreeSet<Name>,
    /// How many nodes there were when everything was told.
    nodes: usize,
    /// Whether anything may have been shown before.
    is_all: bool,
    doubt: Doubt,
}

impl Owed {
    /// Knows nothing yet of what was shown, but how far the catalog had `held` come.
    pub(super) fn new(doubt: Doubt, held: Option<u64>) -> Self {
        let is_all = doubt.with(|until, reached| {
            *reached = reached.or(held);
            until.is_some()
        });
        Self { is_all, doubt, ..Self::default() }
    }

    /// How far the catalog had come before its state went back, or has come now.
    pub(super) fn reached(&self, now: Option<u64>) -> Option<u64> {
        self.doubt.with(|until, reached| {
            if until.is_none() {
                *reached = now.or(*reached);
                return now;
            }
            now.max(*reached)
        })
    }

    /// Takes note that the state went back before anything of it was shown here.
    pub(super) fn went_back_before(&mut self, now: Instant) {
        self.is_all = true;
        self.went_back(now);
    }

    /// Takes note that the server was away: its agents could not tell it anything meanwhile.
    pub(super) fn was_away(&mut self, now: Instant) {
        let again = now + told_again(self.nodes);
        self.doubt.with(|until, _| *until = until.map(|_| again));
    }

    /// Takes note that the server's state went back: whatever was shown is owed.
    pub(super) fn went_back(&mut self, now: Instant) {
        for (name, instances) in &self.shown {
            self.owed.entry(name.clone()).or_default().extend(instances);
        }
        let again = now + told_again(self.nodes);
        self.doubt.with(|until, _| *until = Some(until.map_or(again, |before| before.max(again))));
    }

    /// Whether something may be owed.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt.until().is_some()
    }

    /// Whether the agents have had their time.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.doubt.until().is_some_and(|until| until <= now)
    }

    /// Owes nothing any more where the agents have had their time.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.is_over(now) {
            self.doubt.with(|until, _| *until = None);
            self.owed.clear();
            self.is_all = false;
        }
    }

    /// Takes all instances of a service as they were read; none when it is gone.
    pub(super) fn read(&mut self, name: &Name, entries: &[Entry]) {
        let mut instances: Vec<u64> =
            entries.iter().map(|entry| digest_of((&entry.node.name, &entry.service.id))).collect();
        instances.sort_unstable();
        if let Some(owed) = self.owed.get_mut(name) {
            owed.retain(|instance| instances.binary_search(instance).is_err());
            if owed.is_empty() {
                self.owed.remove(name);
            }
        }
        match instances.is_empty() {
            true => drop(self.shown.remove(name)),
            false => drop(self.shown.insert(name.clone(), instances.into())),
        }
    }

    /// Takes a catalog in which there are no other services than these.
    pub(super) fn retain(&mut self, is_there: impl Fn(&Name) -> bool) {
        self.shown.retain(|name, _| is_there(name));
    }

    /// Whether instances of a service are owed: what is shown of it is a part.
    pub(super) fn lacks(&self, name: &str) -> bool {
        self.is_all || self.owed.contains_key(name)
    }

    /// Takes note that a part of a service is about to be told.
    pub(super) fn note_part(&mut self, name: &str) {
        self.parts.insert(name.into());
    }

    /// The services that a part was told of and that are whole by now.
    pub(super) fn completed(&self) -> impl Iterator<Item = &Name> {
        self.parts.iter().filter(|name| !self.lacks(name))
    }

    /// Takes note that all this is told, of a catalog with so many nodes.
    pub(super) fn note_told(&mut self, nodes: usize) {
        let Self { parts, owed, is_all, .. } = self;
        parts.retain(|name| *is_all || owed.contains_key(name));
        // While some nodes are owed themselves, there were more.
        self.nodes = if self.is_in_doubt() { self.nodes.max(nodes) } else { nodes };
    }

    /// Why something is kept, for a person; none where nothing is.
    pub(super) fn notice(&self) -> Option<String> {
        let minutes = told_again(self.nodes).as_secs() / 60;
        let notice = || {
            format!(
                "Consul's catalog went back, as with a restored snapshot or lost data: what it lacks is kept as it was, and its \
                 agents are given {minutes} minutes to tell it again"
            )
        };
        self.doubt.until().map(|_| notice())
    }
}

/// How long the agents of so many nodes are given.
fn told_again(nodes: usize) -> Duration {
    let doublings = nodes.div_ceil(SMALL).max(1).next_power_of_two().ilog2();
    TOLD_AGAIN * (doublings + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consul::{known::service_name, objects};

    fn read(owed: &mut Owed, service: &str, ids: &[&str]) {
        let entry = |id: &&str| Entry {
            node: objects::Node { name: "n1".into(), ..objects::Node::default() },
            service: objects::Instance { id: (*id).into(), ..objects::Instance::default() },
            ..Entry::default()
        };
        let entries: Vec<Entry> = ids.iter().map(entry).collect();
        owed.read(&service_name(service), &entries);
    }

    #[test]
    fn what_was_shown_is_owed_until_it_is_shown_again() {
        let (mut owed, now) = (Owed::default(), Instant::now());
        read(&mut owed, "web", &["1", "2", "3"]);
        read(&mut owed, "db", &["1"]);
        read(&mut owed, "gone", &["1"]);
        read(&mut owed, "gone", &[]);
        assert!(!owed.lacks("web") && owed.notice().is_none());
        owed.went_back(now);
        assert!(owed.lacks("web") && owed.lacks("db") && !owed.lacks("gone"));
        assert!(owed.notice().unwrap().contains("3 minutes"));
        // As many as there were, and not the same.
        read(&mut owed, "web", &["1", "2", "4"]);
        owed.note_part("web");
        assert!(owed.lacks("web") && owed.completed().count() == 0);
        // What has been shown since is not owed any more, though it goes again.
        read(&mut owed, "web", &["3", "4"]);
        assert!(!owed.lacks("web") && owed.lacks("db"));
        assert_eq!(owed.completed().map(|name| &**name).collect::<Vec<_>>(), ["web"]);
        owed.note_told(1);
        assert_eq!(owed.completed().count(), 0);
        owed.retain(|name| &**name == "web");
        owed.went_back(now);
        assert!(owed.lacks("web") && owed.lacks("db"), "what was owed still is");
    }

    #[test]
    fn nothing_is_owed_once_agents_have_had_their_time() {
        let (mut owed, now) = (Owed::default(), Instant::now());
        read(&mut owed, "web", &["1"]);
        owed.went_back(now);
        read(&mut owed, "web", &[]);
        owed.settle(now + TOLD_AGAIN / 2);
        assert!(owed.is_in_doubt() && owed.lacks("web"));
        // It goes back once more.
        owed.went_back(now + TOLD_AGAIN / 2);
        assert!(!owed.is_over(now + TOLD_AGAIN));
        owed.settle(now + TOLD_AGAIN * 3 / 2);
        assert!(!owed.is_in_doubt() && !owed.lacks("web") && owed.notice().is_none());
    }

    #[test]
    fn the_doubt_outlives_who_follows_and_has_him_take_nothing_for_whole() {
        let (doubt, now) = (Doubt::default(), Instant::now());
        let mut first = Owed::new(doubt.clone(), None);
        read(&mut first, "web", &["1", "2"]);
        assert_eq!(first.reached(Some(90)), Some(90));
        first.went_back(now);
        assert_eq!(first.reached(Some(7)), Some(90), "what is kept on disk tells it too");
        drop(first);
        let mut second = Owed::new(doubt.clone(), None);
        read(&mut second, "web", &["1"]);
        assert!(second.is_in_doubt() && second.lacks("web") && second.lacks("new"));
        second.note_part("web");
        second.note_told(1);
        // While it is away, nobody tells it anything.
        second.was_away(now + TOLD_AGAIN / 2);
        assert!(!second.is_over(now + TOLD_AGAIN));
        second.settle(now + TOLD_AGAIN * 3 / 2);
        assert!(!second.is_in_doubt() && !second.lacks("web"));
        assert_eq!((second.completed().count(), second.reached(Some(9))), (1, Some(9)));
        // From disk alone.
        let mut third = Owed::new(Doubt::default(), Some(90));
        assert!(!third.lacks("web"));
        third.was_away(now);
        assert!(!third.is_in_doubt());
        third.went_back_before(now);
        assert!(third.lacks("web"));
        assert_eq!(third.reached(Some(9)), Some(90));
    }

    #[test]
    fn agents_of_many_nodes_tell_it_more_seldom() {
        let minutes = [0, 1, 128, 129, 256, 257, 1024, 10_000].map(|nodes| told_again(nodes).as_secs() / 60);
        assert_eq!(minutes, [3, 3, 3, 6, 6, 9, 12, 24]);
        let (mut owed, now) = (Owed::default(), Instant::now());
        owed.note_told(200);
        owed.went_back(now);
        // The server that lost its data knows of few.
        owed.note_told(1);
        owed.went_back(now);
        assert!(!owed.is_over(now + TOLD_AGAIN) && owed.is_over(now + TOLD_AGAIN * 2));
    }
}
