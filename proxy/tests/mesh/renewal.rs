//! Reloads and publications that change something for some connections, and nothing for the others.

use std::{sync::Arc, time::Instant};

use weft_core::{resource::AppProtocol, workload::Workload};
use weft_proxy::{AllowedLocal, OutboundKind};

use crate::{
    application::Application,
    authority::Authority,
    client::Client1,
    world::{calling_config, identity, pair},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_certificate_of_another_workload_ends_no_connection() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, mut reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let mut client = Client1::connect(web.outbound()).await;
    assert_eq!(client.get("reviews", "/").await.unwrap().status, 200);
    let began = Instant::now();
    for _ in 0..10 {
        let other = authority.issue(&identity("other"));
        let credentials = (*reviews.credentials.current()).clone().with_identity(other);
        reviews.credentials.publish(credentials);
        for _ in 0..20 {
            assert_eq!(client.get("reviews", "/").await.unwrap().status, 200);
        }
    }
    let since = began.elapsed();
    let connections = web.proxy.connections().await;
    assert_eq!(connections.len(), 1);
    assert!(connections[0].state == "open" && connections[0].age >= since, "{connections:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connections_of_a_workload_that_became_another_are_told_to_end() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (mut web, _reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let mut config = calling_config(OutboundKind::ByHost, AllowedLocal::Any);
    let mut client = Client1::connect(web.outbound()).await;
    // Nothing changes.
    web.proxy.reload(config.clone()).unwrap();
    for _ in 0..3 {
        let reply = client.get("reviews", "/").await.unwrap();
        assert!(reply.status == 200 && !reply.headers.contains_key("connection"));
    }
    let workload = Workload { identity: identity("renamed"), ..(*config.workloads[0].workload).clone() };
    config.workloads[0].workload = Arc::new(workload);
    let credentials =
        (*web.credentials.current()).clone().with_identity(authority.issue(&identity("renamed")));
    web.credentials.publish(credentials);
    web.proxy.reload(config).unwrap();
    // The worker hears of it in its own time.
    let end = Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let reply = client.get("reviews", "/").await.unwrap();
        assert_eq!(reply.status, 200);
        if reply.headers.get("connection").is_some_and(|value| value == "close") {
            break;
        }
        assert!(Instant::now() < end, "it is never told");
    }
    let mut tap = web.proxy.tap();
    let mut client = Client1::connect(web.outbound()).await;
    let reply = client.get("reviews", "/").await.unwrap();
    assert!(reply.status == 200 && !reply.headers.contains_key("connection"));
    assert_eq!(crate::world::next(&mut tap).await.source.identity, identity("renamed"));
}
