//! Local instances are announced, kept alive, announced again when Consul forgot them, and withdrawn.

use std::{sync::Arc, time::Duration};

use tokio::task::block_in_place;
use weft_core::{
    registry::{LocalInstance, RegisterError},
    resource::{AppProtocol, Endpoint, Health, SaidBy, Sayer, ServicePort, TlsMode},
};
use weft_testbed::{Consul, ConsulOptions};

use crate::{
    bed::{SOON, registry, start},
    follower::{Follower, View},
};

/// Sooner than what is announced is renewed.
const AT_ONCE: Duration = Duration::from_secs(5);

fn instance(service: &str) -> Arc<LocalInstance> {
    let name = "http".parse().unwrap();
    let port = ServicePort { name, number: 80, protocol: AppProtocol::Grpc };
    Arc::new(LocalInstance { endpoint: endpoint(service), port, note: String::new() })
}

fn endpoint(service: &str) -> Endpoint {
    Endpoint {
        service: service.parse().unwrap(),
        port_name: "http".parse().unwrap(),
        instance: "host-1/web 1".replace(' ', "-").parse().unwrap(),
        address: ([10, 9, 9, 9], 8080).into(),
        mesh_address: Some(([10, 9, 9, 9], 15008).into()),
        identity: "spiffe://test.mesh/ns/default/sa/web".parse().ok(),
        said_by: Default::default(),
        tls: TlsMode::Required,
        labels: [("version", "v1"), ("tag.blue", "true"), ("tag.team", "shop"), ("no.meta", "x")]
            .into_iter()
            .collect(),
        weight: 5,
        locality: "eu/a".to_owned().try_into().unwrap(),
        health: Health::Healthy,
    }
}

fn ids(consul: &Consul) -> Vec<String> {
    let services = block_in_place(|| consul.call("GET", "/v1/agent/services", "")).unwrap().json();
    services.as_object().unwrap().keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_there_as_long_as_its_lease() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    let registry = registry(&consul.url(), "");
    let mut follower = Follower::new(registry.clone(), None);
    let lease = registry.register(instance("web")).unwrap();
    let there = |view: &View<'_>| view.count("web") == 1;
    follower.until("the instance", SOON, there).await.unwrap();
    let told = follower.view(|view| view.endpoints("web")).unwrap();
    let mut expected = endpoint("web");
    expected.labels = [("version", "v1"), ("tag.blue", "true"), ("tag.team", "shop")].into_iter().collect();
    expected.instance = told[0].instance.clone();
    expected.said_by = SaidBy { tls: Sayer::Default, ..SaidBy::all(Sayer::Metadata) };
    assert_eq!(*told[0], expected);

    let id = ids(&consul).pop().unwrap();
    // By which one that is written again is told from the one before.
    let created = || {
        let listed = consul.call("GET", "/v1/catalog/service/web", "").ok()?.json();
        listed[0]["CreateIndex"].as_u64()
    };
    block_in_place(|| {
        let before = created().unwrap();
        consul.deregister(&id.replace('/', "%2F")).unwrap();
        let is_new = || created().is_some_and(|now| now != before);
        weft_testbed::until("it is announced again", SOON, is_new).unwrap();
    });
    follower.until("that it is announced again", SOON, there).await.unwrap();
    // A server that lost all it had: neither the instance nor its check survive.
    consul.kill();
    let commits = follower.view(|view| view.seen.commits);
    std::fs::remove_dir_all(consul.scratch().path().join("server-1")).unwrap();
    block_in_place(|| consul.restart()).unwrap();
    let is_registered = || ids(&consul).contains(&id);
    weft_testbed::until("it is announced to a new server", SOON, is_registered).unwrap();
    follower
        .until("that the new server is followed", SOON, |view| view.seen.commits > commits)
        .await
        .unwrap();
    // What changes is told anew under the same key, without a gap.
    let mut ill = LocalInstance::clone(&instance("web"));
    (ill.endpoint.health, ill.note) = (Health::Unhealthy, "GET /health: status 500".into());
    lease.change(ill.into());
    let unhealthy =
        |view: &View<'_>| view.endpoints("web").iter().flatten().any(|it| it.health == Health::Unhealthy);
    follower.until("that it is unhealthy", AT_ONCE, unhealthy).await.unwrap();
    // Consul removes what is critical for a minute: that must not be what is merely ill.
    let checks = block_in_place(|| consul.call("GET", "/v1/agent/checks", "")).unwrap().json();
    let status = |which: &str| {
        let checks = checks.as_object().unwrap().values();
        let mut found = checks.filter(|it| it["CheckID"].as_str().is_some_and(|id| id.ends_with(which)));
        found.next().unwrap()["Status"].as_str().unwrap().to_owned()
    };
    assert_eq!([status(":alive"), status(":healthy")], ["passing", "critical"]);
    assert!(lease.state().borrow().confirmed.is_some());
    lease.withdraw().await;
    assert!(!is_registered(), "withdrawing waits until it is done");
    let refused = registry.register(instance("web.other")).unwrap_err();
    assert!(matches!(&refused, RegisterError::Unfit(why) if why.contains("web.other")), "{refused}");
}

/// An authority, and a certificate of it for this host.
fn authority() -> (String, String, String) {
    let key = || rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = rcgen::CertifiedIssuer::self_signed(params, key()).unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let own = key();
    (root.pem(), leaf.signed_by(&own, &root).unwrap().pem(), own.serialize_pem())
}

/// Files are renewed under a running agent: what is announced reads them again, as what is followed does.
#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_that_failed_is_tried_with_the_certificates_of_now() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ((root, certificate, key), (other, ..)) = (authority(), authority());
    let port = weft_testbed::Port::free().unwrap();
    let https = serde_json::json!({
        "cert_file": file("server.pem", &certificate), "key_file": file("server.key", &key), "verify_incoming": false,
    });
    let configuration = serde_json::json!({ "ports": { "https": port.number() }, "tls": { "https": https } });
    let Some(consul) = start(ConsulOptions { configuration, ..ConsulOptions::default() }) else { return };
    let authorities = file("ca.pem", &other);
    let registry =
        registry(&format!("https://127.0.0.1:{}", port.number()), &format!("ca_file = {authorities:?}\n"));
    let lease = registry.register(instance("web")).unwrap();
    let mut state = lease.state();
    let failed = tokio::time::timeout(SOON, state.wait_for(|state| state.fault.is_some())).await.unwrap();
    let fault = failed.unwrap().fault.clone().unwrap();
    assert!(fault.contains("certificate"), "{fault}");
    file("ca.pem", &root);
    let confirmed = state.wait_for(|state| state.confirmed.is_some() && state.fault.is_none());
    tokio::time::timeout(SOON, confirmed).await.unwrap().unwrap();
    lease.withdraw().await;
    assert_eq!(ids(&consul), Vec::<String>::new());
}
