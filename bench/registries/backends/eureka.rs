//! Eureka: instances are registered with leases that outlive the measurement.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use weft_testbed::{Eureka, EurekaOptions, Gate, Home, until};

use super::{Backend, Traffic, address, each};
use crate::{
    ENDPOINTS,
    probe::{Applications, Sign},
};

/// What changed is told again and again for so long, three minutes as it comes: only then is the server at rest.
const SHORT_DELTAS: [&str; 2] = [
    "eureka.server.retentionTimeInMSInDeltaQueue=15000",
    "eureka.server.deltaRetentionTimerIntervalInMs=5000",
];
/// How long it may take until nothing is told any more.
const PATIENCE: Duration = Duration::from_secs(240);

pub(super) struct Bed {
    eureka: Eureka,
    gate: Gate,
}

pub(super) fn start(home: &Home) -> anyhow::Result<Bed> {
    let properties = SHORT_DELTAS.map(str::to_owned).to_vec();
    let eureka = Eureka::start(home, EurekaOptions { properties })?;
    Ok(Bed { gate: Gate::before(&eureka.url())?, eureka })
}

impl Bed {
    fn register(&self, service: &str, id: &str, host: &str, port: u16) -> anyhow::Result<()> {
        Ok(self.eureka.register(&json!({ "instance": {
            "instanceId": id, "app": service.to_uppercase(), "hostName": host, "ipAddr": host, "status": "UP",
            "vipAddress": service, "port": { "$": port, "@enabled": "true" },
            "leaseInfo": { "durationInSecs": 86_400 },
            "dataCenterInfo": { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn" },
        }}))?)
    }

    fn write(&self, services: usize, replaced: bool) -> anyhow::Result<()> {
        each(services * ENDPOINTS, |number| {
            let (service, endpoint) = (number / ENDPOINTS, number % ENDPOINTS);
            let (name, id) = (format!("s{service}"), format!("s{service}-{endpoint}"));
            self.register(&name, &id, &address(service, endpoint, replaced), 8000)
        })
    }
}

impl Backend for Bed {
    fn section(&self) -> String {
        format!(
            "[[registry]]\nkind = \"eureka\"\naddress = \"http://{}/eureka/\"\nallow_loopback = true\nmesh_port = 15008\n\
             identity = \"ns/{{namespace}}/sa/{{service}}\"\n\
             [[registry.service]]\nname = \"probe.default\"\ntls = \"off\"\n",
            self.gate.address()
        )
    }

    fn fill(&self, services: usize) -> anyhow::Result<()> {
        self.write(services, false)
    }

    fn prepare(&self, applications: &Applications, _changes: usize) -> anyhow::Result<()> {
        self.change(applications, 1).map(drop)
    }

    fn change(&self, applications: &Applications, number: usize) -> anyhow::Result<(String, Sign)> {
        let to: SocketAddr = applications.addresses[number % 2];
        self.register("probe", "probe", &to.ip().to_string(), to.port())?;
        Ok(("probe.default".into(), Sign::Answers(to.port())))
    }

    fn roll(&self, services: usize) -> anyhow::Result<()> {
        self.write(services, true)
    }

    fn rest(&self) -> anyhow::Result<()> {
        Ok(until("Eureka has no news left", PATIENCE, || {
            let delta =
                self.eureka.call("GET", "apps/delta", "").map(|answer| answer.json()).unwrap_or_default();
            delta["applications"]["application"].as_array().is_some_and(Vec::is_empty)
        })?)
    }

    fn traffic(&self) -> anyhow::Result<Traffic> {
        let counts = self.gate.counts();
        Ok(Traffic { requests: counts.requests, bytes: counts.to_server + counts.from_server })
    }
}
