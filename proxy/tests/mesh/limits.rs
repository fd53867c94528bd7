//! Bounds on what callers may take: connections, time, headers, streams.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_core::{publish::Publisher, resource::AppProtocol, table::Table, wire::Framing};
use weft_proxy::{AllowedLocal, Limits, ListenAddress, OutboundKind, Proxy, ProxyConfig};

use crate::{
    agent::greet,
    application::Application,
    authority::Authority,
    client::{Client1, Client2},
    world::{
        Host, Serving, bound, calling_config, calling_table, endpoint, identity, open_to_domain,
        plain_endpoint, serving_host_with,
    },
};

fn calling(authority: &Authority, table: Table, kind: OutboundKind, limits: Limits) -> Host {
    let table = Publisher::new(table);
    let credentials = Publisher::new(authority.credentials(&[&identity("web")]));
    let config = ProxyConfig { limits, ..calling_config(kind, AllowedLocal::Any) };
    let proxy = Proxy::start(config, table.reader(), credentials.reader()).unwrap();
    Host { proxy, table, credentials }
}

fn pair(
    authority: &Authority,
    address: std::net::SocketAddr,
    protocol: AppProtocol,
    limits: Limits,
) -> (Host, Host) {
    let serving = Serving { address, protocol, authorization: open_to_domain() };
    let reviews = serving_host_with(authority, serving, limits);
    let table = calling_table(vec![endpoint("r1", address, &reviews)], protocol, 1);
    let kind = if protocol.is_http() { OutboundKind::ByHost } else { bound() };
    (calling(authority, table, kind, limits), reviews)
}

/// Waits until the other side ends the connection, and says what came before.
async fn ended(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer));
    let _ = read.await.expect("it is still open");
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_caller_that_says_nothing_is_not_waited_for_and_one_that_idles_is() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let limits = Limits { first_byte: Duration::from_secs(1), ..Limits::default() };
    let (web, _reviews) = pair(&authority, application.address, AppProtocol::Http, limits);
    let mut idle = Client1::connect(web.outbound()).await;
    assert_eq!(idle.get("reviews", "/").await.unwrap().status, 200);
    let mut mute = TcpStream::connect(web.outbound()).await.unwrap();
    assert_eq!(ended(&mut mute).await, "");
    assert_eq!(idle.get("reviews", "/").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_agent_cannot_hold_a_connection_with_a_header_that_never_ends() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let limits = Limits { header: Duration::from_secs(1), ..Limits::default() };
    let (_web, reviews) = pair(&authority, application.address, AppProtocol::Http, limits);
    let whole = "GET / HTTP/1.1\r\nhost: reviews\r\n\r\n";
    // Nothing; a beginning; and a beginning in the same segment as a whole request before it.
    for begun in ["", "GET / HT", &format!("{whole}GET / HTTP/1.1\r\nhost: rev")] {
        let port = application.address.port();
        let mut stream = greet(&authority, &reviews, port, Framing::Http1).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let answer = ended(&mut stream).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), begun.starts_with(whole), "{answer}");
        assert_eq!(answer.contains("HTTP/1.1 408 "), !begun.is_empty(), "{answer}");
        assert_eq!(answer.contains("\r\nx-weft-fault: caller_too_slow\r\n"), !begun.is_empty(), "{answer}");
    }
    // A connection that idles after a request, and one whose request takes long, are none of this.
    let mut stream = greet(&authority, &reviews, application.address.port(), Framing::Http1).await;
    for delay in [0, 2500, 0] {
        let request = whole.replace("\r\n\r\n", &format!("\r\nx-delay: {delay}\r\n\r\n"));
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = crate::application::read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_header_may_be_as_large_as_configured() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let limits = Limits { header_bytes: 16 * 1024, ..Limits::default() };
    let (web, _reviews) = pair(&authority, application.address, AppProtocol::Http, limits);
    for (length, status) in [(8 * 1024, 200), (20 * 1024, 431_u16)] {
        let mut client = Client1::connect(web.outbound()).await;
        let request = http::Request::get("/").header("host", "reviews").header("x-long", "y".repeat(length));
        let reply = client.call(request.body(Default::default()).unwrap()).await.unwrap();
        assert_eq!(reply.status, status);
        let mut client = Client2::connect(web.outbound()).await;
        let request = http::Request::get("http://reviews/").header("x-long", "y".repeat(length));
        let reply = client.call(request.body(Default::default()).unwrap()).await.unwrap();
        let fault = (status == 431).then(|| "header_too_large".parse().unwrap());
        assert_eq!((reply.status.as_u16(), reply.headers.get("x-weft-fault")), (status, fault.as_ref()));
    }
    let metrics = web.proxy.metrics();
    let counted =
        metrics.lines().find(|line| line.starts_with("weft_requests_total{") && line.contains("431"));
    // By HTTP/1 and by HTTP/2.
    assert!(
        counted.is_some_and(|line| line.contains(r#"response_flags="DPE""#) && line.ends_with(" 2")),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connections_are_bounded() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let limits = Limits { connections: 2, ..Limits::default() };
    let (web, _reviews) = pair(&authority, application.address, AppProtocol::Http, limits);
    let mut first = Client1::connect(web.outbound()).await;
    let mut second = Client1::connect(web.outbound()).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.get("reviews", "/").await.unwrap().status, 200);
    }
    let mut third = TcpStream::connect(web.outbound()).await.unwrap();
    assert_eq!(ended(&mut third).await, "");
    drop(second);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while web.proxy.load() > 1 {
        assert!(std::time::Instant::now() < deadline, "its place is not given back");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut fourth = Client1::connect(web.outbound()).await;
    assert_eq!(fourth.get("reviews", "/").await.unwrap().status, 200);
    assert_eq!(first.get("reviews", "/").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_fills_one_listener_takes_no_place_on_another() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let mesh = weft_proxy::InboundConfig { listen: vec!["127.0.0.1:0".parse().unwrap()] };
    let limits = Limits { connections: 2, ..Limits::default() };
    let mut config = calling_config(OutboundKind::ByHost, AllowedLocal::Any);
    let mut second = config.workloads[0].clone();
    second.workload = std::sync::Arc::new(weft_core::workload::Workload {
        name: weft_core::name::WorkloadName::new("second").unwrap(),
        ..(*second.workload).clone()
    });
    config.workloads.push(second);
    let config = ProxyConfig { limits, inbound: Some(mesh), ..config };
    let upstream = plain_endpoint("r1", application.address);
    let table = Publisher::new(calling_table(vec![upstream], AppProtocol::Http, 1));
    let credentials = Publisher::new(authority.credentials(&[&identity("web")]));
    let proxy = Proxy::start(config, table.reader(), credentials.reader()).unwrap();
    let addresses = proxy.addresses();
    let all = addresses.inbound.iter().chain(addresses.outbound.iter().map(|(_, address)| address));
    let mut kept = Vec::new();
    for address in all {
        let ListenAddress::Tcp(address) = address else { panic!("no TCP") };
        // As many as there may be, with those of the listeners before still there.
        for _ in 0..2 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if !addresses.inbound.contains(&ListenAddress::Tcp(*address)) {
                stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
                let head = crate::application::read_head(&mut stream).await;
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            }
            kept.push(stream);
        }
        let mut third = TcpStream::connect(address).await.unwrap();
        let began = std::time::Instant::now();
        assert_eq!(ended(&mut third).await, "");
        // Sooner than a handshake that does not come would end it.
        assert!(began.elapsed() < limits.handshake);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_opaque_connection_may_idle_as_long_as_configured() {
    let authority = Authority::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { opaque_idle: Some(Duration::from_millis(500)), ..Limits::default() };
    let (web, _reviews) = pair(&authority, address, AppProtocol::Tcp, limits);
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    let (mut application, _) = listener.accept().await.unwrap();
    application.write_all(b"welcome").await.unwrap();
    assert_eq!(ended(&mut stream).await, "welcome");
}
