//! Hosts without any registry: their agents announce what they serve at the hub, which keeps it and spreads it.

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    quick_start::{REVIEWS, WEB, socket},
    support::{Application, Load, Process, Sandbox, address, client, uid, until, until_within},
};

const BANK: &str = "spiffe://quickstart.mesh/ns/default/sa/bank";
/// As long as the hub keeps what nobody repeats.
const GRACE: Duration = Duration::from_secs(6);

/// A hub that follows no registry, `web` that calls, and hosts that announce `reviews`.
struct World {
    sandbox: Sandbox,
    hub: SocketAddr,
    outbound: SocketAddr,
    processes: Vec<Process>,
    names: Vec<&'static str>,
}

impl World {
    fn new() -> Self {
        let (hub, outbound) = (address(), address());
        let mut world =
            Self { sandbox: Sandbox::new(), hub, outbound, processes: Vec::new(), names: Vec::new() };
        world.sandbox.write(
            "hub.toml",
            &format!(
                "listen = \"{hub}\"\nstate_dir = \"hub\"\nrun_dir = \"hub\"\n[admin]\nlisten = \"off\"\n\
                 [announcements]\nallow_loopback = true\ngrace = \"{}s\"\n",
                GRACE.as_secs()
            ),
        );
        world.sandbox.ok(&["ca", "init", "--state-dir", "hub", "--trust-domain", "quickstart.mesh"]);
        world.start("hub");
        until("the hub listens", || std::net::TcpStream::connect(hub).ok());
        world.write(
            "web",
            &format!(
                "[[workload]]\nname = \"web\"\nidentity = \"{WEB}\"\noutbound = \"{outbound}\"\nuid = {}\n",
                uid()
            ),
        );
        world.join("web", WEB);
        world
    }

    fn write(&self, node: &str, workloads: &str) {
        self.sandbox.write(
            &format!("{node}.toml"),
            &format!(
                "state_dir = \"{node}\"\nrun_dir = \"{node}/run\"\n[admin]\nlisten = \"off\"\n[hub]\naddress = \"{}\"\n\
                 [[registry]]\nkind = \"hub\"\n{workloads}",
                self.hub
            ),
        );
    }

    /// A host that announces `reviews` as `identity`, on its application's own port.
    fn serves(&self, node: &str, inbound: SocketAddr, identity: &str, application: SocketAddr) {
        self.write(
            node,
            &format!(
                "[inbound]\nlisten = \"{inbound}\"\n[[workload]]\nname = \"app\"\nidentity = \"{identity}\"\n\
                 labels = {{ on = \"{node}\" }}\n[[workload.port]]\nservice = \"reviews.default\"\nname = \"http\"\n\
                 address = \"{application}\"\n[workload.port.announce]\nregistries = \"hub\"\nnumber = 80\n\
                 check = {{ kind = \"http\", interval = \"500ms\" }}\n"
            ),
        );
    }

    /// Lets a host join with a grant, and starts its agent.
    fn join(&mut self, node: &'static str, granted: &str) {
        let create = ["ca", "token", "create", "--state-dir", "hub", "--node", node, "--identity", granted];
        let token = self.sandbox.ok(&create);
        let hub = self.hub.to_string();
        self.sandbox.ok(&["join", "--state-dir", node, "--hub", &hub, "--token", token.trim()]);
        self.start(node);
    }

    fn start(&mut self, name: &'static str) {
        let verb = if name == "hub" { "hub" } else { "agent" };
        let process = self.sandbox.spawn(name, &[verb, "--config", &format!("{name}.toml")]);
        match self.names.iter().position(|known| *known == name) {
            Some(index) => self.processes[index] = process,
            None => {
                self.names.push(name);
                self.processes.push(process);
            }
        }
    }

    fn process(&mut self, name: &str) -> &mut Process {
        let index = self.names.iter().position(|known| *known == name).unwrap();
        &mut self.processes[index]
    }

    fn status(&self, node: &str) -> Option<Value> {
        let output = self.sandbox.run(&["status", "-o", "json", "--socket", &socket(node)]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What `web` would call, with what it knows of each.
    fn endpoints(&self) -> Vec<Value> {
        let output = self.sandbox.run(&["endpoints", "-o", "json", "--socket", &socket("web")]);
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        rows.as_array().cloned().unwrap_or_default()
    }

    fn sees(&self, eligible: usize) {
        let count = || self.endpoints().iter().filter(|row| row["eligible"] == true).count();
        until(&format!("{eligible} can be called"), || (count() == eligible).then_some(()));
    }

    fn load(&self) -> Load {
        let load = Load::paced(self.outbound, "reviews.default.mesh", 8, 500);
        load.go_on(200);
        load
    }
}

fn nothing_failed(load: Load) {
    load.go_on(200);
    let (answered, failures) = (load.answered(), load.end());
    assert!(failures.is_empty(), "{} of {answered} failed, such as {}", failures.len(), failures[0]);
}

#[test]
fn hosts_without_a_registry_find_each_other_through_the_hub() {
    let (first, second) = (Application::start("one"), Application::start("two"));
    let inbounds = [address(), address()];
    let mut world = World::new();
    world.serves("one", inbounds[0], REVIEWS, first.address);
    world.join("one", REVIEWS);
    until("a call is answered", || {
        let answer = client::get(world.outbound, "reviews.default.mesh", "/").ok()?;
        (answer.status == 200).then_some(())
    });
    let row = world.endpoints().remove(0);
    assert_eq!((&row["registry"], &row["instance"]), (&"announced".into(), &"one.app".into()));
    assert_eq!((&row["identity"], &row["labels"]["on"]), (&REVIEWS.into(), &"one".into()));
    let status = world.status("one").unwrap();
    let row = &status["announcements"][0];
    assert!(row["registry"] == "hub" && row["health"] == "healthy" && row["fault"].is_null(), "{row}");
    world.serves("two", inbounds[1], REVIEWS, second.address);
    world.join("two", REVIEWS);
    world.sees(2);

    // An agent that dies and starts again takes nothing away, and nobody else loses a call by it.
    let load = world.load();
    world.process("one").kill();
    // For much less than the grace, after which nobody answers for what it announced.
    load.go_on(200);
    let known = world.endpoints();
    assert!(known.len() == 2 && known.iter().all(|row| row["health"] == "healthy"), "{known:?}");
    world.start("one");
    world.sees(2);
    // So does a hub, which has it all again from its disk, before any agent has come back.
    world.process("hub").kill();
    load.go_on(1000);
    world.start("hub");
    let table = until("the hub serves what it kept", || {
        let output = world.sandbox.run(&["hub", "status", "-o", "json", "--socket", "hub/admin.sock"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let row = status["registries"].as_array()?.iter().find(|row| row["scope"] == "announced")?.clone();
        (row["counts"]["endpoints"] == 2).then_some(row)
    });
    assert!(table["faults"].as_array().unwrap().is_empty(), "{table}");
    for node in ["web", "one", "two"] {
        until(&format!("{node} is back at the hub"), || {
            (world.status(node)?["hub"]["link"] == "connected").then_some(())
        });
    }
    world.sees(2);
    nothing_failed(load);

    // A drain withdraws, and that is known before anybody is refused.
    let load = world.load();
    world.process("one").signal(Signal::TERM);
    until("it is withdrawn", || (world.endpoints().len() == 1).then_some(()));
    assert!(world.process("one").wait().success());
    nothing_failed(load);
    let log = world.process("one").log();
    let withdrawn = log.find("announcements withdrawn").expect("it says so");
    assert!(log.find("drained").is_some_and(|drained| withdrawn < drained), "{log}");

    // An application dies, not its agent: that is known, with the reason.
    drop(second);
    world.sees(0);
    let row = world.endpoints().remove(0);
    assert_eq!(row["health"], "unhealthy", "{row}");
    let status = world.status("two").unwrap();
    let reason = status["announcements"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("GET / at"), "{reason}");
}

#[test]
fn what_a_host_may_not_announce_is_refused_by_name() {
    let (first, second) = (Application::start("one"), Application::start("two"));
    let mut world = World::new();
    world.serves("one", address(), REVIEWS, first.address);
    world.join("one", REVIEWS);
    world.sees(1);
    let fault = |world: &World, node: &str, said: &str| {
        until_within(Duration::from_secs(30), &format!("{node} is refused: {said}"), || {
            let status = world.status(node)?;
            let row = status["announcements"].as_array()?.first()?.clone();
            (row["fault"].as_str()?.contains(said) && row["confirmed_s"].is_null()).then_some(())
        });
    };
    // Its token says `bank`, its file says `reviews`.
    world.serves("two", address(), REVIEWS, second.address);
    world.join("two", BANK);
    fault(&world, "two", &format!("node two was not granted {REVIEWS}"));
    // Nor may it take the service over as what it is.
    world.serves("two", address(), BANK, second.address);
    world.process("two").kill();
    world.start("two");
    fault(
        &world,
        "two",
        &format!(
            "`reviews.default` is announced as {REVIEWS} by node one: node two cannot announce it as {BANK}"
        ),
    );
    assert_eq!(world.endpoints().len(), 1);

    // A host that is gone for longer than the grace is the last resort, and not forgotten.
    world.process("one").kill();
    until_within(GRACE * 4, "it is unhealthy", || {
        (world.endpoints().first()?["health"] == "unhealthy").then_some(())
    });
    world.start("one");
    world.sees(1);
    // One that the operator removes is.
    world.sandbox.ok(&["ca", "node", "remove", "--state-dir", "hub", "one"]);
    until("it is gone", || world.endpoints().is_empty().then_some(()));
    // Its names stay its own for a while: that it is no usual service shows.
    let [services] =
        world.sandbox.json("services", &socket("web")).as_array().unwrap().clone().try_into().unwrap();
    assert!(services["gone_s"].as_u64().is_some(), "{services}");
    let told = world.sandbox.ok(&["services", "--socket", &socket("web")]);
    assert!(told.contains("gone ") && told.contains(" ago"), "{told}");
}

/// What `weft check --registry` says of a node's hub, and whether it is content.
fn looked(world: &World, node: &str) -> (Value, bool) {
    let output = world.sandbox.run(&["check", "--registry", "-o", "json", &format!("{node}.toml")]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    (report["registries"][0].clone(), output.status.success())
}

#[test]
fn a_look_at_the_hub_shows_what_it_relays_and_what_a_host_lacks() {
    let application = Application::start("one");
    let mut world = World::new();
    world.serves("one", address(), REVIEWS, application.address);
    let (row, is_well) = looked(&world, "one");
    let error = row["error"].as_str().unwrap();
    assert!(!is_well && row["error_kind"] == "denied", "{row}");
    assert!(error.contains("somebody answers") && error.contains("has not joined a mesh"), "{error}");
    world.join("one", REVIEWS);
    world.sees(1);
    let held = |world: &World| {
        let output = world.sandbox.run(&["hub", "status", "-o", "json", "--socket", "hub/admin.sock"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut nodes = status["nodes"].as_array().unwrap().iter();
        let node = nodes.find(|node| node["name"] == "one").unwrap().clone();
        (node["certificates"].as_array().unwrap().len(), node["trusts"].clone())
    };
    let before =
        until("the hub knows what the node holds", || Some(held(&world)).filter(|(count, _)| *count > 1));
    // Beside the agent that runs with the same state.
    let (row, is_well) = looked(&world, "one");
    assert!(is_well && row["relays"] == serde_json::json!(["announced"]), "{row}");
    assert_eq!(
        (&row["services"], &row["endpoints"], &row["usable"]),
        (&1.into(), &1.into(), &1.into()),
        "{row}"
    );
    assert_eq!(held(&world), before, "who looks says nothing of the node");

    // A join of what nobody has.
    let file = std::fs::read_to_string(world.sandbox.path("one.toml")).unwrap();
    let join = "[[join]]\nregistries = [\"announced\", \"anounced\"]\n";
    world.sandbox.write("one.toml", &format!("{file}{join}"));
    let (row, _) = looked(&world, "one");
    assert!(row["skipped"].to_string().contains("`anounced`"), "{row}");
    world.process("one").kill();
    world.start("one");
    until("it is told", || {
        let told = world.status("one")?["diagnostics"].to_string();
        told.contains("did you mean `announced`").then_some(())
    });

    world.process("hub").kill();
    let (row, is_well) = looked(&world, "one");
    assert!(!is_well && row["error_kind"] == "unreachable", "{row}");
}

#[test]
fn who_only_looks_at_the_hub_does_not_stand_for_the_node() {
    let application = Application::start("one");
    let mut world = World::new();
    world.serves("one", address(), REVIEWS, application.address);
    world.join("one", REVIEWS);
    world.sees(1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = weft_agent::identity::look(&world.sandbox.path("one"), Vec::new()).unwrap();
    let link = runtime.block_on(async { weft_registries::hub::HubLink::start(config) });
    let is_there = |state: &weft_registries::hub::LinkState| {
        matches!(state, weft_registries::hub::LinkState::Connected { .. })
    };
    runtime.block_on(async { link.state().wait_for(is_there).await.map(drop).unwrap() });
    world.process("one").kill();
    until_within(GRACE * 4, "it is unhealthy", || {
        (world.endpoints().first()?["health"] == "unhealthy").then_some(())
    });
    assert!(is_there(&link.state().borrow()));
    let output = world.sandbox.run(&["hub", "status", "-o", "json", "--socket", "hub/admin.sock"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(status["nodes"][0]["connected_for_s"].is_null(), "{status}");
}

#[test]
fn an_announcement_whose_name_is_another_services_says_that_it_is_not_in_force() {
    let application = Application::start("one");
    let mut world = World::new();
    let hub = std::fs::read_to_string(world.sandbox.path("hub.toml")).unwrap();
    let folder = world.sandbox.path("hub.d");
    world.sandbox.write(
        "hub.d/all.toml",
        &format!(
            "[[service]]\nname = \"reviews.default\"\nports = [{{ name = \"http\", number = 80 }}]\n\
             [[service.endpoint]]\naddress = \"10.1.0.1:80\"\nmesh = \"10.1.0.1:15008\"\nidentity = \"{BANK}\"\n"
        ),
    );
    world.sandbox.write(
        "hub.toml",
        &format!("{hub}[[registry]]\nkind = \"static\"\nname = \"platform\"\npath = {folder:?}\n"),
    );
    world.process("hub").kill();
    world.start("hub");
    world.serves("one", address(), REVIEWS, application.address);
    world.join("one", REVIEWS);
    let fault = until_within(Duration::from_secs(30), "it is told", || {
        Some(world.status("one")?["announcements"][0]["fault"].as_str()?.to_owned())
    });
    assert!(fault.contains("not in force") && fault.contains("platform/reviews.default"), "{fault}");
}
