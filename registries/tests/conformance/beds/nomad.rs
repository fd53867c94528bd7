//! Nomad, with access control on: jobs whose tasks run, on a node that says where its agent takes mesh traffic.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use weft_core::{
    config::{SourceFile, read},
    name::RegistryName,
    registry::Registry,
};
use weft_registries::Environment;
use weft_testbed::{Kind, Nomad, NomadOptions, installed, required};

use crate::bed::{Bed, identity};

const JOB: &str = include_str!("nomad.hcl");
const POLICY: &str = r#"
namespace "*" {
  capabilities = ["read-job"]
}
namespace "default" {
  capabilities = ["read-job"]
  variables {
    path "weft/*" {
      capabilities = ["list", "read"]
    }
  }
}
node {
  policy = "read"
}
"#;
const CLIENT: &str = "client {\n  meta {\n    \"weft-mesh-port\" = \"15008\"\n  }\n}\n";

pub(super) fn open() -> Option<Box<dyn Bed>> {
    let home = required(installed(Kind::Nomad))?;
    let options = NomadOptions { acl: true, clients: vec![CLIENT.into()], ..NomadOptions::default() };
    let nomad = Nomad::start(&home, options).unwrap();
    nomad.nomad(&["acl", "policy", "apply", "weft", "-"], POLICY).unwrap();
    let created = nomad.nomad(&["acl", "token", "create", "-json", "-policy=weft"], "").unwrap();
    let created: Value = serde_json::from_str(&created).unwrap();
    nomad.scratch().write("token", created["SecretID"].as_str().unwrap()).unwrap();
    Some(Box::new(NomadBed { nomad, failing: BTreeMap::new() }))
}

struct NomadBed {
    nomad: Nomad,
    /// The allocation of each service that was made to fail.
    failing: BTreeMap<String, String>,
}

impl NomadBed {
    fn allocations(&self, job: &str) -> Vec<String> {
        let listed = self.nomad.call("GET", &format!("/v1/service/{job}"), "").unwrap().json();
        let ids = listed.as_array().into_iter().flatten().filter_map(|it| it["AllocID"].as_str());
        ids.map(str::to_owned).collect()
    }

    /// Where the tasks of an allocation share files.
    fn mark(&self, allocation: &str) -> std::path::PathBuf {
        self.nomad.scratch().path().join("client-1/data/alloc").join(allocation).join("alloc/ails")
    }
}

impl Bed for NomadBed {
    fn registry(&self) -> Arc<dyn Registry> {
        let token = self.nomad.scratch().path().join("token");
        let text = format!(
            "address = {:?}\ntoken_file = {token:?}\nhealth_interval = \"1s\"\nallow_loopback = true\nvariables = \"weft\"\n",
            self.nomad.url()
        );
        let source = SourceFile::new("weft.toml", text);
        let settings = read(&source, |section| weft_registries::nomad::read(section));
        let settings = settings.value.unwrap_or_else(|| panic!("{:?}", settings.faults));
        settings.build(&RegistryName::new("nomad").unwrap(), &Environment::default()).unwrap()
    }

    fn scale(&mut self, service: &str, instances: usize) {
        if instances == 0 {
            return self.nomad.stop_job(service).unwrap();
        }
        let job = JOB.replace("SERVICE", service).replace("COUNT", &instances.to_string());
        self.nomad.run_job(&job.replace("IDENTITY", &identity(service)), &[]).unwrap();
        self.nomad.await_service(service, instances).unwrap();
    }

    fn ail(&mut self, service: &str, ails: bool) {
        if let Some(failing) = self.failing.remove(service) {
            std::fs::remove_file(self.mark(&failing)).unwrap();
        }
        if ails {
            let first = self.allocations(service).into_iter().next().unwrap();
            std::fs::write(self.mark(&first), "").unwrap();
            self.failing.insert(service.into(), first);
        }
    }

    fn route(&mut self, service: &str) {
        let rule = "[[route.rule]]\nname = \"all\"\n";
        let text = format!("[[route]]\nname = \"by-header\"\nservice = \"{service}\"\n{rule}");
        let body = serde_json::json!({ "Items": { "route": text } }).to_string();
        self.nomad.call("PUT", "/v1/var/weft/routes", body).unwrap().success("write a variable").unwrap();
    }

    fn kill(&mut self) {
        self.nomad.kill_server();
    }

    fn restart(&mut self) {
        self.nomad.restart_server().unwrap();
    }
}
