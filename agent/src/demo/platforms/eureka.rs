//! Eureka: an instance is registered as its own client would, with a lease that outlives the demonstration.

use serde_json::json;
use weft_testbed::{Eureka, EurekaOptions, Home};

use super::{application::Instance, server::Server};

pub(super) fn start(home: &Home) -> anyhow::Result<Eureka> {
    Ok(Eureka::start(home, EurekaOptions::default())?)
}

impl Server for Eureka {
    fn address(&self) -> String {
        self.url()
    }

    fn section(&self) -> String {
        format!(
            "[[registry]]\nkind = \"eureka\"\naddress = \"{}\"\npoll = \"1s\"\nallow_loopback = true\n\n",
            self.url()
        )
    }

    fn announce(&self, instance: &Instance) -> anyhow::Result<()> {
        let listen = instance.sample.listen;
        Ok(self.register(&json!({ "instance": {
            "instanceId": instance.name(),
            "app": instance.sample.name.to_uppercase(),
            "hostName": listen.ip(),
            "ipAddr": listen.ip(),
            "status": "UP",
            "vipAddress": instance.sample.name,
            "port": { "$": listen.port(), "@enabled": "true" },
            "metadata": {
                "weft-mesh-port": instance.mesh.port().to_string(), "weft-identity": instance.identity(),
            },
            "leaseInfo": { "durationInSecs": 86_400 },
            "dataCenterInfo": { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn" },
        }}))?)
    }

    fn kill(&self) {
        Self::kill(self);
    }

    fn pid(&self) -> Option<u32> {
        self.process().pid()
    }
}
