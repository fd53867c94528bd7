//! The example of Kubernetes, whose pods no kubelet runs here: the API server takes every object of the page, its controllers
//! make the pods, and what their containers would run is run as processes, from the texts that the cluster holds.

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use weft_agent::announcer::own_address;
use weft_testbed::{Kind, Kubernetes, KubernetesOptions, installed, required};

use crate::{
    reader::commands,
    support::{Application, Process, Sandbox, address, client, sandbox::WEFT, until, until_within},
};

/// The node that the pod of `web` is on.
const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: node-1}}";
/// How long controllers and hubs may take to see what is new.
const SEEN: Duration = Duration::from_secs(60);

/// Where what the files name is here.
struct Places {
    hub: SocketAddr,
    hub_admin: SocketAddr,
    web: SocketAddr,
    web_mesh: SocketAddr,
    web_admin: SocketAddr,
    shop: SocketAddr,
    shop_admin: SocketAddr,
}

impl Places {
    fn new(web: SocketAddr) -> Self {
        let [hub, hub_admin, web_mesh, web_admin, shop, shop_admin] = std::array::from_fn(|_| address());
        Self { hub, hub_admin, web, web_mesh, web_admin, shop, shop_admin }
    }

    /// A file with the ports of this machine.
    fn ported(&self, file: &str, text: &str) -> String {
        let admin = if file.ends_with("shop.yaml") { self.shop_admin } else { self.web_admin };
        let ports = [
            ("15012", self.hub),
            ("15022", self.hub_admin),
            ("8080", self.web),
            ("15008", self.web_mesh),
            ("15001", self.shop),
            ("15020", admin),
        ];
        let replace = |text: String, (written, ours): &(&str, SocketAddr)| {
            text.replace(written, &ours.port().to_string())
        };
        ports.iter().fold(text.to_owned(), replace)
    }
}

struct World {
    kubernetes: Kubernetes,
    sandbox: Sandbox,
    places: Places,
}

impl World {
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubernetes.kubectl(arguments, "").unwrap()
    }

    fn object(&self, kind: &str, namespace: &str, name: &str) -> Value {
        let text = self.kubectl(&["get", kind, name, "-n", namespace, "-o", "json"]);
        serde_json::from_str(&text).unwrap()
    }

    /// Applies the files that the page names, in its order; the server refuses none of them.
    fn apply(&self) {
        let commands = commands("kubernetes");
        let files: Vec<&str> = commands.split_whitespace().filter(|word| word.ends_with(".yaml")).collect();
        assert!(files.len() >= 7, "{files:?}");
        for file in files {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
            let text = fs::read_to_string(path).unwrap();
            self.kubernetes.apply(&self.places.ported(file, &text)).unwrap();
        }
    }

    /// What a container has at a mount, and a hub at its name, is below a folder of the pod's own here.
    fn here(&self, pod: &str, text: &str) -> String {
        let root = self.sandbox.path(pod);
        let below = |name: &str| root.join(name).display().to_string();
        text.replace("/var/lib/weft", &below("lib"))
            .replace("/run/weft", &below("run"))
            .replace("/tokens", &below("tokens"))
            .replace("weft-hub.weft-system", "127.0.0.1")
    }

    /// Writes the file of a ConfigMap as the pod would find it, and says where; `weft check` finds no error in it.
    fn config(&self, pod: &str, namespace: &str, map: &str, file: &str) -> String {
        let object = self.object("configmap", namespace, map);
        let text = self.here(pod, object["data"][file].as_str().unwrap());
        let path = self.sandbox.write(&format!("{pod}/{file}"), &text);
        let path = path.to_str().unwrap().to_owned();
        self.sandbox.ok(&["check", &path]);
        path
    }

    /// Runs the first of the init containers that a StatefulSet's pods have.
    fn initialise(&self, pod: &str, namespace: &str, set: &str) {
        let object = self.object("statefulset", namespace, set);
        let container = &object["spec"]["template"]["spec"]["initContainers"][0];
        let words = container["command"].as_array().unwrap().iter();
        let words: Vec<String> = words.map(|word| self.here(pod, word.as_str().unwrap())).collect();
        fs::create_dir_all(self.sandbox.path(&format!("{pod}/lib"))).unwrap();
        let folder = Path::new(WEFT).parent().unwrap().to_str().unwrap();
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("PATH", path).env("HOSTNAME", pod);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The hub, as its pod would run it: with the rights of its service account.
    fn hub(&self) -> Process {
        let token = self.kubectl(&["create", "token", "weft", "-n", "weft-system", "--duration=1h"]);
        let kubeconfig = self.kubernetes.kubeconfig_with_token("weft", token.trim()).unwrap();
        let config = self.config("weft-hub-0", "weft-system", "weft-hub", "hub.toml");
        self.initialise("weft-hub-0", "weft-system", "weft-hub");
        let mut look = self.sandbox.weft(&["check", "--registry", "-o", "json", &config]);
        let output = look.env("KUBECONFIG", &kubeconfig).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let looked = &report["registries"][0];
        assert_eq!((&looked["error"], &looked["complete"]), (&Value::Null, &json!(true)), "{report}");
        let rights = looked["rights"].as_array().unwrap();
        assert!(!rights.is_empty() && rights.iter().all(|right| right["given"] == true), "{report}");
        let mut command = self.sandbox.weft(&["hub", "--config", &config]);
        command.env("KUBECONFIG", kubeconfig);
        Process::spawn("hub", self.sandbox.path("hub.log"), command)
    }

    /// A pod's token, by way of the secret that the page has made for it, and its agent.
    fn agent(&self, name: &str) -> Process {
        let (pod, identity) = (format!("{name}-0"), format!("spiffe://example.mesh/ns/default/sa/{name}"));
        let state = self.here("weft-hub-0", "/var/lib/weft/hub");
        let token = self.sandbox.ok(&[
            "ca",
            "token",
            "create",
            "--state-dir",
            &state,
            "--node",
            &pod,
            "--identity",
            &identity,
        ]);
        let secret = format!("{name}-tokens");
        let from = format!("--from-file={pod}=/dev/stdin");
        self.kubernetes.kubectl(&["create", "secret", "generic", &secret, &from], &token).unwrap();
        assert!(self.object("secret", "default", &secret)["data"][&pod].is_string());
        self.sandbox.write(&format!("{pod}/tokens/{pod}"), &token);
        let config = self.config(&pod, "default", &format!("{name}-weft"), "weft.toml");
        self.initialise(&pod, "default", name);
        self.sandbox.spawn(name, &["agent", "--config", &config])
    }

    /// Does for the pod of `web`, which the controllers made, what a scheduler and a kubelet would.
    fn run_web(&self) {
        until_within(SEEN, "the pod is made", || {
            self.kubernetes.kubectl(&["get", "pod", "web-0"], "").ok().map(drop)
        });
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "web-0" },
            "target": { "apiVersion": "v1", "kind": "Node", "name": "node-1" },
        });
        let path = "/api/v1/namespaces/default/pods/web-0/binding";
        self.kubernetes.kubectl(&["create", "--raw", path, "-f", "-"], &binding.to_string()).unwrap();
        let address = own_address().expect("a route to somewhere");
        let status = json!({ "status": {
            "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        }});
        self.kubernetes.patch_pod_status("web-0", &status.to_string()).unwrap();
    }

    /// The hub has written into the cluster that this object counts.
    fn counts(&self, kind: &str) {
        until_within(SEEN, &format!("the {kind} is accepted"), || {
            let object = self.object(kind, "default", "web");
            let mut conditions = object["status"]["conditions"].as_array()?.iter();
            conditions.any(|it| it["type"] == "Accepted" && it["status"] == "True").then_some(())
        });
    }
}

#[test]
fn the_example_of_kubernetes_works() {
    let Some(home) = required(installed(Kind::Kubernetes)) else { return };
    let kubernetes = Kubernetes::start(&home, KubernetesOptions::default()).unwrap();
    kubernetes.apply(NODE).unwrap();
    kubernetes.kubectl(&["create", "namespace", "weft-system"], "").unwrap();
    let application = Application::start("web");
    let world = World { kubernetes, sandbox: Sandbox::new(), places: Places::new(application.address) };
    world.apply();
    let _hub = world.hub();
    let _agents = ["web", "shop"].map(|name| world.agent(name));
    world.run_web();
    world.counts("meshroute");
    world.counts("meshpolicy");
    let host = "web.default.svc.cluster.local";
    until_within(SEEN, "the call is answered", || {
        let answer = client::get(world.places.shop, host, "/").ok()?;
        (answer.status == 200).then_some(())
    });
    assert!(application.requests() > 0);
    let counted = [
        "reporter=\"destination\"",
        "source_principal=\"spiffe://example.mesh/ns/default/sa/shop\"",
        "destination_principal=\"spiffe://example.mesh/ns/default/sa/web\"",
        "connection_security_policy=\"mutual_tls\"",
    ];
    until("the call is counted", || {
        let metrics = client::get(world.places.web_admin, "localhost", "/metrics").ok()?.body;
        let is_it = |line: &str| counted.iter().all(|part| line.contains(part));
        metrics.lines().any(is_it).then_some(())
    });
}
