//! How the server dies, and what is believed meanwhile.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::block_in_place;
use weft_testbed::{ConsulOptions, Gate, GateMode};

use crate::{
    bed::{CONVERGED, SOON, put, registry, start, write},
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

/// A server that was started again has its lists before it knows of tokens: nobody waits for that who knew what he sees.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_access_control_that_is_back_is_followed_at_once() {
    let Some(consul) = start(ConsulOptions { acl: true, servers: 3, ..ConsulOptions::default() }) else {
        return;
    };
    let leader = block_in_place(|| consul.await_leader()).unwrap();
    let own = (leader + 1) % 3;
    write(&consul, "n1", 1, "web", json!({}));
    let token = block_in_place(|| {
        consul
            .create_token("service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }")
    });
    let section =
        format!("token_file = {:?}\n", consul.scratch().write("token", token.unwrap().secret).unwrap());
    let mut follower = Follower::new(registry(&consul.member_url(own), &section), None);
    follower.until("an instance", SOON, |view| view.count("web") == 1).await.unwrap();
    let before = follower.view(errors);
    consul.member(own).kill();
    follower.until("its death", SOON, |view| errors(view) > before).await.unwrap();
    // The longer it is away, the longer it takes to hear of tokens. So long that it is time to ask what the token sees.
    tokio::time::sleep(Duration::from_secs(40)).await;
    let member = (own + 1) % 3;
    let body = json!({ "Node": "n2", "Address": "10.0.0.2", "Service": { "Service": "web", "Port": 8080 } });
    let written =
        block_in_place(|| consul.call_member(member, "PUT", "/v1/catalog/register", body.to_string()));
    assert!(written.unwrap().is_success());
    let before = follower.view(|view| view.seen.commits);
    block_in_place(|| consul.member(own).start_again()).unwrap();
    block_in_place(|| {
        weft_testbed::until("its lists are back", SOON, || {
            let answer = consul.call_member(own, "GET", "/v1/catalog/services", "");
            answer.is_ok_and(|answer| answer.is_success())
        })
    })
    .unwrap();
    follower.until("it is back", CONVERGED, |view| view.seen.commits > before).await.unwrap();
    let (before, commits) = follower.view(|view| (errors(view), view.seen.commits));
    follower.until("what happened since", CONVERGED, |view| view.count("web") == 2).await.unwrap();
    let lasts = |view: &View<'_>| view.seen.commits > commits + 2;
    follower.until("it is there for a while", 2 * SOON, lasts).await.unwrap();
    follower.view(|view| {
        // An election meanwhile is an outage of its own.
        let more = &view.seen.errors[before..];
        let of_tokens = more.iter().any(|error| error.contains("ACL not found"));
        assert!(more.len() <= 1 && !of_tokens, "one outage is one loss: {more:?}");
    });
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
    // Not so quiet at first: Consul goes on to write itself into it, and each time all who wait are answered.
    for _ in 0..3 {
        let (commits, bytes) = (follower.view(|view| view.seen.commits), gate.counts().to_server);
        let began = Instant::now();
        follower
            .until("three confirmations", Duration::from_secs(40), |view| view.seen.commits >= commits + 3)
            .await
            .unwrap();
        let sent = gate.counts().to_server - bytes;
        eprintln!("{sent} bytes were asked in {:?}", began.elapsed());
        if sent < 3_000 {
            return;
        }
    }
    panic!("3 000 bytes and more are asked each time");
}

/// Who comes back knows what was there, and asks for what changed.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_only_what_changed_is_read() {
    const SERVICES: u8 = 60;
    let Some(consul) = start(ConsulOptions::default()) else { return };
    for number in 0..SERVICES {
        write(&consul, &format!("n{}", number % 5), number % 5, &format!("s{number}"), json!({}));
    }
    let gate = Gate::before(&consul.url()).unwrap();
    let mut follower = Follower::new(registry(&gate.url(), ""), None);
    let all = |view: &View<'_>| (0..SERVICES).all(|number| view.count(&format!("s{number}")) == 1);
    follower.until("all services", SOON, all).await.unwrap();
    let first = gate.counts().requests;
    for round in 1..4_u8 {
        let before = follower.view(errors);
        gate.set(GateMode::Cut).unwrap();
        follower.until("the outage", SOON, |view| errors(view) > before).await.unwrap();
        let (more, less) = (format!("s{round}"), format!("s{}", 30 + round));
        write(&consul, "n2", 2, &more, json!({ "ID": format!("{more}-more") }));
        let gone = json!({ "Node": format!("n{}", (30 + round) % 5), "ServiceID": format!("{less}-{}", (30 + round) % 5) });
        put(&consul, "/v1/catalog/deregister", &gone);
        let before = gate.counts().requests;
        gate.set(GateMode::Open).unwrap();
        let changed = |view: &View<'_>| view.count(&more) == 2 && view.count(&less) == 0;
        follower.until("what happened meanwhile", SOON, changed).await.unwrap();
        let asked = gate.counts().requests - before;
        eprintln!("{first} questions at first, {asked} after outage {round}");
        assert!(asked < u64::from(SERVICES) / 2, "{asked} questions");
    }
    write(&consul, "n3", 3, "s50", json!({ "ID": "s50-more" }));
    follower.until("a change after it", SOON, |view| view.count("s50") == 2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_too_many_requests_is_an_outage_that_ends() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    let mut follower = Follower::new(registry(&consul.url(), ""), None);
    follower.until("an instance", SOON, |view| view.count("web") == 1).await.unwrap();
    let limit = |mode: &str| {
        let limits = json!({ "mode": mode, "read_rate": 0.5, "write_rate": 100 });
        let configuration = json!({ "limits": { "request_limits": limits } });
        consul.scratch().write("more.json", configuration.to_string()).unwrap();
        put(&consul, "/v1/agent/reload", &json!(null));
    };
    limit("enforcing");
    // What waits is answered by what changes; what is asked next is refused.
    write(&consul, "n2", 2, "web", json!({}));
    let refused =
        |view: &View<'_>| view.seen.errors.iter().any(|error| error.contains("rate limit exceeded"));
    follower.until("a refusal", SOON, refused).await.unwrap();
    put(&consul, "/v1/catalog/deregister", &json!({ "Node": "n1" }));
    let before = follower.view(errors);
    follower.until("it goes on", SOON, |view| errors(view) > before + 3).await.unwrap();
    assert!(follower.view(|view| view.count("web")) >= 1, "nothing goes because too much is asked");
    limit("disabled");
    for host in [3, 4] {
        write(&consul, &format!("n{host}"), host, "web", json!({}));
    }
    follower.until("what happened since", SOON, |view| view.count("web") == 3).await.unwrap();
}
