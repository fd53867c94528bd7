//! etcd alone: one member keeps its state through a kill, three outlive their leader.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use serde_json::json;
use weft_testbed::{Etcd, Kind, installed, required, until};

fn start(members: usize) -> Option<Etcd> {
    let home = required(installed(Kind::Kubernetes))?;
    let begin = Instant::now();
    let etcd = Etcd::start(&home, members).unwrap();
    eprintln!("{members} etcd member(s) are ready after {} ms", begin.elapsed().as_millis());
    Some(etcd)
}

#[test]
fn one_member_keeps_what_it_was_told() {
    let Some(etcd) = start(1) else { return };
    etcd.call("/v3/kv/put", &json!({ "key": "a2V5", "value": "dmFsdWU=" })).unwrap().success("put").unwrap();
    etcd.kill();
    assert!(etcd.call("/v3/kv/range", &json!({ "key": "a2V5" })).is_err());
    etcd.restart().unwrap();
    let found = etcd.call("/v3/kv/range", &json!({ "key": "a2V5" })).unwrap().json();
    assert_eq!(found["kvs"][0]["value"], "dmFsdWU=");
}

#[test]
fn three_members_elect_another_leader_and_the_old_one_comes_back() {
    let Some(etcd) = start(3) else { return };
    let first = etcd.await_leader().unwrap();
    etcd.member(first).kill();
    let begin = Instant::now();
    let second = etcd.await_leader().unwrap();
    eprintln!("another leads after {} ms", begin.elapsed().as_millis());
    assert_ne!(first, second);
    let put = json!({ "key": "a2V5", "value": "dmFsdWU=" });
    // A leader may still be on its way into office.
    let is_put = || etcd.call_member(second, "/v3/kv/put", &put).is_ok_and(|answer| answer.is_success());
    until("it is written", Duration::from_secs(30), is_put).unwrap();
    etcd.restart().unwrap();
    let found = etcd.call_member(first, "/v3/kv/range", &json!({ "key": "a2V5" })).unwrap().json();
    assert_eq!(found["kvs"][0]["value"], "dmFsdWU=");
}
