//! Consul: an instance is a service of its agent, which says in its meta where and as whom it speaks mesh.

use serde_json::json;
use weft_testbed::{Consul, ConsulOptions, Home};

use super::{application::Instance, server::Server};

pub(super) fn start(home: &Home) -> anyhow::Result<Consul> {
    Ok(Consul::start(home, ConsulOptions::default())?)
}

impl Server for Consul {
    fn address(&self) -> String {
        self.url()
    }

    fn section(&self) -> String {
        format!("[[registry]]\nkind = \"consul\"\naddress = \"{}\"\nallow_loopback = true\n\n", self.url())
    }

    fn announce(&self, instance: &Instance) -> anyhow::Result<()> {
        let listen = instance.sample.listen;
        Ok(self.register(&json!({
            "ID": instance.name(),
            "Name": instance.sample.name,
            "Address": listen.ip(),
            "Port": listen.port(),
            "Meta": { "weft-mesh-port": instance.mesh.port().to_string(), "weft-identity": instance.identity() },
        }))?)
    }

    fn kill(&self) {
        Self::kill(self);
    }

    fn pid(&self) -> Option<u32> {
        self.member(0).pid()
    }
}
