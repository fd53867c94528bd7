//! Draining the agent of a caller: who has a connection to it is told before it is closed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use weft_core::resource::AppProtocol;
use weft_proxy::OutboundKind;

use crate::{
    application::{Application, read_head, scripted},
    authority::Authority,
    client::Client1,
    world::{pair, until},
};

/// Calls without a pause, and never twice, until it is told to close. What went wrong, if anything did.
async fn call_until_told(address: SocketAddr, calls: Arc<AtomicU64>) -> Option<String> {
    let mut client = Client1::connect(address).await;
    loop {
        match client.get("reviews", "/").await {
            Ok(reply) if reply.status != 200 => return Some(reply.text()),
            Ok(reply) if reply.headers.get("connection").is_some_and(|value| value == "close") => {
                return None;
            }
            Ok(_) => calls.fetch_add(1, Relaxed),
            Err(error) => return Some(format!("{error:?}")),
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_request_is_lost_on_idle_busy_or_fresh_connections() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (mut web, _reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let address = web.outbound();
    let calls = Arc::<AtomicU64>::default();
    let mut load = JoinSet::new();
    for _ in 0..16 {
        load.spawn(call_until_told(address, calls.clone()));
    }
    until("there is load", async || calls.load(Relaxed) > 300).await;
    let (mut fresh, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        fresh.push(TcpStream::connect(address).await.unwrap());
        let mut client = Client1::connect(address).await;
        assert_eq!(client.get("reviews", "/").await.unwrap().status, 200);
        idle.push(client);
    }
    let draining = tokio::spawn(async move { web.proxy.drain(Duration::from_secs(60)).await });
    until("nothing new is accepted", async || TcpStream::connect(address).await.is_err()).await;
    let began = Instant::now();
    for mut client in idle {
        let reply = client.get("reviews", "/").await.unwrap();
        assert_eq!((reply.status.as_u16(), &reply.headers["connection"]), (200, &"close".parse().unwrap()));
    }
    for mut stream in fresh {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("connection: close\r\n"), "{head}");
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    }
    assert_eq!(load.join_all().await, vec![None; 16]);
    assert_eq!(draining.await.unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(20), "nobody was left to wait for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_had_a_long_answer_has_time_for_the_next_request() {
    let authority = Authority::new();
    let (go_on, may_go_on) = tokio::sync::mpsc::channel::<()>(1);
    let may_go_on = Arc::new(tokio::sync::Mutex::new(may_go_on));
    let address = scripted(move |head, mut stream| {
        let may_go_on = may_go_on.clone();
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab").await.unwrap();
            if head.starts_with("GET /long ") {
                may_go_on.lock().await.recv().await.unwrap();
            }
            stream.write_all(b"cd").await.unwrap();
        }
    })
    .await;
    let (mut web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    let address = web.outbound();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /long HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(!head.contains("connection: close"), "{head}");
    let mut idle = Client1::connect(address).await;
    assert_eq!(idle.get("reviews", "/").await.unwrap().status, 200);
    let draining = tokio::spawn(async move { web.proxy.drain(Duration::from_secs(12)).await });
    // Who idles is left when the worker waits no more for what callers are about to say.
    until("the idle one is left", async || idle.is_closed()).await;
    go_on.send(()).await.unwrap();
    let mut rest = Vec::new();
    while !rest.ends_with(b"cd") {
        assert!(stream.read_buf(&mut rest).await.unwrap() > 0);
    }
    stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("connection: close\r\n"), "{head}");
    drop(stream);
    assert_eq!(draining.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_says_nothing_is_left_in_the_end_and_not_counted_as_cut() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (mut web, _reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let mut idle = TcpStream::connect(web.outbound()).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
    let head = read_head(&mut idle).await;
    let (_, length) = head.split_once("content-length: ").unwrap();
    let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
    idle.read_exact(&mut body).await.unwrap();
    let mut mute = TcpStream::connect(web.outbound()).await.unwrap();
    assert_eq!(web.proxy.drain(Duration::from_secs(2)).await, 0);
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(mute.read(&mut [0]).await.unwrap(), 0);
}
