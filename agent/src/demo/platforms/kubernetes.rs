//! Kubernetes: an instance is a pod behind a service; its service account is whom it is in the mesh. There is no kubelet: the
//! pod is an object, and its process is one of ours.

use serde_json::json;
use weft_testbed::{Home, Kubernetes, KubernetesOptions};

use super::{application::Instance, server::Server};

/// The node that the pods are on: the controllers make no endpoint of a pod whose node they do not know.
const NODE: &str = "node-1";

pub(super) fn start(home: &Home) -> anyhow::Result<Kubernetes> {
    Ok(Kubernetes::start(home, KubernetesOptions::default())?)
}

impl Server for Kubernetes {
    fn address(&self) -> String {
        self.url()
    }

    fn section(&self) -> String {
        format!("[[registry]]\nkind = \"kubernetes\"\nkubeconfig = {:?}\n\n", self.admin_kubeconfig())
    }

    fn announce(&self, instance: &Instance) -> anyhow::Result<()> {
        let (name, port) = (instance.sample.name, instance.sample.listen.port());
        let object = |kind: &str, name: &str| json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name } });
        let mut pod = object("Pod", &instance.name());
        pod["metadata"]["labels"] = json!({ "app": name });
        pod["metadata"]["annotations"] = json!({ "weft-mesh-port": instance.mesh.port().to_string() });
        let container = json!({ "name": name, "image": "none", "ports": [{ "containerPort": port }] });
        pod["spec"] = json!({ "nodeName": NODE, "serviceAccountName": name, "containers": [container] });
        let mut service = object("Service", name);
        let service_port = json!({ "name": "http", "port": 80, "targetPort": port, "appProtocol": "http" });
        service["spec"] = json!({ "selector": { "app": name }, "ports": [service_port] });
        let items = [object("Node", NODE), object("ServiceAccount", name), service, pod];
        self.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string())?;
        let address = instance.mesh.ip();
        let status = json!({ "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        }});
        Ok(self.patch_pod_status(&instance.name(), &status.to_string())?)
    }

    fn kill(&self) {
        self.kill_api_server();
    }

    fn pid(&self) -> Option<u32> {
        self.api_server().pid()
    }
}
