//! A real control plane, and what a test says to it.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use weft_core::{config::SourceFile, identity::TrustDomain, registry::Registry};
use weft_registries::{Environment, Plan};
use weft_testbed::{Home, Kind, Kubernetes, KubernetesOptions, installed, required};

/// How soon anything is seen.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// The programs, or nothing, said loudly.
pub(crate) fn home() -> Option<Home> {
    required(installed(Kind::Kubernetes))
}

/// With addresses of both families for services.
pub(crate) fn options() -> KubernetesOptions {
    let ranges = "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112".to_owned();
    KubernetesOptions { api_server: vec![ranges], ..KubernetesOptions::default() }
}

/// One control plane for all tests that break nothing; each writes to a namespace of its own.
pub(crate) fn shared() -> Option<&'static Kubernetes> {
    static SHARED: OnceLock<Option<Kubernetes>> = OnceLock::new();
    let start = || {
        let kubernetes = Kubernetes::start(&home()?, options()).unwrap();
        // The controllers make no endpoint of a pod whose node they do not know.
        node(&kubernetes);
        Some(kubernetes)
    };
    SHARED.get_or_init(start).as_ref()
}

/// A namespace, and a service account `app` in it, whose pods can be written.
pub(crate) fn namespace(kubernetes: &Kubernetes, name: &str) {
    kubernetes
        .apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n---\n\
             {{apiVersion: v1, kind: ServiceAccount, metadata: {{name: app, namespace: {name}}}}}\n"
        ))
        .unwrap();
}

/// Waits until these rights, in this order, are all that a registry lacks: the server learns of a binding in its own time.
pub(crate) async fn lacking(registry: &dyn Registry, expected: &[&str]) {
    let mut missing = Vec::new();
    let known = timeout(SOON, async {
        loop {
            let rights = registry.rights().await.unwrap();
            let lacks = rights.into_iter().filter(|right| right.given == Some(false));
            missing = lacks.map(|right| right.name).collect();
            if missing == expected {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    let is_known = known.await.is_ok();
    assert!(is_known, "{missing:?} are missing, and not {expected:?}");
}

/// Reads a section of a registry as from a file.
pub(crate) fn registry(section: &str) -> Arc<dyn Registry> {
    let source = SourceFile::new("weft.toml", format!("kind = \"kubernetes\"\n{section}"));
    let read = weft_core::config::read(&source, |section| Plan::read(section, ""));
    assert!(read.faults.is_empty(), "{:?}", read.faults);
    let plan = read.value.unwrap();
    let environment =
        Environment { trust_domain: Some(TrustDomain::new("test.mesh").unwrap()), ..Environment::default() };
    plan.build(&environment).unwrap()
}

/// The registry as the administrator.
pub(crate) fn by_admin(kubernetes: &Kubernetes, more: &str) -> Arc<dyn Registry> {
    by(&kubernetes.admin_kubeconfig(), more)
}

/// The registry as whom a kubeconfig says.
pub(crate) fn by(kubeconfig: &Path, more: &str) -> Arc<dyn Registry> {
    registry(&format!("kubeconfig = \"{}\"\n{more}", kubeconfig.display()))
}

/// A kubeconfig as another one, with another server.
pub(crate) fn through(kubernetes: &Kubernetes, kubeconfig: &Path, port: u16) -> PathBuf {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let text = text.replace(&kubernetes.url(), &format!("https://127.0.0.1:{port}"));
    kubernetes.scratch().write("through.kubeconfig", text).unwrap()
}

/// A pod as a test writes it.
pub(crate) struct Pod<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) app: &'a str,
    pub(crate) account: &'a str,
    pub(crate) addresses: &'a [&'a str],
    pub(crate) port: u16,
    pub(crate) mesh_port: Option<u16>,
}

impl Pod<'_> {
    /// Writes it, on the node `node-1`, and says that it is ready or not.
    pub(crate) fn write(&self, kubernetes: &Kubernetes, ready: bool) {
        let Self { namespace, name, app, account, port, mesh_port, .. } = self;
        let annotation = mesh_port.map(|port| format!("weft-mesh-port: \"{port}\"")).unwrap_or_default();
        kubernetes
            .apply(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
                 labels: {{app: {app}, version: v1}}\n  annotations: {{{annotation}}}\nspec:\n  \
                 nodeName: node-1\n  serviceAccountName: {account}\n  containers:\n  - {{name: app, image: none, \
                 ports: [{{name: http, containerPort: {port}}}]}}\n"
            ))
            .unwrap();
        self.report(kubernetes, ready);
    }

    /// Says, as its kubelet would, whether it is ready.
    pub(crate) fn report(&self, kubernetes: &Kubernetes, ready: bool) {
        let mut addresses = String::new();
        for address in self.addresses {
            let _written = write!(addresses, "{{\"ip\":\"{address}\"}},");
        }
        let addresses = addresses.trim_end_matches(',');
        let (first, ready) = (self.addresses[0], if ready { "True" } else { "False" });
        let patch = format!(
            "{{\"status\":{{\"phase\":\"Running\",\"podIP\":\"{first}\",\"podIPs\":[{addresses}],\
             \"conditions\":[{{\"type\":\"Ready\",\"status\":\"{ready}\"}}]}}}}"
        );
        let arguments = [
            "patch",
            "pod",
            self.name,
            "-n",
            self.namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ];
        kubernetes.kubectl(&arguments, "").unwrap();
    }

    /// Removes it at once, as its kubelet would in the end.
    pub(crate) fn end(&self, kubernetes: &Kubernetes) {
        let arguments = ["delete", "pod", self.name, "-n", self.namespace, "--force", "--grace-period=0"];
        kubernetes.kubectl(&arguments, "").unwrap();
    }
}

/// The node that pods are on.
fn node(kubernetes: &Kubernetes) {
    kubernetes
        .apply(
            "{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {topology.kubernetes.io/region: east, \
             topology.kubernetes.io/zone: east-1}}}",
        )
        .unwrap();
}
