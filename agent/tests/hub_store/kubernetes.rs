//! Objects of Kubernetes. Its API server's etcd elects nobody here: what dies is the API server.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use weft_agent::hub::{
    records::{Records, TokenRecord},
    store::{Expected, Put, StoreError},
};
use weft_testbed::{Kind, Kubernetes, KubernetesOptions, installed, required};

use crate::{
    announced, contract,
    outage::{self, Cluster},
    support::{Bed, DEADLINE, blocking, client},
};

/// The shortest lease, and how soon its end is noticed.
const LEASE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(6));
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
async fn objects_of_kubernetes_share_what_hosts_announce_between_hubs() {
    let Some(kubernetes) = start() else { return };
    announced::at_two_hubs(&hub(&kubernetes, None)).await;
}
