//! Who is blamed for a message that breaks off, and what of it arrives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_core::resource::{AppProtocol, Retries};
use weft_proxy::OutboundKind;

use crate::{
    application::{Application, scripted},
    authority::Authority,
    client::{Client1, rest},
    world::{calling_host, calling_table_with, calling_table_within, endpoint, http_host, next, pair},
};

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
        // The connection may be cut behind it; what came before counts.
        let (answer, _) = rest(&mut stream).await;
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
async fn who_gives_an_upload_up_is_gone_and_did_nothing_wrong() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let (mut caller, mut called) = (web.proxy.tap(), reviews.proxy.tap());
    for framing in
        ["content-length: 100\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"].repeat(10)
    {
        let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
        stream.write_all(format!("POST / HTTP/1.1\r\nhost: reviews\r\n{framing}").as_bytes()).await.unwrap();
        drop(stream);
        for tap in [&mut caller, &mut called] {
            let verdict = &next(tap).await.verdict;
            assert_eq!((verdict.fault, verdict.flags), (Some("caller_gone"), "DC"), "{framing}");
        }
    }
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
        let (answer, _) = rest(&mut stream).await;
        // Between the agents the head and its end may come in one piece; then it is a fault of ours, but never silence.
        assert!(answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.1 50"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn when_time_runs_out_only_who_was_waited_for_is_blamed() {
    let authority = Authority::new();
    let asked = Arc::new(AtomicU32::new(0));
    let script = {
        let asked = asked.clone();
        move |_head, mut stream: TcpStream| {
            let is_first = asked.fetch_add(1, Relaxed) == 0;
            async move {
                if is_first {
                    tokio::time::sleep(Duration::from_millis(2_800)).await;
                    let answer = "HTTP/1.1 503 Down\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                    return stream.write_all(answer.as_bytes()).await.unwrap();
                }
                // It says nothing.
                let _end = stream.read(&mut [0]).await;
            }
        }
    };
    let addresses = [scripted(script.clone()).await, scripted(script).await];
    let hosts = addresses.map(|address| http_host(&authority, address));
    let upstreams = [endpoint("r1", addresses[0], &hosts[0]), endpoint("r2", addresses[1], &hosts[1])];
    let retries = Retries { on_gateway_error: true, ..Retries::default() };
    let limit = Some(Duration::from_secs(4));
    let table = calling_table_within(upstreams.to_vec(), AppProtocol::Http, 1, retries, limit);
    let web = calling_host(&authority, table, OutboundKind::ByHost);
    let mut client = Client1::connect(web.outbound()).await;
    let reply = client.get("reviews", "/").await.unwrap();
    assert_eq!((reply.status.as_u16(), asked.load(Relaxed)), (504, 2));
    let failures = || upstreams.iter().map(|upstream| upstream.state.failures.load(Relaxed));
    // One failed, and of the other not much can be said.
    assert_eq!(failures().sum::<u32>(), 1);
    // Now whoever is asked has all the time.
    assert_eq!(client.get("reviews", "/").await.unwrap().status, 504);
    assert_eq!(failures().sum::<u32>(), 2);
}
