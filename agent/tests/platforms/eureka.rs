//! Eureka, which forgets everything when it dies: what it held is registered again, as applications do with their next
//! heartbeat.

use std::{collections::BTreeMap, sync::Mutex};

use serde_json::{Value, json};
use weft_testbed::{Eureka, EurekaOptions, Gate, Kind, installed, required};

use crate::{
    outage,
    platform::{Instance, Platform, SERVICE},
};

struct World {
    eureka: Eureka,
    gate: Gate,
    registered: Mutex<BTreeMap<String, Value>>,
}

fn world() -> Option<World> {
    let home = required(installed(Kind::Eureka))?;
    let eureka = Eureka::start(&home, EurekaOptions::default()).unwrap();
    let gate = Gate::before(&eureka.url()).unwrap();
    Some(World { eureka, gate, registered: Mutex::default() })
}

impl Platform for World {
    fn section(&self) -> String {
        format!(
            "[[registry]]\nkind = \"eureka\"\naddress = \"http://{}/eureka/\"\npoll = \"1s\"\nallow_loopback = true\n",
            self.gate.address()
        )
    }

    fn announce(&self, instance: &Instance) {
        let address = instance.application;
        let document = json!({ "instance": {
            "instanceId": instance.name, "app": SERVICE.to_uppercase(), "hostName": address.ip(), "ipAddr": address.ip(),
            "status": "UP", "vipAddress": SERVICE, "port": { "$": address.port(), "@enabled": "true" },
            "metadata": {
                "weft-mesh-port": instance.mesh_port.to_string(), "weft-identity": instance.identity(),
            },
            "leaseInfo": { "durationInSecs": 86_400 },
            "dataCenterInfo": { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn" },
        }});
        self.eureka.register(&document).unwrap();
        self.registered.lock().unwrap().insert(instance.name.clone(), document);
    }

    fn withdraw(&self, instance: &Instance) {
        let path = format!("apps/{}/{}", SERVICE.to_uppercase(), instance.name);
        self.eureka.call("DELETE", &path, "").unwrap().success("withdraw").unwrap();
        self.registered.lock().unwrap().remove(&instance.name);
    }

    fn kill(&self) {
        self.eureka.kill();
    }

    fn restart(&self) {
        self.eureka.restart().unwrap();
        for document in self.registered.lock().unwrap().values() {
            self.eureka.register(document).unwrap();
        }
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn revoke(&self) -> bool {
        false
    }

    fn restore(&self) {}
}

#[test]
fn calls_reach_what_eureka_announces() {
    let Some(world) = world() else { return };
    outage::calls_reach_what_is_announced(world, "eureka");
}

#[test]
#[ignore = "three minutes: just outages"]
fn an_outage_of_eureka_costs_no_call() {
    let Some(world) = world() else { return };
    outage::an_outage_costs_no_call(world);
}

#[test]
fn an_agent_starts_while_eureka_is_away() {
    let Some(world) = world() else { return };
    outage::an_agent_starts_without_the_server(world);
}

#[test]
fn an_eureka_that_comes_and_goes_costs_no_call() {
    let Some(world) = world() else { return };
    outage::a_server_that_comes_and_goes_costs_no_call(world);
}
