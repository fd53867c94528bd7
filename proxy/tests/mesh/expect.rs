//! `Expect: 100-continue`: the application decides, and nobody else says that it did.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_core::resource::AppProtocol;
use weft_proxy::OutboundKind;

use crate::{
    application::{read_head, scripted},
    authority::Authority,
    world::{Serving, calling_host, calling_table, endpoint, open_to_domain, pair, serving_host},
};

const HEAD: &str =
    "POST /upload HTTP/1.1\r\nhost: reviews\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
const DONE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";

async fn answer(stream: &mut TcpStream) -> String {
    tokio::time::timeout(Duration::from_secs(10), read_head(stream)).await.unwrap()
}

/// An application that answers a head as it is told, and reads the body when it is told to go on.
async fn deciding(first: &'static str, seen: Arc<AtomicU32>) -> std::net::SocketAddr {
    scripted(move |head, mut stream| {
        let seen = seen.clone();
        async move {
            seen.fetch_add(1, Relaxed);
            assert!(head.contains("expect: 100-continue\r\n"), "{head}");
            stream.write_all(first.as_bytes()).await.unwrap();
            if first.is_empty() || first.contains(" 100 ") {
                let mut body = [0; 4];
                stream.read_exact(&mut body).await.unwrap();
                assert_eq!(&body, b"body");
                stream.write_all(DONE).await.unwrap();
            }
            let _ = stream.read(&mut [0]).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_application_says_go_on() {
    let authority = Authority::new();
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let address = deciding("HTTP/1.1 100 Continue\r\n\r\n", Arc::default()).await;
        let (web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
        let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
        let began = Instant::now();
        stream.write_all(HEAD.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 100 "));
        fastest = fastest.min(began.elapsed());
        stream.write_all(b"body").await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"body");
    }
    // An agent that says it in the application's place does so after a second, each time.
    assert!(fastest < Duration::from_millis(900), "it was not waited for: {fastest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_application_says_no() {
    let authority = Authority::new();
    let no = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let address = deciding(no, Arc::default()).await;
    let (web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    stream.write_all(HEAD.as_bytes()).await.unwrap();
    let first = answer(&mut stream).await;
    assert!(first.starts_with("HTTP/1.1 413 "), "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn policy_says_no() {
    let authority = Authority::new();
    let seen = Arc::new(AtomicU32::new(0));
    let address = deciding("HTTP/1.1 100 Continue\r\n\r\n", seen.clone()).await;
    let mut authorization = open_to_domain();
    authorization.deny = vec![crate::world::deny_all()];
    let serving = Serving { address, protocol: AppProtocol::Http, authorization };
    let reviews = serving_host(&authority, serving);
    let table = calling_table(vec![endpoint("r1", address, &reviews)], AppProtocol::Http, 1);
    let web = calling_host(&authority, table, OutboundKind::ByHost);
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    stream.write_all(HEAD.as_bytes()).await.unwrap();
    let first = answer(&mut stream).await;
    assert!(first.starts_with("HTTP/1.1 403 ") && first.contains("x-weft-fault: denied\r\n"), "{first}");
    assert_eq!(seen.load(Relaxed), 0);
    // Nowhere to go is no reason to go on either.
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    stream.write_all(HEAD.replace("reviews", "nobody").as_bytes()).await.unwrap();
    let first = answer(&mut stream).await;
    assert!(first.starts_with("HTTP/1.1 404 "), "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_application_that_knows_of_no_expectations_gets_the_body_all_the_same() {
    let authority = Authority::new();
    let address = deciding("", Arc::default()).await;
    let (web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    stream.write_all(HEAD.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 100 "));
    stream.write_all(b"body").await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
}
