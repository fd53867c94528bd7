//! Servers, registries and jobs of these tests.

use std::sync::Arc;

use weft_core::{
    config::{SourceFile, read},
    identity::TrustDomain,
    name::RegistryName,
    registry::Registry,
};
use weft_registries::{Environment, Plan};
use weft_testbed::{Home, Kind, Nomad, NomadOptions, installed, required};

pub(crate) use crate::follower::{DEADLINE, Follower, View};

/// The server, or none where it is not installed, which is said.
pub(crate) fn home() -> Option<Home> {
    required(installed(Kind::Nomad))
}

pub(crate) fn start(options: NomadOptions) -> Option<Nomad> {
    Some(Nomad::start(&home()?, options).unwrap())
}

/// A registry as a file configures it, with these lines beside what every test needs.
pub(crate) fn registry(address: &str, more: &str) -> Arc<dyn Registry> {
    strict_registry(address, &format!("allow_loopback = true\nhealth_interval = \"1s\"\n{more}"))
}

/// A registry as a file configures it, with nothing but these lines.
pub(crate) fn strict_registry(address: &str, more: &str) -> Arc<dyn Registry> {
    let text = format!("kind = \"nomad\"\naddress = \"{address}\"\n{more}");
    let source = SourceFile::new("weft.toml", text);
    let outcome = read(&source, |section| Plan::read(section, ""));
    let plan = outcome.value.unwrap_or_else(|| panic!("{:?}", outcome.faults));
    assert_eq!(plan.name.value, RegistryName::new("nomad").unwrap());
    let trust_domain = Some(TrustDomain::new("demo.mesh").unwrap());
    plan.build(&Environment { trust_domain, ..Environment::default() }).unwrap()
}

/// Follows a server with its managing token, where it has tokens.
pub(crate) fn follower(nomad: &Nomad, more: &str) -> Follower {
    let token = nomad.token().map(|token| write_token(nomad, "admin", token));
    let token = token.map(|path| format!("token_file = \"{path}\"\n")).unwrap_or_default();
    Follower::of(registry(&nomad.url(), &(token + more)))
}

pub(crate) fn write_token(nomad: &Nomad, name: &str, token: &str) -> String {
    nomad.scratch().write(&format!("tokens/{name}"), token).unwrap().display().to_string()
}

/// A job of one group with one service and one task, a Python program.
pub(crate) struct Job<'a> {
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) count: usize,
    /// Of the service, beside name and port.
    pub(crate) service: &'a str,
    /// Of the group.
    pub(crate) group: &'a str,
}

impl Default for Job<'_> {
    fn default() -> Self {
        Self { name: "web", namespace: "default", count: 1, service: "", group: "" }
    }
}

impl Job<'_> {
    /// It serves the folder of its allocation: a file `unhealthy` there makes `/alive` fail.
    pub(crate) fn text(&self) -> String {
        let Self { name, namespace, count, service, group } = self;
        format!(
            r#"job "{name}" {{
  namespace = "{namespace}"
  group "web" {{
    count = {count}
    network {{
      port "http" {{}}
    }}
    restart {{
      attempts = 4
      interval = "1m"
      delay    = "10s"
      mode     = "delay"
    }}
    service {{
      name     = "{name}"
      provider = "nomad"
      port     = "http"
      {service}
    }}
    {group}
    task "app" {{
      driver = "raw_exec"
      config {{
        command = "/usr/bin/env"
        args    = ["python3", "-m", "http.server", "--directory", "${{NOMAD_ALLOC_DIR}}", "--bind", "${{NOMAD_IP_http}}", "${{NOMAD_PORT_http}}"]
      }}
      resources {{
        cpu    = 20
        memory = 64
      }}
    }}
  }}
}}
"#
        )
    }

    pub(crate) fn run(&self, nomad: &Nomad) {
        nomad.run_job(&self.text(), &[]).unwrap();
    }
}
