//! Some agents on this machine with certificates from files and one folder of resources: the smallest real mesh.
//!
//! Describe it ([`Mesh::serve`], [`Mesh::caller`]), start it, call through [`Mesh::outbound`]. Every agent is a process of
//! its own with a mesh port of its own, so a call from a workload on one to a service on another crosses two of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde_json::Value;

use super::{Authority, Process, Sandbox, address, sandbox::WEFT, uid, until};

pub const TRUST_DOMAIN: &str = "test.mesh";

pub struct Mesh {
    pub sandbox: Sandbox,
    pub authority: Authority,
    /// Added to the top of every agent's file, before its sections.
    pub settings: String,
    hosts: BTreeMap<String, Host>,
    /// Further resources, by file name in `mesh.d`.
    resources: BTreeMap<String, String>,
    /// `[[registry]]` sections of hosts that follow others than the folder of resources.
    registries: BTreeMap<String, String>,
}

struct Host {
    inbound: SocketAddr,
    admin: SocketAddr,
    workloads: Vec<Workload>,
    process: Option<Process>,
}

struct Workload {
    name: String,
    account: String,
    outbound: Option<SocketAddr>,
    serves: Option<Serves>,
}

struct Serves {
    service: String,
    application: SocketAddr,
    protocol: String,
    version: String,
}

/// The SPIFFE ID of an account of the namespace `default`.
pub fn identity(account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/default/sa/{account}")
}

impl Mesh {
    pub fn new() -> Self {
        Self {
            sandbox: Sandbox::new(),
            authority: Authority::new(TRUST_DOMAIN),
            settings: "workers = 2\ndrain_deadline = \"20s\"\n".into(),
            hosts: BTreeMap::new(),
            resources: BTreeMap::new(),
            registries: BTreeMap::new(),
        }
    }

    /// Has a host follow these registries, and not the folder of resources.
    pub fn follow(&mut self, host: &str, sections: &str) {
        self.registries.insert(host.into(), sections.into());
    }

    fn host(&mut self, name: &str) -> &mut Host {
        self.hosts.entry(name.into()).or_insert_with(|| Host {
            inbound: address(),
            admin: address(),
            workloads: Vec::new(),
            process: None,
        })
    }

    /// Has a host take mesh traffic at another address of this machine.
    pub fn take_traffic_at(&mut self, host: &str, ip: IpAddr) {
        self.host(host).inbound.set_ip(ip);
    }

    /// A workload on `host` that only calls, with the identity of its name.
    pub fn caller(&mut self, host: &str, name: &str) {
        let outbound = Some(address());
        let workload = Workload { name: name.into(), account: name.into(), outbound, serves: None };
        self.host(host).workloads.push(workload);
    }

    /// An instance of `service` on `host`: an application that listens on `application` and speaks `protocol`. The
    /// workload's identity is the account `service`; its name is `<service>-<version>`.
    pub fn serve(
        &mut self,
        host: &str,
        service: &str,
        version: &str,
        application: SocketAddr,
        protocol: &str,
    ) {
        let serves = Serves {
            service: service.into(),
            application,
            protocol: protocol.into(),
            version: version.into(),
        };
        self.host(host).workloads.push(Workload {
            name: format!("{service}-{version}"),
            account: service.into(),
            outbound: None,
            serves: Some(serves),
        });
    }

    /// Adds a file of resources, or replaces it; a running mesh follows.
    pub fn resource(&mut self, file: &str, text: &str) {
        self.resources.insert(file.into(), text.into());
        self.sandbox.write(&format!("mesh.d/{file}"), text);
    }

    /// Writes every file anew.
    pub fn write(&mut self) {
        self.sandbox.write("mesh.d/services.toml", &self.services_text());
        for name in self.hosts.keys().cloned().collect::<Vec<_>>() {
            self.write_config(&name, "");
            for workload in &self.hosts[&name].workloads {
                let folder = self.sandbox.path(&format!("{name}/certificates"));
                self.authority.write(&folder, &workload.name, &identity(&workload.account));
            }
        }
    }

    /// Writes an agent's file with `more` at its end.
    pub fn write_config(&self, name: &str, more: &str) {
        self.sandbox.write(&format!("{name}/weft.toml"), &format!("{}{more}", self.config_text(name)));
    }

    /// Writes every file, starts every agent and waits until all are ready.
    pub fn start(&mut self) {
        self.write();
        for name in self.hosts.keys().cloned().collect::<Vec<_>>() {
            self.spawn(&name);
        }
        for name in self.hosts.keys().cloned().collect::<Vec<_>>() {
            self.ready(&name);
        }
    }

    /// Starts one agent.
    pub fn spawn(&mut self, name: &str) {
        let config = self.sandbox.path(&format!("{name}/weft.toml"));
        let arguments = ["agent", "--config", config.to_str().unwrap(), "--log", "info,weft_proxy=debug"];
        let process = self.sandbox.spawn(name, &arguments);
        self.host(name).process = Some(process);
    }

    /// Waits until one agent is ready.
    pub fn ready(&mut self, name: &str) {
        until(&format!("agent {name} is ready"), || {
            assert!(self.process(name).is_running(), "agent {name} ended");
            let status = self.try_status(name)?;
            (status["phase"] == "serving").then_some(())
        });
    }

    pub fn process(&mut self, name: &str) -> &mut Process {
        self.hosts.get_mut(name).unwrap().process.as_mut().unwrap_or_else(|| panic!("{name} was not started"))
    }

    /// Where a workload's calls go in.
    pub fn outbound(&self, workload: &str) -> SocketAddr {
        let all = self.hosts.values().flat_map(|host| &host.workloads);
        all.filter(|known| known.name == workload).find_map(|known| known.outbound).unwrap()
    }

    pub fn inbound(&self, name: &str) -> SocketAddr {
        self.hosts[name].inbound
    }

    /// The read-only address of an agent.
    pub fn admin(&self, name: &str) -> SocketAddr {
        self.hosts[name].admin
    }

    pub fn socket(&self, name: &str) -> String {
        self.sandbox.path(&format!("{name}/admin.sock")).to_str().unwrap().to_owned()
    }

    /// What a reading verb says of an agent, as JSON.
    pub fn ask(&self, name: &str, verb: &str) -> Value {
        self.sandbox.json(verb, &self.socket(name))
    }

    /// An agent's status; none while it does not answer.
    pub fn try_status(&self, name: &str) -> Option<Value> {
        let output = std::process::Command::new(WEFT)
            .args(["status", "-o", "json", "--socket", &self.socket(name)])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    fn config_text(&self, name: &str) -> String {
        let host = &self.hosts[name];
        let root = self.sandbox.root();
        let folder = format!(
            "[[registry]]\nkind = \"static\"\nname = \"static\"\npath = {:?}\nallow_loopback = true\n",
            root.join("mesh.d")
        );
        let mut text = format!(
            "{}state_dir = {:?}\nrun_dir = {:?}\n\n[admin]\nsocket = {:?}\nlisten = \"{}\"\n\n[inbound]\nlisten = \"{}\"\n\n\
             [identity]\nkind = \"files\"\ndirectory = {:?}\n\n\
             {}\n",
            self.settings,
            root.join(name).join("state"),
            root.join(name).join("run"),
            root.join(name).join("admin.sock"),
            host.admin,
            host.inbound,
            root.join(name).join("certificates"),
            self.registries.get(name).unwrap_or(&folder),
        );
        for workload in &host.workloads {
            text.push_str(&workload.config_text());
        }
        text
    }

    fn services_text(&self) -> String {
        let mut services: BTreeMap<&str, String> = BTreeMap::new();
        for host in self.hosts.values() {
            for workload in &host.workloads {
                let Some(serves) = &workload.serves else { continue };
                let text = services.entry(&serves.service).or_insert_with(|| {
                    format!(
                        "[[service]]\nname = \"{}.default\"\nports = [{{ name = \"main\", number = 80, protocol = \"{}\" }}]\n",
                        serves.service, serves.protocol
                    )
                });
                text.push_str(&format!(
                    "[[service.endpoint]]\ninstance = \"{}\"\nport = \"main\"\naddress = \"{}\"\nmesh = \"{}\"\n\
                     identity = \"{}\"\nlabels = {{ version = \"{}\" }}\n",
                    workload.name,
                    serves.application,
                    host.inbound,
                    identity(&workload.account),
                    serves.version
                ));
            }
        }
        services.into_values().collect::<Vec<_>>().join("\n")
    }
}

impl Workload {
    fn config_text(&self) -> String {
        let mut text =
            format!("\n[[workload]]\nname = \"{}\"\nidentity = \"{}\"\n", self.name, identity(&self.account));
        if let Some(outbound) = self.outbound {
            text.push_str(&format!("outbound = \"{outbound}\"\nuid = {}\n", uid()));
        }
        if let Some(serves) = &self.serves {
            text.push_str(&format!(
                "labels = {{ version = \"{}\" }}\n[[workload.port]]\nservice = \"{}.default\"\nname = \"main\"\n\
                 address = \"{}\"\nprotocol = \"{}\"\n",
                serves.version, serves.service, serves.application, serves.protocol
            ));
        }
        text
    }
}
