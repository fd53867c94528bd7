//! What endpoints are blamed for and what not, and who answers for them while they change.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use weft_core::{
    name::{RegistryName, WorkloadName},
    publish::Publisher,
    resource::{AppProtocol, Endpoint, Retries},
    table::Upstream,
    workload::Workload,
};
use weft_proxy::{AllowedLocal, ListenAddress, OutboundKind, Proxy, WorkloadListeners};

use crate::{
    application::Application,
    authority::Authority,
    client::Client1,
    world::{
        calling_config, calling_host, calling_table, calling_table_within, endpoint, endpoint_at, http_host,
        identity, until,
    },
};

fn post() -> Request<Full<Bytes>> {
    let request = Request::builder().method(Method::POST).uri("/").header("host", "reviews");
    request.body(Full::new("x".into())).unwrap()
}

fn is_ejected(upstream: &Upstream) -> bool {
    upstream.state.peek().is_some_and(|state| state.ejected_until.load(Relaxed) > 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_application_that_hangs_is_left_alone() {
    let authority = Authority::new();
    // It accepts, by its kernel, and never answers.
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = hanging.local_addr().map(|address| (address, hanging)).unwrap();
    let good = Application::start("good").await;
    let (first, second) = (http_host(&authority, hanging.0), http_host(&authority, good.address));
    let upstreams = [endpoint("r1", hanging.0, &first), endpoint("r2", good.address, &second)];
    let (protocol, limit) = (AppProtocol::Http, Some(Duration::from_secs(1)));
    let table = calling_table_within(upstreams.to_vec(), protocol, 1, Retries::default(), limit);
    let web = calling_host(&authority, table, OutboundKind::ByHost);
    let mut client = Client1::connect(web.outbound()).await;
    let (end, mut late) = (Instant::now() + Duration::from_secs(60), 0);
    while !is_ejected(&upstreams[0]) {
        assert!(Instant::now() < end, "it is never ejected, after {late} timeouts");
        let reply = client.call(post()).await.unwrap();
        if reply.status != 200 {
            assert_eq!(reply.headers["x-weft-fault"], "response_timeout");
            late += 1;
        }
    }
    assert_eq!(late, 5);
    for _ in 0..20 {
        assert_eq!(client.call(post()).await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_wait_for_a_response_begins_when_the_request_is_whole() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let reviews = http_host(&authority, application.address);
    let limit = Duration::from_secs(1);
    let endpoints = vec![endpoint("r1", application.address, &reviews)];
    let table = calling_table_within(endpoints, AppProtocol::Http, 1, Retries::default(), Some(limit));
    let web = calling_host(&authority, table, OutboundKind::ByHost);
    for delay in [0, 5_000] {
        let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: reviews\r\nx-delay: {delay}\r\ncontent-length: 6\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // What takes so long is the upload itself.
        for _ in 0..6 {
            tokio::time::sleep(limit / 3).await;
            stream.write_all(b"x").await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let wanted = if delay == 0 { "HTTP/1.1 200" } else { "HTTP/1.1 504" };
        assert!(answer.starts_with(wanted), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_application_that_stops_reading_a_request_is_out_of_time() {
    let authority = Authority::new();
    // Connections are accepted by the kernel, and nobody ever reads.
    let deaf = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let reviews = http_host(&authority, deaf.local_addr().unwrap());
    let endpoints = vec![endpoint("r1", deaf.local_addr().unwrap(), &reviews)];
    let limit = Duration::from_millis(300);
    let table = calling_table_within(endpoints, AppProtocol::Http, 1, Retries::default(), Some(limit));
    let web = calling_host(&authority, table, OutboundKind::ByHost);
    let stream = TcpStream::connect(web.outbound()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let upload = tokio::spawn(async move {
        let head = "POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: 1000000000\r\n\r\n";
        writing.write_all(head.as_bytes()).await.unwrap();
        while writing.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
    });
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(10), reading.read_exact(&mut answer));
    read.await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
    upload.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_workload_without_a_certificate_spoils_nothing_for_others() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let reviews = http_host(&authority, application.address);
    let upstream = endpoint("r1", application.address, &reviews);
    let table = Publisher::new(calling_table(vec![upstream.clone()], AppProtocol::Http, 1));
    let credentials = Publisher::new(authority.credentials(&[&identity("web")]));
    let mut config = calling_config(OutboundKind::ByHost, AllowedLocal::Any);
    let WorkloadListeners { workload, outbound } = config.workloads[0].clone();
    let name = WorkloadName::new("second").unwrap();
    let second = Workload { name: name.clone(), identity: identity("second"), ..(*workload).clone() };
    config.workloads.push(WorkloadListeners { workload: Arc::new(second), outbound });
    let proxy = Proxy::start(config, table.reader(), credentials.reader()).unwrap();
    for (caller, wanted) in [("second", 503), ("web", 200)] {
        let addresses = proxy.addresses().outbound;
        let address = addresses.into_iter().find(|(workload, _)| workload.as_str() == caller).unwrap().1;
        let ListenAddress::Tcp(address) = address else { panic!("no TCP") };
        let mut client = Client1::connect(address).await;
        for _ in 0..10 {
            let reply = client.call(post()).await.unwrap();
            assert_eq!(reply.status, wanted, "{}", reply.text());
            assert!(!is_ejected(&upstream), "{caller}");
        }
    }
}

/// A way to `to` that holds every connection up until it is opened, and counts them.
struct Gate {
    address: SocketAddr,
    came: watch::Receiver<u32>,
    open: watch::Sender<bool>,
}

impl Gate {
    async fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ((count, came), (open, opened)) = (watch::channel(0), watch::channel(false));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                let mut opened = opened.clone();
                tokio::spawn(async move {
                    opened.wait_for(|open| *open).await.unwrap();
                    let mut far = TcpStream::connect(to).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { address, came, open }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_to_who_was_meant_before_is_not_used_for_who_is_meant_now() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let reviews = http_host(&authority, application.address);
    let ListenAddress::Tcp(mesh) = reviews.proxy.addresses().inbound[0].clone() else { panic!("no TCP") };
    let mut gate = Gate::before(mesh).await;
    let before = Arc::new(Upstream {
        registry: RegistryName::new("static").unwrap(),
        endpoint: Arc::new(endpoint_at("r1", application.address, gate.address)),
        tier: 0,
        state: Default::default(),
    });
    let renamed = Endpoint { identity: Some(identity("reviews-new")), ..(*before.endpoint).clone() };
    let after = Arc::new(Upstream {
        registry: before.registry.clone(),
        endpoint: Arc::new(renamed),
        tier: 0,
        state: before.state.carried_over(),
    });
    let table = calling_table(vec![before.clone()], AppProtocol::Http, 1);
    let mut web = calling_host(&authority, table, OutboundKind::ByHost);
    let outbound = web.outbound();
    let call = move || async move { Client1::connect(outbound).await.call(post()).await.unwrap() };
    let first = tokio::spawn(call());
    gate.came.wait_for(|came| *came > 0).await.unwrap();
    web.table.publish(calling_table(vec![after], AppProtocol::Http, 2));
    let second = tokio::spawn(call());
    until("both calls wait", async || before.state.in_flight.load(Relaxed) == 2).await;
    gate.open.send(true).unwrap();
    // The first is in order: it was sent when that was who is meant.
    assert_eq!(first.await.unwrap().status, 200);
    for reply in [second.await.unwrap(), call().await] {
        assert_eq!(reply.status, 503, "{}", reply.text());
    }
    assert_eq!(application.requests.load(Relaxed), 1);
}
