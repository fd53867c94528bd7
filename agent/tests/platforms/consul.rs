//! Consul with access control, and a token of the agent's that may only read.

use std::{path::PathBuf, time::Duration};

use serde_json::json;
use tempfile::TempDir;
use weft_testbed::{AclToken, Consul, ConsulOptions, Gate, Kind, installed, required};

use crate::{
    outage::{self, load, nothing_failed},
    platform::{self, Elects, Instance, Platform, SERVICE},
    support::{Mesh, client, until},
};

const READ_ONLY: &str = "service_prefix \"\" { policy = \"read\" }\nnode_prefix \"\" { policy = \"read\" }";

struct World {
    consul: Consul,
    gate: Gate,
    _scratch: TempDir,
    token_file: PathBuf,
    token: std::sync::Mutex<AclToken>,
}

fn world() -> Option<World> {
    let home = required(installed(Kind::Consul))?;
    let consul = Consul::start(&home, ConsulOptions { acl: true, ..ConsulOptions::default() }).unwrap();
    let url = consul.url();
    Some(before(consul, &url))
}

/// Three servers, of which the first, where everything is registered and the agent asks, does not lead.
fn three() -> Option<World> {
    let home = required(installed(Kind::Consul))?;
    let options = ConsulOptions { acl: true, servers: 3, ..ConsulOptions::default() };
    let consul = Consul::start(&home, options).unwrap();
    until("another server leads", || {
        let leader = consul.await_leader().unwrap();
        if leader == 0 {
            // Refused while one is under way.
            drop(consul.call("POST", "/v1/operator/raft/transfer-leader", ""));
        }
        (leader != 0).then_some(())
    });
    let url = consul.member_url(0);
    Some(before(consul, &url))
}

fn before(consul: Consul, url: &str) -> World {
    let gate = Gate::before(url).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let token = consul.create_token(READ_ONLY).unwrap();
    let token_file = scratch.path().join("token");
    std::fs::write(&token_file, &token.secret).unwrap();
    World { consul, gate, _scratch: scratch, token_file, token: token.into() }
}

impl Platform for World {
    fn section(&self) -> String {
        format!(
            "[[registry]]\nkind = \"consul\"\naddress = \"{}\"\ntoken_file = {:?}\nallow_loopback = true\n",
            self.gate.url(),
            self.token_file
        )
    }

    fn announce(&self, instance: &Instance) {
        let service = json!({
            "ID": instance.name,
            "Name": SERVICE,
            "Address": instance.application.ip(),
            "Port": instance.application.port(),
            "Meta": { "weft-mesh-port": instance.mesh_port.to_string(), "weft-identity": instance.identity() },
        });
        self.consul.register(&service).unwrap();
    }

    fn withdraw(&self, instance: &Instance) {
        self.consul.deregister(&instance.name).unwrap();
    }

    fn kill(&self) {
        self.consul.kill();
    }

    fn restart(&self) {
        self.consul.restart().unwrap();
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn revoke(&self) -> bool {
        self.consul.revoke_token(&self.token.lock().unwrap()).unwrap();
        true
    }

    fn restore(&self) {
        let fresh = self.consul.create_token(READ_ONLY).unwrap();
        std::fs::write(&self.token_file, &fresh.secret).unwrap();
        *self.token.lock().unwrap() = fresh;
    }
}

impl Elects for World {
    fn leader(&self) -> usize {
        self.consul.await_leader().unwrap()
    }

    fn kill_member(&self, index: usize) {
        self.consul.member(index).kill();
    }
}

#[test]
fn calls_reach_what_consul_announces() {
    let Some(world) = world() else { return };
    outage::calls_reach_what_is_announced(world, "consul");
}

#[test]
#[ignore = "three minutes: just outages"]
fn an_outage_of_consul_costs_no_call() {
    let Some(world) = world() else { return };
    outage::an_outage_costs_no_call(world);
}

#[test]
fn a_revoked_token_of_consul_costs_no_call() {
    let Some(world) = world() else { return };
    outage::a_revoked_token_costs_no_call(world);
}

#[test]
fn an_agent_starts_while_consul_is_away() {
    let Some(world) = world() else { return };
    outage::an_agent_starts_without_the_server(world);
}

#[test]
fn a_consul_that_comes_and_goes_costs_no_call() {
    let Some(world) = world() else { return };
    outage::a_server_that_comes_and_goes_costs_no_call(world);
}

#[test]
fn without_a_leader_and_without_a_quorum_no_call_is_lost() {
    let Some(platform) = three() else { return };
    outage::no_leader_and_no_quorum_cost_no_call(platform);
}

/// A snapshot of before takes the index back: what it does not have is called on, though the server no longer says so, and
/// changes after it are seen.
#[test]
fn an_old_snapshot_of_consul_costs_no_call() {
    let Some(platform) = world() else { return };
    let world = platform::World::new(platform, 0);
    let snapshot = world.platform.consul.snapshot().unwrap();
    world.platform.announce(&world.instances[0]);
    world.sees(1);
    let load = load(&world);
    world.platform.consul.restore(snapshot).unwrap();
    outage::lasts(Duration::from_secs(3));
    // Consul's own agent, which keeps what was registered with it, may have told it again by now.
    let is_as_consul_says = || {
        until("it is as Consul says", || {
            let said =
                world.platform.consul.call("GET", &format!("/v1/health/service/{SERVICE}"), "").ok()?;
            (world.eligible() == said.json().as_array()?.len()).then_some(())
        });
    };
    let known = || {
        let endpoints = world.endpoints();
        endpoints.iter().filter(|endpoint| endpoint["service"] == format!("{SERVICE}.default")).count()
    };
    is_as_consul_says();
    assert_eq!(known(), 1, "the only instance went because a snapshot lacks it");
    world.is("connected");
    let faults = world.registry()["faults"].to_string();
    assert!(faults.contains("Consul's catalog went back"), "{faults}");
    world.platform.announce(&world.instances[2]);
    until("what is announced since is known", || (known() == 2).then_some(()));
    is_as_consul_says();
    world.platform.withdraw(&world.instances[2]);
    until("it is gone again", || (known() == 1).then_some(()));
    is_as_consul_says();
    nothing_failed(load);
}

/// What the operator wrote himself and what makes no sense is told wherever he may look.
#[test]
fn a_key_that_cannot_be_read_is_in_the_status_the_log_and_a_metric() {
    let Some(home) = required(installed(Kind::Consul)) else { return };
    let _turn = platform::turn();
    let consul = Consul::start(&home, ConsulOptions::default()).unwrap();
    let key =
        |text: &str| consul.call("PUT", "/v1/kv/weft/web.toml", text).unwrap().success("a key").unwrap();
    let mut mesh = Mesh::new();
    mesh.caller("near", "web");
    mesh.follow(
        "near",
        &format!("[[registry]]\nkind = \"consul\"\naddress = \"{}\"\nconfiguration = true\n", consul.url()),
    );
    mesh.start();
    let metric = |mesh: &Mesh, count: usize| {
        let metrics = client::get(mesh.admin("near"), "weft", "/metrics").unwrap().body;
        metrics
            .contains(&format!("weft_registry_faults{{registry=\"consul\",scope=\"consul\"}} {count}\n"))
            .then_some(())
    };
    until("nothing is wrong", || metric(&mesh, 0));
    key("nonsense\n");
    mesh.process("near").logged("consul kv weft/web.toml:1:");
    until("the fault is counted", || metric(&mesh, 1));
    let faults = mesh.ask("near", "status")["registries"][0]["faults"].clone();
    assert!(faults[0].as_str().unwrap().starts_with("consul kv weft/web.toml:1:"), "{faults}");
    let told = mesh.process("near").log().matches("weft/web.toml:1:").count();
    assert_eq!(told, 1, "once");
    key("# nothing\n");
    until("it is mended", || metric(&mesh, 0));
}
