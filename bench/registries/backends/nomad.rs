//! Nomad: two jobs that really run. One has ten allocations, each of which registers every service; a change takes one
//! registration of the other's away, because nothing but a client can write one.

use std::time::Duration;

use serde_json::{Value, json};
use weft_testbed::{Gate, Home, Nomad, NomadOptions, until};

use super::{Backend, Traffic};
use crate::{
    ENDPOINTS,
    probe::{Applications, Sign},
};

/// How long a job may take to run.
const PATIENCE: Duration = Duration::from_secs(180);

pub(super) struct Bed {
    nomad: Nomad,
    gate: Gate,
}

pub(super) fn start(home: &Home) -> anyhow::Result<Bed> {
    let nomad = Nomad::start(home, NomadOptions::default())?;
    Ok(Bed { gate: Gate::before(&nomad.url())?, nomad })
}

impl Bed {
    /// Runs a job of `count` allocations, and waits until its services are listed.
    fn run(
        &self,
        name: &str,
        count: usize,
        round: usize,
        network: &Value,
        services: &[String],
    ) -> anyhow::Result<()> {
        let services: Vec<Value> = services
            .iter()
            .map(|service| json!({ "Name": service, "Provider": "nomad", "PortLabel": "http" }))
            .collect();
        let expected = services.len() * count;
        let job = json!({ "Job": {
            "ID": name,
            "Namespace": name,
            "Datacenters": ["*"],
            // All at once, and without waiting for them to prove themselves.
            "Update": { "MaxParallel": count, "HealthCheck": "task_states", "MinHealthyTime": 1_000_000 },
            "TaskGroups": [{
                "Name": "all",
                "Count": count,
                "Networks": [network],
                "Services": services,
                "Tasks": [{
                    "Name": "nothing",
                    "Driver": "raw_exec",
                    "Config": { "command": "/usr/bin/env", "args": ["sleep", "3600"] },
                    "Meta": { "round": round.to_string() },
                    "Resources": { "CPU": 20, "MemoryMB": 16 },
                }],
            }],
        }});
        let namespace = json!({ "Name": name }).to_string();
        self.nomad.call("PUT", &format!("/v1/namespace/{name}"), namespace)?.success("make a namespace")?;
        let path = format!("/v1/jobs?namespace={name}");
        self.nomad.call("PUT", &path, job.to_string())?.success("run a job")?;
        Ok(until(&format!("{name} has {expected} instances of this round"), PATIENCE, || {
            self.running(name, round).is_some_and(|running| running == count)
                && self.registered(name).is_some_and(|registered| registered == expected)
        })?)
    }

    /// How many allocations of the newest version run.
    fn running(&self, name: &str, round: usize) -> Option<usize> {
        let path = format!("/v1/job/{name}/allocations?namespace={name}");
        let allocations = self.nomad.call("GET", &path, "").ok()?.json();
        let current = allocations.as_array()?.iter().filter(|it| {
            it["JobVersion"].as_u64() == u64::try_from(round).ok() && it["ClientStatus"] == "running"
        });
        Some(current.count())
    }

    fn registered(&self, name: &str) -> Option<usize> {
        let services = self.nomad.call("GET", &format!("/v1/services?namespace={name}"), "").ok()?.json();
        let names: Vec<Value> = services
            .as_array()?
            .iter()
            .flat_map(|it| it["Services"].as_array().cloned().unwrap_or_default())
            .collect();
        // One of them for all: a question for each would take longer than the job.
        let last = names.last()?["ServiceName"].as_str()?.to_owned();
        let path = format!("/v1/service/{last}?namespace={name}");
        let instances = self.nomad.call("GET", &path, "").ok()?.json();
        Some(names.len() * instances.as_array()?.len())
    }

    fn fill_round(&self, services: usize, round: usize) -> anyhow::Result<()> {
        let names: Vec<String> = (0..services).map(|service| format!("s{service}")).collect();
        self.run("fill", ENDPOINTS, round, &json!({ "DynamicPorts": [{ "Label": "http" }] }), &names)
    }
}

impl Backend for Bed {
    fn section(&self) -> String {
        format!(
            "[[registry]]\nkind = \"nomad\"\naddress = \"{}\"\nallow_loopback = true\nmesh_port = 15008\n\
             identity = \"ns/{{namespace}}/sa/{{service}}\"\n\
             [[registry.service]]\nname = \"*.probe\"\ntls = \"off\"\n",
            self.gate.url()
        )
    }

    fn fill(&self, services: usize) -> anyhow::Result<()> {
        self.fill_round(services, 0)
    }

    fn prepare(&self, applications: &Applications, changes: usize) -> anyhow::Result<()> {
        let names: Vec<String> = (0..changes).map(|number| format!("probe-{number}")).collect();
        let port = json!({ "Label": "http", "Value": applications.addresses[0].port() });
        self.run("probe", 1, 0, &json!({ "ReservedPorts": [port] }), &names)
    }

    fn change(&self, _applications: &Applications, number: usize) -> anyhow::Result<(String, Sign)> {
        let path = format!("/v1/service/probe-{number}");
        let instances = self.nomad.call("GET", &format!("{path}?namespace=probe"), "")?.json();
        let id = instances[0]["ID"].as_str().unwrap_or_default().to_owned();
        let answer = self.nomad.call("DELETE", &format!("{path}/{id}?namespace=probe"), "")?;
        answer.success("remove a registration")?;
        Ok((format!("probe-{number}.probe"), Sign::Gone))
    }

    fn roll(&self, services: usize) -> anyhow::Result<()> {
        self.fill_round(services, 1)
    }

    fn traffic(&self) -> anyhow::Result<Traffic> {
        let counts = self.gate.counts();
        Ok(Traffic { requests: counts.requests, bytes: counts.to_server + counts.from_server })
    }
}
