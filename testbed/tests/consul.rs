//! Consul starts, does its work, dies and comes back with what it knew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use weft_testbed::{Call, Consul, ConsulOptions, Gate, GateMode, Kind, installed, required, until};

const SOON: Duration = Duration::from_secs(30);

fn start(options: ConsulOptions) -> Option<Consul> {
    let home = required(installed(Kind::Consul))?;
    let begin = Instant::now();
    let consul = Consul::start(&home, options).unwrap();
    eprintln!("{} Consul server(s) are ready after {} ms", consul.servers(), begin.elapsed().as_millis());
    Some(consul)
}

fn has_web(consul: &Consul) -> bool {
    consul.call("GET", "/v1/catalog/services", "").is_ok_and(|answer| answer.json()["web"].is_array())
}

#[test]
fn one_server_keeps_what_it_knows_through_a_kill_and_leaves_nothing_behind() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    let ask = |index: &str| {
        let answer =
            consul.call("GET", &format!("/v1/health/service/web?index={index}&wait=30s"), "").unwrap();
        (answer.header("X-Consul-Index").unwrap().to_owned(), answer.json()[0]["Service"]["ID"].clone())
    };
    let (first, none) = ask("0");
    assert_eq!(none, json!(null));
    thread::scope(|scope| {
        let query = scope.spawn(|| {
            // A query for a service that nobody has is answered whenever the catalog changes at all, and the
            // server goes on to write itself into it for a while.
            let begin = Instant::now();
            let mut answer = ask(&first);
            while answer.1.is_null() && begin.elapsed() < Duration::from_secs(30) {
                answer = ask(&answer.0);
            }
            answer.1
        });
        consul.register(&json!({ "ID": "web-1", "Name": "web", "Port": 8080 })).unwrap();
        assert_eq!(query.join().unwrap(), "web-1");
    });
    consul.kill();
    assert!(consul.call("GET", "/v1/status/leader", "").is_err());
    let begin = Instant::now();
    consul.restart().unwrap();
    eprintln!("it leads again after {} ms", begin.elapsed().as_millis());
    until("web is back", SOON, || has_web(&consul)).unwrap();
    let (pid, folder) = (consul.member(0).pid().unwrap(), consul.scratch().path().to_owned());
    assert!(Path::new(&format!("/proc/{pid}")).exists() && folder.exists());
    drop(consul);
    assert!(!Path::new(&format!("/proc/{pid}")).exists() && !folder.exists());
}

#[test]
fn a_restored_snapshot_takes_the_index_back() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    // Of a key: what Consul knows of itself it writes again by itself. The same value twice is no change.
    let write = |number: u32| {
        consul.call("PUT", "/v1/kv/x", number.to_string()).unwrap().success("write").unwrap();
    };
    write(0);
    let snapshot = consul.snapshot().unwrap();
    (1..20).for_each(write);
    let index = || {
        let answer = consul.call("GET", "/v1/kv/x", "").unwrap();
        answer.header("X-Consul-Index").unwrap().parse::<u64>().unwrap()
    };
    let before = index();
    consul.restore(snapshot).unwrap();
    assert!(index() < before);
}

#[test]
fn tokens_limit_what_is_seen_until_they_are_revoked() {
    let Some(consul) = start(ConsulOptions { acl: true, ..ConsulOptions::default() }) else { return };
    for name in ["web", "hidden"] {
        consul.register(&json!({ "Name": name, "Port": 8080 })).unwrap();
    }
    assert!(has_web(&consul));
    let rules = r#"node_prefix "" { policy = "read" } service "web" { policy = "read" }"#;
    let token = consul.create_token(rules).unwrap();
    let url = consul.url() + "/v1/catalog/services";
    let with = |secret: &str| Call::new("GET", url.as_str()).header("X-Consul-Token", secret).send().unwrap();
    assert_eq!(with(&token.secret).json(), json!({ "web": [] }));
    assert_eq!(Call::new("GET", url.as_str()).send().unwrap().json(), json!({}));
    consul.revoke_token(&token).unwrap();
    assert_eq!(with(&token.secret).status, 403);
}

#[test]
fn three_servers_outlive_their_leader_and_lose_their_quorum() {
    let Some(consul) = start(ConsulOptions { servers: 3, ..ConsulOptions::default() }) else { return };
    let first = consul.await_leader().unwrap();
    consul.member(first).kill();
    let begin = Instant::now();
    let second = consul.await_leader().unwrap();
    eprintln!("another leads after {} ms", begin.elapsed().as_millis());
    assert_ne!(first, second);
    consul.member(second).kill();
    let last = (0..3).find(|&index| index != first && index != second).unwrap();
    let answer = consul.call_member(last, "PUT", "/v1/kv/x", "y").unwrap();
    assert_eq!(answer.status, 500, "{answer}");
    consul.restart().unwrap();
    let is_written = || consul.call("PUT", "/v1/kv/x", "y").is_ok_and(|answer| answer.is_success());
    until("they lead again", SOON, is_written).unwrap();
}

#[test]
fn configuration_is_taken_and_a_bad_one_shows_the_log() {
    let Some(home) = required(installed(Kind::Consul)) else { return };
    let configuration = json!({ "datacenter": "east" });
    let options = ConsulOptions { configuration, peering: true, ..ConsulOptions::default() };
    let consul = Consul::start(&home, options).unwrap();
    assert_eq!(consul.call("GET", "/v1/catalog/datacenters", "").unwrap().json(), json!(["east"]));
    let options = ConsulOptions { configuration: json!({ "no_such_key": 1 }), ..ConsulOptions::default() };
    let error = Consul::start(&home, options).unwrap_err();
    assert!(error.to_string().contains("no_such_key"), "{error}");
    let weft_testbed::Error::NotReady { logs, .. } = error else { panic!("{error}") };
    assert!(logs.join("server-1.log").exists());
    std::fs::remove_dir_all(logs).unwrap();
}

#[test]
fn a_paused_server_and_a_silent_gate_answer_nothing_and_then_go_on() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    let gate = Gate::before(&consul.url()).unwrap();
    let leader = |url: String| Call::new("GET", url + "/v1/status/leader");
    let hears_nothing = |url| leader(url).patience(std::time::Duration::from_millis(300)).send().is_err();
    assert!(leader(gate.url()).send().unwrap().is_success());
    gate.set(GateMode::SilentFromServer).unwrap();
    assert!(hears_nothing(gate.url()));
    gate.set(GateMode::Open).unwrap();
    assert!(leader(gate.url()).send().unwrap().is_success());
    consul.pause();
    assert!(hears_nothing(consul.url()));
    consul.resume();
    assert!(consul.call("GET", "/v1/status/leader", "").unwrap().is_success());
}
