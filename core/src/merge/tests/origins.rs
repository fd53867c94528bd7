//! Several origins of one service, and words that mean nothing.

use super::*;
use crate::resource::Service;

fn instances(merge: &Merge, name: &str) -> Vec<String> {
    let endpoints = entry(merge, name).map(|entry| entry.endpoints.to_vec()).unwrap_or_default();
    endpoints.iter().map(|endpoint| endpoint.instance.to_string()).collect()
}

fn numbered(name: &str, number: u8) -> Vec<Resource> {
    vec![Resource::Service(Arc::new(service(name))), Resource::Endpoint(Arc::new(endpoint(name, number)))]
}

#[test]
fn no_origin_adds_endpoints_to_a_service_that_another_declares() {
    let scope = scope("static");
    let mut merge = Merge::default();
    merge.apply(replace(&scope, "a.toml", "1", numbered("web", 1)), START);
    merge.apply(commit(&scope), START);
    let saved = saved(&merge, &scope, START);
    // After a restart the first file is broken, so its registry does not know what it declared.
    let mut merge = Merge::default();
    merge.restore(saved, START);
    let fault = OriginFault { message: "no TOML".into(), place: "a.toml:1:1".into(), keeps_last_good: true };
    let broken = Event::Replace {
        scope: scope.clone(),
        origin: "a.toml".parse().unwrap(),
        version: Version("2".into()),
        resources: Vec::new(),
        faults: vec![fault],
    };
    for event in [reset(&scope), broken, replace(&scope, "b.toml", "1", numbered("web", 2)), commit(&scope)] {
        merge.apply(event, START);
    }
    assert_eq!(instances(&merge, "web"), ["web-1"]);
    assert!(merge.diagnostics().any(|it| it.to_string().contains("\"a.toml\" and \"b.toml\"")));
    // One that declares nothing adds what it knows: a hub cuts large services so.
    let piece = vec![Resource::Endpoint(Arc::new(endpoint("web", 3)))];
    merge.apply(replace(&scope, "c.toml", "1", piece), START);
    merge.apply(commit(&scope), START);
    assert_eq!(instances(&merge, "web"), ["web-1", "web-3"]);
    merge.apply(replace(&scope, "a.toml", "3", Vec::new()), START);
    merge.apply(commit(&scope), START);
    assert_eq!(instances(&merge, "web"), ["web-2", "web-3"]);
    assert_eq!(merge.diagnostics().count(), 0);
}

/// What a registry says instead of words that make no sense stands where there never were any that did: also after a restart.
#[test]
fn a_fault_keeps_nothing_where_nothing_ever_made_sense() {
    let scope = scope("static");
    let fault = OriginFault { message: "no TOML".into(), place: "kv a".into(), keeps_last_good: true };
    let say = |merge: &mut Merge, version: &str, resources: Vec<Resource>| {
        let broken = Event::Replace {
            scope: scope.clone(),
            origin: "a".parse().unwrap(),
            version: Version(version.into()),
            resources,
            faults: vec![fault.clone()],
        };
        merge.apply(broken, START);
        merge.apply(commit(&scope), START);
    };
    let restarted = |merge: &Merge| {
        let saved = saved(merge, &scope, START);
        let mut merge = Merge::default();
        merge.restore(saved, START);
        merge
    };
    let mut merge = Merge::default();
    say(&mut merge, "1", Vec::new());
    let mut merge = restarted(&merge);
    say(&mut merge, "2", numbered("web", 1));
    assert_eq!(instances(&merge, "web"), ["web-1"]);
    say(&mut merge, "3", numbered("web", 2));
    assert_eq!(instances(&merge, "web"), ["web-2"], "what stands for the next broken words");
    say(&mut merge, "4", Vec::new());
    assert_eq!(instances(&merge, "web"), ["web-2"], "nothing stands for these");
    // What made sense once is kept.
    merge.apply(replace(&scope, "a", "5", numbered("web", 3)), START);
    merge.apply(commit(&scope), START);
    say(&mut merge, "6", Vec::new());
    let mut merge = restarted(&merge);
    say(&mut merge, "7", numbered("web", 1));
    assert_eq!(instances(&merge, "web"), ["web-3"]);
}

#[test]
fn origins_that_mean_different_endpoints_by_one_key_are_told_and_a_move_is_not() {
    let scope = scope("static");
    let mut merge = Merge::default();
    let at = |port: u16, health| {
        let address = ([10, 0, 0, 1], port).into();
        vec![Resource::Endpoint(Arc::new(Endpoint { address, health, ..endpoint("web", 1) }))]
    };
    let mut say = |origin: &str, resources| {
        merge.apply(replace(&scope, origin, "1", resources), START);
        merge.apply(commit(&scope), START);
        let addresses: Vec<String> = entry(&merge, "web")
            .map(|entry| entry.endpoints.iter().map(|it| it.address.to_string()).collect())
            .unwrap_or_default();
        (addresses, merge.diagnostics().map(ToString::to_string).collect::<Vec<_>>())
    };
    say("web", vec![Resource::Service(Arc::new(service("web")))]);
    say("slice-a", at(8001, Health::Healthy));
    let (addresses, told) = say("slice-b", at(8001, Health::Draining));
    assert!(addresses == ["10.0.0.1:8001"] && told.is_empty(), "the same one twice: {addresses:?} {told:?}");
    let (addresses, told) = say("slice-b", at(8002, Health::Healthy));
    assert_eq!((addresses.len(), told.len()), (1, 1), "{told:?}");
    for words in
        ["10.0.0.1:8001 by the origin \"slice-a\"", "10.0.0.1:8002, by \"slice-b\"", "first one stands"]
    {
        assert!(told[0].contains(words), "{words}: {told:?}");
    }
    let heavy = Endpoint { weight: 7, address: ([10, 0, 0, 1], 8001).into(), ..endpoint("web", 1) };
    let (_, told) = say("slice-b", vec![Resource::Endpoint(heavy.into())]);
    assert!(told[0].contains("by the origin \"slice-a\" and the same with other words, by"), "{told:?}");
    say("slice-b", at(8002, Health::Healthy));
    let (addresses, told) = say("slice-a", Vec::new());
    assert!(addresses == ["10.0.0.1:8002"] && told.is_empty(), "{addresses:?} {told:?}");
}

#[test]
fn a_service_that_moved_to_another_file_is_not_held_by_the_doubted_one() {
    let scope = scope("static");
    let mut merge = Merge::default();
    for event in [
        reset(&scope),
        replace(&scope, "a.toml", "1", numbered("web", 1)),
        ready(&scope),
        commit(&scope),
        reset(&scope),
        replace(&scope, "b.toml", "1", numbered("web", 2)),
        Event::Ready { scope: scope.clone(), completeness: Completeness::Filtered },
        commit(&scope),
    ] {
        merge.apply(event, START);
    }
    assert_eq!(instances(&merge, "web"), ["web-2"]);
}

#[test]
fn words_that_mean_nothing_leave_the_last_good_ones_in_force() {
    let scope = scope("static");
    let no_ports = Service { ports: Vec::new(), ..service("web") };
    let no_port = Endpoint { address: ([10, 0, 0, 1], 0).into(), ..endpoint("web", 1) };
    let rule = RouteRule {
        name: "rule".parse().unwrap(),
        matches: Vec::new(),
        backends: Vec::new(),
        request_timeout: Duration::ZERO,
        connect_timeout: Duration::ZERO,
        retries: crate::resource::Retries::default(),
    };
    let in_no_time =
        Route { name: "web".parse().unwrap(), service: "web".parse().unwrap(), rules: vec![rule] };
    for wrong in [
        Resource::Service(Arc::new(no_ports)),
        Resource::Endpoint(Arc::new(no_port)),
        Resource::Route(Arc::new(in_no_time)),
    ] {
        let mut merge = Merge::default();
        merge.apply(replace(&scope, "new", "1", vec![wrong.clone()]), START);
        merge.apply(replace(&scope, "known", "1", numbered("web", 2)), START);
        merge.apply(commit(&scope), START);
        assert_eq!(instances(&merge, "web"), ["web-2"], "{wrong:?}");
        merge.apply(replace(&scope, "known", "2", vec![wrong.clone()]), START);
        merge.apply(commit(&scope), START);
        assert_eq!(instances(&merge, "web"), ["web-2"], "{wrong:?}");
        assert_eq!(merge.snapshot().scopes[&scope].faulty.len(), 2);
        assert!(entry(&merge, "web").unwrap().routes.is_empty());
    }
}
