//! Kubernetes: the controllers make endpoints; the API server and etcd die and come back; rights are real.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use weft_testbed::{Kind, Kubernetes, KubernetesOptions, installed, required, until};

const SOON: Duration = Duration::from_secs(60);
const READS_SERVICES: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [services], verbs: [get, list, watch]}]
"#;

fn start(options: KubernetesOptions) -> Option<Kubernetes> {
    let home = required(installed(Kind::Kubernetes))?;
    let begin = Instant::now();
    let kubernetes = Kubernetes::start(&home, options).unwrap();
    eprintln!("Kubernetes is ready after {} ms", begin.elapsed().as_millis());
    Some(kubernetes)
}

fn addresses(kubernetes: &Kubernetes, service: &str) -> String {
    let label = format!("kubernetes.io/service-name={service}");
    let path = "jsonpath={.items[*].endpoints[*].addresses[*]}";
    kubernetes.kubectl(&["get", "endpointslices", "-l", &label, "-o", path], "").unwrap_or_default()
}

#[test]
fn controllers_make_endpoints_and_everything_outlives_kills() {
    let Some(kubernetes) = start(KubernetesOptions::default()) else { return };
    kubernetes.apply(Kubernetes::WEB_OBJECTS).unwrap();
    assert_eq!(addresses(&kubernetes, "orders"), "10.50.2.7");
    kubernetes.patch_pod_status("web-1", Kubernetes::WEB_STATUS).unwrap();
    until("web has its pod", SOON, || addresses(&kubernetes, "web") == "10.50.1.7").unwrap();
    kubernetes.kill_api_server();
    assert!(kubernetes.kubectl(&["get", "--raw", "/readyz"], "").is_err());
    let begin = Instant::now();
    kubernetes.restart_api_server().unwrap();
    eprintln!("the API server is ready again after {} ms", begin.elapsed().as_millis());
    kubernetes.kill_etcd();
    let begin = Instant::now();
    kubernetes.restart_etcd().unwrap();
    eprintln!("it is ready {} ms after etcd", begin.elapsed().as_millis());
    until("web is as it was", SOON, || addresses(&kubernetes, "web") == "10.50.1.7").unwrap();
    until("it is deleted", SOON, || kubernetes.delete(Kubernetes::WEB_OBJECTS).is_ok()).unwrap();
    until("web is gone", SOON, || addresses(&kubernetes, "web").is_empty()).unwrap();
    let folder = kubernetes.scratch().path().to_owned();
    drop(kubernetes);
    assert!(!folder.exists());
}

#[test]
fn a_service_account_may_do_what_its_role_says() {
    let Some(kubernetes) = start(KubernetesOptions::default()) else { return };
    let reader = kubernetes.kubeconfig_for("reader", "reader", READS_SERVICES).unwrap();
    // The server learns of a binding in its own time.
    until("the right holds", SOON, || {
        let services = kubernetes.kubectl_as(&reader, &["get", "services"], "");
        services.is_ok_and(|listed| listed.contains("kubernetes"))
    })
    .unwrap();
    let error = kubernetes.kubectl_as(&reader, &["get", "pods"], "").unwrap_err();
    assert!(error.to_string().contains("cannot list resource \"pods\""), "{error}");
    kubernetes.kubeconfig_for("reader", "reader", &READS_SERVICES.replace("services", "pods")).unwrap();
    until("the rights change", SOON, || kubernetes.kubectl_as(&reader, &["get", "pods"], "").is_ok())
        .unwrap();
}

#[test]
fn an_old_copy_of_etcd_takes_everything_back() {
    let options = KubernetesOptions { controllers: false, ..KubernetesOptions::default() };
    let Some(kubernetes) = start(options) else { return };
    let copy = kubernetes.copy_etcd("backup").unwrap();
    let late = "{apiVersion: v1, kind: Service, metadata: {name: late}, spec: {ports: [{port: 80}]}}";
    until("it is written", SOON, || kubernetes.apply(late).is_ok()).unwrap();
    kubernetes.restore_etcd(&copy).unwrap();
    until("it is not there", SOON, || {
        let listed = kubernetes.kubectl(&["get", "service", "late"], "");
        listed.is_err_and(|error| error.to_string().contains("NotFound"))
    })
    .unwrap();
}
