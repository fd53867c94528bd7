//! Consul, with access control on: instances on nodes of their own, as registrators write them.

use std::sync::Arc;

use serde_json::{Value, json};
use weft_core::{
    config::{SourceFile, read},
    name::RegistryName,
    registry::Registry,
};
use weft_registries::Environment;
use weft_testbed::{Consul, ConsulOptions, Kind, installed, required};

use crate::bed::{Bed, identity};

pub(super) fn open() -> Option<Box<dyn Bed>> {
    let home = required(installed(Kind::Consul))?;
    let consul = Consul::start(&home, ConsulOptions { acl: true, ..ConsulOptions::default() }).unwrap();
    let rules = r#"
        service_prefix "" { policy = "read" intentions = "read" }
        service "announced" { policy = "write" }
        node_prefix "" { policy = "read" }
        key_prefix "weft/" { policy = "read" }"#;
    let token = consul.create_token(rules).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), &token.secret).unwrap();
    Some(Box::new(ConsulBed { consul, folder }))
}

struct ConsulBed {
    consul: Consul,
    folder: tempfile::TempDir,
}

impl ConsulBed {
    fn put(&self, path: &str, body: &Value) {
        self.consul.call("PUT", path, body.to_string()).unwrap().success("write to the catalog").unwrap();
    }

    fn instances(&self, service: &str) -> Vec<String> {
        let listed = self.consul.call("GET", &format!("/v1/catalog/service/{service}"), "").unwrap().json();
        let ids = listed.as_array().into_iter().flatten().filter_map(|it| it["ServiceID"].as_str());
        ids.map(str::to_owned).collect()
    }

    fn write(&self, service: &str, number: usize, status: &str) {
        let (node, id) = (format!("node-{number}"), format!("{service}-{number}"));
        let meta = json!({ "weft-mesh-port": "15008", "weft-identity": identity(service) });
        let body = json!({
            "Node": node, "Address": format!("10.0.0.{number}"),
            "Service": { "ID": id, "Service": service, "Port": 8080, "Meta": meta },
            "Check": { "Node": node, "CheckID": format!("{id}-up"), "Name": "up", "Status": status, "ServiceID": id },
        });
        self.put("/v1/catalog/register", &body);
    }
}

impl Bed for ConsulBed {
    fn registry(&self) -> Arc<dyn Registry> {
        let token = self.folder.path().join("token");
        let text =
            format!("address = {:?}\ntoken_file = {:?}\nconfiguration = true\n", self.consul.url(), token);
        let source = SourceFile::new("weft.toml", text);
        let settings = read(&source, |section| weft_registries::consul::read(section));
        let settings = settings.value.unwrap_or_else(|| panic!("{:?}", settings.faults));
        settings.build(&RegistryName::new("consul").unwrap(), &Environment::default()).unwrap()
    }

    fn scale(&mut self, service: &str, instances: usize) {
        let there = self.instances(service);
        for number in 1..=instances {
            if !there.contains(&format!("{service}-{number}")) {
                self.write(service, number, "passing");
            }
        }
        for id in there {
            let number: usize = id.rsplit('-').next().unwrap().parse().unwrap();
            if number > instances {
                let body = json!({ "Node": format!("node-{number}"), "ServiceID": id });
                self.put("/v1/catalog/deregister", &body);
            }
        }
    }

    fn ail(&mut self, service: &str, ails: bool) {
        self.write(service, 1, if ails { "critical" } else { "passing" });
    }

    fn route(&mut self, service: &str) {
        let text = format!(
            "[[route]]\nname = \"by-header\"\nservice = \"{service}\"\n[[route.rule]]\nname = \"all\"\n"
        );
        self.consul.call("PUT", "/v1/kv/weft/route.toml", text).unwrap().success("write a key").unwrap();
    }

    fn kill(&mut self) {
        self.consul.kill();
    }

    fn restart(&mut self) {
        self.consul.restart().unwrap();
    }
}
