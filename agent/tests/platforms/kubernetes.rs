//! Kubernetes with a role that may only read. An instance is a pod without a kubelet; its process is an application of the
//! test's own. The API server takes no loopback addresses, so that pods are at another address of this machine.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use weft_agent::announcer::own_address;
use weft_testbed::{Gate, Kind, Kubernetes, KubernetesOptions, installed, required};

use crate::{
    outage::{self, CONVERGED, load, nothing_failed},
    platform::{self, Instance, Platform, SERVICE},
    support::until_within,
};

/// The node that the pods are on: the controllers make no endpoint of a pod whose node they do not know.
const NODE: &str = "node-1";
const ACCOUNT: &str = "weft";

struct World {
    kubernetes: Kubernetes,
    gate: Gate,
    kubeconfig: PathBuf,
    address: IpAddr,
}

fn role() -> String {
    let file = format!("{}/../deploy/kubernetes/read-cluster.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(file).unwrap();
    text.split("\n---\n").find(|it| it.contains("\nkind: ClusterRole\n")).unwrap().to_owned()
}

fn world() -> Option<World> {
    let home = required(installed(Kind::Kubernetes))?;
    let kubernetes = Kubernetes::start(&home, KubernetesOptions::default()).unwrap();
    let gate = Gate::before(&kubernetes.url()).unwrap();
    let object =
        |kind: &str, name: &str| json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name } });
    let mut service = object("Service", SERVICE);
    let port = json!({ "name": "http", "port": 80, "targetPort": "http", "appProtocol": "http" });
    service["spec"] = json!({ "selector": { "app": SERVICE }, "ports": [port] });
    let items = [object("Node", NODE), object("ServiceAccount", SERVICE), service];
    kubernetes.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()).unwrap();
    kubernetes.kubeconfig_for(ACCOUNT, "weft-read-cluster", &role()).unwrap();
    let address = own_address().expect("a route to somewhere");
    let kubeconfig = kubernetes.scratch().path().join("gate.kubeconfig");
    let world = World { kubernetes, gate, kubeconfig, address };
    world.restore();
    Some(world)
}

impl Platform for World {
    fn host_address(&self) -> IpAddr {
        self.address
    }

    fn section(&self) -> String {
        format!("[[registry]]\nkind = \"kubernetes\"\nkubeconfig = {:?}\n", self.kubeconfig)
    }

    fn announce(&self, instance: &Instance) {
        let port = json!({ "name": "http", "containerPort": instance.application.port() });
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": instance.name,
                "labels": { "app": SERVICE },
                "annotations": { "weft-mesh-port": instance.mesh_port.to_string() },
            },
            "spec": {
                "nodeName": NODE,
                "serviceAccountName": SERVICE,
                "containers": [{ "name": SERVICE, "image": "none", "ports": [port] }],
            },
        });
        self.kubernetes.apply(&pod.to_string()).unwrap();
        let status = json!({ "status": {
            "phase": "Running",
            "podIP": self.address,
            "podIPs": [{ "ip": self.address }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        }});
        self.kubernetes.patch_pod_status(&instance.name, &status.to_string()).unwrap();
        // The controllers, which were away with the API server, make the endpoint of it.
        until_within(Duration::from_secs(60), "Kubernetes has the endpoint", || {
            let arguments = ["get", "endpointslices", "-o", "json"];
            let slices: Value = serde_json::from_str(&self.kubernetes.kubectl(&arguments, "").ok()?).ok()?;
            let mut endpoints =
                slices["items"].as_array()?.iter().filter_map(|it| it["endpoints"].as_array()).flatten();
            let is_ready =
                |it: &Value| it["targetRef"]["name"] == *instance.name && it["conditions"]["ready"] == true;
            endpoints.any(is_ready).then_some(())
        });
    }

    fn withdraw(&self, instance: &Instance) {
        let delete = ["delete", "pod", &instance.name, "--force", "--grace-period=0"];
        self.kubernetes.kubectl(&delete, "").unwrap();
    }

    fn kill(&self) {
        self.kubernetes.kill_api_server();
    }

    fn restart(&self) {
        self.kubernetes.restart_api_server().unwrap();
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn revoke(&self) -> bool {
        self.kubernetes.kubectl(&["delete", "serviceaccount", ACCOUNT], "").unwrap();
        true
    }

    fn restore(&self) {
        let kubeconfig = self.kubernetes.kubeconfig_for(ACCOUNT, "weft-read-cluster", &role()).unwrap();
        let text = fs::read_to_string(kubeconfig).unwrap();
        let through = format!("https://127.0.0.1:{}", self.gate.address().port());
        fs::write(&self.kubeconfig, text.replace(&self.kubernetes.url(), &through)).unwrap();
    }
}

#[test]
fn calls_reach_what_kubernetes_announces() {
    let Some(world) = world() else { return };
    outage::calls_reach_what_is_announced(world, "kubernetes");
}

#[test]
#[ignore = "three minutes: just outages"]
fn an_outage_of_kubernetes_costs_no_call() {
    let Some(world) = world() else { return };
    outage::an_outage_costs_no_call(world);
}

#[test]
fn a_revoked_token_of_kubernetes_costs_no_call() {
    let Some(world) = world() else { return };
    outage::a_revoked_token_costs_no_call(world);
}

#[test]
fn an_agent_starts_while_kubernetes_is_away() {
    let Some(world) = world() else { return };
    outage::an_agent_starts_without_the_server(world);
}

#[test]
fn a_kubernetes_that_comes_and_goes_costs_no_call() {
    let Some(world) = world() else { return };
    outage::a_server_that_comes_and_goes_costs_no_call(world);
}

/// Without its store the API server is there and knows nothing new.
#[test]
fn without_its_store_kubernetes_costs_no_call() {
    let Some(world) = world() else { return };
    let mut world = platform::World::new(world, 2);
    let load = load(&world);
    let before = world.warnings();
    world.platform.kubernetes.kill_etcd();
    until_within(Duration::from_secs(60), "it is noticed", || {
        (world.registry()["state"] != "connected").then_some(())
    });
    outage::lasts(Duration::from_secs(10));
    assert_eq!(world.eligible(), 2, "endpoints went with the store");
    world.platform.kubernetes.restart_etcd().unwrap();
    world.is("connected");
    world.platform.announce(&world.instances[2]);
    world.sees(3);
    // What it refuses after its return, because it has not read all of its store yet, is noticed as another outage.
    let warnings = world.warnings() - before;
    assert!((1..=2).contains(&warnings), "{warnings} warnings of one outage");
    nothing_failed(load);
}

/// An old copy of the store takes all versions back: what it does not have is gone as soon as the server says so, and what
/// changes after it is seen.
#[test]
fn an_old_backup_of_kubernetes_costs_no_call() {
    let Some(world) = world() else { return };
    let world = platform::World::new(world, 2);
    let copy = world.platform.kubernetes.copy_etcd("backup").unwrap();
    world.is("connected");
    world.platform.announce(&world.instances[2]);
    world.sees(3);
    let load = load(&world);
    world.platform.kubernetes.restore_etcd(&copy).unwrap();
    let back = std::time::Instant::now();
    world.sees(2);
    assert!(back.elapsed() < CONVERGED, "what the backup lacks was called for {:?}", back.elapsed());
    world.platform.withdraw(&world.instances[0]);
    world.sees(1);
    world.platform.announce(&world.instances[2]);
    world.sees(2);
    nothing_failed(load);
}
