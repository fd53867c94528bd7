//! Consul with access control, and a token of the agent's that may only read.

use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;
use weft_testbed::{AclToken, Consul, ConsulOptions, Gate, Kind, installed, required};

use crate::{
    outage,
    platform::{Instance, Platform, SERVICE},
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
    let gate = Gate::before(&consul.url()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let token = consul.create_token(READ_ONLY).unwrap();
    let token_file = scratch.path().join("token");
    std::fs::write(&token_file, &token.secret).unwrap();
    Some(World { consul, gate, _scratch: scratch, token_file, token: token.into() })
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

#[test]
fn calls_reach_what_consul_announces() {
    let Some(world) = world() else { return };
    outage::calls_reach_what_is_announced(world, "consul");
}

#[test]
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
