//! Kubernetes, with its controllers: pods as their kubelet would report them, each with the service account of its service.

use std::{fmt::Write as _, sync::Arc};

use weft_core::{
    config::{SourceFile, read},
    identity::TrustDomain,
    name::RegistryName,
    registry::Registry,
};
use weft_registries::Environment;
use weft_testbed::{Kind, Kubernetes, KubernetesOptions, installed, required};

use crate::bed::Bed;

const CRDS: &str = include_str!("../../../../deploy/kubernetes/crds.yaml");
const READ_CLUSTER: &str = include_str!("../../../../deploy/kubernetes/read-cluster.yaml");
const CONFIGURATION: &str = include_str!("../../../../deploy/kubernetes/configuration.yaml");

pub(super) fn open() -> Option<Box<dyn Bed>> {
    let home = required(installed(Kind::Kubernetes))?;
    let kubernetes = Kubernetes::start(&home, KubernetesOptions::default()).unwrap();
    kubernetes.apply("{apiVersion: v1, kind: Node, metadata: {name: node-1}}").unwrap();
    kubernetes.apply(CRDS).unwrap();
    // The accounts of tests are in the namespace `default`.
    let rights = format!("{READ_CLUSTER}\n---\n{CONFIGURATION}").replace("weft-system", "default");
    kubernetes.kubeconfig_for("weft", "weft-read-cluster", &rights).unwrap();
    Some(Box::new(Cluster { kubernetes }))
}

struct Cluster {
    kubernetes: Kubernetes,
}

impl Cluster {
    fn pods(&self, service: &str) -> Vec<String> {
        let arguments = ["get", "pods", "-l", &format!("app={service}"), "-o", "name"];
        let listed = self.kubernetes.kubectl(&arguments, "").unwrap();
        listed.lines().map(|line| line.trim_start_matches("pod/").to_owned()).collect()
    }

    fn report(&self, pod: &str, address: &str, ready: &str) {
        let patch = format!(
            "{{\"status\":{{\"phase\":\"Running\",\"podIP\":\"{address}\",\"podIPs\":[{{\"ip\":\"{address}\"}}],\
             \"conditions\":[{{\"type\":\"Ready\",\"status\":\"{ready}\"}}]}}}}"
        );
        self.kubernetes.patch_pod_status(pod, &patch).unwrap();
    }

    /// Addresses differ by service too, as those of pods do.
    fn address(service: &str, number: usize) -> String {
        let third = service.bytes().fold(0_u8, u8::wrapping_add);
        format!("10.50.{third}.{number}")
    }
}

impl Bed for Cluster {
    fn registry(&self) -> Arc<dyn Registry> {
        let kubeconfig = self.kubernetes.scratch().path().join("weft.kubeconfig");
        let source =
            SourceFile::new("weft.toml", format!("kubeconfig = {kubeconfig:?}\nconfiguration = true\n"));
        let settings = read(&source, |section| weft_registries::kubernetes::read(section));
        let settings = settings.value.unwrap_or_else(|| panic!("{:?}", settings.faults));
        let trust_domain = Some(TrustDomain::new("test.mesh").unwrap());
        let environment = Environment { trust_domain, ..Environment::default() };
        settings.build(&RegistryName::new("kubernetes").unwrap(), &environment).unwrap()
    }

    fn scale(&mut self, service: &str, instances: usize) {
        let there = self.pods(service);
        if instances == 0 {
            self.kubernetes.kubectl(&["delete", "service", service], "").unwrap();
        } else if there.is_empty() {
            let objects = format!(
                "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {service}}}}}\n---\n\
                 {{apiVersion: v1, kind: Service, metadata: {{name: {service}}}, \
                 spec: {{selector: {{app: {service}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}}}"
            );
            self.kubernetes.apply(&objects).unwrap();
        }
        let wanted: Vec<String> = (1..=instances).map(|number| format!("{service}-{number}")).collect();
        let mut objects = String::new();
        for name in wanted.iter().filter(|name| !there.contains(name)) {
            let _written = write!(
                objects,
                "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {service}}}, \
                 annotations: {{weft-mesh-port: \"15008\"}}}}, spec: {{nodeName: node-1, \
                 serviceAccountName: {service}, containers: [{{name: app, image: none}}]}}}}\n"
            );
        }
        if !objects.is_empty() {
            self.kubernetes.apply(&objects).unwrap();
        }
        for (number, name) in (1..).zip(&wanted).filter(|(_, name)| !there.contains(name)) {
            self.report(name, &Self::address(service, number), "True");
        }
        for name in there.iter().filter(|name| !wanted.contains(name)) {
            self.kubernetes.kubectl(&["delete", "pod", name, "--force", "--grace-period=0"], "").unwrap();
        }
    }

    fn ail(&mut self, service: &str, ails: bool) {
        let ready = if ails { "False" } else { "True" };
        self.report(&format!("{service}-1"), &Self::address(service, 1), ready);
    }

    fn route(&mut self, service: &str) {
        let route = format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: MeshRoute, metadata: {{name: by-header}}, \
             spec: {{service: {service}, rules: [{{name: all}}]}}}}"
        );
        self.kubernetes.apply(&route).unwrap();
    }

    fn kill(&mut self) {
        self.kubernetes.kill_api_server();
    }

    fn restart(&mut self) {
        self.kubernetes.restart_api_server().unwrap();
    }
}
