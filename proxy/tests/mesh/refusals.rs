//! Who is refused is told so, and it is recorded.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_core::{
    context::RequestContext, publish::Publisher, resource::AppProtocol, table::Table, wire::Framing,
};
use weft_proxy::{AllowedLocal, OutboundKind, Proxy, TapReceiver};

use crate::{
    agent::greet,
    application::{Application, read_head},
    authority::Authority,
    client::Client1,
    world::{
        Serving, bound, calling_config, calling_host, calling_table, deny_all, endpoint, identity, next,
        open_to_domain, outbound_of, pair, plain_endpoint, serving_host,
    },
};

/// Whether a connection ends with a reset before anything was said on it.
async fn is_reset(address: SocketAddr) -> bool {
    let ended = async { TcpStream::connect(address).await?.read(&mut [0]).await };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.unwrap();
    ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_caller_of_a_bound_port_that_is_not_known_does_not_wait_for_a_greeting() {
    let authority = Authority::new();
    for (is_partial, fault) in [(false, "no_destination"), (true, "not_ready")] {
        let table = Table { generation: 1, is_partial, ..Table::default() };
        let web = calling_host(&authority, table, bound());
        let mut tap = web.proxy.tap();
        assert!(is_reset(web.outbound()).await);
        assert_eq!(next(&mut tap).await.verdict.fault, Some(fault));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_registry_may_yet_know_is_not_ready_and_all_else_does_not_exist() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let mut table = calling_table(vec![plain_endpoint("r1", application.address)], AppProtocol::Http, 1);
    table.is_partial = true;
    let mut web = calling_host(&authority, table.clone(), OutboundKind::ByHost);
    let mut client = Client1::connect(web.outbound()).await;
    assert_eq!(client.get("reviews", "/").await.unwrap().status, 200);
    let early = client.get("nobody", "/").await.unwrap();
    assert_eq!((early.status.as_u16(), early.headers["x-weft-fault"].as_bytes()), (503, &b"not_ready"[..]));
    assert_eq!(early.headers["retry-after"], "1");
    table.is_partial = false;
    web.table.publish(Table { generation: 2, ..table });
    let late = client.get("nobody", "/").await.unwrap();
    assert_eq!(
        (late.status.as_u16(), late.headers["x-weft-fault"].as_bytes()),
        (404, &b"no_destination"[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_denied_connection_is_recorded_on_both_sides() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let mut authorization = open_to_domain();
    authorization.deny = vec![deny_all()];
    let rule = authorization.deny[0].rules[0].name.clone();
    let (address, protocol) = (application.address, AppProtocol::Tcp);
    let reviews = serving_host(&authority, Serving { address, protocol, authorization });
    let table = calling_table(vec![endpoint("r1", address, &reviews)], protocol, 1);
    let web = calling_host(&authority, table, bound());
    let (mut caller, mut called) = (web.proxy.tap(), reviews.proxy.tap());
    assert!(is_reset(web.outbound()).await);
    for (tap, fault) in [(&mut caller, "peer_denied"), (&mut called, "denied")] {
        let record = next(tap).await;
        assert_eq!((record.verdict.fault, record.verdict.rule.as_ref()), (Some(fault), Some(&rule)));
        assert_eq!(record.source.identity, identity("web"));
    }
    assert_eq!(application.requests.load(Relaxed), 0);
    let metrics = reviews.proxy.metrics();
    for name in ["opened", "closed"] {
        let line =
            metrics.lines().find(|line| line.starts_with(&format!("weft_tcp_connections_{name}_total{{")));
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_refused_process_is_recorded_and_told_no_more_than_allowed() {
    let authority = Authority::new();
    let table = Publisher::new(Table::default());
    let credentials = Publisher::new(authority.credentials(&[&identity("web")]));
    for fault_header in [true, false] {
        let mut config = calling_config(OutboundKind::ByHost, AllowedLocal::Uids(vec![u32::MAX - 1]));
        config.fault_header = fault_header;
        let proxy = Proxy::start(config, table.reader(), credentials.reader()).unwrap();
        let mut tap = proxy.tap();
        let mut stream = TcpStream::connect(outbound_of(&proxy)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
        assert_eq!(answer.contains("x-weft-fault: caller_refused\r\n"), fault_header, "{answer}");
        assert_eq!(answer.contains("may not"), fault_header, "{answer}");
        let record = next(&mut tap).await;
        assert_eq!(
            (record.verdict.fault, &record.source.identity),
            (Some("caller_refused"), &identity("web"))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_rule_that_lets_a_connection_in_is_recorded() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let mut authorization = open_to_domain();
    // A policy that matches everybody.
    authorization.allow = vec![deny_all()];
    let rule = authorization.allow[0].rules[0].name.clone();
    let (address, protocol) = (application.address, AppProtocol::Tcp);
    let reviews = serving_host(&authority, Serving { address, protocol, authorization });
    let table = calling_table(vec![endpoint("r1", address, &reviews)], protocol, 1);
    let web = calling_host(&authority, table, bound());
    let mut called = reviews.proxy.tap();
    assert_eq!(Client1::connect(web.outbound()).await.get("reviews", "/").await.unwrap().status, 200);
    let record = next(&mut called).await;
    assert_eq!((record.verdict.fault, record.verdict.rule.as_ref()), (None, Some(&rule)));
}

/// What comes until the other side ends the connection; it must not reset it.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    let read = tokio::time::timeout(std::time::Duration::from_secs(10), stream.read_to_string(&mut text));
    read.await.expect("it is still open").unwrap();
    text
}

/// Requests that no parser takes, and why.
fn unreadable() -> Vec<(String, u16, &'static str)> {
    let large = format!("GET / HTTP/1.1\r\nhost: reviews\r\nx-long: {}\r\n\r\n", "y".repeat(400_000));
    let field = |field: &str| format!("POST / HTTP/1.1\r\nhost: reviews\r\n{field}\r\n\r\nabc");
    vec![
        ("nonsense\r\n\r\n".into(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nhost: reviews\r\nx: a\rb\r\n\r\n".into(), 400, "bad_request"),
        (field("x: a\r\n folded"), 400, "bad_request"),
        (field("content-length: +3"), 400, "bad_request"),
        (large, 431, "header_too_large"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_cannot_be_read_is_refused_by_name_and_recorded() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let address = application.address;
    let (web, reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    let (mut caller, mut called) = (web.proxy.tap(), reviews.proxy.tap());
    // As the first request, as one after another on a resting connection, and in one segment with it.
    let before = "GET / HTTP/1.1\r\nhost: reviews\r\n\r\n";
    for (request, status, fault) in unreadable() {
        for (first, at_once) in [(false, true), (true, false), (true, true)] {
            for inbound in [false, true] {
                let mut stream: Box<dyn Both> = match inbound {
                    false => Box::new(TcpStream::connect(web.outbound()).await.unwrap()),
                    true => Box::new(greet(&authority, &reviews, address.port(), Framing::Http1).await),
                };
                let mut sent = if first { before.to_owned() } else { String::new() };
                if !at_once {
                    stream.write_all(sent.as_bytes()).await.unwrap();
                    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
                    sent.clear();
                }
                sent.push_str(&request);
                // A refused caller may be told before it has said all.
                let _ = stream.write_all(sent.as_bytes()).await;
                let answer = answer(&mut stream).await;
                let (_, last) = answer.split_at(answer.rfind("HTTP/1.1 ").unwrap());
                assert!(last.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
                assert!(last.contains(&format!("\r\nx-weft-fault: {fault}\r\n")), "{answer}");
                assert!(last.contains("\r\nconnection: close\r\n") && last.ends_with(")\n"), "{answer}");
                let tap = if inbound { &mut called } else { &mut caller };
                let record = recorded(tap, fault).await;
                assert_eq!((record.verdict.status, record.verdict.flags), (status, "DPE"));
                assert_eq!((record.source.identity.account(), application_asked(&record)), ("web", ""));
            }
        }
    }
    let labels = r#"response_code="431",response_flags="DPE""#;
    for host in [&web, &reviews] {
        assert!(host.proxy.metrics().contains(labels), "{}", host.proxy.metrics());
    }
}

trait Both: AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Both for T {}

/// The next record of this fault.
async fn recorded(tap: &mut TapReceiver, fault: &str) -> Arc<RequestContext> {
    loop {
        let record = next(tap).await;
        if record.verdict.fault == Some(fault) {
            return record;
        }
    }
}

fn application_asked(record: &RequestContext) -> &str {
    record.request.as_ref().map_or("none", |request| &request.method)
}
