//! Another datacenter, followed through the servers of the own one.

use serde_json::json;
use tokio::task::block_in_place;
use weft_testbed::{Consul, ConsulOptions, Port};

use crate::{
    bed::{SOON, put, registry, start, write},
    follower::{Follower, View},
};

/// Two datacenters that know each other, with the ports that are theirs.
fn datacenters() -> Option<([Consul; 2], [Port; 2])> {
    let ports = [Port::free().unwrap(), Port::free().unwrap()];
    let all: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{}", port.number())).collect();
    let of = |datacenter: &str, port: &Port| {
        let configuration = json!({
            "datacenter": datacenter,
            "ports": { "serf_wan": port.number() },
            "retry_join_wan": all,
            "retry_interval_wan": "1s",
        });
        start(ConsulOptions { configuration, ..ConsulOptions::default() })
    };
    let consuls = [of("near", &ports[0])?, of("far", &ports[1])?];
    Some((consuls, ports))
}

#[tokio::test(flavor = "multi_thread")]
async fn another_datacenter_is_followed_and_nothing_goes_with_it() {
    let Some(([near, far], _ports)) = datacenters() else { return };
    write(&far, "n1", 1, "web", json!({}));
    write(&near, "n9", 9, "local", json!({}));
    let section = "datacenter = \"far\"\n";
    let mut follower = Follower::new(registry(&near.url(), section), None);
    follower.until("what the other has", SOON, |view| view.count("web") == 1).await.unwrap();
    assert!(follower.view(|view| view.service("local").is_none()));
    let hosts = follower.view(|view| view.service("web").unwrap().hosts.clone());
    assert_eq!(hosts.iter().map(|it| it.as_str()).collect::<Vec<_>>(), ["web.service.far.consul"]);
    let region = follower.view(|view| view.endpoints("web").unwrap()[0].locality.to_string());
    assert_eq!(region, "far");
    write(&far, "n2", 2, "web", json!({}));
    follower.until("another instance", SOON, |view| view.count("web") == 2).await.unwrap();

    // The own servers live, and answer.
    let errors = |view: &View<'_>| view.seen.errors.len();
    let before = follower.view(errors);
    block_in_place(|| far.kill());
    follower.until("the other is missed", SOON, |view| errors(view) > before).await.unwrap();
    let (commits, before) = follower.view(|view| (view.seen.commits, errors(view)));
    follower.until("it stays missed", SOON, |view| errors(view) > before + 3).await.unwrap();
    assert_eq!(follower.view(|view| (view.seen.commits, view.count("web"))), (commits, 2));
    block_in_place(|| far.restart()).unwrap();
    put(&far, "/v1/catalog/deregister", &json!({ "Node": "n1" }));
    let alone = |view: &View<'_>| view.count("web") == 1;
    follower.until("what happened since", SOON, alone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datacenter_that_nobody_knows_is_an_outage_by_name() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    let mut follower = Follower::new(registry(&consul.url(), "datacenter = \"atlantis\"\n"), None);
    let named = |view: &View<'_>| view.seen.errors.iter().any(|error| error.contains("atlantis"));
    follower.until("it is said which one", SOON, named).await.unwrap();
}
