//! What is left at the drain's deadline: told, counted and recorded.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_core::resource::AppProtocol;
use weft_proxy::OutboundKind;

use crate::{
    application::{Application, read_head, scripted},
    authority::Authority,
    client::{Client1, Client2, Reply},
    world::{next, pair, until},
};

const DEADLINE: Duration = Duration::from_millis(200);

fn is_drained(reply: &Reply) -> bool {
    reply.status == 503 && reply.headers["x-weft-fault"] == "drained"
}

/// A call by HTTP/1.1 and one by HTTP/2 that the application does not answer in time.
async fn slow_calls(address: std::net::SocketAddr) -> [tokio::task::JoinHandle<hyper::Result<Reply>>; 2] {
    let (mut one, mut two) = (Client1::connect(address).await, Client2::connect(address).await);
    let slow = |request: http::request::Builder| {
        request.method("POST").header("x-delay", "60000").body(Default::default()).unwrap()
    };
    let first = slow(Request::builder().uri("/").header("host", "reviews"));
    let second = slow(Request::builder().uri("http://reviews/"));
    [tokio::spawn(async move { one.call(first).await }), tokio::spawn(async move { two.call(second).await })]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_without_an_answer_are_told_when_the_callers_agent_drains() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (mut web, _reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let mut tap = web.proxy.tap();
    let calls = slow_calls(web.outbound()).await;
    until("both are with the application", async || application.requests.load(Relaxed) == 2).await;
    assert_eq!(web.proxy.drain(DEADLINE).await, 2);
    for call in calls {
        let reply = call.await.unwrap().unwrap();
        assert!(is_drained(&reply), "{reply:?}");
        let record = next(&mut tap).await;
        let verdict = &record.verdict;
        assert_eq!((verdict.fault, verdict.status, verdict.flags), (Some("drained"), 503, "LR"));
    }
    assert!(web.proxy.metrics().contains("response_code=\"503\""), "{}", web.proxy.metrics());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_without_an_answer_are_told_when_the_called_agent_drains() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, mut reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let mut tap = reviews.proxy.tap();
    let calls = slow_calls(web.outbound()).await;
    until("both are with the application", async || application.requests.load(Relaxed) == 2).await;
    assert_eq!(reviews.proxy.drain(DEADLINE).await, 1);
    for call in calls {
        let reply = call.await.unwrap().unwrap();
        assert!(is_drained(&reply), "{reply:?}");
        assert_eq!(next(&mut tap).await.verdict.fault, Some("drained"));
    }
    // A POST may have been acted on: it is not for the mesh to send it again.
    assert_eq!(application.requests.load(Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_that_is_not_done_is_cut_and_recorded_as_such() {
    let authority = Authority::new();
    let address = scripted(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun").await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let (mut web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    let mut tap = web.proxy.tap();
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
    read_head(&mut stream).await;
    let mut begun = [0; 5];
    stream.read_exact(&mut begun).await.unwrap();
    assert_eq!(web.proxy.drain(DEADLINE).await, 1);
    assert_eq!(stream.read(&mut begun).await.unwrap_or(0), 0);
    let record = next(&mut tap).await;
    assert_eq!((record.verdict.fault, record.verdict.status), (Some("drained"), 200));
}

/// An application that switches to WebSocket and passes on what it gets, and sends what it is told to.
async fn websocket(
    to_send: &'static [&'static [u8]],
) -> (std::net::SocketAddr, tokio::sync::mpsc::Receiver<Vec<u8>>) {
    let (told, heard) = tokio::sync::mpsc::channel(1);
    let address = scripted(move |_, mut stream| {
        let told = told.clone();
        async move {
            let switch =
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: upgrade\r\n\r\n";
            stream.write_all(switch.as_bytes()).await.unwrap();
            for part in to_send {
                stream.write_all(part).await.unwrap();
            }
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = told.send(all).await;
        }
    })
    .await;
    (address, heard)
}

async fn switched(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /chat HTTP/1.1\r\nhost: reviews\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    stream
}

/// A text from the client, masked with zeros.
const SAID: &[u8] = &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
/// The same from the server.
const ANSWERED: &[u8] = &[0x81, 2, b'y', b'o'];
/// Close 1001.
const CLOSE: &[u8] = &[0x88, 2, 0x03, 0xe9];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn both_ends_of_a_websocket_get_a_close() {
    for called_drains in [false, true] {
        let authority = Authority::new();
        let (address, mut heard) = websocket(&[ANSWERED]).await;
        let (mut web, mut reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
        let mut stream = switched(web.outbound()).await;
        stream.write_all(SAID).await.unwrap();
        let mut first = [0; ANSWERED.len()];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(first, ANSWERED);
        let draining = if called_drains { &mut reviews } else { &mut web };
        let (drained, rest) = tokio::join!(draining.proxy.drain(DEADLINE), async {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            stream.shutdown().await.unwrap();
            rest
        });
        assert_eq!((drained, rest.as_slice()), (1, CLOSE));
        let heard = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.unwrap().unwrap();
        let (said, close) = heard.split_at(SAID.len());
        assert_eq!(said, SAID);
        let [0x88, 0x82, mask @ .., high, low] = close else { panic!("{close:?}") };
        assert_eq!([high ^ mask[0], low ^ mask[1]], [0x03, 0xe9]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_is_put_into_the_middle_of_a_frame() {
    let authority = Authority::new();
    // The application begins a frame of ten bytes and never ends it; the caller ends its own after the deadline.
    let (address, mut heard) = websocket(&[&[0x82, 10, 1, 2, 3]]).await;
    let (mut web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    let mut stream = switched(web.outbound()).await;
    let mut begun = [0; 5];
    stream.read_exact(&mut begun).await.unwrap();
    let (first, second) = SAID.split_at(7);
    stream.write_all(first).await.unwrap();
    let began = std::time::Instant::now();
    let (_, rest) = tokio::join!(web.proxy.drain(DEADLINE), async {
        // The middle of the second that a polite end takes.
        tokio::time::sleep_until((began + DEADLINE + Duration::from_millis(300)).into()).await;
        stream.write_all(second).await.unwrap();
        stream.write_all(SAID).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        rest
    });
    assert_eq!(rest, b"", "no Close after half a frame");
    let heard = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.unwrap().unwrap();
    assert!(heard.starts_with(SAID) && heard.len() == SAID.len() + 8, "{heard:?}");
    assert_eq!(heard[SAID.len()..][..2], [0x88, 0x82], "the frame was ended, and the next not begun");
}
