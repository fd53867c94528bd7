//! What a platform's outage may cost: nothing, but for what died with it.

use std::time::{Duration, Instant};

use weft_testbed::GateMode;

use crate::{
    platform::{Elects, Platform, SERVICE, World},
    support::{Load, client, until, until_within},
};

/// Calls a second, while it all happens.
const PER_SECOND: u32 = 1_000;
/// How long a cut lasts; once for a whole minute.
const CUT: Duration = Duration::from_secs(12);
const LONG_CUT: Duration = Duration::from_secs(60);
/// How often a server comes and goes, and how long it is there and away.
const FLAPS: usize = 8;
const FLAP: Duration = Duration::from_millis(900);
/// How soon everything is as the server says after it is back: five seconds, and three for a machine that runs the server,
/// the agents and their callers beside other tests.
pub(crate) const CONVERGED: Duration = Duration::from_secs(8);
/// Within what an agent that is started without its server must serve: a second, and one more for the same machine.
const STARTS_WITHIN: Duration = Duration::from_secs(2);
/// How often it is started at most: one start in time shows that nothing waits.
const STARTS: usize = 8;

pub(crate) fn load<P: Platform>(world: &World<P>) -> Load {
    let load = Load::paced(world.outbound(), &format!("{SERVICE}.default.mesh"), 16, PER_SECOND);
    load.go_on(500);
    load
}

pub(crate) fn nothing_failed(load: Load) {
    load.go_on(500);
    let (answered, failures) = (load.answered(), load.end());
    assert!(failures.is_empty(), "{} of {answered} failed, such as {}", failures.len(), failures[0]);
}

/// A registered endpoint is found, explained and reached; what is gone is not.
pub(crate) fn calls_reach_what_is_announced<P: Platform>(platform: P, kind: &str) {
    let world = World::new(platform, 1);
    assert_eq!(world.call(), 200);
    let endpoints = world.endpoints();
    // Platforms announce services of their own too.
    let own = |endpoint: &&serde_json::Value| endpoint["service"] == format!("{SERVICE}.default");
    let endpoint = endpoints.iter().find(own).unwrap();
    assert_eq!(endpoint["registry"], kind);
    assert_eq!(endpoint["identity"], world.instances[0].identity());
    assert!(
        endpoint["identity_from"].is_string()
            && endpoint["tls_from"].is_string()
            && endpoint["reason"].is_null(),
        "{endpoint}"
    );
    assert!(endpoint["age_s"].as_u64().unwrap() < 60, "{endpoint}");
    world.platform.announce(&world.instances[1]);
    world.sees(2);
    world.platform.withdraw(&world.instances[0]);
    world.sees(1);
    assert_eq!(world.call(), 200);
    let table = world.mesh.sandbox.ok(&["endpoints", "--explain", "--socket", &world.mesh.socket("near")]);
    assert!(table.contains(kind) && table.contains(&world.instances[1].identity()), "{table}");
}

/// The server dies, its network is cut in every way, its token is taken: calls go on, nothing is deleted, one warning
/// each time, and what changed meanwhile is seen within seconds.
pub(crate) fn an_outage_costs_no_call<P: Platform>(platform: P) {
    let mut world = World::new(platform, 2);
    let load = load(&world);
    let mut outages = 0;
    for mode in [
        None,
        Some(GateMode::Silent),
        Some(GateMode::SilentToServer),
        Some(GateMode::SilentFromServer),
        Some(GateMode::Lost),
        Some(GateMode::Cut),
    ] {
        let before = world.warnings();
        let lasts = if mode == Some(GateMode::Silent) { LONG_CUT } else { CUT };
        let began = Instant::now();
        match mode {
            None => world.platform.kill(),
            Some(mode) => world.platform.gate().set(mode).unwrap(),
        }
        until_within(LONG_CUT + CUT, "it is noticed", || {
            (world.registry()["state"] != "connected").then_some(())
        });
        until_within(LONG_CUT * 2, "the outage lasts", || (began.elapsed() >= lasts).then_some(()));
        assert_eq!(world.eligible(), 2, "endpoints went because nobody answered ({mode:?})");
        let row = world.registry();
        assert!(row["error"].is_string() && row["age_s"].as_u64().unwrap() >= 1, "{row}");
        let metrics = client::get(world.mesh.admin("near"), "localhost", "/metrics").unwrap().body;
        assert!(metrics.contains("weft_registry_connected{registry="), "{metrics}");
        match mode {
            None => world.platform.restart(),
            Some(_) => world.platform.gate().set(GateMode::Open).unwrap(),
        }
        world.platform.announce(&world.instances[2]);
        // From when the platform itself has it.
        let back = Instant::now();
        world.sees(3);
        let took = back.elapsed();
        assert!(took < CONVERGED, "{mode:?}: what changed meanwhile was seen after {took:?}");
        world.platform.withdraw(&world.instances[2]);
        world.sees(2);
        world.is("connected");
        outages += 1;
        assert_eq!(world.warnings() - before, 1, "one warning for outage {outages} ({mode:?})");
    }
    nothing_failed(load);
}

/// A server that comes and goes is no worse than one that is gone.
pub(crate) fn a_server_that_comes_and_goes_costs_no_call<P: Platform>(platform: P) {
    let mut world = World::new(platform, 2);
    let load = load(&world);
    let before = world.warnings();
    for _ in 0..FLAPS {
        world.platform.gate().set(GateMode::Cut).unwrap();
        lasts(FLAP);
        world.platform.gate().set(GateMode::Open).unwrap();
        lasts(FLAP);
        assert_eq!(world.eligible(), 2);
    }
    world.platform.announce(&world.instances[2]);
    let back = Instant::now();
    world.sees(3);
    let took = back.elapsed();
    assert!(took < CONVERGED, "what changed was seen after {took:?}");
    let warnings = world.warnings() - before;
    assert!(warnings <= FLAPS, "{warnings} warnings of {FLAPS} outages");
    nothing_failed(load);
}

/// First the leader is killed, then all but the server that the agent asks: nobody leads, and it goes on to answer.
pub(crate) fn no_leader_and_no_quorum_cost_no_call<P: Elects>(platform: P) {
    let leader = platform.leader();
    let mut world = World::new(platform, 2);
    let load = load(&world);
    let before = world.warnings();
    world.platform.kill_member(leader);
    assert_ne!(world.platform.leader(), leader);
    lasts(Duration::from_secs(8));
    world.is("connected");
    assert_eq!(world.eligible(), 2);
    // Whether the agent noticed an election depends on when it asked; no quorum it must notice.
    assert!(world.warnings() - before <= 1);
    let before = world.warnings();
    world.platform.kill_member(3 - leader);
    until_within(LONG_CUT, "it is noticed that nobody leads", || {
        (world.registry()["state"] != "connected").then_some(())
    });
    lasts(Duration::from_secs(10));
    assert_eq!(world.eligible(), 2, "endpoints went because nobody leads");
    world.platform.restart();
    world.is("connected");
    world.platform.announce(&world.instances[2]);
    world.sees(3);
    // An election that begins after it is back is noticed as another outage.
    let warnings = world.warnings() - before;
    assert!((1..=2).contains(&warnings), "{warnings} warnings of one outage");
    nothing_failed(load);
}

/// Lets so much time pass.
pub(crate) fn lasts(time: Duration) {
    let began = Instant::now();
    until_within(time * 2, "time passes", || (began.elapsed() >= time).then_some(()));
}

/// A token that is taken back hides nothing away, and the next one is read from its file without a restart.
pub(crate) fn a_revoked_token_costs_no_call<P: Platform>(platform: P) {
    let world = World::new(platform, 2);
    let load = load(&world);
    if !world.platform.revoke() {
        return nothing_failed(load);
    }
    until_within(Duration::from_secs(90), "it is noticed", || {
        let error = world.registry()["error"].as_str().map(str::to_owned)?;
        error.contains("not allowed").then_some(())
    });
    assert_eq!(world.eligible(), 2);
    world.platform.restore();
    world.is("connected");
    world.platform.announce(&world.instances[2]);
    world.sees(3);
    nothing_failed(load);
}

/// An agent that starts while the server is away serves from its disk within a second, and says how old that is; what
/// died meanwhile is taken out by its own callers.
pub(crate) fn an_agent_starts_without_the_server<P: Platform>(platform: P) {
    let mut world = World::new(platform, 2);
    until("what is seen is on the disk", || (world.healthy_on_disk() == 2).then_some(()));
    world.platform.kill();
    let mut fastest = Duration::MAX;
    for _ in 0..STARTS {
        world.mesh.process("near").kill();
        let began = Instant::now();
        world.mesh.spawn("near");
        until("the agent serves", || (world.call() == 200).then_some(()));
        fastest = fastest.min(began.elapsed());
        if fastest < STARTS_WITHIN {
            break;
        }
    }
    assert!(fastest < STARTS_WITHIN, "the fastest start took {fastest:?}");
    let row = world.registry();
    assert!(row["age_s"].is_u64() && row["state"] != "connected", "{row}");
    let load = load(&world);
    let dead = world.instances[0].host.clone();
    world.mesh.process(&dead).kill();
    until("the dead endpoint is taken out", || (world.eligible() == 1).then_some(()));
    world.platform.restart();
    world.is("connected");
    nothing_failed(load);
}
