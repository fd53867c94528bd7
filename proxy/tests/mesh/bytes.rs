//! Opaque bytes, switched connections, and streams in both directions.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2 as server2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use weft_core::resource::AppProtocol;
use weft_proxy::OutboundKind;

use crate::{
    authority::Authority,
    world::{
        Serving, bound, calling_host, calling_table, endpoint, next, open_to_domain, pair, serving_host,
    },
};

/// Sends back what it gets, and ends when the caller does.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bytes_pass_both_ways_and_each_side_ends_by_itself() {
    let authority = Authority::new();
    let (web, _reviews) = pair(&authority, echo().await, AppProtocol::Tcp, bound());
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    let sent = vec![7; 1_000_000];
    let (mut from, mut to) = stream.split();
    let write = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (read, ()) = tokio::join!(from.read_to_end(&mut received), write);
    assert_eq!((read.unwrap(), received == sent), (1_000_000, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_open_stream_ends_when_policy_denies_it_and_not_before() {
    let authority = Authority::new();
    let address = echo().await;
    let (web, mut reviews) = pair(&authority, address, AppProtocol::Tcp, bound());
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    let mut byte = [0];
    let current = reviews.table.current();
    let view = &current.views[0];
    for denies in [false, true] {
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        let mut authorization = open_to_domain();
        if denies {
            authorization.deny = vec![crate::world::deny_all()];
        }
        let generation = reviews.table.current().generation + 1;
        reviews.table.publish(crate::world::serving_table(&view.workload, authorization, generation));
    }
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut byte)).await.unwrap();
    assert!(ended.is_err(), "{ended:?}");
    // The reset of the refused connection may come before the connect has looked at its socket.
    let refused = tokio::time::timeout(Duration::from_secs(10), async {
        let mut refused = TcpStream::connect(web.outbound()).await?;
        refused.write_all(b"x").await?;
        refused.read(&mut byte).await
    });
    let ended = refused.await.unwrap();
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_drain_closes_open_streams_politely_at_its_deadline() {
    let authority = Authority::new();
    let (mut web, _reviews) = pair(&authority, echo().await, AppProtocol::Tcp, bound());
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    let drained = tokio::spawn(async move { web.proxy.drain(Duration::from_millis(200)).await });
    assert_eq!(stream.read(&mut byte).await.unwrap(), 0, "an end, not a reset");
    assert_eq!(drained.await.unwrap(), 1);
}

/// An application that switches to a protocol of its own: it sends every byte back.
pub(crate) async fn switching() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let answer = if head.contains("upgrade: websocket") && head.contains("connection: upgrade") {
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello"
                } else {
                    "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_switches_end_to_end() {
    let authority = Authority::new();
    let (web, _reviews) = pair(&authority, switching().await, AppProtocol::Http, OutboundKind::ByHost);
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    let request = b"GET /chat HTTP/1.1\r\nHost: reviews\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: websocket"), "{head}");
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    stream.write_all(b"12345").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!((&hello, &echo), (b"hello", b"12345"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn http_1_0_is_answered_and_closed() {
    let authority = Authority::new();
    let application = crate::application::Application::start("v1").await;
    let (web, _reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    stream.write_all(b"GET /old HTTP/1.0\r\nHost: reviews\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.0 200 ") && text.contains("GET /old HTTP/1.0"), "{text}");
}

type Streamed = BoxBody<Bytes, Infallible>;

/// An h2c application that answers at once, sends back each chunk as it comes, and ends with this gRPC status.
async fn streaming(status: &'static str) -> SocketAddr {
    async fn answer(
        request: Request<Incoming>,
        status: &'static str,
    ) -> Result<Response<Streamed>, Infallible> {
        let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if sender.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
            let trailers =
                HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
            let _ = sender.send(Ok(Frame::trailers(trailers))).await;
        });
        Ok(Response::builder().header("content-type", "application/grpc").body(stream(receiver)).unwrap())
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = server2::Builder::new(TokioExecutor::new());
            tokio::spawn(
                connection.serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| answer(request, status)),
                ),
            );
        }
    });
    address
}

fn stream(mut receiver: mpsc::Receiver<Result<Frame<Bytes>, Infallible>>) -> Streamed {
    let frames = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    BodyExt::boxed(StreamBody::new(frames))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn grpc_streams_both_ways_with_trailers() {
    let authority = Authority::new();
    let address = streaming("5").await;
    let (web, reviews) = pair(&authority, address, AppProtocol::Grpc, OutboundKind::ByHost);
    let taps = [web.proxy.tap(), reviews.proxy.tap()];
    let tcp = TcpStream::connect(web.outbound()).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Streamed>(TokioExecutor::new(), TokioIo::new(tcp))
            .await
            .unwrap();
    tokio::spawn(connection);
    let (sender, receiver) = mpsc::channel(4);
    let request = Request::post("http://reviews/echo.Echo/Both")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(stream(receiver))
        .unwrap();
    let mut body = client.send_request(request).await.unwrap().into_body();
    for turn in 0..20_u8 {
        sender.send(Ok(Frame::data(Bytes::from(vec![turn; 10])))).await.unwrap();
        let mut echoed = Vec::new();
        while echoed.len() < 10 {
            echoed.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(echoed, [turn; 10]);
    }
    drop(sender);
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "5");
    for mut tap in taps {
        let record = next(&mut tap).await;
        assert_eq!((record.verdict.grpc_status, record.verdict.status), (Some(5), 200));
        assert_eq!(record.destination.as_ref().unwrap().service, crate::world::service("reviews"));
    }
    for proxy in [&web.proxy, &reviews.proxy] {
        let metrics = proxy.metrics();
        let requests = metrics.lines().find(|line| line.starts_with("weft_requests_total{")).unwrap();
        assert!(
            requests.contains("grpc_response_status=\"5\"") && requests.contains("request_protocol=\"grpc\"")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_http_port_takes_no_opaque_bytes() {
    let authority = Authority::new();
    let application = crate::application::Application::start("v1").await;
    let serving = Serving {
        address: application.address,
        protocol: AppProtocol::Http,
        authorization: open_to_domain(),
    };
    let reviews = serving_host(&authority, serving);
    // The caller believes that the port is opaque.
    let table = calling_table(vec![endpoint("r1", application.address, &reviews)], AppProtocol::Tcp, 1);
    let web = calling_host(&authority, table, bound());
    let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(application.requests.load(std::sync::atomic::Ordering::Relaxed), 0);
    drop(stream);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while web.proxy.load() + reviews.proxy.load() > 0 {
        assert!(std::time::Instant::now() < deadline, "a connection is left over on either side");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
