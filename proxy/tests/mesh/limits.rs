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
    application::{Application, read_head},
    authority::Authority,
    bytes_and_streams::switching,
    client::{Client1, Client2},
    world::{
        Host, Serving, bound, calling_config, calling_table, endpoint, identity, open_to_domain,
        plain_endpoint, serving_host_with, until,
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
    let limits = Limits { opaque_idle: Some(Duration::from_secs(2)), ..Limits::default() };
    let (web, _reviews) = pair(&authority, address, AppProtocol::Tcp, limits);
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    let (mut application, _) = listener.accept().await.unwrap();
    application.write_all(b"welcome").await.unwrap();
    assert_eq!(ended(&mut stream).await, "welcome");
}

/// A root is withdrawn when its successor is in place: what was opened under it is not broken off.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_open_stream_outlives_the_root_that_it_was_opened_under_for_a_while_and_ends_politely() {
    let (of_bytes, of_http) = (AppProtocol::Tcp, AppProtocol::Http);
    tokio::join!(outliving(of_bytes, 0), outliving(of_bytes, 1), outliving(of_http, 0));
}

/// Opens a stream of this protocol, and replaces the root of both hosts: first of the one with this number.
async fn outliving(protocol: AppProtocol, renewed_first: usize) {
    let limits = Limits { distrusted: Duration::from_secs(4), ..Limits::default() };
    let (before, after) = (Authority::new(), Authority::new());
    let (web, reviews) = pair(&before, slow_echo().await, protocol, limits);
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    let mut byte = [0];
    if protocol.is_http() {
        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: reviews\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        read_head(&mut stream).await;
    } else {
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
    }
    let began = std::time::Instant::now();
    let mut hosts = [(web, "web"), (reviews, "reviews")];
    hosts.rotate_left(renewed_first);
    for (host, account) in &mut hosts {
        host.credentials.publish(after.credentials(&[&identity(account)]));
    }
    hosts.rotate_left(renewed_first);
    // Under the new root, and so after both have seen it.
    until("a new connection", async || {
        let mut fresh = TcpStream::connect(hosts[0].0.outbound()).await.unwrap();
        let words: &[u8] = if protocol.is_http() { b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n" } else { b"x" };
        fresh.write_all(words).await.is_ok() && fresh.read(&mut [0]).await.is_ok_and(|read| read == 1)
    })
    .await;
    if protocol.is_http() {
        // The application says something each 100 ms, and is cut off only when its time is over.
        let mut seen = Vec::new();
        let _ = stream.read_to_end(&mut seen).await;
        assert!(seen.len() > 5 && !seen.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&seen));
    } else {
        stream.write_all(b"y").await.unwrap();
        assert_eq!(stream.read(&mut byte).await.unwrap(), 1);
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut byte)).await.unwrap();
        assert_eq!(end.unwrap(), 0, "an end, not a reset");
    }
    assert!(began.elapsed() >= limits.distrusted, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_switched_connection_outlives_trust_in_its_agent_for_a_while_and_not_longer() {
    let authority = Authority::new();
    let limits = Limits { distrusted: Duration::from_secs(1), ..Limits::default() };
    let (mut web, _reviews) = pair(&authority, switching().await, AppProtocol::Http, limits);
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    let request = b"GET /chat HTTP/1.1\r\nHost: reviews\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(request).await.unwrap();
    read_head(&mut stream).await;
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    let renewed = (*web.credentials.current()).clone().with_identity(authority.issue(&identity("web")));
    web.credentials.publish(renewed);
    for _ in 0..20 {
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        tokio::task::yield_now().await;
    }
    // The same certificate, and trust in other roots.
    let others = (*web.credentials.current()).clone().with_bundle(Authority::new().bundle("test.mesh"));
    let withdrawn = std::time::Instant::now();
    web.credentials.publish(others);
    let _closing = ended(&mut stream).await;
    assert!(withdrawn.elapsed() >= limits.distrusted, "{:?}", withdrawn.elapsed());
}

/// An application that sends every byte back, or to a request of HTTP/1 an answer that does not end.
async fn slow_echo() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0];
                stream.read_exact(&mut first).await?;
                if first == *b"x" {
                    stream.write_all(&first).await?;
                    let (mut read, mut write) = stream.split();
                    return tokio::io::copy(&mut read, &mut write).await.map(|_| ());
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                loop {
                    stream.write_all(b"1\r\nx\r\n").await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
    });
    address
}
