//! Services come, change, fail and go.

use weft_core::resource::{AppProtocol, Health, Sayer, TlsMode};
use weft_testbed::{Nomad, NomadOptions};

use crate::support::{Job, follower, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_come_change_and_go() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let mut follower = follower(&nomad, "");
    follower.until("an empty catalog is listed", |view| view.lists == 1).await;
    nomad.run_job(Nomad::WEB_JOB, &[]).unwrap();
    let view = follower.until("it is there", |view| view.healths("web.default") == [Health::Healthy]).await;
    assert_eq!(view.addresses("web.default"), nomad.await_service("web", 1).unwrap());
    let endpoint = view.endpoints("web.default").remove(0);
    assert_eq!(endpoint.labels.get("version"), Some("1"));
    assert_eq!(endpoint.locality.to_string(), "global/dc1");
    assert_eq!((endpoint.tls, endpoint.identity), (TlsMode::Required, None), "it says nothing of the mesh");

    nomad.run_job(Nomad::WEB_JOB, &["count=3"]).unwrap();
    let view =
        follower.until("there are three", |view| view.healths("web.default") == [Health::Healthy; 3]).await;
    assert_eq!(view.addresses("web.default"), nomad.await_service("web", 3).unwrap());

    nomad.run_job(Nomad::WEB_JOB, &["count=1"]).unwrap();
    follower.until("there is one", |view| view.endpoints("web.default").len() == 1).await;
    nomad.stop_job("web").unwrap();
    let view = follower.until("it is gone", |view| view.services().is_empty()).await;
    assert_eq!((view.lists, view.errors), (1, vec![]), "all of it by one stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_and_the_meta_of_nodes_say_who_speaks_mesh() {
    let client =
        "client {\n node_class = \"big\"\n meta {\n \"weft-mesh-port\" = \"15008\"\n}\n}\n".to_owned();
    let Some(nomad) = start(NomadOptions { clients: vec![client], ..NomadOptions::default() }) else {
        return;
    };
    let mut follower = follower(&nomad, "identity = \"ns/{namespace}/sa/{job}\"\nregion = \"global\"\n");
    Job::default().run(&nomad);
    let tags = "tags = [\"weft-identity=spiffe://demo.mesh/ns/x/sa/y\", \"weft-mesh-port=15009\", \"weft-weight=7\", \
                \"weft-protocol=grpc\", \"v1\", \"color=blue=green\"]";
    Job { name: "api", service: tags, ..Job::default() }.run(&nomad);
    let half = "tags = [\"weft-identity=spiffe://demo.mesh/ns/x/sa/y\", \"weft-mesh-port=70000\"]";
    Job { name: "half", service: half, ..Job::default() }.run(&nomad);
    let view = follower
        .until("they are there", |view| {
            ["web", "api", "half"]
                .iter()
                .all(|name| view.healths(&format!("{name}.default")) == [Health::Healthy])
        })
        .await;
    let web = view.endpoints("web.default").remove(0);
    assert_eq!(web.identity.unwrap().as_str(), "spiffe://demo.mesh/ns/default/sa/web");
    assert_eq!(web.said_by.identity, Sayer::RegistryRule);
    assert_eq!(web.mesh_address.unwrap().to_string(), "127.0.0.1:15008");
    assert_eq!(web.locality.to_string(), "global/dc1/big");
    let api = view.endpoints("api.default").remove(0);
    assert_eq!(api.identity.unwrap().as_str(), "spiffe://demo.mesh/ns/x/sa/y");
    assert_eq!((api.said_by.identity, api.weight), (Sayer::Metadata, 7));
    assert_eq!(api.mesh_address.unwrap().to_string(), "127.0.0.1:15009");
    assert_eq!(api.labels.iter().collect::<Vec<_>>(), [("color", "blue=green"), ("tag.v1", "true")]);
    let port = view.service("api.default").unwrap().ports.remove(0);
    assert_eq!((port.protocol, port.name.as_str(), port.number), (AppProtocol::Grpc, "http", 80));
    let half = view.endpoints("half.default").remove(0);
    assert_eq!((half.mesh_address, half.tls), (None, TlsMode::Required));
    assert!(view.faults().iter().any(|fault| fault.contains("weft-mesh-port")), "{:?}", view.faults());
}
