//! Connections of HTTP/1.1 that wait for so long, or are so many, that they give back what they need for a request.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_core::resource::AppProtocol;
use weft_proxy::OutboundKind;

use crate::{
    application::Application,
    authority::Authority,
    world::{Host, Serving, calling_host, calling_table, endpoint, open_to_domain, serving_host},
};

/// More than a worker keeps ready for a request.
const MANY: usize = 320;
const GET: &[u8] = b"GET /one HTTP/1.1\r\nhost: reviews\r\n\r\n";

async fn pair(authority: &Authority, application: &Application) -> (Host, Host) {
    let authorization = open_to_domain();
    let serving = Serving { address: application.address, protocol: AppProtocol::Http, authorization };
    let reviews = serving_host(authority, serving);
    let table = calling_table(vec![endpoint("r1", application.address, &reviews)], AppProtocol::Http, 1);
    (calling_host(authority, table, OutboundKind::ByHost), reviews)
}

/// Connections that have each done one request.
async fn many(web: &Host) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..MANY {
        let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
        stream.write_all(GET).await.unwrap();
        assert!(reply(&mut stream).await.contains("GET /one HTTP/1.1\n"));
        all.push(stream);
    }
    all
}

/// The body of the next response, which must be a 200.
async fn reply(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let (_, length) = head.split_once("content-length: ").unwrap();
    let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_comes_after_a_rest_is_answered() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, &application).await;
    let mut all = many(&web).await;
    let post = b"POST /echo HTTP/1.1\r\nhost: reviews\r\ncontent-length: 4\r\n\r\nbody";
    for (number, stream) in all.iter_mut().enumerate() {
        stream.set_nodelay(true).unwrap();
        // Two requests that are cut into two pieces, at another place on each connection.
        let both = [GET, post].concat();
        let (first, second) = both.split_at(1 + number % (both.len() - 1));
        stream.write_all(first).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(second).await.unwrap();
        assert!(reply(stream).await.contains("GET /one HTTP/1.1\n"), "{number}");
        assert!(reply(stream).await.ends_with("body"), "{number}");
        stream.write_all(GET).await.unwrap();
        assert!(reply(stream).await.contains("GET /one HTTP/1.1\n"), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_caller_that_rests_may_leave() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, &application).await;
    for mut stream in many(&web).await {
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    // A connection is counted until a moment after its end was sent.
    let forgotten = async {
        while web.proxy.load() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), forgotten).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_drain_waits_for_nobody_that_rests() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (mut web, _reviews) = pair(&authority, &application).await;
    let all = many(&web).await;
    let draining = web.proxy.drain(Duration::from_secs(60));
    let cut = tokio::time::timeout(Duration::from_secs(20), draining).await.unwrap();
    assert_eq!(cut, 0);
    for mut stream in all {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}
