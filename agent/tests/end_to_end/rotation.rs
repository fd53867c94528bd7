//! Certificates are replaced under load: nothing fails, nothing is reset, and both the serial that outsiders see and the
//! ones on the pooled connections change.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::Value;
use weft_agent::demo::probe;
use weft_core::identity::SpiffeId;

use crate::{
    quick_start::{REVIEWS, Start, socket},
    support::{Application, Connection, Load, PATIENCE, Streams, until, until_within},
};

/// Streams that are open all the time.
const STREAMS: usize = 50;
/// Callers, and how often they call, all together.
const CALLERS: u32 = 16;
const PER_SECOND: u32 = 1000;
/// How many serials must be seen of each kind.
const SERIALS: usize = 3;

#[test]
fn certificates_rotate_under_load_without_a_failed_request_or_a_cut_stream() {
    let applications = [Application::start("one"), Application::start("two")];
    let mut start = Start::new();
    // Renewed every four seconds.
    start.leaf_ttl = "12s";
    start.write(&applications);
    start.up();
    let outbound = start.web_outbound;
    let streams = Streams::open(outbound, "reviews.default.mesh", STREAMS, &applications);
    let load = Load::paced(outbound, "reviews.default.mesh", CALLERS, PER_SECOND);
    let began = Instant::now();
    load.go_on(100);

    let identity = SpiffeId::parse(REVIEWS).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut seen, mut own, mut peer) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    until_within(PATIENCE * 3, "the serials outside and in the pool have changed", || {
        if let Ok(presented) = runtime.block_on(probe::look(start.inbounds[1], &identity)) {
            seen.insert(presented.serial);
        }
        for connection in connections(&start) {
            own.insert(connection["own_serial"].to_string());
            peer.insert(connection["peer_serial"].to_string());
        }
        [&seen, &own, &peer].iter().all(|serials| serials.len() >= SERIALS).then_some(())
    });
    load.go_on(200);
    let (answered, took) = (load.answered(), began.elapsed());
    let failures = load.end();
    eprintln!("{answered} requests in {took:?}; serials: {} of ours, {} of theirs", own.len(), peer.len());
    assert!(failures.is_empty(), "{} of {answered} failed, such as {}", failures.len(), failures[0]);
    streams.end(&applications);
    drop(runtime);
}

/// The pooled connections of web's agent.
fn connections(start: &Start) -> Vec<Value> {
    let path = start.sandbox.path(&socket("web"));
    let page = Connection::open_unix(&path).unwrap().get("weft", "/connections").unwrap().json();
    page.as_array().cloned().unwrap_or_default()
}

#[test]
fn a_hub_that_is_gone_costs_no_request_and_rotation_goes_on_when_it_is_back() {
    let applications = [Application::start("one"), Application::start("two")];
    let mut start = Start::new();
    start.leaf_ttl = "24s";
    start.write(&applications);
    start.up();
    let load = Load::start(start.web_outbound, "reviews.default.mesh", 4);
    load.go_on(50);
    let identity = SpiffeId::parse(REVIEWS).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let serial = || runtime.block_on(probe::look(start.inbounds[1], &identity)).map(|seen| seen.serial).ok();
    let first = until("a certificate is presented", serial);
    start.processes[0].kill();
    // The next renewal falls into the outage: it is due after a third of the life, and the hub is away for longer. When it
    // is back, agents find out while their certificates last.
    let until_then = Instant::now() + Duration::from_secs(10);
    until("the outage lasts", || (Instant::now() > until_then).then_some(()));
    assert!(load.answered() > 50);
    start.processes[0] = start.sandbox.spawn("hub", &["hub", "--config", "hub.toml"]);
    until("the certificate is replaced", || (serial()? != first).then_some(()));
    load.go_on(50);
    let failures = load.end();
    assert!(failures.is_empty(), "{} failures, such as {}", failures.len(), failures[0]);
}
