//! What is tried again, and what the caller's record says of it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tokio::net::TcpListener;
use weft_core::{
    name::{RegistryName, RuleName},
    resource::{AppProtocol, Retries},
    table::{CompiledOperation, CompiledPolicy, CompiledRule, Upstream},
};
use weft_proxy::{ListenAddress, OutboundKind};

use crate::{
    application::Application,
    authority::Authority,
    client::{Client1, Client2},
    world::{
        CONNECT_TIMEOUT, Host, Serving, calling_host, calling_table, calling_table_with, endpoint,
        endpoint_at, next, open_to_domain, plain_endpoint, serving_host,
    },
};

fn serve(authority: &Authority, application: &Application) -> Host {
    let authorization = open_to_domain();
    serving_host(
        authority,
        Serving { address: application.address, protocol: AppProtocol::Http, authorization },
    )
}

fn request(method: Method, body: &'static str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri("/").header("host", "reviews");
    request.body(Full::new(Bytes::from(body))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_error_goes_elsewhere_when_declared() {
    let authority = Authority::new();
    let (bad, good) = (Application::answering("bad", 503).await, Application::start("good").await);
    let (first, second) = (serve(&authority, &bad), serve(&authority, &good));
    for declared in [true, false] {
        let endpoints = vec![endpoint("r1", bad.address, &first), endpoint("r2", good.address, &second)];
        let retries = Retries { attempts: 2, on_gateway_error: declared, ..Retries::default() };
        let table = calling_table_with(endpoints, AppProtocol::Http, 1, retries);
        let web = calling_host(&authority, table, OutboundKind::ByHost);
        let mut client = Client1::connect(web.outbound()).await;
        let before = bad.requests.load(Relaxed);
        let mut statuses = Vec::new();
        // Fewer than eject an endpoint that is not retried on.
        while bad.requests.load(Relaxed) < before + 3 {
            statuses.push(client.call(request(Method::PUT, "x")).await.unwrap().status.as_u16());
        }
        assert_eq!(statuses.contains(&503), !declared, "{statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_not_idempotent_is_not_sent_twice() {
    let authority = Authority::new();
    let bad = Application::answering("bad", 503).await;
    let host = serve(&authority, &bad);
    let retries = Retries { attempts: 2, on_gateway_error: true, ..Retries::default() };
    let endpoints = vec![endpoint("r1", bad.address, &host)];
    let web = calling_host(
        &authority,
        calling_table_with(endpoints, AppProtocol::Http, 1, retries),
        OutboundKind::ByHost,
    );
    let mut tap = web.proxy.tap();
    let mut client = Client1::connect(web.outbound()).await;
    assert_eq!(client.call(request(Method::POST, "x")).await.unwrap().status, 503);
    let record = next(&mut tap).await;
    assert_eq!((record.attempts, record.verdict.flags), (1, ""));
    assert_eq!(client.call(request(Method::GET, "")).await.unwrap().status, 503);
    let record = next(&mut tap).await;
    assert_eq!((record.attempts, record.verdict.flags), (3, "URX"));
    assert_eq!(bad.requests.load(Relaxed), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_retry_that_succeeds_is_not_flagged() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let host = serve(&authority, &application);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = Arc::new(Upstream {
        registry: RegistryName::new("static").unwrap(),
        endpoint: Arc::new(endpoint_at("r1", application.address, gone)),
        tier: 0,
        state: Default::default(),
    });
    let endpoints = vec![gone, endpoint("r2", application.address, &host)];
    let web = calling_host(&authority, calling_table(endpoints, AppProtocol::Http, 1), OutboundKind::ByHost);
    let mut tap = web.proxy.tap();
    let mut client = Client1::connect(web.outbound()).await;
    loop {
        let reply = client.call(request(Method::POST, "12345")).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let record = next(&mut tap).await;
        assert_eq!((record.verdict.flags, record.received_bytes), ("", 5));
        if record.attempts == 2 {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_remote_denial_is_recorded_with_its_rule_on_both_sides() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let rule = CompiledRule {
        name: RuleName::new("static/none/0").unwrap(),
        from: Vec::new(),
        to: vec![CompiledOperation::default()],
    };
    let name = RuleName::new("static/none").unwrap();
    let mut authorization = open_to_domain();
    authorization.deny = vec![Arc::new(CompiledPolicy { name, rules: vec![rule] })];
    let reviews = serving_host(
        &authority,
        Serving { address: application.address, protocol: AppProtocol::Http, authorization },
    );
    let table = calling_table(vec![endpoint("r1", application.address, &reviews)], AppProtocol::Http, 1);
    let web = calling_host(&authority, table, OutboundKind::ByHost);
    let (mut caller, mut called) = (web.proxy.tap(), reviews.proxy.tap());
    let mut client = Client1::connect(web.outbound()).await;
    assert_eq!(client.call(request(Method::POST, "123")).await.unwrap().status, 403);
    for tap in [&mut caller, &mut called] {
        let record = next(tap).await;
        assert_eq!(record.verdict.fault, Some("denied"));
        assert_eq!(record.verdict.rule.as_ref().map(RuleName::as_str), Some("static/none/0"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bodies_are_counted_on_both_sides() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let reviews = serve(&authority, &application);
    let table = calling_table(vec![endpoint("r1", application.address, &reviews)], AppProtocol::Http, 1);
    let web = calling_host(&authority, table, OutboundKind::ByHost);
    let (mut caller, mut called) = (web.proxy.tap(), reviews.proxy.tap());
    let mut client = Client2::connect(web.outbound()).await;
    let body = Bytes::from(vec![b'x'; 100_000]);
    let request = Request::post("http://reviews/").body(Full::new(body)).unwrap();
    let reply = client.call(request).await.unwrap();
    for tap in [&mut caller, &mut called] {
        let record = next(tap).await;
        assert_eq!((record.received_bytes, record.sent_bytes), (100_000, reply.body.len() as u64));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_goes_as_bytes_where_the_receiver_takes_nothing_else() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let authorization = open_to_domain();
    let serving = Serving { address: application.address, protocol: AppProtocol::Tcp, authorization };
    let reviews = serving_host(&authority, serving);
    // The caller believes that the port is HTTP.
    let table = calling_table(vec![endpoint("r1", application.address, &reviews)], AppProtocol::Http, 1);
    let web = calling_host(&authority, table, OutboundKind::ByHost);
    let reply = Client1::connect(web.outbound()).await.call(request(Method::POST, "body")).await.unwrap();
    assert!(reply.status == 200 && reply.text().ends_with("\nbody"), "{}", reply.text());
    let request = Request::get("http://reviews/two").body(Full::default()).unwrap();
    let reply = Client2::connect(web.outbound()).await.call(request).await.unwrap();
    let text = reply.text();
    assert!(text.starts_with("v1\nGET /two HTTP/1.1\n") && text.contains("host: reviews\n"), "{text}");
}

/// A relay before a mesh port, which counts the connections made through it.
async fn counted(to: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<std::sync::atomic::AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count: Arc<std::sync::atomic::AtomicU64> = Arc::default();
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Relaxed);
            tokio::spawn(async move {
                let mut onward = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
            });
        }
    });
    (address, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_framing_that_an_agent_asked_for_is_remembered_until_it_asks_for_another() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let authorization = open_to_domain();
    let serving = Serving { address: application.address, protocol: AppProtocol::Tcp, authorization };
    let mut reviews = serving_host(&authority, serving);
    let ListenAddress::Tcp(mesh) = reviews.proxy.addresses().inbound[0].clone() else { panic!("no TCP") };
    let (relay, dialled) = counted(mesh).await;
    let upstream = Arc::new(Upstream {
        registry: RegistryName::new("static").unwrap(),
        endpoint: Arc::new(endpoint_at("r1", application.address, relay)),
        tier: 0,
        state: Default::default(),
    });
    let web =
        calling_host(&authority, calling_table(vec![upstream], AppProtocol::Http, 1), OutboundKind::ByHost);
    let mut client = Client1::connect(web.outbound()).await;
    // The first asks for HTTP/2 and is told to send bytes; the others send bytes at once.
    for wanted in [2, 3, 4] {
        assert_eq!(client.call(request(Method::POST, "x")).await.unwrap().status, 200);
        assert_eq!(dialled.load(Relaxed), wanted);
    }
    // Now the port is HTTP: bytes are refused once, and then one connection serves all.
    let view = reviews.table.current().views[0].clone();
    let mut workload = (*view.workload).clone();
    workload.ports[0].protocol = AppProtocol::Http;
    reviews.table.publish(crate::world::serving_table(&Arc::new(workload), open_to_domain(), 2));
    for wanted in [6, 6, 6] {
        assert_eq!(client.call(request(Method::POST, "x")).await.unwrap().status, 200);
        assert_eq!(dialled.load(Relaxed), wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_application_outside_the_mesh_is_called_without_tls() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let endpoints = vec![plain_endpoint("r1", application.address)];
    let web = calling_host(&authority, calling_table(endpoints, AppProtocol::Http, 1), OutboundKind::ByHost);
    let mut tap = web.proxy.tap();
    let reply = Client1::connect(web.outbound()).await.call(request(Method::POST, "body")).await.unwrap();
    assert!(reply.status == 200 && reply.text().ends_with("\nbody"), "{}", reply.text());
    let record = next(&mut tap).await;
    assert!(!record.mutual_tls);
    assert_eq!(
        record.destination.as_ref().unwrap().address,
        Some(application.address),
        "where the request went"
    );
    let request = Request::get("http://reviews/two").body(Full::default()).unwrap();
    let text = Client2::connect(web.outbound()).await.call(request).await.unwrap().text();
    assert!(text.starts_with("v1\nGET /two HTTP/1.1\n") && text.contains("host: reviews\n"), "{text}");
}

/// Accepts connections and says nothing.
async fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_silent_endpoint_costs_its_connect_timeout_and_then_nothing() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let host = serve(&authority, &application);
    let listener = silent().await;
    let mute = Arc::new(Upstream {
        registry: RegistryName::new("static").unwrap(),
        endpoint: Arc::new(endpoint_at("r1", application.address, listener.local_addr().unwrap())),
        tier: 0,
        state: Default::default(),
    });
    let endpoints = vec![mute.clone(), endpoint("r2", application.address, &host)];
    let web = calling_host(&authority, calling_table(endpoints, AppProtocol::Http, 1), OutboundKind::ByHost);
    let mut client = Client1::connect(web.outbound()).await;
    let mut longest = Duration::ZERO;
    let is_ejected = |upstream: &Upstream| {
        let until = upstream.state.peek().map_or(0, |state| state.ejected_until.load(Relaxed));
        until > weft_proxy::clock::milliseconds(Instant::now())
    };
    while !is_ejected(&mute) {
        let began = Instant::now();
        let reply = client.call(request(Method::POST, "x")).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        longest = longest.max(began.elapsed());
    }
    assert!(longest >= CONNECT_TIMEOUT * 9 / 10 && longest < CONNECT_TIMEOUT * 4, "{longest:?}");
}
