//! Who is blamed for a message that breaks off, and what of it arrives.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_core::resource::{AppProtocol, Retries};
use weft_proxy::OutboundKind;

use crate::{
    application::{Application, scripted},
    authority::Authority,
    world::{calling_host, calling_table_with, endpoint, http_host, next, pair},
};

/// What comes until the other side ends the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes));
    // A connection may be cut; what came before counts.
    let _end = read.await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_endpoint_is_blamed_for_a_body_that_its_caller_broke() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let reviews = http_host(&authority, application.address);
    let upstream = endpoint("r1", application.address, &reviews);
    let table = calling_table_with(vec![upstream.clone()], AppProtocol::Http, 1, Retries::default());
    let web = calling_host(&authority, table, OutboundKind::ByHost);
    let (mut caller, mut called) = (web.proxy.tap(), reviews.proxy.tap());
    let chunked = "POST / HTTP/1.1\r\nhost: reviews\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    let short = "POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: 100\r\n\r\nabc";
    for request in [chunked, short].repeat(20) {
        let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        if request == short {
            stream.shutdown().await.unwrap();
        }
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        for tap in [&mut caller, &mut called] {
            let fault = next(tap).await.verdict.fault;
            assert!(matches!(fault, Some("bad_request" | "caller_gone")), "{fault:?}");
        }
    }
    let state = upstream.state.peek();
    assert!(state.is_none_or(|state| state.ejected_until.load(Relaxed) == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_came_of_an_answer_that_breaks_off_arrives() {
    let authority = Authority::new();
    let address = scripted(|_head, mut stream| async move {
        let begin = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabcd";
        stream.write_all(begin.as_bytes()).await.unwrap();
    })
    .await;
    let (web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    for _ in 0..40 {
        let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let answer = rest(&mut stream).await;
        // Between the agents the head and its end may come in one piece; then it is a fault of ours, but never silence.
        assert!(answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.1 50"), "{answer:?}");
    }
}
