//! A hub that is away for a whole minute, and a registry that the hub has lost.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    quick_start::{Start, WEB, socket},
    support::{Application, Load, address, client, uid, until, until_within},
};

/// How long the hub is away.
const OUTAGE: Duration = Duration::from_secs(60);
/// Within what an agent that is started meanwhile must serve: a second, and one more for a machine that is busy with other
/// tests.
const STARTS_WITHIN: Duration = Duration::from_secs(2);
/// How often it is started: one start in time shows that nothing waits.
const STARTS: u32 = 10;

#[test]
fn a_hub_that_is_gone_for_a_minute_costs_nothing_and_an_agent_started_meanwhile_serves_within_a_second() {
    let applications = [Application::start("one"), Application::start("two")];
    let mut start = Start::new();
    start.write(&applications);
    start.up();
    // A third host, which calls too, and which nobody misses while it is down.
    let (outbound, hub) = (address(), start.hub.to_string());
    let sandbox = &start.sandbox;
    sandbox.write(
        "spare.toml",
        &format!(
            "state_dir = \"spare\"\nrun_dir = \"spare/run\"\n[admin]\nlisten = \"off\"\n[hub]\naddress = \"{hub}\"\n\
             [[registry]]\nkind = \"hub\"\n[[workload]]\nname = \"web\"\nidentity = \"{WEB}\"\n\
             outbound = \"{outbound}\"\nuid = {}\n",
            uid()
        ),
    );
    let create = ["ca", "token", "create", "--state-dir", "hub", "--node", "spare", "--identity", WEB];
    let token = sandbox.ok(&create);
    sandbox.ok(&["join", "--state-dir", "spare", "--hub", &hub, "--token", token.trim()]);
    let spawn = || sandbox.spawn("agent-spare", &["agent", "--config", "spare.toml"]);
    let serves = || {
        let answer = client::get(outbound, "reviews.default.mesh", "/").ok()?;
        (answer.status == 200).then_some(())
    };
    let mut spare = spawn();
    until("the third agent serves", serves);
    until("its certificate is on its disk", || {
        fs::read_dir(sandbox.path("spare/certificates")).ok()?.next().map(|_| ())
    });

    let load = Load::start(start.web_outbound, "reviews.default.mesh", 4);
    load.go_on(50);
    start.processes[0].kill();
    let gone = Instant::now();
    let mut fastest = Duration::MAX;
    for started in 1..=STARTS {
        spare.kill();
        let began = Instant::now();
        spare = spawn();
        until("the agent that was started without a hub serves", serves);
        fastest = fastest.min(began.elapsed());
        let next = OUTAGE * started / STARTS;
        until_within(OUTAGE, "the outage lasts", || (gone.elapsed() >= next).then_some(()));
    }
    assert!(fastest < STARTS_WITHIN, "the fastest start took {fastest:?}");
    start.processes[0] = start.sandbox.spawn("hub", &["hub", "--config", "hub.toml"]);
    for node in ["web", "reviews", "spare"] {
        until(&format!("{node} is back at the hub"), || {
            let status = start.sandbox.json("status", &socket(node));
            (status["hub"]["link"] == "connected").then_some(())
        });
    }
    load.go_on(50);
    let (answered, failures) = (load.answered(), load.end());
    assert!(failures.is_empty(), "{} of {answered} failed, such as {}", failures.len(), failures[0]);
}

/// An agent's row of the relayed registry.
fn relayed(start: &Start) -> Option<Value> {
    let status = start.sandbox.json("status", &socket("web"));
    status["registries"].as_array()?.iter().find(|row| row["scope"] == "static").cloned()
}

#[test]
fn an_agent_says_what_is_wrong_with_a_registry_at_the_hub_and_how_old_its_words_are() {
    let applications = [Application::start("one"), Application::start("two")];
    let mut start = Start::new();
    start.write(&applications);
    start.up();
    start.sandbox.write("mesh.d/bad.toml", "[[service]]\nnmae = \"x\"\n");
    until("the fault of a file at the hub is told", || {
        let faults = relayed(&start)?["faults"].to_string();
        (faults.contains("at the hub: ") && faults.contains("bad.toml") && faults.contains("nmae"))
            .then_some(())
    });
    let table = start.sandbox.ok(&["hub", "status", "--socket", "hub/admin.sock"]);
    assert!(table.contains("bad.toml"), "{table}");
    fs::remove_file(start.sandbox.path("mesh.d/bad.toml")).unwrap();
    until("it is mended", || relayed(&start)?["faults"].as_array()?.is_empty().then_some(()));

    fs::rename(start.sandbox.path("mesh.d"), start.sandbox.path("away.d")).unwrap();
    let hub_age = || {
        let output = start.sandbox.run(&["hub", "status", "-o", "json", "--socket", "hub/admin.sock"]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["registries"][0]["age_s"].as_u64()
    };
    until("the hub has not heard for a while", || (hub_age()? >= 5).then_some(()));
    let row = until("the agent knows", || relayed(&start).filter(|row| row["state"] == "lost"));
    assert!(row["error"].as_str().unwrap().contains("the hub has had no word from it"), "{row}");

    // A hub that begins with what it kept does not make it any younger.
    start.processes[0].signal(Signal::TERM);
    start.processes[0].wait();
    until("the agent sees the hub go", || (relayed(&start)?["state"] != "lost").then_some(()));
    start.processes[0] = start.sandbox.spawn("hub", &["hub", "--config", "hub.toml"]);
    let row = until("the hub is back", || relayed(&start).filter(|row| row["state"] == "lost"));
    assert!(row["age_s"].as_u64().unwrap() >= 5, "{row}");

    fs::rename(start.sandbox.path("away.d"), start.sandbox.path("mesh.d")).unwrap();
    until("the registry is back", || {
        let row = relayed(&start)?;
        (row["state"] == "connected" && row["age_s"].as_u64()? < 5 && row["error"].is_null()).then_some(())
    });
}
