//! Nomad: an instance is a job, whose task is the sample service itself. It runs on when the server dies.

use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use weft_testbed::{Home, Nomad, NomadOptions, until};

use super::{application::Instance, server::Server};

/// How long a task may take to end.
const FAREWELL: Duration = Duration::from_secs(10);

pub(super) fn start(home: &Home) -> anyhow::Result<Nomad> {
    Ok(Nomad::start(home, NomadOptions::default())?)
}

impl Server for Nomad {
    fn address(&self) -> String {
        self.url()
    }

    fn section(&self) -> String {
        format!(
            "[[registry]]\nkind = \"nomad\"\naddress = \"{}\"\nhealth_interval = \"1s\"\nallow_loopback = true\n\n",
            self.url()
        )
    }

    fn announce(&self, instance: &Instance) -> anyhow::Result<()> {
        let binary = std::env::current_exe().context("the binary's own path is unknown")?;
        let second = 1_000_000_000_u64;
        let mesh_port = format!("weft-mesh-port={}", instance.mesh.port());
        let job = json!({ "Job": {
            "ID": instance.name(),
            "Datacenters": ["*"],
            "TaskGroups": [{
                "Name": "all",
                "Networks": [{ "ReservedPorts": [{ "Label": "http", "Value": instance.sample.listen.port() }] }],
                "Services": [{
                    "Name": instance.sample.name,
                    "Provider": "nomad",
                    "PortLabel": "http",
                    "Tags": [mesh_port, format!("weft-identity={}", instance.identity())],
                    "Checks": [{ "Name": "up", "Type": "tcp", "Interval": second, "Timeout": second }],
                }],
                "Tasks": [{
                    "Name": instance.sample.name,
                    "Driver": "raw_exec",
                    "Config": { "command": binary, "args": instance.sample.arguments() },
                    "Resources": { "CPU": 50, "MemoryMB": 64 },
                }],
            }],
        }});
        self.call("PUT", "/v1/jobs", job.to_string())?.success("run a job")?;
        Ok(())
    }

    fn kill(&self) {
        self.kill_server();
    }

    fn pid(&self) -> Option<u32> {
        self.server().pid()
    }

    /// A job that is stopped takes its control groups along; one whose client is killed leaves them.
    fn withdraw(&self, instance: &Instance) -> anyhow::Result<()> {
        if !self.server().is_running() {
            self.restart_server()?;
        }
        let name = instance.name();
        self.stop_job(&name)?;
        let over = || {
            let allocations = self.call("GET", &format!("/v1/job/{name}/allocations"), "").ok()?.json();
            let mut states = allocations.as_array()?.iter().map(|it| it["ClientStatus"].as_str());
            Some(states.all(|state| state.is_none_or(|state| state != "running" && state != "pending")))
        };
        Ok(until("Nomad ends a task", FAREWELL, || over().unwrap_or(false))?)
    }
}
