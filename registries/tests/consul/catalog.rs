//! What is written is told: instances, addresses, checks, maintenance, weights, tags, meta, nodes.

use serde_json::json;
use weft_core::resource::{AppProtocol, Health, TlsMode};
use weft_testbed::ConsulOptions;

use crate::{
    bed::{SOON, check, put, registry, start, write},
    follower::{Follower, View},
};

fn healths(view: &View<'_>, service: &str) -> Vec<Health> {
    view.endpoints(service).unwrap_or_default().iter().map(|it| it.health).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_told() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    let mut follower =
        Follower::new(registry(&consul.url(), "identity = \"ns/{namespace}/sa/{service}\"\n"), None);
    write(&consul, "n1", 1, "web", json!({}));
    write(&consul, "n2", 2, "web", json!({}));
    follower.until("two instances", SOON, |view| view.count("web") == 2).await.unwrap();
    let first = |view: &View<'_>| view.endpoints("web").unwrap()[0].clone();
    let web = follower.view(first);
    assert_eq!((web.instance.as_str(), web.address.to_string().as_str()), ("n1/web-1", "10.0.0.1:8080"));
    assert_eq!((web.weight, web.locality.region(), web.health), (1, "dc1", Health::Healthy));
    assert_eq!((web.tls, web.identity.is_some(), &web.mesh_address), (TlsMode::Required, true, &None));

    // An address of an instance that stays, which no list shows.
    write(&consul, "n1", 1, "web", json!({ "Address": "10.0.1.1", "Port": 9090 }));
    let moved = |view: &View<'_>| first(view).address.to_string() == "10.0.1.1:9090";
    follower.until("another address", SOON, moved).await.unwrap();
    let meta = json!({ "weft-mesh-port": "15008", "version": "2", "weft-locality": "eu/a", "weft-protocol": "grpc" });
    let fields =
        json!({ "Tags": ["blue", "team=shop"], "Meta": meta, "Weights": { "Passing": 7, "Warning": 2 } });
    write(&consul, "n1", 1, "web", fields);
    follower.until("a weight", SOON, |view| first(view).weight == 7).await.unwrap();
    let web = follower.view(first);
    let label = |key: &str| web.labels.get(key).unwrap_or("none").to_owned();
    assert_eq!(
        [label("version"), label("tag.blue"), label("tag.team"), label("weft-locality")],
        ["2", "true", "shop", "none"]
    );
    assert_eq!(
        (web.locality.zone(), web.mesh_address.clone().unwrap().to_string()),
        ("a", "10.0.0.1:15008".to_owned())
    );

    check(&consul, "n1", 1, "web", "up", "warning");
    follower.until("the weight of a warning", SOON, |view| first(view).weight == 2).await.unwrap();
    check(&consul, "n1", 1, "web", "up", "critical");
    follower
        .until("unhealthy", SOON, |view| healths(view, "web") == [Health::Unhealthy, Health::Healthy])
        .await
        .unwrap();
    check(&consul, "n1", 1, "web", "up", "passing");
    follower.until("healthy", SOON, |view| healths(view, "web") == [Health::Healthy; 2]).await.unwrap();
    check(&consul, "n2", 2, "", "ping", "critical");
    follower
        .until("the node is lost", SOON, |view| healths(view, "web") == [Health::Healthy, Health::Unhealthy])
        .await
        .unwrap();
    check(&consul, "n2", 2, "", "ping", "passing");
    follower
        .until("the node is back", SOON, |view| healths(view, "web") == [Health::Healthy; 2])
        .await
        .unwrap();

    put(
        &consul,
        "/v1/catalog/register",
        &json!({ "Node": "n2", "Address": "10.0.0.22", "NodeMeta": { "weft-locality": "us/b" } }),
    );
    let second = |view: &View<'_>| view.endpoints("web").unwrap()[1].clone();
    follower
        .until("the node's address", SOON, |view| second(view).address.to_string() == "10.0.0.22:8080")
        .await
        .unwrap();
    assert_eq!(follower.view(second).locality.to_string(), "us/b");
    put(&consul, "/v1/catalog/deregister", &json!({ "Node": "n2" }));
    follower.until("the node is gone", SOON, |view| view.count("web") == 1).await.unwrap();
    put(&consul, "/v1/catalog/deregister", &json!({ "Node": "n1", "ServiceID": "web-1" }));
    follower.until("the service is gone", SOON, |view| view.endpoints("web").is_none()).await.unwrap();
    assert!(follower.view(|view| view.seen.errors.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_its_hosts_ports_and_protocol_and_is_maintained() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    let mut follower = Follower::new(registry(&consul.url(), "allow_loopback = true\ntls = \"off\"\n"), None);
    let several =
        json!([{ "Name": "http", "Port": 8080, "Default": true }, { "Name": "admin", "Port": 9090 }]);
    let body =
        json!({ "ID": "web-1", "Name": "Web", "Ports": several, "Meta": { "weft-protocol": "http2" } });
    tokio::task::block_in_place(|| consul.register(&body)).unwrap();
    follower.until("two ports", SOON, |view| view.count("web") == 2).await.unwrap();
    let service = follower.view(|view| view.service("web")).unwrap();
    let ports: Vec<_> = service.ports.iter().map(|it| (it.name.as_str(), it.number, it.protocol)).collect();
    assert_eq!(ports, [("admin", 9090, AppProtocol::Http2), ("http", 8080, AppProtocol::Http2)]);
    let hosts: Vec<_> = service.hosts.iter().map(|host| host.as_str()).collect();
    assert_eq!(hosts, ["web.service.consul", "web.service.dc1.consul"]);

    let maintain =
        |path: &str, on: bool| put(&consul, &format!("/v1/agent/{path}?enable={on}"), &json!(null));
    for path in ["service/maintenance/web-1", "maintenance"] {
        maintain(path, true);
        follower.until("drains", SOON, |view| healths(view, "web") == [Health::Draining; 2]).await.unwrap();
        maintain(path, false);
        follower.until("is back", SOON, |view| healths(view, "web") == [Health::Healthy; 2]).await.unwrap();
    }
}
