//! What becomes visible when, and what never goes by silence.

mod age;
mod limits;
mod origins;

use std::{collections::BTreeSet, net::SocketAddr};

use proptest::prelude::*;

use super::{testing::*, *};
use crate::{
    identity::TrustDomain,
    registry::{OriginFault, Version},
    resource::{Action, Policy, PolicyTarget, Retries, Route, RouteRule, Service, ServicePort, TlsMode},
};

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn seconds(count: u64) -> SystemTime {
    START + Duration::from_secs(count)
}

fn merge_of(scope: &Scope, origins: u8) -> Merge {
    let mut merge = Merge::default();
    merge.apply(reset(scope), START);
    for number in 0..origins {
        let name = format!("s{number}");
        merge.apply(replace(scope, &name, "1", origin_of_endpoints(&name, 1)), START);
    }
    merge.apply(ready(scope), START);
    assert_eq!(merge.apply(commit(scope), START), Applied::Changed);
    merge
}

fn healths(merge: &Merge, scope: &Scope) -> Vec<Health> {
    let partition = merge.snapshot().partitions.get(&scope.registry).unwrap();
    let mut all: Vec<_> = partition.services.values().flat_map(|e| &e.endpoints).map(|e| e.health).collect();
    all.sort();
    all
}

fn entry(merge: &Merge, name: &str) -> Option<Arc<ServiceEntry>> {
    let key = ServiceKey { registry: RegistryName::new("static").unwrap(), service: name.parse().unwrap() };
    merge.snapshot().service(&key).cloned()
}

/// Lists the first `kept` origins again, at a time.
fn list(merge: &mut Merge, scope: &Scope, kept: u8, completeness: Completeness, now: SystemTime) {
    merge.apply(reset(scope), now);
    for number in 0..kept {
        let name = format!("s{number}");
        merge.apply(replace(scope, &name, "1", origin_of_endpoints(&name, 1)), now);
    }
    merge.apply(Event::Ready { scope: scope.clone(), completeness }, now);
    merge.apply(commit(scope), now);
}

/// What a state file keeps of a scope.
fn saved(merge: &Merge, scope: &Scope, committed_at: SystemTime) -> SavedScope {
    let origins = merge.snapshot().scopes[scope].origins.values().map(|it| Origin::clone(it)).collect();
    SavedScope { scope: scope.clone(), completeness: Some(Completeness::Full), committed_at, origins }
}

#[test]
fn nothing_is_visible_before_its_commit_and_a_lost_stream_takes_it_along() {
    let scope = scope("static");
    let mut merge = merge_of(&scope, 1);
    assert_eq!(merge.apply(replace(&scope, "s1", "1", origin_of_endpoints("s1", 1)), START), Applied::Staged);
    assert!(entry(&merge, "s1").is_none());
    merge.abandon(&scope);
    assert_eq!(merge.apply(commit(&scope), seconds(5)), Applied::Confirmed);
    assert!(entry(&merge, "s1").is_none());
    assert_eq!(
        merge.snapshot().scopes[&scope].committed_at,
        Some(seconds(5)),
        "still true is news of its own"
    );
}

#[test]
fn a_doubted_list_makes_unconfirmed_and_only_a_later_one_removes() {
    let scope = scope("static");
    let mut merge = merge_of(&scope, 10);
    list(&mut merge, &scope, 3, Completeness::Full, seconds(10));
    assert_eq!(healths(&merge, &scope).iter().filter(|h| **h == Health::Unconfirmed).count(), 7);
    list(&mut merge, &scope, 3, Completeness::Full, seconds(300));
    assert_eq!(healths(&merge, &scope).len(), 10, "ten minutes have not passed");
    // One comes back and is confirmed; the others go.
    list(&mut merge, &scope, 4, Completeness::Full, seconds(610));
    assert_eq!(healths(&merge, &scope), [Health::Healthy; 4]);
    assert!(merge.snapshot().scopes[&scope].unconfirmed.is_empty());
}

#[test]
fn a_filtered_list_removes_nothing_and_the_operator_may() {
    let scope = scope("static");
    let mut merge = merge_of(&scope, 3);
    list(&mut merge, &scope, 1, Completeness::Filtered, seconds(10));
    list(&mut merge, &scope, 1, Completeness::Filtered, seconds(99_999));
    assert_eq!(healths(&merge, &scope).len(), 3);
    assert_eq!(merge.drop_unconfirmed(Some(&RegistryName::new("other").unwrap())), 0);
    assert_eq!(merge.drop_unconfirmed(None), 2);
    assert_eq!(healths(&merge, &scope), [Health::Healthy]);
}

#[test]
fn a_list_committed_in_parts_removes_only_at_its_end() {
    let scope = scope("static");
    let mut merge = merge_of(&scope, 3);
    merge.apply(reset(&scope), START);
    merge.apply(replace(&scope, "s0", "2", origin_of_endpoints("s0", 2)), START);
    merge.apply(commit(&scope), START);
    assert_eq!(healths(&merge, &scope).len(), 4);
    merge.apply(replace(&scope, "s1", "1", origin_of_endpoints("s1", 1)), START);
    merge.apply(ready(&scope), START);
    merge.apply(commit(&scope), START);
    assert_eq!(healths(&merge, &scope).len(), 3);
}

#[test]
fn a_fault_keeps_the_last_good_words_and_goes_with_the_next_good_ones() {
    let scope = scope("static");
    let mut merge = merge_of(&scope, 1);
    let fault = OriginFault { message: "no TOML".into(), place: "a.toml:1:1".into(), keeps_last_good: true };
    let faulty = Event::Replace {
        scope: scope.clone(),
        origin: "s0".parse().unwrap(),
        version: Version("2".into()),
        resources: Vec::new(),
        faults: vec![fault],
    };
    merge.apply(faulty, START);
    merge.apply(commit(&scope), START);
    assert_eq!(entry(&merge, "s0").unwrap().endpoints.len(), 1);
    assert_eq!(merge.snapshot().scopes[&scope].faulty.len(), 1);
    merge.apply(replace(&scope, "s0", "3", Vec::new()), START);
    merge.apply(commit(&scope), START);
    assert!(entry(&merge, "s0").is_none() && merge.snapshot().scopes[&scope].faulty.is_empty());
}

#[test]
fn words_with_a_fault_tell_how_those_are_that_stand() {
    let scope = scope("static");
    let mut merge = merge_of(&scope, 1);
    let fault = OriginFault { message: "no TOML".into(), place: "a.toml:1:1".into(), keeps_last_good: true };
    let mut say = |version: &str, change: &dyn Fn(&mut Endpoint)| {
        let mut resources = origin_of_endpoints("s0", 1);
        for resource in &mut resources {
            if let Resource::Endpoint(endpoint) = resource {
                change(Arc::make_mut(endpoint));
            }
        }
        let faults = vec![fault.clone()];
        let (origin, version) = ("s0".parse().unwrap(), Version(version.into()));
        let words = Event::Replace { scope: scope.clone(), origin, version, resources, faults };
        merge.apply(words, START);
        merge.apply(commit(&scope), START);
        let endpoints = &entry(&merge, "s0").unwrap().endpoints;
        assert_eq!(endpoints.len(), 1);
        (endpoints[0].health, endpoints[0].weight)
    };
    assert_eq!(say("2", &|it| (it.health, it.weight) = (Health::Unhealthy, 7)), (Health::Unhealthy, 1));
    assert_eq!(
        say("3", &|it| it.address = SocketAddr::from(([10, 9, 9, 9], 1)).into()),
        (Health::Unhealthy, 1),
        "it is not this one"
    );
    assert_eq!(say("4", &|_| ()), (Health::Healthy, 1));
}

#[test]
fn a_port_that_was_tls_only_never_falls_back_to_plaintext() {
    let scope = scope("static");
    let plain = || Endpoint { tls: TlsMode::Off, identity: None, ..endpoint("a", 1) };
    let say = |merge: &mut Merge, endpoint: Endpoint| {
        merge.apply(replace(&scope, "file", "1", vec![Resource::Endpoint(Arc::new(endpoint))]), START);
        merge.apply(commit(&scope), START);
        entry(merge, "a").unwrap().endpoints[0].tls
    };
    let mut merge = Merge::default();
    assert_eq!(say(&mut merge, plain()), TlsMode::Off);
    assert_eq!(say(&mut merge, endpoint("a", 1)), TlsMode::Required);
    assert_eq!(say(&mut merge, plain()), TlsMode::Required);
    // Over a restart too, and even when the service was gone for a while.
    let mut restarted = Merge::default();
    restarted.restore_required_tls(merge.required_tls().iter().cloned());
    assert_eq!(say(&mut restarted, plain()), TlsMode::Required);
    let key = ServiceKey { registry: scope.registry.clone(), service: "a".parse().unwrap() };
    assert!(restarted.allow_plaintext(&key, None));
    assert_eq!(say(&mut restarted, plain()), TlsMode::Off);
}

#[test]
fn a_port_that_was_tls_only_stays_so_under_another_name() {
    let scope = scope("static");
    let port = |name: &str, number| ServicePort {
        name: name.parse().unwrap(),
        number,
        protocol: crate::resource::AppProtocol::Http,
    };
    let told = |ports: &[(&str, u16, TlsMode)]| {
        let declared = ports.iter().map(|(name, number, _)| port(name, *number)).collect();
        let service = Resource::Service(Arc::new(Service { ports: declared, ..service("a") }));
        let endpoints = ports.iter().map(|(name, _, tls)| {
            let port_name = name.parse().unwrap();
            Resource::Endpoint(Arc::new(Endpoint { port_name, tls: *tls, ..endpoint("a", 1) }))
        });
        [service].into_iter().chain(endpoints).collect::<Vec<_>>()
    };
    let say = |merge: &mut Merge, resources: Vec<Resource>| {
        merge.apply(replace(&scope, "file", "1", resources), START);
        merge.apply(commit(&scope), START);
        let endpoints = entry(merge, "a").map(|entry| entry.endpoints.clone()).unwrap_or_default();
        endpoints.iter().map(|it| (it.port_name.to_string(), it.tls)).collect::<Vec<_>>()
    };
    let (off, required) = (TlsMode::Off, TlsMode::Required);
    let both = [("http", 80, required), ("stats", 90, off)];
    let mut merge = Merge::default();
    say(&mut merge, told(&both));
    let renamed = say(&mut merge, told(&[("web", 80, off), ("stats", 90, off), ("more", 91, off)]));
    assert_eq!(renamed, [("more".into(), off), ("stats".into(), off), ("web".into(), required)]);
    // Gone for a while and back with nothing that was known of it.
    say(&mut merge, Vec::new());
    assert_eq!(say(&mut merge, told(&[("grpc", 81, off)])), [("grpc".into(), required)]);
    let key = ServiceKey { registry: scope.registry.clone(), service: "a".parse().unwrap() };
    assert!(merge.allow_plaintext(&key, None));
    assert_eq!(say(&mut merge, told(&[("grpc", 81, off)])), [("grpc".into(), off)]);
}

#[test]
fn old_state_yields_only_endpoints_that_prove_who_they_are() {
    let scope = scope("static");
    let plain = Endpoint { tls: TlsMode::Off, ..endpoint("a", 1) };
    let mut merge = Merge::default();
    let words = vec![Resource::Endpoint(Arc::new(plain)), Resource::Endpoint(Arc::new(endpoint("a", 2)))];
    merge.apply(replace(&scope, "file", "1", words), START);
    merge.apply(commit(&scope), START);
    let mut young = Merge::default();
    young.restore(saved(&merge, &scope, START), seconds(3600));
    assert_eq!(entry(&young, "a").unwrap().endpoints.len(), 2);
    let mut old = Merge::default();
    old.restore(saved(&merge, &scope, START), seconds(3601));
    assert_eq!(entry(&old, "a").unwrap().endpoints[0].instance.as_str(), "a-2");
    assert_eq!(old.apply(commit(&scope), seconds(3700)), Applied::Changed, "confirmed: all are used again");
    assert_eq!(entry(&old, "a").unwrap().endpoints.len(), 2);
}

#[test]
fn a_port_that_was_restored_in_part_is_held_to_tls_once_all_of_it_is_tls() {
    let scope = scope("static");
    let plain = Endpoint { tls: TlsMode::Off, ..endpoint("a", 1) };
    let both = vec![Resource::Endpoint(Arc::new(plain)), Resource::Endpoint(Arc::new(endpoint("a", 2)))];
    let mut merge = Merge::default();
    merge.apply(replace(&scope, "file", "1", both), START);
    merge.apply(commit(&scope), START);
    let mut old = Merge::default();
    old.restore(saved(&merge, &scope, START), seconds(7200));
    assert!(old.required_tls().is_empty(), "plaintext is among what was said");
    let one = vec![Resource::Endpoint(Arc::new(endpoint("a", 2)))];
    old.apply(replace(&scope, "file", "2", one), seconds(7200));
    old.apply(commit(&scope), seconds(7200));
    assert_eq!(old.required_tls().len(), 1);
}

#[test]
fn the_journal_names_what_changed_or_says_that_it_does_not_know() {
    let scope = scope("static");
    let mut merge = merge_of(&scope, 3);
    let before = merge.snapshot().generation;
    merge.apply(replace(&scope, "s1", "2", origin_of_endpoints("s1", 2)), START);
    merge.apply(replace(&scope, "s2", "2", Vec::new()), START);
    merge.apply(commit(&scope), START);
    let changed = merge.snapshot().changes_since(before).unwrap();
    let named = |name: &str| (scope.registry.clone(), ResourceKey::Service(name.parse().unwrap()));
    assert_eq!(changed, [named("s1"), named("s2")].into());
    assert_eq!(merge.snapshot().changes_since(merge.snapshot().generation), Some(BTreeSet::new()));
    assert_eq!(merge.snapshot().changes_since(99), None);
    for number in 0..5000_u32 {
        let endpoints = origin_of_endpoints("s1", 1 + u8::try_from(number % 2).unwrap());
        merge.apply(replace(&scope, "s1", &number.to_string(), endpoints), START);
        merge.apply(commit(&scope), START);
    }
    assert_eq!(merge.snapshot().changes_since(before), None, "too long ago");
    let recent = merge.snapshot().changes_since(merge.snapshot().generation - 10).unwrap();
    assert_eq!(recent.len(), 1, "each service once");
}

#[test]
fn two_origins_that_declare_one_service_differently_are_told_apart_and_told_of() {
    let scope = scope("static");
    let mut merge = Merge::default();
    let other = crate::resource::Service { hosts: vec!["x.example".parse().unwrap()], ..service("a") };
    merge.apply(replace(&scope, "1.toml", "1", origin_of_endpoints("a", 1)), START);
    merge.apply(replace(&scope, "2.toml", "1", vec![Resource::Service(Arc::new(other))]), START);
    merge.apply(commit(&scope), START);
    assert!(entry(&merge, "a").unwrap().service.as_ref().unwrap().hosts.is_empty());
    assert_eq!(merge.diagnostics().count(), 1);
    merge.apply(replace(&scope, "1.toml", "2", Vec::new()), START);
    merge.apply(commit(&scope), START);
    assert_eq!(entry(&merge, "a").unwrap().service.as_ref().unwrap().hosts.len(), 1);
    assert_eq!(merge.diagnostics().count(), 0);
}

/// A word in a random history.
#[derive(Clone, Debug)]
enum Word {
    Replace(u8, u8, u8),
    Reset,
    Ready(bool),
    Commit,
    Abandon,
}

fn words() -> impl Strategy<Value = Vec<(usize, Word)>> {
    let word = prop_oneof![
        6 => (0..12_u8, 0..3_u8, 0..4_u8).prop_map(|(o, s, n)| Word::Replace(o, s, n)),
        1 => Just(Word::Reset),
        1 => any::<bool>().prop_map(Word::Ready),
        3 => Just(Word::Commit),
        1 => Just(Word::Abandon),
    ];
    prop::collection::vec((0..3_usize, word), 1..60)
}

/// So many endpoints, and with some counts a route or a policy: several origins may claim one under the same name.
fn said(name: &str, count: u8) -> Vec<Resource> {
    if count == 0 {
        return Vec::new();
    }
    let mut words = origin_of_endpoints(name, count);
    if count == 2 {
        let rule = RouteRule {
            name: "rule".parse().unwrap(),
            matches: Vec::new(),
            backends: Vec::new(),
            request_timeout: Duration::ZERO,
            connect_timeout: Duration::from_secs(1),
            retries: Retries::default(),
        };
        let service = name.parse().unwrap();
        words.push(Resource::Route(
            Route { name: "route".parse().unwrap(), service, rules: vec![rule] }.into(),
        ));
    }
    if count == 3 {
        let target = PolicyTarget::Service(name.parse().unwrap());
        let policy =
            Policy { name: "policy".parse().unwrap(), target, action: Action::Deny, rules: Vec::new() };
        words.push(Resource::Policy(policy.into()));
    }
    words
}

fn speak(merge: &mut Merge, scope: &Scope, word: &Word, now: SystemTime) -> Applied {
    let event = match word {
        Word::Replace(origin, service, count) => {
            let words = said(&format!("s{service}"), *count);
            replace(scope, &format!("o{origin:02}"), &count.to_string(), words)
        }
        Word::Reset => reset(scope),
        Word::Ready(true) => ready(scope),
        Word::Ready(false) => Event::Ready { scope: scope.clone(), completeness: Completeness::Filtered },
        Word::Commit => commit(scope),
        Word::Abandon => {
            merge.abandon(scope);
            return Applied::Staged;
        }
    };
    merge.apply(event, now)
}

/// What a snapshot says, without how it came to it.
fn shown(merge: &Merge) -> Vec<String> {
    let snapshot = merge.snapshot();
    let mut lines = Vec::new();
    for (scope, state) in &snapshot.scopes {
        lines.extend(state.origins.values().map(|origin| format!("{scope} {origin:?}")));
    }
    for (registry, partition) in &snapshot.partitions {
        lines.extend(partition.services.iter().map(|(name, entry)| format!("{registry} {name} {entry:?}")));
        lines.extend(partition.routes.values().map(|route| format!("{registry} {route:?}")));
        lines.extend(partition.policies.values().map(|policy| format!("{registry} {policy:?}")));
    }
    lines.extend(merge.diagnostics().map(ToString::to_string));
    lines.sort();
    lines
}

proptest! {
    #[test]
    fn interleaving_of_registries_does_not_matter(words in words()) {
        let scopes = ["a", "b", "c"].map(scope);
        let mut interleaved = Merge::default();
        for (index, word) in &words {
            speak(&mut interleaved, &scopes[*index], word, START);
        }
        let mut one_by_one = Merge::default();
        for (index, scope) in scopes.iter().enumerate() {
            for (_, word) in words.iter().filter(|(of, _)| *of == index) {
                speak(&mut one_by_one, scope, word, START);
            }
        }
        prop_assert_eq!(shown(&interleaved), shown(&one_by_one));
    }

    #[test]
    fn only_a_commit_is_seen_and_it_is_counted(words in words()) {
        let scope = scope("a");
        let mut merge = Merge::default();
        for (_, word) in &words {
            let (before, generation) = (shown(&merge), merge.snapshot().generation);
            let applied = speak(&mut merge, &scope, word, START);
            let changed = applied == Applied::Changed;
            prop_assert!(!changed || matches!(word, Word::Commit));
            prop_assert_eq!(changed, merge.snapshot().generation == generation + 1);
            prop_assert!(changed || before == shown(&merge));
        }
    }

    #[test]
    fn what_is_derived_step_by_step_equals_what_is_derived_at_once(words in words()) {
        let parts = ["", "x", "y"].map(|part| Scope { part: part.into(), ..scope("a") });
        let mut merge = Merge::default();
        for (index, word) in &words {
            speak(&mut merge, &parts[*index], word, START);
        }
        let mut at_once = Merge::default();
        for (scope, state) in &merge.snapshot().scopes {
            let origins = state.origins.values().map(|origin| Origin::clone(origin)).collect();
            let completeness = state.completeness;
            at_once.restore(SavedScope { scope: scope.clone(), completeness, committed_at: START, origins }, START);
        }
        prop_assert_eq!(shown(&merge), shown(&at_once));
        let diagnostics = |merge: &Merge| merge.diagnostics().cloned().collect::<Vec<_>>();
        prop_assert_eq!(diagnostics(&merge), diagnostics(&at_once));
    }
}
