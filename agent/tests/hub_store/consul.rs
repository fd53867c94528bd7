//! Consul's KV, with three servers.

use std::time::Duration;

use futures_util::StreamExt;
use weft_agent::hub::store::{Expected, Put, StoreError, Told};
use weft_testbed::{Consul, ConsulOptions, Kind, installed, required, until};

use crate::{
    announced, contract,
    outage::{self, Cluster},
    support::{Bed, DEADLINE, blocking, client, eventually},
};

/// The shortest session, and twice that with some time to be noticed in.
const LEASE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(25));

/// How soon all servers vote again.
const VOTES: Duration = Duration::from_secs(60);

fn start(options: ConsulOptions) -> Option<Consul> {
    let home = required(installed(Kind::Consul))?;
    Some(blocking(|| Consul::start(&home, options)).unwrap())
}

fn section(consul: &Consul) -> String {
    let urls: Vec<_> = (0..consul.servers()).map(|index| consul.member_url(index)).collect();
    format!("kind = \"consul\"\naddresses = {urls:?}\n")
}

impl Cluster for Consul {
    fn kill_leader(&self) {
        let leader = self.await_leader().unwrap();
        self.member(leader).kill();
        self.await_leader().unwrap();
    }

    /// A server that comes back votes again only when it was well for ten seconds: until then a further death leaves no
    /// quorum.
    fn heal(&self) {
        self.restart().unwrap();
        until("all servers vote", VOTES, || voters(self) == Some(self.servers())).unwrap();
    }
}

/// How many servers vote, as the leader says.
fn voters(consul: &Consul) -> Option<usize> {
    let answer = consul.call("GET", "/v1/operator/raft/configuration", "").ok()?.json();
    Some(answer["Servers"].as_array()?.iter().filter(|server| server["Voter"] == true).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_keeps_to_the_contract() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    let store = || client(&section(&consul));
    contract::all(&Bed { stores: [store(), store()], lease: LEASE }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_consuls_leader_loses_no_accepted_write_and_gives_no_lease_twice() {
    let Some(consul) = start(ConsulOptions { servers: 3, ..ConsulOptions::default() }) else { return };
    outage::leader_killed_under_load(&consul, || client(&section(&consul)), LEASE.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consuls_token_needs_its_prefix_and_sessions_and_is_never_shown() {
    let Some(consul) = start(ConsulOptions { acl: true, ..ConsulOptions::default() }) else { return };
    let token = blocking(|| {
        consul.create_token(
            "key_prefix \"weft/\" { policy = \"write\" }\nsession_prefix \"\" { policy = \"write\" }",
        )
    });
    let token = token.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let with = |secret: &str, more: &str| {
        std::fs::write(&file, secret).unwrap();
        client(&format!("{}token_file = {file:?}\n{more}", section(&consul)))
    };
    let store = with(&token.secret, "");
    assert!(store.swap("a", Expected::Absent, Some(Put::durable("1"))).await.unwrap());
    let lease = store.grant(LEASE.0).await.unwrap();
    let put = Put { lease: Some(lease.clone()), ..Put::durable("2") };
    assert!(store.swap("b", Expected::Absent, Some(put)).await.unwrap());
    assert_eq!(store.list("").await.unwrap().len(), 2);
    let beside = with(&token.secret, "prefix = \"other/\"\n");
    blocking(|| consul.call("PUT", "/v1/kv/other/demo.mesh/a", "hidden").unwrap());
    for refused in [
        beside.swap("a", Expected::Absent, Some(Put::durable("1"))).await.map(drop),
        beside.get("a").await.map(drop),
    ] {
        let StoreError::Denied(why) = refused.unwrap_err() else { panic!("it is refused") };
        assert!(!why.contains(&token.secret), "{why}");
    }
    assert!(!format!("{store:?}").contains(&token.secret));
    let unknown = "00000000-0000-0000-0000-000000000001";
    let refused = with(unknown, "").get("a").await.unwrap_err();
    assert!(matches!(refused, StoreError::Denied(_)), "{refused}");
    assert!(!refused.to_string().contains(unknown), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_may_no_longer_read_is_refused_and_never_told_as_gone() {
    let Some(consul) = start(ConsulOptions { acl: true, ..ConsulOptions::default() }) else { return };
    let sessions = "session_prefix \"\" { policy = \"write\" }\n";
    let whole = format!("key_prefix \"weft/\" {{ policy = \"write\" }}\n{sessions}");
    let token = blocking(|| consul.create_token(&whole)).unwrap();
    let may = |rules: &str| {
        blocking(|| {
            let policies = consul.call("GET", "/v1/acl/policies", "").unwrap().json();
            let policies = policies.as_array().unwrap();
            let id =
                policies.iter().find(|it| it["Name"].as_str().unwrap().starts_with("test-")).unwrap()["ID"]
                    .as_str()
                    .unwrap();
            let mut policy = consul.call("GET", &format!("/v1/acl/policy/{id}"), "").unwrap().json();
            policy["Rules"] = rules.into();
            let path = format!("/v1/acl/policy/{id}");
            consul.call("PUT", &path, policy.to_string()).unwrap().success("change a policy").unwrap();
        });
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, &token.secret).unwrap();
    let store = client(&format!("{}token_file = {file:?}\n", section(&consul)));
    for key in ["announced/a", "announced/b", "nodes/a"] {
        assert!(store.swap(key, Expected::Absent, Some(Put::durable("1"))).await.unwrap());
    }
    for left in ["", "key \"weft/demo.mesh/announced/a\" { policy = \"write\" }\n"] {
        may(&whole);
        let granted = async || store.list("announced/").await.is_ok_and(|entries| entries.len() == 2);
        eventually("the right is there again", granted).await;
        let mut watch = store.watch("announced/");
        assert!(matches!(watch.next().await, Some(Ok(Told::All(all))) if all.len() == 2));
        may(&format!("{left}{sessions}"));
        eventually("the right is gone", async || store.list("announced/").await.is_err()).await;
        let refused = [store.list("announced/").await.map(drop), store.get("announced/b").await.map(drop)];
        for refused in refused {
            assert!(matches!(refused, Err(StoreError::Denied(_))), "{refused:?}");
        }
        // The next write wakes the watch, which then gets less.
        let path = "/v1/kv/weft/demo.mesh/announced/c";
        blocking(|| consul.call("PUT", path, "x").unwrap());
        let told = tokio::time::timeout(DEADLINE, watch.next()).await.unwrap();
        assert!(matches!(told, Some(Err(StoreError::Denied(_)))), "{told:?}");
        let told = store.watch("announced/").next().await;
        assert!(matches!(told, Some(Err(StoreError::Denied(_)))), "{told:?}");
        blocking(|| consul.call("DELETE", path, "").unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_shares_what_hosts_announce_between_hubs() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    announced::at_two_hubs(&section(&consul)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_notices_that_consul_lost_its_quorum() {
    let Some(consul) = start(ConsulOptions { servers: 3, ..ConsulOptions::default() }) else { return };
    let lose = || [1, 2].into_iter().for_each(|index| consul.member(index).kill());
    announced::without_a_quorum(&section(&consul), lose, || consul.restart().unwrap()).await;
}
