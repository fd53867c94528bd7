//! A hub that begins again: with less than it told, with another past, or with none.

use weft_core::{control::discovery::read_scope, merge::SavedScope};

use super::*;

impl Bench {
    /// What the flow would have written to its file.
    fn saved(&self) -> SavedScope {
        let state = &self.merge.snapshot().scopes[&scope()];
        SavedScope {
            scope: scope(),
            completeness: state.completeness,
            committed_at: self.now,
            origins: state.origins.values().map(|origin| (**origin).clone()).collect(),
        }
    }

    /// Begins with the state of such a file.
    fn restored(folder: &Path, saved: SavedScope) -> Self {
        let mut hub = Self::new(folder);
        hub.merge.restore(saved, hub.now);
        hub.relay.take(hub.merge.snapshot()).unwrap();
        hub
    }

    /// Tells an agent all that it misses.
    fn tell(&self, agent: &mut Agent) {
        let point = (!agent.point.positions.is_empty()).then_some(&agent.point);
        agent.hear(&self.told(&mut self.follower(point).unwrap()));
    }
}

#[test]
fn a_hub_that_was_killed_sets_nobody_back_to_what_its_disk_knows() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Bench::new(folder.path());
    // The third goes and the fourth comes after the state was written; the first changes.
    hub.say(everything(3, 1));
    let saved = hub.saved();
    let mut after = everything(4, 1);
    after.drain(4..6);
    after[1] = Resource::Endpoint(Endpoint { weight: 7, ..endpoint(0, 0) }.into());
    hub.say(after.clone());
    let mut agent = Agent::new(&hub);
    hub.tell(&mut agent);
    let told = agent.known();
    drop(hub);

    let mut hub = Bench::restored(folder.path(), saved);
    hub.tell(&mut agent);
    assert_eq!((agent.known(), &agent.replaced[..]), (told.clone(), &[][..]), "it knows more than the disk");
    // Who knows nothing gets what there is, and may not take it for all.
    let mut other = Agent::new(&hub);
    hub.tell(&mut other);
    assert_eq!(other.known().len(), 2, "{:?}", other.known());
    let completeness = |agent: &Agent| agent.merge.snapshot().scopes[&scope()].completeness;
    assert_eq!(completeness(&other), Some(Completeness::Filtered));

    // The registry is back, with what it had said last, and everybody ends with that.
    hub.say(after);
    for agent in [&mut agent, &mut other] {
        hub.tell(agent);
        assert_eq!(agent.known(), told);
    }
    let mut third = Agent::new(&hub);
    hub.tell(&mut third);
    assert_eq!((third.known(), completeness(&third)), (told, Some(Completeness::Full)));
}

#[test]
fn the_disk_of_a_hub_was_right_about_what_had_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Bench::new(folder.path());
    hub.say(everything(2, 1));
    let saved = hub.saved();
    hub.say(everything(1, 1));
    let mut agent = Agent::new(&hub);
    hub.tell(&mut agent);
    drop(hub);
    let mut hub = Bench::restored(folder.path(), saved);
    hub.tell(&mut agent);
    assert_eq!(agent.known().len(), 1);
    // Nothing differs from what was restored, and all of it from what was told.
    hub.say(everything(2, 1));
    hub.tell(&mut agent);
    assert_eq!(agent.known(), known(&hub.merge));
    assert_eq!(agent.known().len(), 2);
}

#[test]
fn a_hub_that_was_set_back_to_a_copy_lets_nobody_resume_over_what_it_never_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.redb");
    let copy = folder.path().join("copy");
    let mut hub = Bench::new(folder.path());
    hub.say(everything(3, 1));
    let mut early = Agent::new(&hub);
    hub.tell(&mut early);
    let first_life = hub.journal.past().clone();
    drop(hub);
    std::fs::copy(&file, &copy).unwrap();

    let mut hub = Bench::new(folder.path());
    hub.say(everything(2, 1));
    let mut agent = Agent::new(&hub);
    hub.tell(&mut agent);
    drop(hub);

    std::fs::copy(&copy, &file).unwrap();
    let mut hub = Bench::new(folder.path());
    // It comes as far as the agent was, by another way.
    hub.say(everything(6, 1));
    let fault = hub.follower(Some(&agent.point)).unwrap_err();
    assert!(matches!(fault, ResumeFault::Lost(_)) && fault.needs_full_list(), "{fault}");
    assert_eq!(early.point.life, first_life.life()[..]);
    hub.tell(&mut early);
    assert_eq!(
        (early.known(), early.resets),
        (known(&hub.merge), 1),
        "the copy knows how far that one had come"
    );
}

/// What is told of several registries, in words.
fn told(batches: &[Discovery]) -> Vec<String> {
    let words = |batch: &Discovery| {
        let scope = read_scope(batch).unwrap();
        let read = |event| match read_event(&scope, event).unwrap() {
            Relayed::Event(Event::Reset { scope }) => format!("reset {scope}"),
            Relayed::Event(Event::Ready { scope, .. }) => format!("ready {scope}"),
            Relayed::Event(other) => panic!("{other:?}"),
            Relayed::Commit { .. } => format!("commit {scope}"),
        };
        batch.events.iter().map(read).collect::<Vec<_>>()
    };
    batches.iter().flat_map(words).collect()
}

#[test]
fn every_list_that_may_hold_policies_is_begun_before_the_first_is_committed_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let names = ["a", "b"].map(|name| RegistryName::new(name).unwrap());
    let mut relay = Relay::new(journal.clone()).awaiting(names.clone());
    let mut merge = Merge::new(std::collections::BTreeMap::new());
    let reader = relay.reader();
    let begin = |resume| {
        let subscribe = Subscribe { subscription: 1, resume, ..Subscribe::default() };
        Follower::new(subscribe, journal.past(), &reader.load()).unwrap()
    };
    let next = |follower: &mut Follower| {
        let state = reader.load_full();
        let batches: Vec<_> =
            std::iter::from_fn(|| follower.next_batch(&state, SystemTime::now()).unwrap()).collect();
        told(&batches)
    };
    let mut confirm = |relay: &mut Relay, name: &RegistryName| {
        let scope = Scope::whole(name.clone());
        for event in [
            Event::Reset { scope: scope.clone() },
            Event::Ready { scope: scope.clone(), completeness: Completeness::Full },
            Event::Commit { scope, resume: None, age: Duration::ZERO },
        ] {
            merge.apply(event, SystemTime::now());
        }
        relay.take(merge.snapshot()).unwrap();
    };
    let mut first = begin(None);
    assert_eq!(next(&mut first), ["reset a", "reset b"]);
    confirm(&mut relay, &names[0]);
    // Who starts knows that something is missing; who runs is told what there is.
    assert_eq!(next(&mut first), ["ready a", "commit a"]);
    let mut second = begin(None);
    assert_eq!(next(&mut second), ["reset b", "reset a", "ready a", "commit a"]);
    confirm(&mut relay, &names[1]);
    for follower in [&mut first, &mut second] {
        assert_eq!(next(follower), ["ready b", "commit b"]);
    }
    assert_eq!(next(&mut begin(None)), ["reset a", "reset b", "ready a", "commit a", "ready b", "commit b"]);
}
