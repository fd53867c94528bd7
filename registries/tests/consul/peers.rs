//! Services that another cluster exports.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::block_in_place;
use weft_core::resource::Health;
use weft_testbed::{Consul, ConsulOptions};

use crate::{
    bed::{SOON, put, registry, start},
    follower::{Follower, View},
};

fn export(consul: &Consul, names: &[&str]) {
    let services: Vec<Value> =
        names.iter().map(|name| json!({ "Name": name, "Consumers": [{ "Peer": "near" }] })).collect();
    put(
        consul,
        "/v1/config",
        &json!({ "Kind": "exported-services", "Name": "default", "Services": services }),
    );
}

fn instance(consul: &Consul, name: &str, address: &str) {
    let check = json!({ "CheckID": format!("{name}-up"), "Name": "up", "TTL": "1h", "Status": "passing" });
    let body = json!({ "Name": name, "Port": 8080, "Address": address, "Check": check });
    block_in_place(|| consul.register(&body)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_exports_is_followed() {
    let of = |datacenter: &str| {
        let configuration = json!({ "datacenter": datacenter, "node_name": datacenter });
        ConsulOptions { peering: true, configuration, ..ConsulOptions::default() }
    };
    let (Some(far), Some(near)) = (start(of("far")), start(of("near"))) else { return };
    for name in ["api", "hidden"] {
        instance(&far, name, "10.5.5.5");
    }
    instance(&near, "local", "10.6.6.6");
    export(&far, &["api"]);
    // A server that has just begun to lead may not be ready to speak for its cluster.
    let call = |consul: &Consul, path: &str, body: Value| {
        let mut told = None;
        let is_told = || {
            let answer = consul.call("POST", path, body.to_string()).and_then(|answer| answer.success(path));
            told = answer.ok().map(|answer| answer.json());
            told.is_some()
        };
        block_in_place(|| weft_testbed::until(path, Duration::from_secs(60), is_told)).unwrap();
        told.unwrap()
    };
    let token = call(&far, "/v1/peering/token", json!({ "PeerName": "near" }))["PeeringToken"].clone();
    call(&near, "/v1/peering/establish", json!({ "PeerName": "far", "PeeringToken": token }));
    let section = "peer = \"far\"\nidentity = \"ns/{namespace}/sa/{service}\"\n";
    let mut follower = Follower::new(registry(&near.url(), section), None);
    let address = |view: &View<'_>, address: &str| {
        view.endpoints("api").is_some_and(|it| it.len() == 1 && it[0].address.to_string() == address)
    };
    follower.until("what is exported", SOON, |view| address(view, "10.5.5.5:8080")).await.unwrap();
    let hosts = follower.view(|view| view.service("api").unwrap().hosts.clone());
    assert_eq!(hosts.iter().map(|it| it.as_str()).collect::<Vec<_>>(), ["api.service.far.peer.consul"]);
    assert!(follower.view(|view| view.service("local").is_none() && view.service("hidden").is_none()));
    instance(&far, "api", "10.5.5.6");
    follower.until("another address", SOON, |view| address(view, "10.5.5.6:8080")).await.unwrap();
    put(&far, "/v1/agent/check/fail/api-up", &json!(null));
    let fails = |view: &View<'_>| view.endpoints("api").is_some_and(|it| it[0].health == Health::Unhealthy);
    follower.until("that it fails", SOON, fails).await.unwrap();
    export(&far, &["api", "hidden"]);
    follower.until("another service", SOON, |view| view.count("hidden") == 1).await.unwrap();
    export(&far, &["hidden"]);
    follower.until("that one is exported no more", SOON, |view| view.count("api") == 0).await.unwrap();
}
