//! Objects of Kubernetes. Its API server's etcd elects nobody here: what dies is the API server.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use serde_json::{Value, json};
use weft_agent::hub::{
    records::{Records, TokenRecord},
    store::{Expected, Put, StoreError, Told},
};
use weft_testbed::{Kind, Kubernetes, KubernetesOptions, installed, required};

use crate::{
    announced, contract,
    outage::{self, Cluster},
    support::{Bed, DEADLINE, blocking, client},
};

/// A lease, and how soon its end is noticed.
const LEASE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(30));
/// What a hub may do, as shipped.
const ROLE: &str = include_str!("../../../deploy/kubernetes/hub-store.yaml");

fn start() -> Option<Kubernetes> {
    let home = required(installed(Kind::Kubernetes))?;
    let options = KubernetesOptions { controllers: false, ..KubernetesOptions::default() };
    Some(blocking(|| {
        let kubernetes = Kubernetes::start(&home, options).unwrap();
        kubernetes.kubectl(&["create", "namespace", "weft-system"], "").unwrap();
        kubernetes
    }))
}

fn section(kubeconfig: &Path) -> String {
    format!("kind = \"kubernetes\"\nkubeconfig = {kubeconfig:?}\n")
}

/// Who has the shipped role, without one right where one is named.
fn hub(kubernetes: &Kubernetes, without: Option<&str>) -> String {
    let role = without.map_or_else(
        || ROLE.to_owned(),
        |right| {
            assert!(ROLE.contains(right), "{ROLE}");
            ROLE.replace(right, "")
        },
    );
    blocking(|| {
        let account =
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: weft-hub, namespace: weft-system}\n";
        kubernetes.apply(&format!("{role}---\n{account}")).unwrap();
        let arguments = ["-n", "weft-system", "create", "token", "weft-hub", "--duration=1h"];
        let token = kubernetes.kubectl(&arguments, "").unwrap();
        section(&kubernetes.kubeconfig_with_token("hub", token.trim()).unwrap())
    })
}

impl Cluster for Kubernetes {
    fn kill_leader(&self) {
        self.kill_api_server();
        self.restart_api_server().unwrap();
    }

    fn heal(&self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_kubernetes_keep_to_the_contract_with_the_shipped_role() {
    let Some(kubernetes) = start() else { return };
    let section = hub(&kubernetes, None);
    contract::all(&Bed { stores: [client(&section), client(&section)], lease: LEASE }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_the_api_server_loses_no_accepted_write_and_gives_no_lease_twice() {
    let Some(kubernetes) = start() else { return };
    let section = section(&kubernetes.admin_kubeconfig());
    outage::leader_killed_under_load(&kubernetes, || client(&section), LEASE.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named() {
    let Some(kubernetes) = start() else { return };
    let store = client(&hub(&kubernetes, Some("create, ")));
    let refused = store.swap("a", Expected::Absent, Some(Put::durable("1"))).await.unwrap_err();
    let StoreError::Denied(why) = &refused else { panic!("{refused}") };
    assert!(why.contains("create configmaps in namespace weft-system"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_not_there_is_named_and_no_rival() {
    let Some(kubernetes) = start() else { return };
    let section = section(&kubernetes.admin_kubeconfig());
    let store = client(&format!("{section}namespace = \"nowhere\"\n"));
    for expected in [Expected::Absent, Expected::Any] {
        let refused = store.swap("a", expected, Some(Put::durable("1"))).await.unwrap_err();
        let StoreError::Failed(why) = &refused else { panic!("{refused}") };
        assert!(why.contains("create configmaps in namespace nowhere: not found"), "{why}");
    }
    let refused = store.grant(LEASE.0).await.unwrap_err().to_string();
    assert!(
        refused.contains("create leases.coordination.k8s.io in namespace nowhere: not found"),
        "{refused}"
    );
    let token = TokenRecord {
        identities: Vec::new(),
        node: None,
        expires: SystemTime::now() + Duration::from_secs(60),
        bound: None,
    };
    let records = Records::new(store);
    let made = tokio::time::timeout(DEADLINE, records.add_token([1; 32], &token)).await;
    assert!(matches!(made, Ok(Err(StoreError::Failed(_)))), "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_one_object_harms_no_other() {
    let Some(kubernetes) = start() else { return };
    let store = client(&section(&kubernetes.admin_kubeconfig()));
    let put = async |key: &'static str| {
        assert!(store.swap(key, Expected::Any, Some(Put::durable(key))).await.unwrap(), "{key}");
    };
    for key in ["nodes/bare", "nodes/copied", "nodes/empty"] {
        put(key).await;
    }
    let mut watch = store.watch("nodes/");
    let mut told = async || tokio::time::timeout(DEADLINE, watch.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(told().await, Told::All(all) if all.len() == 3));
    let kubectl = |arguments: &[&str]| {
        let arguments = [&["--namespace", "weft-system"], arguments].concat();
        blocking(|| kubernetes.kubectl(&arguments, "")).unwrap()
    };
    let all: Value = serde_json::from_str(&kubectl(&["get", "configmaps", "-o", "json"])).unwrap();
    let object = |key: &str| {
        let is = |object: &&Value| {
            object["metadata"]["annotations"]["weft-key"].as_str().is_some_and(|it| it.ends_with(key))
        };
        all["items"].as_array().unwrap().iter().find(is).unwrap().clone()
    };
    let name = |key: &str| object(key)["metadata"]["name"].as_str().unwrap().to_owned();
    let mut copy = object("nodes/copied");
    copy["metadata"] = json!({
        "name": "a-copy", "namespace": "weft-system",
        "labels": copy["metadata"]["labels"], "annotations": copy["metadata"]["annotations"],
    });
    blocking(|| kubernetes.apply(&copy.to_string())).unwrap();
    kubectl(&["annotate", "configmap", &name("nodes/bare"), "weft-key-"]);
    kubectl(&["patch", "configmap", &name("nodes/empty"), "--type=merge", "-p", r#"{"binaryData": null}"#]);
    kubectl(&["label", "configmap", "a-copy", "more=1"]);
    let keys = async || {
        let all = store.list("nodes/").await.unwrap();
        all.into_iter().map(|it| (it.key, it.value.len())).collect::<Vec<_>>()
    };
    let listed = |key: &str, length: usize| (key.to_owned(), length);
    assert_eq!(keys().await, [listed("nodes/copied", 12), listed("nodes/empty", 0)]);
    assert_eq!(store.get("nodes/bare").await.unwrap().unwrap().value, "nodes/bare", "its name tells its key");
    kubectl(&["delete", "configmap", "a-copy"]);
    put("nodes/last").await;
    let mut changed = Vec::new();
    while changed.last().map(String::as_str) != Some("nodes/last") {
        match told().await {
            Told::Put(entry) => changed.push(entry.key),
            other => panic!("nothing is gone: {other:?}"),
        }
    }
    assert_eq!(changed, ["nodes/empty", "nodes/last"]);
    put("nodes/bare").await;
    assert_eq!(keys().await.len(), 4, "who writes it makes it whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_kubernetes_share_what_hosts_announce_between_hubs() {
    let Some(kubernetes) = start() else { return };
    announced::at_two_hubs(&hub(&kubernetes, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_notices_that_the_api_server_is_gone() {
    let Some(kubernetes) = start() else { return };
    let (lose, heal) = (|| kubernetes.kill_api_server(), || kubernetes.restart_api_server().unwrap());
    announced::without_a_quorum(&section(&kubernetes.admin_kubeconfig()), lose, heal).await;
}
