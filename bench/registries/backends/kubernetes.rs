//! Kubernetes: objects without pods, written through `kubectl proxy`. What the agent asks for is encrypted, so its requests
//! are counted by the API server's own audit log.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};
use weft_testbed::{Call, Gate, Home, Kubernetes, KubernetesOptions, Port, Process, Scratch, until};

use super::{Backend, Traffic, address, each};
use crate::{
    ENDPOINTS,
    probe::{Applications, Sign},
};

/// What the agent may do, as shipped.
const ROLE: &str = include_str!("../../../deploy/kubernetes/read-cluster.yaml");
/// A line for each request of the agent's, when it comes in.
const AUDIT: &str = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["ResponseStarted","ResponseComplete","Panic"],
    "rules":[{"level":"Metadata","users":["system:serviceaccount:default:weft"]},{"level":"None"}]}"#;
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
/// More than this many services are replaced by one write each, not one for each endpoint.
const MANY: usize = 1000;

pub(super) struct Bed {
    _kubernetes: Kubernetes,
    gate: Gate,
    kubeconfig: PathBuf,
    audit_log: PathBuf,
    proxy_port: Port,
    _proxy: Process,
}

pub(super) fn start(home: &Home, scratch: &Scratch) -> anyhow::Result<Bed> {
    let policy = scratch.write("audit.json", AUDIT)?;
    let audit_log = scratch.path().join("audit.log");
    let flags = [("audit-policy-file", &policy), ("audit-log-path", &audit_log)];
    let api_server = flags.map(|(flag, path)| format!("--{flag}={}", path.display())).to_vec();
    let kubernetes = Kubernetes::start(home, KubernetesOptions { controllers: false, api_server })?;
    let gate = Gate::before(&kubernetes.url())?;
    let role = ROLE.split("\n---\n").find(|document| document.contains("\nkind: ClusterRole\n"));
    let role = role.context("the shipped file has no ClusterRole")?;
    let direct = kubernetes.kubeconfig_for("weft", "weft-read-cluster", role)?;
    let text = fs::read_to_string(direct)?.replace(&kubernetes.url(), &gate.url());
    let kubeconfig = scratch.write("weft.kubeconfig", text)?;
    let proxy_port = Port::free()?;
    let mut command = Command::new(home.program("kubectl"));
    command.arg(format!("--kubeconfig={}", kubernetes.admin_kubeconfig().display()));
    command.args(["proxy".to_owned(), format!("--port={}", proxy_port.number())]);
    let proxy = scratch.start("kubectl-proxy", command)?;
    let bed = Bed { _kubernetes: kubernetes, gate, kubeconfig, audit_log, proxy_port, _proxy: proxy };
    until("kubectl proxies", Duration::from_secs(30), || bed.write("GET", "/readyz", &Value::Null).is_ok())?;
    Ok(bed)
}

impl Bed {
    fn write(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<()> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let call = Call::new(method, format!("http://127.0.0.1:{}{path}", self.proxy_port.number()));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        call.header("Content-Type", kind).body(body).send()?.success(path)?;
        Ok(())
    }

    fn create(&self, name: &str, slice: Value) -> anyhow::Result<()> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "clusterIP": "None", "ports": [{ "name": "http", "port": 80 }] },
        });
        self.write("POST", SERVICES, &service)?;
        let mut slice = slice;
        slice["apiVersion"] = "discovery.k8s.io/v1".into();
        slice["kind"] = "EndpointSlice".into();
        slice["addressType"] = "IPv4".into();
        slice["metadata"] = json!({
            "name": format!("{name}-1"), "labels": { "kubernetes.io/service-name": name },
            "annotations": { "weft-mesh-port": "15008" },
        });
        self.write("POST", SLICES, &slice)
    }
}

/// The endpoints of a service, of which the first `replaced` were replaced.
fn endpoints(service: usize, replaced: usize) -> Value {
    let endpoint = |number: usize| {
        json!({
            "addresses": [address(service, number, number < replaced)], "conditions": { "ready": true },
            "nodeName": format!("node-{number}"), "zone": "east-1",
        })
    };
    (0..ENDPOINTS).map(endpoint).collect()
}

fn ports(port: u16) -> Value {
    json!([{ "name": "http", "port": port }])
}

impl Backend for Bed {
    fn section(&self) -> String {
        format!(
            "[[registry]]\nkind = \"kubernetes\"\nkubeconfig = {:?}\nallow_loopback = true\nmesh_port = 15008\n\
             identity = \"ns/{{namespace}}/sa/{{service}}\"\n\
             [[registry.service]]\nname = \"probe.default\"\ntls = \"off\"\n",
            self.kubeconfig
        )
    }

    fn fill(&self, services: usize) -> anyhow::Result<()> {
        each(services, |service| {
            self.create(
                &format!("s{service}"),
                json!({ "ports": ports(8080), "endpoints": endpoints(service, 0) }),
            )
        })
    }

    fn prepare(&self, applications: &Applications, _changes: usize) -> anyhow::Result<()> {
        let address = applications.addresses[1];
        let endpoint = json!({ "addresses": [address.ip()], "conditions": { "ready": true } });
        self.create("probe", json!({ "ports": ports(address.port()), "endpoints": [endpoint] }))
    }

    fn change(&self, applications: &Applications, number: usize) -> anyhow::Result<(String, Sign)> {
        let port = applications.addresses[number % 2].port();
        self.write("PATCH", &format!("{SLICES}/probe-1"), &json!({ "ports": ports(port) }))?;
        Ok(("probe.default".into(), Sign::Answers(port)))
    }

    fn roll(&self, services: usize) -> anyhow::Result<()> {
        let step = if services > MANY { ENDPOINTS } else { 1 };
        for replaced in (step..=ENDPOINTS).step_by(step) {
            each(services, |service| {
                let patch = json!({ "endpoints": endpoints(service, replaced) });
                self.write("PATCH", &format!("{SLICES}/s{service}-1"), &patch)
            })?;
        }
        Ok(())
    }

    fn traffic(&self) -> anyhow::Result<Traffic> {
        let counts = self.gate.counts();
        let requests = fs::read_to_string(&self.audit_log).unwrap_or_default().lines().count();
        Ok(Traffic { requests: requests as u64, bytes: counts.to_server + counts.from_server })
    }
}
