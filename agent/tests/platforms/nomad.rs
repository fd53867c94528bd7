//! Nomad with access control, and a token of the agent's that may only read. An instance is a job: its task does nothing,
//! its port is that of the test's own application.

use std::path::PathBuf;

use serde_json::Value;
use weft_testbed::{Gate, Kind, Nomad, NomadOptions, installed, required};

use crate::{
    outage::{self, load, nothing_failed},
    platform::{self, Elects, Instance, Platform, SERVICE},
    support::until,
};

const POLICY: &str = "namespace \"*\" { capabilities = [\"read-job\"] }\nnode { policy = \"read\" }\n";
const JOB: &str = r#"
job "JOB" {
  group "all" {
    network {
      port "http" {
        static = PORT
      }
    }
    service {
      name     = "SERVICE"
      provider = "nomad"
      port     = "http"
      tags     = ["weft-mesh-port=MESH", "weft-identity=IDENTITY"]
    }
    task "nothing" {
      driver = "raw_exec"
      config {
        command = "/usr/bin/env"
        args    = ["sleep", "3600"]
      }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
"#;

struct World {
    nomad: Nomad,
    gate: Gate,
}

impl World {
    fn token_file(&self) -> PathBuf {
        self.nomad.scratch().path().join("token")
    }

    fn token(&self) -> Value {
        let created = self.nomad.nomad(&["acl", "token", "create", "-json", "-policy=weft"], "").unwrap();
        serde_json::from_str(&created).unwrap()
    }
}

fn world() -> Option<World> {
    world_of(1)
}

/// With so many servers, of which the agent asks the first.
fn world_of(servers: usize) -> Option<World> {
    let home = required(installed(Kind::Nomad))?;
    let options = NomadOptions { acl: true, servers, ..NomadOptions::default() };
    let nomad = Nomad::start(&home, options).unwrap();
    nomad.nomad(&["acl", "policy", "apply", "weft", "-"], POLICY).unwrap();
    let gate = Gate::before(&nomad.url()).unwrap();
    let world = World { nomad, gate };
    world.restore();
    Some(world)
}

impl Platform for World {
    fn section(&self) -> String {
        format!(
            "[[registry]]\nkind = \"nomad\"\naddress = \"{}\"\ntoken_file = {:?}\nhealth_interval = \"1s\"\n\
             allow_loopback = true\n",
            self.gate.url(),
            self.token_file()
        )
    }

    fn announce(&self, instance: &Instance) {
        let job = JOB
            .replace("JOB", &instance.name)
            .replace("PORT", &instance.application.port().to_string())
            .replace("SERVICE", SERVICE)
            .replace("MESH", &instance.mesh_port.to_string())
            .replace("IDENTITY", &instance.identity());
        self.nomad.run_job(&job, &[]).unwrap();
        // The service is in the catalog before the task runs; who calls waits for the task.
        until("Nomad runs the task", || {
            let path = format!("/v1/job/{}/allocations", instance.name);
            let allocations = self.nomad.call("GET", &path, "").ok()?.json();
            let mut states = allocations.as_array()?.iter().map(|it| it["ClientStatus"].clone());
            states.any(|state| state == "running").then_some(())
        });
    }

    fn withdraw(&self, instance: &Instance) {
        self.nomad.stop_job(&instance.name).unwrap();
    }

    fn kill(&self) {
        self.nomad.kill_server();
    }

    fn restart(&self) {
        self.nomad.restart_server().unwrap();
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn revoke(&self) -> bool {
        let accessor = std::fs::read_to_string(self.nomad.scratch().path().join("accessor")).unwrap();
        self.nomad.nomad(&["acl", "token", "delete", &accessor], "").unwrap();
        true
    }

    fn restore(&self) {
        let created = self.token();
        self.nomad.scratch().write("token", created["SecretID"].as_str().unwrap()).unwrap();
        self.nomad.scratch().write("accessor", created["AccessorID"].as_str().unwrap()).unwrap();
    }
}

impl Elects for World {
    fn leader(&self) -> usize {
        self.nomad.await_leader().unwrap()
    }

    fn kill_member(&self, index: usize) {
        self.nomad.member(index).kill();
    }
}

#[test]
fn calls_reach_what_nomad_announces() {
    let Some(world) = world() else { return };
    outage::calls_reach_what_is_announced(world, "nomad");
}

#[test]
#[ignore = "three minutes: just outages"]
fn an_outage_of_nomad_costs_no_call() {
    let Some(world) = world() else { return };
    outage::an_outage_costs_no_call(world);
}

#[test]
fn a_revoked_token_of_nomad_costs_no_call() {
    let Some(world) = world() else { return };
    outage::a_revoked_token_costs_no_call(world);
}

#[test]
fn an_agent_starts_while_nomad_is_away() {
    let Some(world) = world() else { return };
    outage::an_agent_starts_without_the_server(world);
}

#[test]
fn a_nomad_that_comes_and_goes_costs_no_call() {
    let Some(world) = world() else { return };
    outage::a_server_that_comes_and_goes_costs_no_call(world);
}

#[test]
fn without_a_leader_and_without_a_quorum_of_nomad_no_call_is_lost() {
    let Some(platform) = world_of(3) else { return };
    until("another server leads", || {
        let leader = platform.leader();
        if leader == 0 {
            platform.nomad.hand_over_to(1);
        }
        (leader != 0).then_some(())
    });
    outage::no_leader_and_no_quorum_cost_no_call(platform);
}

/// A snapshot of before takes the index back: what it does not have is gone as soon as the server says so, and changes
/// after it are seen.
#[test]
fn an_old_snapshot_of_nomad_costs_no_call() {
    let Some(world) = world() else { return };
    let world = platform::World::new(world, 2);
    let file = world.platform.nomad.scratch().path().join("snapshot");
    let file = file.to_str().unwrap();
    world.platform.nomad.nomad(&["operator", "snapshot", "save", file], "").unwrap();
    world.platform.announce(&world.instances[2]);
    world.sees(3);
    let load = load(&world);
    world.platform.nomad.nomad(&["operator", "snapshot", "restore", file], "").unwrap();
    world.sees(2);
    world.platform.withdraw(&world.instances[0]);
    world.sees(1);
    world.platform.announce(&world.instances[2]);
    world.sees(2);
    world.is("connected");
    nothing_failed(load);
}
