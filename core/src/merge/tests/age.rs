//! What old state is worth, and what a list in parts says of the rest.

use super::*;

fn plain(number: u8) -> Endpoint {
    Endpoint { tls: TlsMode::Off, identity: None, mesh_address: None, ..endpoint("db", number) }
}

fn of(endpoints: impl IntoIterator<Item = Endpoint>) -> Vec<Resource> {
    endpoints.into_iter().map(|endpoint| Resource::Endpoint(Arc::new(endpoint))).collect()
}

fn say(merge: &mut Merge, scope: &Scope, origin: &str, endpoints: Vec<Resource>) {
    merge.apply(replace(scope, origin, "1", endpoints), START);
    merge.apply(commit(scope), START);
}

fn instances(merge: &Merge) -> Vec<String> {
    let endpoints = entry(merge, "db").map(|entry| entry.endpoints.to_vec()).unwrap_or_default();
    endpoints.iter().map(|it| format!("{} {:?}", it.instance, it.tls)).collect()
}

#[test]
fn old_state_holds_no_port_to_tls_that_was_never_all_tls() {
    let scope = scope("static");
    let mut merge = Merge::default();
    let both = || of([endpoint("db", 1), plain(2)]);
    say(&mut merge, &scope, "file", both());
    let mut restored = Merge::default();
    restored.restore(saved(&merge, &scope, START), seconds(7200));
    assert_eq!(instances(&restored), ["db-1 Required"]);
    assert!(restored.required_tls().is_empty());
    let later = seconds(7201);
    for event in [reset(&scope), replace(&scope, "file", "2", both()), ready(&scope), commit(&scope)] {
        restored.apply(event, later);
    }
    assert_eq!(instances(&restored), ["db-1 Required", "db-2 Off"]);
    assert!(restored.required_tls().is_empty());
}

#[test]
fn a_part_of_a_list_confirms_no_old_plaintext() {
    let scope = scope("static");
    let mut merge = Merge::default();
    say(&mut merge, &scope, "a", of([endpoint("db", 1)]));
    say(&mut merge, &scope, "b", of([plain(2)]));
    let restored = || {
        let mut restored = Merge::default();
        restored.restore(saved(&merge, &scope, START), seconds(7200));
        restored
    };
    let begin = |merge: &mut Merge| {
        for event in [reset(&scope), replace(&scope, "a", "2", of([endpoint("db", 1)])), commit(&scope)] {
            merge.apply(event, seconds(7201));
        }
    };
    let mut in_parts = restored();
    assert!(in_parts.snapshot().scopes[&scope].restored);
    begin(&mut in_parts);
    assert!(in_parts.snapshot().scopes[&scope].restored, "nor anything else that was restored");
    assert_eq!(instances(&in_parts), ["db-1 Required"], "nobody named the other origin");
    for event in [replace(&scope, "b", "2", of([plain(2)])), ready(&scope), commit(&scope)] {
        in_parts.apply(event, seconds(7202));
    }
    assert_eq!(instances(&in_parts), ["db-1 Required", "db-2 Off"]);
    assert!(!in_parts.snapshot().scopes[&scope].restored);
    // A list that hides something ends, and still nobody named it.
    let mut filtered = restored();
    begin(&mut filtered);
    filtered
        .apply(Event::Ready { scope: scope.clone(), completeness: Completeness::Filtered }, seconds(7202));
    filtered.apply(commit(&scope), seconds(7202));
    assert_eq!(instances(&filtered), ["db-1 Required"]);
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_fresh() {
    let scope = scope("static");
    let mut merge = Merge::default();
    say(&mut merge, &scope, "file", of([plain(1)]));
    let mut restored = Merge::default();
    restored.restore(saved(&merge, &scope, seconds(1000)), START);
    assert!(instances(&restored).is_empty() && restored.snapshot().scopes[&scope].stale);
}

#[test]
fn an_older_list_replaces_no_newer_one() {
    let scope = scope("static");
    let now = seconds(10_000);
    let list = |merge: &mut Merge, name: &str, age: u64| {
        merge.apply(reset(&scope), now);
        merge.apply(replace(&scope, name, "1", origin_of_endpoints(name, 1)), now);
        merge.apply(ready(&scope), now);
        merge.apply(Event::Commit { scope: scope.clone(), resume: None, age: Duration::from_secs(age) }, now)
    };
    let listed = |completeness: Completeness, committed_at: u64| {
        let origins =
            merge_of(&scope, 1).snapshot().scopes[&scope].origins.values().cloned().collect::<Vec<_>>();
        let origins = origins.iter().map(|origin| Origin::clone(origin)).collect();
        let (completeness, committed_at) = (Some(completeness), seconds(committed_at));
        let mut merge = Merge::default();
        merge.restore(SavedScope { scope: scope.clone(), completeness, committed_at, origins }, now);
        merge
    };
    let committed_at = |merge: &Merge| merge.snapshot().scopes[&scope].committed_at;
    let is_there = |merge: &Merge, name: &str| entry(merge, name).is_some();
    let passed_over = OLDER_BY.as_secs() + 1;

    let mut merge = listed(Completeness::Full, 10_000);
    assert_eq!(list(&mut merge, "old", passed_over), Applied::Outdated);
    assert!(is_there(&merge, "s0") && !is_there(&merge, "old"));
    assert_eq!(committed_at(&merge), Some(now));
    assert_eq!(list(&mut merge, "other", OLDER_BY.as_secs()), Applied::Changed, "about as new");
    assert!(is_there(&merge, "other") && !is_there(&merge, "s0"));
    assert_eq!(committed_at(&merge), Some(now), "no word sets it back");

    // What is held was no whole list itself.
    let mut merge = listed(Completeness::Filtered, 10_000);
    assert_eq!(list(&mut merge, "old", passed_over), Applied::Changed);
    // The clock was set back: what is held tells no age.
    let mut merge = listed(Completeness::Full, 20_000);
    assert_eq!(list(&mut merge, "old", passed_over), Applied::Changed);
    assert_eq!(committed_at(&merge), Some(seconds(10_000 - passed_over)));
}

#[test]
fn how_a_list_is_cut_does_not_decide_whether_it_is_believed() {
    let scope = scope("static");
    for cut in [false, true] {
        let mut merge = merge_of(&scope, 10);
        merge.apply(reset(&scope), seconds(10));
        for number in 0..10 {
            let name = format!("new{number}");
            merge.apply(replace(&scope, &name, "1", origin_of_endpoints(&name, 1)), seconds(10));
        }
        if cut {
            merge.apply(commit(&scope), seconds(10));
        }
        merge.apply(ready(&scope), seconds(10));
        merge.apply(commit(&scope), seconds(10));
        assert_eq!(merge.snapshot().scopes[&scope].unconfirmed.len(), 10, "cut: {cut}");
    }
}

#[test]
fn a_scope_that_its_relay_lacks_is_doubted_before_it_goes() {
    let scope = scope("static");
    let mut merge = merge_of(&scope, 2);
    assert!(!merge.lack(&scope, seconds(10)));
    assert_eq!(healths(&merge, &scope), [Health::Unconfirmed; 2]);
    assert!(!merge.lack(&scope, seconds(609)));
    assert!(merge.lack(&scope, seconds(610)));
    assert!(merge.snapshot().scopes.is_empty() && merge.snapshot().partitions.is_empty());
}

#[test]
fn last_good_words_that_are_kept_are_as_old_as_they_were() {
    let scope = scope("static");
    let words = || of([plain(1), endpoint("db", 2)]);
    let mut before = Merge::default();
    say(&mut before, &scope, "file", words());
    let fault = OriginFault { message: "SERVFAIL".into(), place: "db".into(), keeps_last_good: true };
    let kept = |version: &str| Event::Replace {
        scope: scope.clone(),
        origin: "file".parse().unwrap(),
        version: Version(version.into()),
        resources: Vec::new(),
        faults: vec![fault.clone()],
    };
    let all = ["db-1 Off", "db-2 Required"];
    for (age, held, health) in [(3_500, &all[..], Health::Healthy), (36_000, &all[1..], Health::Unconfirmed)]
    {
        let mut merge = Merge::default();
        merge.restore(saved(&before, &scope, START), seconds(age));
        for event in [reset(&scope), kept("2"), ready(&scope), commit(&scope)] {
            merge.apply(event, seconds(age));
        }
        let is_so = |merge: &Merge| {
            let healths = healths(merge, &scope);
            instances(merge) == held && healths.iter().all(|it| *it == health)
        };
        assert!(is_so(&merge), "after {age} s: {:?}", instances(&merge));
        merge.apply(kept("3"), seconds(age + 10));
        merge.apply(commit(&scope), seconds(age + 10));
        assert!(is_so(&merge), "and later: {:?}", instances(&merge));
        merge.apply(replace(&scope, "file", "4", words()), seconds(age + 20));
        merge.apply(commit(&scope), seconds(age + 20));
        assert_eq!(instances(&merge), all, "its registry's own word");
        assert_eq!(healths(&merge, &scope), [Health::Healthy; 2]);
    }
}
