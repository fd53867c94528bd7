//! Planned change costs nothing: drain and rotation under load, counted by clients that do not retry.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;
use weft_core::resource::AppProtocol;
use weft_proxy::OutboundKind;

use crate::{
    application::Application,
    authority::Authority,
    client::Client1,
    world::{
        Host, Serving, calling_host, calling_table, endpoint, identity, open_to_domain, serving_host, until,
    },
};

/// Clients that call without a pause until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    failures: JoinSet<Vec<String>>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut failures = JoinSet::new();
        for _ in 0..clients {
            let (stop, calls) = (stop.clone(), calls.clone());
            failures.spawn(async move {
                let mut failures = Vec::new();
                let mut client = Client1::connect(address).await;
                while !stop.load(Relaxed) {
                    let request =
                        Request::post("/").header("host", "reviews").body(Full::new(Bytes::from("x")));
                    match client.call(request.unwrap()).await {
                        Ok(reply) if reply.status == 200 => {}
                        Ok(reply) => failures.push(reply.text()),
                        Err(error) => {
                            failures.push(format!("{error:?}"));
                            client = Client1::connect(address).await;
                        }
                    }
                    calls.fetch_add(1, Relaxed);
                }
                failures
            });
        }
        Self { stop, calls, failures }
    }

    async fn more(&self, calls: u64) {
        let wanted = self.calls.load(Relaxed) + calls;
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.calls.load(Relaxed) < wanted {
            assert!(Instant::now() < deadline, "the load stands still");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Relaxed);
        self.failures.join_all().await.concat()
    }
}

fn serving(application: &Application) -> Serving {
    let authorization = open_to_domain();
    Serving { address: application.address, protocol: AppProtocol::Http, authorization }
}

async fn serials(host: &Host) -> (BTreeSet<String>, BTreeSet<String>) {
    let connections = host.proxy.connections().await;
    let open = connections.iter().filter(|connection| connection.state == "open");
    open.map(|connection| (connection.own_serial.clone(), connection.peer_serial.clone())).unzip()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rotation_on_both_sides_replaces_connections_and_fails_nothing() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let mut reviews = serving_host(&authority, serving(&application));
    let table = calling_table(vec![endpoint("r1", application.address, &reviews)], AppProtocol::Http, 1);
    let mut web = calling_host(&authority, table, OutboundKind::ByHost);
    let load = Load::start(web.outbound(), 8);
    load.more(100).await;
    for _ in 0..5 {
        let (own, peer) = serials(&web).await;
        let renewed = (*web.credentials.current()).clone().with_identity(authority.issue(&identity("web")));
        let wanted_own = renewed.identity(&identity("web")).unwrap().leaf().serial.clone();
        web.credentials.publish(renewed);
        let renewed =
            (*reviews.credentials.current()).clone().with_identity(authority.issue(&identity("reviews")));
        let wanted_peer = renewed.identity(&identity("reviews")).unwrap().leaf().serial.clone();
        reviews.credentials.publish(renewed);
        assert!(!own.contains(&wanted_own) && !peer.contains(&wanted_peer));
        until("the pool has the new certificates and only those", async || {
            serials(&web).await == ([wanted_own.clone()].into(), [wanted_peer.clone()].into())
        })
        .await;
        load.more(200).await;
    }
    assert_eq!(load.stop().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn draining_one_of_two_servers_fails_nothing() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let mut first = serving_host(&authority, serving(&application));
    let second = serving_host(&authority, serving(&application));
    let endpoints =
        vec![endpoint("r1", application.address, &first), endpoint("r2", application.address, &second)];
    let web = calling_host(&authority, calling_table(endpoints, AppProtocol::Http, 1), OutboundKind::ByHost);
    let load = Load::start(web.outbound(), 8);
    load.more(300).await;
    // Sent to both, and none of them may be sent twice.
    let mut slow = JoinSet::new();
    for _ in 0..8 {
        let mut client = Client1::connect(web.outbound()).await;
        let request = Request::post("/slow").header("host", "reviews").header("x-delay", "500");
        let request = request.body(Full::default()).unwrap();
        slow.spawn(async move { client.call(request).await.unwrap().status });
    }
    load.more(50).await;
    assert_eq!(first.proxy.drain(Duration::from_secs(20)).await, 0);
    load.more(300).await;
    assert_eq!(slow.join_all().await, [http::StatusCode::OK; 8]);
    assert_eq!(load.stop().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn draining_the_caller_finishes_what_it_has() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let reviews = serving_host(&authority, serving(&application));
    let table = calling_table(vec![endpoint("r1", application.address, &reviews)], AppProtocol::Http, 1);
    let mut web = calling_host(&authority, table, OutboundKind::ByHost);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let mut client = Client1::connect(web.outbound()).await;
        calls.spawn(async move {
            let request = Request::get("/slow").header("host", "reviews").header("x-delay", "400");
            client.call(request.body(Full::default()).unwrap()).await.map(|reply| reply.status.as_u16())
        });
    }
    until("all calls are with the application", async || application.requests.load(Relaxed) == 20).await;
    let began = Instant::now();
    assert_eq!(web.proxy.drain(Duration::from_secs(20)).await, 0);
    assert!(began.elapsed() < Duration::from_secs(10));
    for status in calls.join_all().await {
        assert_eq!(status.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_killed_endpoint_costs_no_call_that_was_not_on_it() {
    let authority = Authority::new();
    let applications = [Application::start("v1").await, Application::start("v2").await];
    let first = serving_host(&authority, serving(&applications[0]));
    let second = serving_host(&authority, serving(&applications[1]));
    let endpoints = vec![
        endpoint("r1", applications[0].address, &first),
        endpoint("r2", applications[1].address, &second),
    ];
    let web = calling_host(&authority, calling_table(endpoints, AppProtocol::Http, 1), OutboundKind::ByHost);
    let load = Load::start(web.outbound(), 8);
    load.more(300).await;
    applications[0].kill();
    load.more(500).await;
    let failures = load.stop().await;
    // What was in flight there may be lost: POST is not sent twice.
    assert!(failures.len() <= 8, "{} {failures:?}", failures.len());
    assert!(failures.iter().all(|failure| failure.contains("connection_lost")), "{failures:?}");
}
