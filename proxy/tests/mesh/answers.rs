//! What applications of HTTP/1 may do with a request, and what comes of it.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use bytes::Bytes;
use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_core::resource::AppProtocol;
use weft_proxy::OutboundKind;

use crate::{
    application::{Application, read_head, scripted},
    authority::Authority,
    client::{Client1, Client2},
    world::{Host, next, pair, until},
};

/// How many connections an application had, and how many of them it has closed.
#[derive(Default)]
struct Counted {
    opened: AtomicU32,
    closed: AtomicU32,
}

/// A pair of agents with an application that answers each request, without its body, with these bytes, in pieces of this
/// length, and closes the connection afterwards if it `ends`. Counts its connections.
async fn answering(answer: &'static [u8], piece: usize, ends: bool) -> (Host, Host, Arc<Counted>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::<Counted>::default();
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.opened.fetch_add(1, Relaxed);
            stream.set_nodelay(true).unwrap();
            let counted = counted.clone();
            tokio::spawn(async move {
                while stream.peek(&mut [0]).await.is_ok_and(|read| read > 0) {
                    read_head(&mut stream).await;
                    for piece in answer.chunks(piece) {
                        stream.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    if ends {
                        drop(stream);
                        counted.closed.fetch_add(1, Relaxed);
                        return;
                    }
                }
            });
        }
    });
    let authority = Authority::new();
    let (web, reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    (web, reviews, connections)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn answers_end_where_they_say() {
    for (answer, ends, status, body) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"[..], false, 200, "body"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbo\r\n2;x\r\ndy\r\n0\r\n\r\n",
            false,
            200,
            "body",
        ),
        (
            b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
            false,
            404,
            "",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", false, 204, ""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", false, 304, ""),
        (b"HTTP/1.1 200 OK\r\n\r\nbody", true, 200, "body"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\nbody", true, 200, "body"),
    ] {
        for piece in [1, 5, answer.len()] {
            let (web, _reviews, connections) = answering(answer, piece, ends).await;
            let mut client = Client1::connect(web.outbound()).await;
            for _ in 0..3 {
                let reply = client.get("reviews", "/").await.unwrap();
                let text = String::from_utf8_lossy(answer);
                assert_eq!((reply.status.as_u16(), &*reply.text()), (status, body), "{text} by {piece}");
            }
            assert_eq!(connections.opened.load(Relaxed), if ends { 3 } else { 1 });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_with_something_unasked_on_it_is_not_used_again() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 4\r\n\r\nbody",
    ] {
        let (web, _reviews, connections) = answering(answer, answer.len(), false).await;
        let mut client = Client1::connect(web.outbound()).await;
        for _ in 0..3 {
            assert_eq!(client.get("reviews", "/").await.unwrap().text(), "body");
        }
        assert_eq!(connections.opened.load(Relaxed), 3, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_answer_is_a_bad_response() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
    ] {
        let (web, _reviews, _) = answering(answer, answer.len(), false).await;
        let reply = Client1::connect(web.outbound()).await.get("reviews", "/").await.unwrap();
        assert_eq!(reply.headers["x-weft-fault"], "bad_response", "{}", String::from_utf8_lossy(answer));
        assert_eq!(reply.status, 502);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    for (answer, ends) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nbody"[..], true),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n", true),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n", true),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody0\r\n\r\n", false),
    ] {
        for piece in [1, answer.len()] {
            let (web, reviews, _) = answering(answer, piece, ends).await;
            let taps = [web.proxy.tap(), reviews.proxy.tap()];
            let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
            let mut text = String::new();
            // Its end may be a reset.
            let _ = stream.read_to_string(&mut text).await;
            assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let whole =
                body.ends_with("0\r\n\r\n") || head.contains(&format!("content-length: {}", body.len()));
            assert!(!whole, "{text}");
            for mut tap in taps {
                assert_eq!(next(&mut tap).await.verdict.fault, Some("response_cut"), "{text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_that_was_closed_in_silence_costs_no_request() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
    let (web, _reviews, connections) = answering(answer, answer.len(), true).await;
    let mut client = Client1::connect(web.outbound()).await;
    for number in 1..=20 {
        // Not one that could be tried again.
        let request = Request::post("/").header("host", "reviews").body(Default::default()).unwrap();
        assert_eq!(client.call(request).await.unwrap().status, 200);
        assert_eq!(connections.opened.load(Relaxed), number);
        // The application closes right after its last byte, and the connection idles for longer than it is trusted.
        until("it has closed", async || connections.closed.load(Relaxed) == number).await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_may_come_before_the_request_has_ended() {
    let authority = Authority::new();
    let address = scripted(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nearly").await.unwrap();
        // Reads nothing, and stays.
        std::future::pending::<()>().await;
    })
    .await;
    let (web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    let body = Bytes::from(vec![b'x'; 20 << 20]);
    let request = Request::post("http://reviews/").body(body.into()).unwrap();
    let reply = Client2::connect(web.outbound()).await.call(request).await.unwrap();
    assert_eq!((reply.status.as_u16(), &*reply.text()), (413, "early"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bytes_go_both_ways_at_once() {
    let authority = Authority::new();
    // Sends back what it gets, from the first byte on.
    let address = scripted(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 20971520\r\n\r\n").await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    })
    .await;
    let (web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    let body: Vec<u8> = (0..20_u32 << 20).map(|at| (at / 7) as u8).collect();
    let request = Request::post("http://reviews/").header("content-length", body.len());
    let request = request.body(Bytes::from(body.clone()).into()).unwrap();
    let reply = Client2::connect(web.outbound()).await.call(request).await.unwrap();
    assert!(reply.body == body, "{} bytes came back", reply.body.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_application_gets_the_request_as_it_was() {
    let authority = Authority::new();
    // Answers with the request, up to what ends it.
    let address = scripted(|head, mut stream| async move {
        let mut text = head.into_bytes();
        if text.starts_with(b"PUT") {
            while !text.ends_with(b"\r\n\r\n") || !text.windows(4).any(|end| end == b"\r\n0\r") {
                text.push(stream.read_u8().await.unwrap());
            }
        }
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", text.len());
        stream.write_all(&[head.as_bytes(), &text].concat()).await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let (web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    for (sent, found, not) in [
        (
            "POST /a?b HTTP/1.1\r\nhost: reviews\r\n\r\n",
            "POST /a?b HTTP/1.1\r\n|content-length: 0\r\n",
            "chunked",
        ),
        ("GET / HTTP/1.1\r\nhost: reviews\r\n\r\n", "GET / HTTP/1.1\r\n", "content-length"),
        (
            "PUT / HTTP/1.1\r\nhost: reviews\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
             3\r\nabc\r\n0\r\nx-sum: 7\r\nx-weft-rule: mine\r\nhost: other\r\n\r\n",
            "transfer-encoding: chunked\r\n|3\r\nabc\r\n|0\r\nx-sum: 7\r\n\r\n",
            "mine|other|content-length",
        ),
    ] {
        let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        read_head(&mut stream).await;
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(found.split('|').all(|found| text.contains(found)), "{text}");
        assert!(!not.split('|').any(|not| text.contains(not)), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_get_that_ends_late_has_no_body() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let stream = TcpStream::connect(web.outbound()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://reviews?late").body(()).unwrap();
    let (response, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(Bytes::new(), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut text = Vec::new();
    while let Some(chunk) = body.data().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("/?late") && !text.contains("transfer-encoding"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_that_an_application_may_not_expect_has_a_connection_of_its_own() {
    // Reads no bodies: were one there, it would be the next request.
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
    for (method, framing, connections) in [
        (
            "GET",
            "transfer-encoding: chunked\r\n\r\n35\r\nGET /smuggled HTTP/1.1\r\nhost: reviews\r\nx: 1234567\r\n\r\n\r\n0\r\n\r\n",
            2,
        ),
        ("DELETE", "content-length: 4\r\n\r\n\r\n\r\n", 2),
        ("GET", "\r\n", 1),
    ] {
        let (web, _reviews, counted) = answering(answer, answer.len(), false).await;
        let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
        stream
            .write_all(format!("{method} / HTTP/1.1\r\nhost: reviews\r\n{framing}").as_bytes())
            .await
            .unwrap();
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "), "{method} {framing}");
        assert_eq!(Client1::connect(web.outbound()).await.get("reviews", "/").await.unwrap().text(), "body");
        assert_eq!(counted.opened.load(Relaxed), connections, "{method} {framing}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_that_a_reused_connection_swallowed_goes_once_more_if_it_may() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(AtomicU32::new(0));
    let counted = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = counted.clone();
            tokio::spawn(async move {
                read_head(&mut stream).await;
                seen.fetch_add(1, Relaxed);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody").await.unwrap();
                // The second request of a connection is read, and then the connection is closed.
                read_head(&mut stream).await;
                seen.fetch_add(1, Relaxed);
            });
        }
    });
    let (web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    let mut client = Client1::connect(web.outbound()).await;
    for _ in 0..100 {
        assert_eq!(client.get("reviews", "/").await.unwrap().text(), "body");
    }
    assert_eq!(seen.swap(0, Relaxed), 199);
    // One connection is idle: a POST that it swallows is not sent again.
    let request = Request::post("/").header("host", "reviews").body(Default::default()).unwrap();
    let reply = client.call(request).await.unwrap();
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["x-weft-fault"]),
        (503, &"connection_lost".parse().unwrap())
    );
    assert_eq!(seen.load(Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_without_content_has_no_length_over_http2() {
    let answer = b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n";
    let (web, _reviews, _) = answering(answer, answer.len(), false).await;
    let request = Request::get("http://reviews/").body(Default::default()).unwrap();
    let reply = Client2::connect(web.outbound()).await.call(request).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.headers.get("content-length")), (204, None));
}
