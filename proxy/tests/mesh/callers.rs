//! Callers that say all and wait, and callers that leave.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use weft_core::{
    resource::AppProtocol,
    wire::{Answer, Framing},
};
use weft_proxy::{ListenAddress, OutboundKind};

use crate::{
    agent::{self, greet},
    application::{Application, scripted},
    authority::Authority,
    client,
    world::{Host, bound, identity, next, pair},
};

/// What comes until the other side ends the connection, which it must do in order.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let (text, end) = client::rest(stream).await;
    end.unwrap();
    text
}

async fn say_all(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// The calling host with a Unix socket beside its port.
fn with_unix_socket(mut web: Host, path: &std::path::Path) -> Host {
    let mut config = crate::world::calling_config(OutboundKind::ByHost, weft_proxy::AllowedLocal::Any);
    let mut second = config.workloads[0].outbound[0].clone();
    second.address = ListenAddress::Unix(path.to_owned());
    config.workloads[0].outbound.push(second);
    web.proxy.reload(config).unwrap();
    web
}

const GET: &str = "GET /one HTTP/1.1\r\nhost: reviews\r\nx-delay: 300\r\n\r\n";
const POST: &str = "POST /two HTTP/1.1\r\nhost: reviews\r\nx-delay: 300\r\ncontent-length: 4\r\n\r\nbody";
const CHUNKED: &str = "POST /three HTTP/1.1\r\nhost: reviews\r\nx-delay: 300\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_caller_that_half_closes_gets_its_answer() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.sock");
    let web = with_unix_socket(web, &path);
    for request in [GET, POST, CHUNKED] {
        let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
        say_all(&mut stream, request).await;
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("x-delay: 300\n"), "{answer}");
        assert_eq!(answer.ends_with("\nbody"), request != GET, "{answer}");
        let mut stream = UnixStream::connect(&path).await.unwrap();
        say_all(&mut stream, request).await;
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    say_all(&mut stream, &format!("{GET}{POST}")).await;
    let answers = rest(&mut stream).await;
    assert!(answers.contains("GET /one ") && answers.ends_with("\nbody"), "{answers}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_agent_that_leaves_ends_its_request() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (_web, reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let mut called = reviews.proxy.tap();
    let mut stream = greet(&authority, &reviews, application.address.port(), Framing::Http1).await;
    // It ends its half, as an agent does whose own caller left.
    say_all(&mut stream, &GET.replace("300", "60000")).await;
    let record = next(&mut called).await;
    assert_eq!((record.verdict.fault, record.verdict.status), (Some("caller_gone"), 499));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_is_not_lost_on_a_connection_that_a_renewal_finds_new() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (_web, mut reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let mut stream = agent::connect(&authority, &reviews, Framing::Http1).await;
    agent::handshake_done(&mut stream).await;
    reviews.credentials.publish(authority.credentials(&[&identity("reviews")]));
    let answer = agent::hello(&mut stream, application.address.port()).await;
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    stream.write_all(POST.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut answer));
    read.await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trust_that_ends_before_the_hello_counts() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (_web, mut reviews) = pair(&authority, application.address, AppProtocol::Tcp, OutboundKind::ByHost);
    let mut stream = agent::connect(&authority, &reviews, Framing::Tcp).await;
    agent::handshake_done(&mut stream).await;
    let trusting_others = Authority::new().bundle("test.mesh");
    let credentials = (*reviews.credentials.current()).clone().with_bundle(trusting_others);
    reviews.credentials.publish(credentials);
    assert_eq!(agent::hello(&mut stream, application.address.port()).await, Answer::Untrusted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_caller_that_leaves_ends_its_request_everywhere() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.sock");
    let web = with_unix_socket(web, &path);
    let (mut caller, mut called) = (web.proxy.tap(), reviews.proxy.tap());
    let request = GET.replace("300", "60000");
    for turn in 1..=4 {
        let mut tcp = TcpStream::connect(web.outbound()).await.unwrap();
        let mut unix = UnixStream::connect(&path).await.unwrap();
        match turn {
            1 | 3 => tcp.write_all(request.as_bytes()).await.unwrap(),
            _ => unix.write_all(request.as_bytes()).await.unwrap(),
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while application.requests.load(Relaxed) < turn {
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if turn > 2 {
            // It is seen to wait first. Nothing outside tells when; were it not seen, this would be like the turns before.
            tcp.shutdown().await.unwrap();
            unix.shutdown().await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        drop((tcp, unix));
        for tap in [&mut caller, &mut called] {
            let record = next(tap).await;
            assert_eq!((record.verdict.fault, record.verdict.status), (Some("caller_gone"), 499));
            assert_eq!(record.verdict.flags, "DC");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_application_may_end_its_side_first() {
    let authority = Authority::new();
    // Says its word, ends its side, and then reads to the end.
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let address = scripted(move |head, mut stream| {
        let told = told.clone();
        async move {
            stream.write_all(b"word").await.unwrap();
            stream.shutdown().await.unwrap();
            told.send(head + &rest(&mut stream).await).await.unwrap();
        }
    })
    .await;
    let (web, _reviews) = pair(&authority, address, AppProtocol::Tcp, bound());
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    stream.write_all(b"first\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut stream).await, "word");
    for _ in 0..100 {
        stream.write_all(b"later").await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.unwrap().unwrap();
    assert_eq!(heard, format!("first\r\n\r\n{}", "later".repeat(100)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_caller_may_flush_with_empty_frames() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let stream = TcpStream::connect(web.outbound()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        let request = http::Request::post("http://reviews/").body(()).unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        for _ in 0..150 {
            body.send_data(Bytes::from_static(b"x"), false).unwrap();
            body.send_data(Bytes::new(), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
        let mut answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut text = Vec::new();
        while let Some(chunk) = answer.body_mut().data().await {
            text.extend(chunk.unwrap());
        }
        assert!(text.ends_with("x".repeat(150).as_bytes()), "{}", String::from_utf8_lossy(&text));
    }
    drop(sender);
    connection.await.unwrap().unwrap();
}
