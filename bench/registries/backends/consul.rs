//! Consul: the catalog is written directly, as external nodes are.

use serde_json::{Value, json};
use weft_testbed::{Consul, ConsulOptions, Gate, Home};

use super::{Backend, Traffic, address, each};
use crate::{
    ENDPOINTS,
    probe::{Applications, Sign},
};

/// Nodes, among which the instances are spread.
const NODES: usize = 100;
/// Operations that Consul takes in one transaction.
const OPERATIONS: usize = 64;

pub(super) struct Bed {
    consul: Consul,
    gate: Gate,
}

pub(super) fn start(home: &Home) -> anyhow::Result<Bed> {
    let consul = Consul::start(home, ConsulOptions::default())?;
    Ok(Bed { gate: Gate::before(&consul.url())?, consul })
}

impl Bed {
    /// Writes all instances, with a check each the first time.
    fn write(&self, services: usize, replaced: bool) -> anyhow::Result<()> {
        let each_operation = if replaced { 1 } else { 2 };
        let in_one = OPERATIONS / each_operation;
        let instances = services * ENDPOINTS;
        each(instances.div_ceil(in_one), |chunk| {
            let numbers = (chunk * in_one)..((chunk + 1) * in_one).min(instances);
            let operations: Vec<Value> = numbers
                .flat_map(|number| operations(number / ENDPOINTS, number % ENDPOINTS, replaced))
                .collect();
            let body = Value::from(operations).to_string();
            self.consul.call("PUT", "/v1/txn", body)?.success("write instances")?;
            Ok(())
        })
    }

    fn register(&self, registration: &Value) -> anyhow::Result<()> {
        let answer = self.consul.call("PUT", "/v1/catalog/register", registration.to_string())?;
        answer.success("register")?;
        Ok(())
    }
}

fn operations(service: usize, endpoint: usize, replaced: bool) -> Vec<Value> {
    let (node, id) = (format!("ext-{}", (service * 7 + endpoint) % NODES), format!("s{service}-{endpoint}"));
    let fields = json!({
        "ID": id, "Service": format!("s{service}"), "Port": 8000, "Address": address(service, endpoint, replaced),
    });
    let mut operations = vec![json!({ "Service": { "Verb": "set", "Node": node, "Service": fields } })];
    if !replaced {
        let check =
            json!({ "Node": node, "CheckID": id, "Name": "up", "Status": "passing", "ServiceID": id });
        operations.push(json!({ "Check": { "Verb": "set", "Check": check } }));
    }
    operations
}

impl Backend for Bed {
    fn section(&self) -> String {
        format!(
            "[[registry]]\nkind = \"consul\"\naddress = \"{}\"\nallow_loopback = true\nmesh_port = 15008\n\
             identity = \"ns/{{namespace}}/sa/{{service}}\"\n\
             [[registry.service]]\nname = \"probe.default\"\ntls = \"off\"\n",
            self.gate.url()
        )
    }

    fn fill(&self, services: usize) -> anyhow::Result<()> {
        for node in 0..NODES {
            self.register(&json!({ "Node": format!("ext-{node}"), "Address": format!("10.250.0.{node}") }))?;
        }
        self.write(services, false)
    }

    fn prepare(&self, applications: &Applications, _changes: usize) -> anyhow::Result<()> {
        self.change(applications, 1).map(drop)
    }

    fn change(&self, applications: &Applications, number: usize) -> anyhow::Result<(String, Sign)> {
        let to = applications.addresses[number % 2];
        let service = json!({ "ID": "probe", "Service": "probe", "Address": to.ip(), "Port": to.port() });
        self.register(&json!({ "Node": "ext-0", "Address": "10.250.0.0", "Service": service }))?;
        Ok(("probe.default".into(), Sign::Answers(to.port())))
    }

    fn roll(&self, services: usize) -> anyhow::Result<()> {
        self.write(services, true)
    }

    fn traffic(&self) -> anyhow::Result<Traffic> {
        let counts = self.gate.counts();
        Ok(Traffic { requests: counts.requests, bytes: counts.to_server + counts.from_server })
    }
}
