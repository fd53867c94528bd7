//! etcd, with three members.

use std::time::Duration;

use serde_json::json;
use weft_agent::hub::store::{Expected, Put, StoreError};
use weft_testbed::{Etcd, Kind, installed, required};

use crate::{
    announced, contract,
    outage::{self, Cluster},
    support::{Bed, blocking, client},
};

/// A lease, of which an etcd with its own settings takes two seconds at least, and how soon its end is noticed.
const LEASE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(30));

fn start(members: usize) -> Option<Etcd> {
    let home = required(installed(Kind::Kubernetes))?;
    Some(blocking(|| Etcd::start(&home, members)).unwrap())
}

fn section(etcd: &Etcd) -> String {
    format!("kind = \"etcd\"\naddresses = {:?}\n", etcd.urls())
}

impl Cluster for Etcd {
    fn kill_leader(&self) {
        let leader = self.await_leader().unwrap();
        self.member(leader).kill();
        self.await_leader().unwrap();
    }

    fn heal(&self) {
        self.restart().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_keeps_to_the_contract() {
    let Some(etcd) = start(1) else { return };
    let store = || client(&section(&etcd));
    contract::all(&Bed { stores: [store(), store()], lease: LEASE }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_etcds_leader_loses_no_accepted_write_and_gives_no_lease_twice() {
    let Some(etcd) = start(3) else { return };
    outage::leader_killed_under_load(&etcd, || client(&section(&etcd)), LEASE.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_logged_in_at_and_what_is_refused_shows_no_password() {
    let Some(etcd) = start(1) else { return };
    blocking(|| {
        let password = "correct horse";
        for (path, message) in [
            ("/v3/auth/user/add", json!({ "name": "root", "password": password })),
            ("/v3/auth/user/grant", json!({ "user": "root", "role": "root" })),
            ("/v3/auth/enable", json!({})),
        ] {
            etcd.call(path, &message).unwrap().success(path).unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let with = |password: &str| {
        std::fs::write(&file, password).unwrap();
        client(&format!("{}username = \"root\"\npassword_file = {file:?}\n", section(&etcd)))
    };
    let store = with("correct horse\n");
    assert!(store.swap("a", Expected::Absent, Some(Put::durable("1"))).await.unwrap());
    assert!(store.get("a").await.unwrap().is_some());
    let nobody = client(&section(&etcd)).get("a").await.unwrap_err();
    assert!(matches!(nobody, StoreError::Denied(_) | StoreError::Failed(_)), "{nobody}");
    let wrong = with("battery staple").get("a").await.unwrap_err();
    let StoreError::Denied(why) = &wrong else { panic!("{wrong}") };
    assert!(why.contains("root") && !why.contains("battery"), "{why}");
    // Read anew when it is needed: a file that was replaced is taken up.
    std::fs::write(&file, "correct horse").unwrap();
    assert!(store.get("a").await.unwrap().is_some());
    assert!(!format!("{store:?}").contains("horse"));

    blocking(|| etcd.kill());
    let away = store.get("a").await.unwrap_err();
    let StoreError::Unreachable(why) = &away else { panic!("{away}") };
    assert!(why.contains(&etcd.url()), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_shares_what_hosts_announce_between_hubs() {
    let Some(etcd) = start(1) else { return };
    announced::at_two_hubs(&section(&etcd)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_notices_that_etcd_lost_its_quorum() {
    let Some(etcd) = start(3) else { return };
    let lose = || [1, 2].into_iter().for_each(|index| etcd.member(index).kill());
    announced::without_a_quorum(&section(&etcd), lose, || etcd.restart().unwrap()).await;
}
