//! What many services cost. Prints figures, so it is run by hand:
//! `cargo test -p weft-registries --test kubernetes scale -- --ignored --nocapture`, with `SERVICES` other than 1000.

use std::{
    env,
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use kube::{Config, config::Kubeconfig};
use tokio::task::block_in_place;
use weft_testbed::{Kubernetes, KubernetesOptions};

use crate::{
    cluster::{by_admin, home},
    follower::Follower,
};

const CHANGES: usize = 200;
const LONG: Duration = Duration::from_secs(120);

/// Resident memory of this process, in MB.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

fn fill(kubernetes: &Kubernetes, services: usize) {
    let mut objects = String::new();
    for service in 0..services {
        let _written = write!(
            objects,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: s{service}}}, spec: {{clusterIP: None, ports: [{{name: http, port: 80}}]}}}}\n\
             ---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
             metadata: {{name: s{service}-1, labels: {{kubernetes.io/service-name: s{service}}}, annotations: {{weft-mesh-port: \"15008\"}}}}, \
             ports: [{{name: http, port: 8080}}], endpoints: ["
        );
        for endpoint in 1..=10 {
            let (high, low) = (service / 250, service % 250);
            let _written = write!(
                objects,
                "{{addresses: [10.{}.{low}.{endpoint}], conditions: {{ready: true}}, nodeName: node-{endpoint}, zone: east-1}},",
                high + 1
            );
        }
        objects.push_str("]}\n");
        if service % 500 == 499 || service + 1 == services {
            kubernetes.kubectl(&["create", "--validate=false", "-f", "-"], &objects).unwrap();
            objects.clear();
        }
    }
}

#[ignore = "prints figures and asserts little"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_services() {
    let services: usize = env::var("SERVICES").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let options = KubernetesOptions { controllers: false, ..KubernetesOptions::default() };
    let Some(kubernetes) = block_in_place(|| Some(Kubernetes::start(&home()?, options).unwrap())) else {
        return;
    };
    block_in_place(|| fill(&kubernetes, services));
    // What a client of the API server costs before anything is seen.
    by_admin(&kubernetes, "").rights().await.unwrap();
    let before = resident();
    let began = Instant::now();
    let mut follower =
        Follower::new(by_admin(&kubernetes, "identity = \"ns/{namespace}/sa/{service}\""), None);
    let last = format!("s{}", services - 1);
    follower.until("everything", LONG, |view| view.count(&last) == 10).await.unwrap();
    let ready = began.elapsed();
    let grown = resident() - before;
    let kubeconfig = Kubeconfig::read_from(kubernetes.admin_kubeconfig()).unwrap();
    let client = kube::Client::try_from(Config::try_from(kubeconfig).unwrap()).unwrap();
    let mut latencies = Vec::new();
    for change in 0..CHANGES {
        let service = format!("s{}", change * 7 % services);
        let port = 9000 + change;
        let body = format!("{{\"ports\":[{{\"name\":\"http\",\"port\":{port}}}]}}");
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{service}-1");
        let request = http::Request::patch(path).header("content-type", "application/merge-patch+json");
        client.request_text(request.body(body.into_bytes()).unwrap()).await.unwrap();
        let accepted = Instant::now();
        let changed = |view: &crate::follower::View<'_>| {
            let endpoints = view.endpoints(&service).unwrap_or_default();
            endpoints.len() == 10
                && endpoints.iter().all(|it| usize::from(it.address.socket().port()) == port)
        };
        follower.until("the change", LONG, changed).await.unwrap();
        latencies.push(accepted.elapsed().as_secs_f64() * 1000.0);
    }
    latencies.sort_by(f64::total_cmp);
    println!(
        "{services} services x 10: ready {:.2} s, memory +{grown:.1} MB (first list) +{:.1} MB (after {CHANGES} changes), \
         change p50 {:.1} ms, p99 {:.1} ms",
        ready.as_secs_f64(),
        resident() - before,
        latencies[CHANGES / 2],
        latencies[CHANGES * 99 / 100],
    );
}
