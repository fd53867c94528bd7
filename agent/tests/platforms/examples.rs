//! The examples' own files, as a user copies them, against the real servers: `weft check --registry` sees the service of
//! the example, as usable, with every right given.

use std::{fs, process::Command};

use serde_json::{Value, json};
use weft_testbed::{
    Consul, ConsulOptions, Kind, Knot, Kubernetes, KubernetesOptions, Nomad, NomadOptions, installed,
    required,
};

use crate::support::{Sandbox, until};

fn copied(name: &str) -> String {
    fs::read_to_string(format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What the check says of the one registry of a file, once it sees an endpoint that can be called.
fn looked(sandbox: &Sandbox, file: &str, text: &str) -> Value {
    sandbox.write(file, text);
    until(&format!("{file} shows an endpoint"), || {
        let output = sandbox.run(&["check", "--registry", "-o", "json", file]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let looked = report["registries"][0].clone();
        (looked["usable"].as_u64()? > 0).then(|| {
            assert!(output.status.success(), "{report}");
            looked
        })
    })
}

fn is_well(looked: &Value) {
    assert_eq!((&looked["error"], &looked["complete"]), (&Value::Null, &json!(true)), "{looked}");
    let rights = looked["rights"].as_array().unwrap();
    assert!(!rights.is_empty() && rights.iter().all(|right| right["given"] == true), "{looked}");
    assert_eq!(looked["usable"], 1, "{looked}");
}

#[test]
fn the_example_of_consul_works() {
    let Some(home) = required(installed(Kind::Consul)) else { return };
    let consul = Consul::start(&home, ConsulOptions { acl: true, ..ConsulOptions::default() }).unwrap();
    let token = consul.create_token(&copied("consul/policy.hcl")).unwrap();
    let sandbox = Sandbox::new();
    let readme = copied("README.md");
    let line = readme.split('`').find(|text| text.starts_with("curl ")).unwrap();
    let line = line.replace("http://127.0.0.1:8500", &consul.url());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/consul");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).current_dir(folder).env("CONSUL_HTTP_TOKEN", consul.token().unwrap());
    assert!(shell.status().unwrap().success(), "{line}");
    let token = sandbox.write("consul.token", &token.secret);
    let text = copied("consul/weft.toml").replace("http://127.0.0.1:8500", &consul.url());
    is_well(&looked(&sandbox, "weft.toml", &text.replace("/etc/weft/consul.token", token.to_str().unwrap())));
}

#[test]
fn the_example_of_nomad_works() {
    let Some(home) = required(installed(Kind::Nomad)) else { return };
    let nomad = Nomad::start(&home, NomadOptions { acl: true, ..NomadOptions::default() }).unwrap();
    nomad.nomad(&["acl", "policy", "apply", "weft", "-"], &copied("nomad/policy.hcl")).unwrap();
    let created = nomad.nomad(&["acl", "token", "create", "-json", "-policy=weft"], "").unwrap();
    let created: Value = serde_json::from_str(&created).unwrap();
    nomad.run_job(&copied("nomad/web.nomad.hcl"), &[]).unwrap();
    let sandbox = Sandbox::new();
    let token = sandbox.write("nomad.token", created["SecretID"].as_str().unwrap());
    let text = copied("nomad/weft.toml").replace("http://127.0.0.1:4646", &nomad.url());
    let text = text.replace("/etc/weft/nomad.token", token.to_str().unwrap());
    // All of it runs on this machine.
    is_well(&looked(&sandbox, "weft.toml", &format!("{text}allow_loopback = true\n")));
}

#[test]
fn the_example_of_kubernetes_works() {
    let Some(home) = required(installed(Kind::Kubernetes)) else { return };
    let kubernetes = Kubernetes::start(&home, KubernetesOptions::default()).unwrap();
    let shipped = |name: &str| {
        fs::read_to_string(format!("{}/../deploy/kubernetes/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    kubernetes.apply(&shipped("crds.yaml")).unwrap();
    let rights = ["read-cluster.yaml", "configuration.yaml"].map(|name| {
        // The accounts of these tests are in the namespace `default`.
        shipped(name).replace("namespace: weft-system", "namespace: default")
    });
    let kubeconfig = kubernetes.kubeconfig_for("weft", "weft-read-cluster", &rights.join("\n---\n")).unwrap();
    kubernetes.apply("{apiVersion: v1, kind: Node, metadata: {name: node-1}}").unwrap();
    kubernetes.apply(&copied("kubernetes/web.yaml")).unwrap();
    kubernetes.apply(&copied("kubernetes/routes.yaml")).unwrap();
    let status = json!({ "status": {
        "phase": "Running", "podIP": "10.50.1.7", "podIPs": [{ "ip": "10.50.1.7" }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    }});
    kubernetes.patch_pod_status("web-1", &status.to_string()).unwrap();
    let sandbox = Sandbox::new();
    let text = copied("kubernetes/hub.toml").replace("/etc/weft/kubeconfig", kubeconfig.to_str().unwrap());
    is_well(&looked(&sandbox, "hub.toml", &text));
}

#[test]
fn the_example_of_dns_works() {
    let Some(home) = required(installed(Kind::Knot)) else { return };
    let records = "web A 10.50.1.7\nweb A 10.50.1.8\n_postgresql._tcp SRV 1 1 5432 db\ndb A 10.50.1.9";
    let knot = Knot::start(&home, records).unwrap();
    let sandbox = Sandbox::new();
    let text = copied("dns/weft.toml").replace("10.0.0.2\"", &format!("{}\"", knot.address()));
    let looked = looked(&sandbox, "weft.toml", &text.replace("example.com", "test"));
    assert_eq!((&looked["error"], &looked["complete"]), (&Value::Null, &json!(true)), "{looked}");
    assert_eq!((&looked["services"], &looked["usable"]), (&json!(2), &json!(3)), "{looked}");
}
