//! A server whose state went back knows less than was so: what it lacks is kept, what it shows is used at once.

use std::{fs::remove_dir_all, time::Duration};

use serde_json::json;
use tokio::task::block_in_place;
use weft_core::{
    registry::Completeness,
    resource::{Endpoint, Health},
};
use weft_testbed::{Consul, ConsulOptions, Gate, GateMode};

use crate::{
    bed::{SOON, put, registry, start, write},
    follower::{Follower, View},
};

/// Sooner than a question is answered that nothing wakes.
const WOKEN: Duration = Duration::from_secs(20);

/// How many endpoints of a service are confirmed, and how many are kept.
fn counts(view: &View<'_>, service: &str) -> (usize, usize) {
    let endpoints = view.endpoints(service).unwrap_or_default();
    let kept = endpoints.iter().filter(|it| it.health == Health::Unconfirmed).count();
    (endpoints.len() - kept, kept)
}

fn filtered(view: &View<'_>) -> bool {
    view.seen.completeness == Some(Completeness::Filtered)
}

/// Whether a person is told why.
fn says_why(view: &View<'_>) -> bool {
    let origins = view.seen.snapshot.scopes.values().flat_map(|state| state.origins.values().cloned());
    origins.into_iter().any(|origin| origin.faults.iter().any(|it| it.message.contains("catalog went back")))
}

fn wipe(consul: &Consul) {
    consul.kill();
    remove_dir_all(consul.scratch().path().join("server-1")).unwrap();
    block_in_place(|| consul.restart()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_snapshot_lacks_is_kept_and_what_it_has_is_used() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    write(&consul, "n2", 2, "web", json!({}));
    let snapshot = block_in_place(|| consul.snapshot()).unwrap();
    for host in 3..30 {
        write(&consul, &format!("n{host}"), host, "web", json!({}));
    }
    write(&consul, "n1", 1, "later", json!({}));
    put(&consul, "/v1/catalog/deregister", &json!({ "Node": "n2" }));
    let mut follower = Follower::new(registry(&consul.url(), ""), None);
    follower.until("28 instances", SOON, |view| counts(view, "web") == (28, 0)).await.unwrap();
    assert!(!follower.view(says_why));
    block_in_place(|| consul.restore(snapshot)).unwrap();
    // Nothing is written that would wake anybody.
    let was_then = |view: &View<'_>| counts(view, "web") == (2, 27) && counts(view, "later") == (0, 1);
    follower.until("what was then, and all that was", WOKEN, was_then).await.unwrap();
    assert!(follower.view(|view| filtered(view) && says_why(view)));
    // What is told again, and what is new.
    write(&consul, "n3", 3, "web", json!({}));
    write(&consul, "n40", 40, "web", json!({}));
    write(&consul, "n1", 1, "new", json!({}));
    let used = |view: &View<'_>| counts(view, "web") == (4, 26) && counts(view, "new") == (1, 0);
    follower.until("that it is used", SOON, used).await.unwrap();
    // What the server has shown since is its to take away.
    put(&consul, "/v1/catalog/deregister", &json!({ "Node": "n1", "ServiceID": "new-1" }));
    follower.until("that it goes", SOON, |view| counts(view, "new") == (0, 0)).await.unwrap();
    write(&consul, "n1", 1, "later", json!({}));
    follower.until("a service that is whole", SOON, |view| counts(view, "later") == (1, 0)).await.unwrap();
    for host in 4..30 {
        write(&consul, &format!("n{host}"), host, "web", json!({}));
    }
    follower.until("another one", SOON, |view| counts(view, "web") == (30, 0)).await.unwrap();
    put(&consul, "/v1/catalog/deregister", &json!({ "Node": "n40" }));
    follower.until("that its own word counts", SOON, |view| counts(view, "web") == (29, 0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_data_takes_nothing_away() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    for host in 1..4 {
        write(&consul, &format!("n{host}"), host, "web", json!({}));
    }
    // So often that the next server does not come as far.
    for port in 1..100 {
        write(&consul, "n1", 1, "db", json!({ "Port": port }));
    }
    let intention = json!({ "Kind": "service-intentions", "Name": "web", "Sources": [{ "Name": "db", "Action": "allow" }] });
    let written = || {
        let answer = consul.call("PUT", "/v1/config", intention.to_string());
        answer.is_ok_and(|answer| answer.is_success())
    };
    block_in_place(|| weft_testbed::until("the entry is taken", SOON, written)).unwrap();
    let section = "configuration = true\n";
    let mut follower = Follower::new(registry(&consul.url(), section), None);
    let policy = |view: &View<'_>| {
        let partition = view.seen.snapshot.partitions.values().next();
        partition.and_then(|it| it.policies.get("intentions/web/allow").cloned())
    };
    let all = |view: &View<'_>| counts(view, "web") == (3, 0) && counts(view, "db") == (1, 0);
    follower.until("all, and the policy", SOON, |view| all(view) && policy(view).is_some()).await.unwrap();
    let (before, point) = (follower.view(policy), follower.resume());
    wipe(&consul);
    let kept = |view: &View<'_>| counts(view, "web") == (0, 3) && counts(view, "db") == (0, 1);
    follower.until("that it is kept", SOON, |view| kept(view) && filtered(view)).await.unwrap();
    assert!(follower.view(says_why));
    assert_eq!(follower.view(policy), before);
    write(&consul, "n9", 9, "web", json!({}));
    write(&consul, "n2", 2, "web", json!({}));
    follower.until("what is there", SOON, |view| counts(view, "web") == (2, 2)).await.unwrap();
    let commits = follower.view(|view| view.seen.commits);
    follower.until("two more words", SOON, |view| view.seen.commits >= commits + 2).await.unwrap();
    assert_eq!(follower.view(|view| (counts(view, "web"), counts(view, "db"))), ((2, 2), (0, 1)));
    assert_eq!(follower.view(policy), before);

    // An agent that starts from its disk knows how far the catalog had come; one that knows nothing believes what it hears.
    for (point, completeness) in [(point, Completeness::Filtered), (None, Completeness::Full)] {
        let mut other = Follower::new(registry(&consul.url(), section), point);
        let listed = |view: &View<'_>| view.seen.commits > 0;
        other.until("a list", SOON, listed).await.unwrap();
        assert_eq!(other.view(|view| view.seen.completeness), Some(completeness));
    }
}

/// A server may come back with an older state, and have gone beyond the index that was known when anybody asks.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_restored_during_an_outage_is_told_though_its_index_is_higher() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    for host in 1..6 {
        write(&consul, &format!("n{host}"), host, "base", json!({}));
    }
    let snapshot = block_in_place(|| consul.snapshot()).unwrap();
    for host in 1..6 {
        write(&consul, &format!("n{host}"), host, "web", json!({}));
    }
    let gate = Gate::before(&consul.url()).unwrap();
    let mut follower = Follower::new(registry(&gate.url(), ""), None);
    follower.until("five instances", SOON, |view| counts(view, "web") == (5, 0)).await.unwrap();
    gate.set(GateMode::Cut).unwrap();
    follower.until("the outage", SOON, |view| !view.seen.errors.is_empty()).await.unwrap();
    block_in_place(|| consul.restore(snapshot)).unwrap();
    for host in [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2] {
        write(&consul, &format!("n{host}"), host, "other", json!({}));
    }
    write(&consul, "n2", 2, "web", json!({ "Address": "10.9.9.9" }));
    gate.set(GateMode::Open).unwrap();
    let confirmed = |view: &View<'_>| {
        let web = view.endpoints("web").unwrap_or_default();
        let is_there = |it: &Endpoint| it.health != Health::Unconfirmed;
        web.iter().filter(|it| is_there(it)).map(|it| it.address.to_string()).collect::<Vec<_>>()
    };
    let told = |view: &View<'_>| {
        confirmed(view) == ["10.9.9.9:8080"] && counts(view, "web").1 == 4 && counts(view, "other") == (2, 0)
    };
    follower.until("what is there now", SOON, told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "three minutes: just outages"]
async fn what_nobody_tells_again_goes() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    let snapshot = block_in_place(|| consul.snapshot()).unwrap();
    write(&consul, "n2", 2, "web", json!({}));
    let mut follower = Follower::new(registry(&consul.url(), ""), None);
    follower.until("both", SOON, |view| counts(view, "web") == (2, 0)).await.unwrap();
    block_in_place(|| consul.restore(snapshot)).unwrap();
    follower.until("that it is kept", SOON, |view| counts(view, "web") == (1, 1)).await.unwrap();
    let given = Duration::from_secs(150);
    assert!(follower.until("nothing goes", given, |view| counts(view, "web") != (1, 1)).await.is_err());
    let believed = |view: &View<'_>| counts(view, "web") == (1, 0) && !filtered(view) && !says_why(view);
    follower.until("that the server is believed", Duration::from_secs(60), believed).await.unwrap();
}
