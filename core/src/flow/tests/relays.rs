//! A relay that speaks for several registries, beside one that is followed here.

use super::*;
use crate::{
    identity::TrustDomain,
    merge::{
        BELIEVED_AFTER,
        testing::{endpoint, service},
    },
    resource::{Endpoint, PrincipalMatch, Resource},
};

const RELAY: Capabilities = Capabilities {
    resume: true,
    health: true,
    register: false,
    configuration: true,
    relay: true,
    returns: false,
};
const LOCAL: Capabilities = Capabilities {
    resume: true,
    health: false,
    register: false,
    configuration: true,
    relay: false,
    returns: false,
};

fn name(text: &str) -> RegistryName {
    RegistryName::new(text).unwrap()
}

fn names(texts: &[&str]) -> Vec<RegistryName> {
    texts.iter().map(|text| name(text)).collect()
}

/// A relay called "hub".
fn hub() -> (Source, Script) {
    let (registry, script) = scripted(name("hub"), RELAY);
    (Source::new(registry), script)
}

/// A registry called "static" that is followed here.
fn local() -> (Source, Script) {
    let (registry, script) = scripted(name("static"), LOCAL);
    (Source::new(registry), script)
}

fn config(sources: Vec<Source>, folder: Option<&tempfile::TempDir>) -> FlowConfig {
    FlowConfig { state_dir: folder.map(|it| it.path().to_owned()), ..FlowConfig::new(sources) }
}

/// Full lists of several scopes as a relay tells them, each with one service: all are begun before the first is over.
fn lists(services: &[(&str, &str)], point: Option<Resume>) -> Vec<Event> {
    let mut events: Vec<_> = services.iter().map(|(registry, _)| reset(&scope(registry))).collect();
    for (registry, service) in services {
        let scope = scope(registry);
        events.push(replace(&scope, service, "1", origin_of_endpoints(service, 2)));
        events.push(ready(&scope));
        events.push(Event::Commit { scope, resume: point.clone(), age: Duration::ZERO });
    }
    events
}

/// Who has a name and may be called by it.
fn owner(table: &Table, host: &str) -> Option<RegistryName> {
    let destination = table.destination(host).filter(|destination| !destination.is_held)?;
    Some(destination.key.registry.clone())
}

#[tokio::test(start_paused = true)]
async fn the_section_of_a_relay_limits_what_comes_through_it() {
    let (mut source, script) = hub();
    source.limits.may_name = Some(vec![PrincipalMatch::TrustDomain(TrustDomain::new("demo.mesh").unwrap())]);
    let running = run(script, config(vec![source], None));
    let scope = scope("platform");
    let evil = Endpoint {
        identity: Some("spiffe://evil.mesh/ns/default/sa/web".parse().unwrap()),
        ..endpoint("web", 9)
    };
    let mut words = origin_of_endpoints("web", 1);
    words.push(Resource::Endpoint(Arc::new(evil)));
    running.say([reset(&scope), replace(&scope, "web", "1", words), ready(&scope), commit(&scope)]).await;
    let table = running.table(|table| table.destination("web").is_some()).await;
    assert_eq!(table.destination("web").unwrap().ports[0].rules[0].targets[0].endpoints.all.len(), 1);
    let status = running.status(|status| !status.registries[0].scopes.is_empty()).await;
    let (_, faults) = &status.registries[0].scopes[0].faults[0];
    assert!(faults[0].message.contains("may not name the identity spiffe://evil.mesh"), "{faults:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_passes_on_ranks_in_its_place_and_in_its_order() {
    for (relay_first, told, expected) in [
        (true, ["platform", "apps"], "platform"),
        (true, ["apps", "platform"], "apps"),
        (false, ["platform", "apps"], "static"),
    ] {
        let ((relay, script), (own, own_script)) = (hub(), local());
        script.relay(&names(&told));
        let sources = if relay_first { vec![relay, own] } else { vec![own, relay] };
        let running = run(script, config(sources, None));
        for event in list("static", "web") {
            own_script.say(event).await;
        }
        running.say(lists(&[("apps", "web"), ("platform", "web")], None)).await;
        running.status(Status::is_ready).await;
        let table = running.tables.load_full();
        assert_eq!(owner(&table, "web.default.mesh"), Some(name(expected)), "{told:?}");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_order_of_a_relay_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, script) = hub();
    script.relay(&names(&["platform", "apps"]));
    let running = run(script, config(vec![relay], Some(&folder)));
    running.say(lists(&[("apps", "web"), ("platform", "web")], resume("1"))).await;
    running.status(Status::is_ready).await;
    running.stop().await;
    let (relay, script) = hub();
    let running = run(script, config(vec![relay], Some(&folder)));
    assert_eq!(owner(&running.tables.load(), "web.default.mesh"), Some(name("platform")));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_written_in_the_middle_of_the_first_lists_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, script) = hub();
    let running = run(script, config(vec![relay], Some(&folder)));
    let mut events = lists(&[("endpoints", "web"), ("policies", "orders")], resume("1"));
    events.truncate(5);
    assert!(matches!(events.last(), Some(Event::Commit { .. })));
    running.say(events).await;
    running.table(|table| table.destination("web").is_some()).await;
    running.stop().await;

    let (relay, script) = hub();
    let running = run(script, config(vec![relay], Some(&folder)));
    assert!(running.tables.load().destination("web").is_some(), "it was written");
    assert!(!running.statuses.load().is_ready(), "nobody knows what the other one denies");
    running.say(lists(&[("endpoints", "web"), ("policies", "orders")], resume("1"))).await;
    running.status(Status::is_ready).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_speaks_of_what_is_followed_here_becomes_ready_and_is_told() {
    for only_refused in [true, false] {
        let ((relay, script), (own, own_script)) = (hub(), local());
        let running = run(script, config(vec![own, relay], None));
        let said: &[_] =
            if only_refused { &[("static", "evil")] } else { &[("apps", "web"), ("static", "evil")] };
        running.say(lists(said, None)).await;
        for event in list("static", "orders") {
            own_script.say(event).await;
        }
        let status = running.status(Status::is_ready).await;
        let told = status.diagnostics.iter().find(|it| it.message.contains("another `name`"));
        assert!(told.is_some(), "{:?}", status.diagnostics);
        let table = running.tables.load_full();
        assert!(table.destination("evil").is_none() && table.destination("orders").is_some());
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_whose_stream_ends_takes_no_words_of_others_with_it() {
    let ((relay, script), (own, own_script)) = (hub(), local());
    let running = run(script, config(vec![own, relay], None));
    own_script.say(reset(&scope("static"))).await;
    own_script.say(replace(&scope("static"), "orders", "1", origin_of_endpoints("orders", 1))).await;
    running.status(|status| status.registries[0].connected).await;
    running.say([reset(&scope("static"))]).await;
    running.status(|status| status.registries[1].connected).await;
    running.script.fail(RegistryError::Unreachable("gone".into())).await;
    running.status(|status| status.registries[1].down_since.is_some()).await;
    own_script.say(ready(&scope("static"))).await;
    own_script.say(commit(&scope("static"))).await;
    running.table(|table| table.destination("orders").is_some()).await;
    running.status(|status| status.registries[0].ready).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_asked_for_again_when_it_would_be_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let ((relay, script), (own, _silent)) = (hub(), local());
    let running = run(script, config(vec![own, relay], Some(&folder)));
    running.say(lists(&[("apps", "web"), ("static", "orders")], resume("7"))).await;
    running.status(|status| status.registries[1].ready).await;
    running.stop().await;

    // Nothing else is followed now.
    let (relay, script) = hub();
    let running = run(script, config(vec![relay], Some(&folder)));
    running.script.watched_times(1).await;
    assert_eq!(running.script.watched(), [None], "the point lies behind what was refused");
    running.say(lists(&[("apps", "web"), ("static", "orders")], resume("7"))).await;
    running.table(|table| table.destination("orders").is_some()).await;
    running.status(|status| status.registries[0].ready).await;
    running.stop().await;

    // Under the same rules it goes on.
    let (relay, script) = hub();
    let running = run(script, config(vec![relay], Some(&folder)));
    running.script.watched_times(1).await;
    assert_eq!(running.script.watched(), [resume("7")]);
    running.stop().await;

    // Identities count, too.
    let (mut relay, script) = hub();
    relay.limits.may_name = Some(Vec::new());
    let running = run(script, config(vec![relay], Some(&folder)));
    running.script.watched_times(1).await;
    assert_eq!(running.script.watched(), [None]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_its_relay_speaks_of_no_more_is_doubted_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, script) = hub();
    script.relay(&names(&["static", "apps"]));
    let config = |relay| FlowConfig { now: paused_now, ..config(vec![relay], Some(&folder)) };
    let running = run(script, config(relay));
    running.say(lists(&[("static", "web"), ("apps", "orders")], resume("1"))).await;
    running.status(Status::is_ready).await;
    running.script.relay(&names(&["vms", "apps"]));
    running.script.fail(RegistryError::Gap("renamed".into())).await;
    running.script.watched_times(2).await;
    running.say(lists(&[("vms", "web"), ("apps", "orders")], resume("2"))).await;
    let of_static = |status: &Status| {
        let found = status.registries[0].scopes.iter().find(|it| it.scope.registry.as_str() == "static");
        found.map(|found| found.unconfirmed.len())
    };
    running.status(|status| of_static(status) == Some(1)).await;
    let table = running.table(|table| owner(table, "web.static.mesh").is_none()).await;
    assert!(table.destination("orders").is_some());
    // The flow asks by itself, and the list lacks it still.
    running.script.watched_times(3).await;
    assert_eq!(running.script.watched()[2], None);
    running.say(lists(&[("vms", "web"), ("apps", "orders")], resume("3"))).await;
    running.status(|status| of_static(status).is_none()).await;
    assert_eq!(owner(&running.tables.load(), "web.default.mesh"), Some(name("vms")));
    running.stop().await;

    let (relay, script) = hub();
    let running = run(script, config(relay));
    assert_eq!(of_static(&running.statuses.load()), None, "it does not come back from disk");
    running.stop().await;
}

/// A hub that was begun anew has no state of its own, and one of its registries is away.
#[tokio::test(start_paused = true)]
async fn a_registry_that_its_relay_names_and_has_not_heard_from_is_kept() {
    let (relay, script) = hub();
    script.relay(&names(&["platform", "catalog"]));
    let running = run(script, FlowConfig { now: paused_now, ..config(vec![relay], None) });
    running.say(lists(&[("platform", "web"), ("catalog", "orders")], resume("1"))).await;
    running.status(Status::is_ready).await;
    running.script.fail(RegistryError::Gap("another hub".into())).await;
    running.script.watched_times(2).await;
    running.say(lists(&[("platform", "inventory")], resume("2"))).await;
    running.table(|table| table.destination("inventory").is_some()).await;
    tokio::time::sleep(BELIEVED_AFTER * 2).await;
    assert_eq!(running.script.watched().len(), 2, "nothing is doubted, so nothing is asked for");
    let status = running.statuses.load_full();
    assert!(status.registries[0].scopes.iter().all(|scope| scope.unconfirmed.is_empty()), "{status:?}");
    assert_eq!(owner(&running.tables.load(), "orders"), Some(name("catalog")));
    running.stop().await;
}

/// Of two hubs one was cut off from its registry long ago, and the other one is restarted.
#[tokio::test(start_paused = true)]
async fn the_older_list_of_another_hub_takes_nothing_back_and_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let begin = |relay| FlowConfig { now: paused_now, ..config(vec![relay], Some(&folder)) };
    let aged = |mut events: Vec<Event>, minutes: u64| {
        if let Some(Event::Commit { age, .. }) = events.last_mut() {
            *age = Duration::from_secs(60 * minutes);
        }
        events
    };
    let (relay, script) = hub();
    let running = run(script, begin(relay));
    running.say(lists(&[("platform", "web")], resume("1"))).await;
    running.status(Status::is_ready).await;
    running.script.fail(RegistryError::Gap("another hub".into())).await;
    running.script.watched_times(2).await;
    running.say(aged(lists(&[("platform", "old")], resume("2")), 40)).await;
    running.status(|status| status.registries[0].counters.commits == 2).await;
    let is_as_before =
        |table: &Table| table.destination("web").is_some() && table.destination("old").is_none();
    assert!(is_as_before(&running.tables.load()), "it was true forty minutes ago");
    tokio::time::sleep(BELIEVED_AFTER * 2).await;
    assert_eq!(running.script.watched().len(), 2, "that hub knows no more than before");
    running.stop().await;

    let (relay, script) = hub();
    let running = run(script, begin(relay));
    running.script.watched_times(1).await;
    assert_eq!(running.script.watched(), [None], "the list that was passed over lies behind the point");
    running.say(aged(lists(&[("platform", "old")], resume("3")), 60)).await;
    running.status(|status| status.registries[0].counters.commits == 1).await;
    assert!(is_as_before(&running.tables.load()));
    // It hears from its registry again, and what is new to it says not all that differs here.
    running.say([commit(&scope("platform"))]).await;
    running.script.watched_times(2).await;
    running.say(lists(&[("platform", "old")], resume("4"))).await;
    running.table(|table| table.destination("web").is_none() && table.destination("old").is_some()).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_goes_on_doubts_nothing() {
    let (relay, script) = hub();
    let running = run(script, config(vec![relay], None));
    running.say(lists(&[("static", "web"), ("apps", "orders")], resume("1"))).await;
    running.status(Status::is_ready).await;
    running.script.fail(RegistryError::Unreachable("gone".into())).await;
    running.script.watched_times(2).await;
    // A registry that is new to the relay is listed in the middle of a stream.
    running.say(lists(&[("vms", "inventory")], resume("2"))).await;
    running.table(|table| table.destination("inventory").is_some()).await;
    let status = running.status(|status| status.registries[0].scopes.len() == 3).await;
    assert!(status.registries[0].scopes.iter().all(|scope| scope.unconfirmed.is_empty()));
    running.stop().await;
}

/// A service that no endpoint stands behind declares its name all the same.
#[tokio::test(start_paused = true)]
async fn a_relayed_registry_without_a_told_rank_comes_last() {
    let (relay, script) = hub();
    script.relay(&names(&["zebra"]));
    let running = run(script, config(vec![relay], None));
    let declared = |registry: &str| {
        let scope = scope(registry);
        let words = vec![Resource::Service(Arc::new(service("web")))];
        [replace(&scope, "web", "1", words), ready(&scope), commit(&scope)]
    };
    running.say([reset(&scope("apps")), reset(&scope("zebra"))]).await;
    running.say(declared("apps")).await;
    running.say(declared("zebra")).await;
    running.status(Status::is_ready).await;
    assert_eq!(owner(&running.tables.load(), "web.default.mesh"), Some(name("zebra")));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_lesser_registry_is_called_before_the_first_has_spoken_or_failed() {
    for fails in [false, true] {
        let ((first, script), (second, tenant)) = (hub(), local());
        let running = run(script, config(vec![first, second], None));
        for event in lists(&[("static", "web")], None) {
            tenant.say(event).await;
        }
        running.status(|status| status.registries[1].ready).await;
        let table = running.tables.load();
        assert!(owner(&table, "web").is_none() && table.is_partial, "the hub may have the name");
        if fails {
            running.script.fail(RegistryError::Unreachable("gone".into())).await;
            let table = running.table(|table| owner(table, "web").is_some()).await;
            assert_eq!(owner(&table, "web"), Some(name("static")), "an outage of one is none of another");
        }
        running.say(lists(&[("platform", "web")], None)[..1].to_vec()).await;
        running.say(lists(&[("platform", "web")], None)).await;
        running.table(|table| owner(table, "web") == Some(name("platform"))).await;
        running.stop().await;
    }
}
