//! How the server dies, and what is believed meanwhile.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::block_in_place;
use weft_testbed::{ConsulOptions, Gate, GateMode};

use crate::{
    bed::{SOON, put, registry, start, write},
    follower::{Follower, View},
};

fn errors(view: &View<'_>) -> usize {
    view.seen.errors.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_and_a_quorum_are_lost_and_nothing_goes_with_them() {
    let Some(consul) = start(ConsulOptions { servers: 3, ..ConsulOptions::default() }) else { return };
    let first = block_in_place(|| consul.await_leader()).unwrap();
    // A server that follows: it lives on, and its streaming backend says nothing of the leader's death.
    let own = (first + 1) % 3;
    for host in 1..=3 {
        write(&consul, &format!("n{host}"), host, "web", json!({}));
    }
    let mut follower = Follower::new(registry(&consul.member_url(own), ""), None);
    follower.until("three instances", SOON, |view| view.count("web") == 3).await.unwrap();
    consul.member(first).kill();
    follower.until("the leader is missed", SOON, |view| errors(view) > 0).await.unwrap();
    let commits = follower.view(|view| view.seen.commits);
    follower.until("another one leads", SOON, |view| view.seen.commits > commits).await.unwrap();
    assert_eq!(follower.view(|view| view.count("web")), 3);

    let other = (first + 2) % 3;
    consul.member(other).kill();
    let before = follower.view(errors);
    follower.until("the quorum is missed", SOON, |view| errors(view) > before).await.unwrap();
    let commits = follower.view(|view| view.seen.commits);
    let before = follower.view(errors);
    follower.until("it stays missed", SOON, |view| errors(view) > before + 5).await.unwrap();
    assert_eq!(follower.view(|view| (view.seen.commits, view.count("web"))), (commits, 3));
    block_in_place(|| consul.restart()).unwrap();
    put(&consul, "/v1/catalog/deregister", &json!({ "Node": "n3" }));
    follower.until("what happened since", SOON, |view| view.count("web") == 2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_snapshot_is_told_though_its_index_is_lower() {
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
    follower.until("28 instances", SOON, |view| view.count("web") == 28).await.unwrap();
    block_in_place(|| consul.restore(snapshot)).unwrap();
    follower
        .until("what was then", SOON, |view| view.count("web") == 2 && view.count("later") == 0)
        .await
        .unwrap();
    write(&consul, "n3", 3, "web", json!({}));
    follower.until("a change after it", SOON, |view| view.count("web") == 3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed_and_everything_is_told_after_it() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    let gate = Gate::before(&consul.url()).unwrap();
    let mut follower = Follower::new(registry(&gate.url(), ""), None);
    follower.until("an instance", SOON, |view| view.count("web") == 1).await.unwrap();
    for mode in [GateMode::Silent, GateMode::SilentFromServer, GateMode::Cut] {
        let (before, began) = (follower.view(errors), Instant::now());
        gate.set(mode).unwrap();
        follower.until("silence is noticed", SOON, |view| errors(view) > before).await.unwrap();
        eprintln!("{mode:?} was noticed after {} ms", began.elapsed().as_millis());
        assert_eq!(follower.view(|view| view.count("web")), 1);
        write(&consul, "n2", 2, "web", json!({}));
        gate.set(GateMode::Open).unwrap();
        follower.until("what happened meanwhile", SOON, |view| view.count("web") == 2).await.unwrap();
        put(&consul, "/v1/catalog/deregister", &json!({ "Node": "n2" }));
        follower.until("one instance again", SOON, |view| view.count("web") == 1).await.unwrap();
    }
}

/// What hangs together: it is asked whether there is a leader more often than anybody waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_catalog_is_confirmed_with_few_questions() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    let gate = Gate::before(&consul.url()).unwrap();
    let mut follower = Follower::new(registry(&gate.url(), ""), None);
    follower.until("an instance", SOON, |view| view.count("web") == 1).await.unwrap();
    let (commits, bytes) = (follower.view(|view| view.seen.commits), gate.counts().to_server);
    let began = Instant::now();
    follower
        .until("three confirmations", Duration::from_secs(40), |view| view.seen.commits >= commits + 3)
        .await
        .unwrap();
    let sent = gate.counts().to_server - bytes;
    eprintln!("{sent} bytes were asked in {:?}", began.elapsed());
    assert!(sent < 3_000, "{sent}");
}
