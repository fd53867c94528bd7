//! What HTTP/1.1 and HTTP/2 say differently, on both sides of the proxy.

use std::time::Duration;

use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_core::resource::AppProtocol;
use weft_proxy::OutboundKind;

use crate::{
    application::{Application, scripted},
    authority::Authority,
    client::{Client1, Client2, Reply},
    world::{Serving, calling_host, calling_table, deny_all, endpoint, open_to_domain, pair, serving_host},
};

fn fault(reply: &Reply) -> (u16, &str) {
    (reply.status.as_u16(), reply.headers["x-weft-fault"].to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_fault_that_answers_head_has_no_body() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let mut authorization = open_to_domain();
    authorization.deny = vec![deny_all()];
    let serving = Serving { address: application.address, protocol: AppProtocol::Http, authorization };
    let reviews = serving_host(&authority, serving);
    let table = calling_table(vec![endpoint("r1", application.address, &reviews)], AppProtocol::Http, 1);
    let web = calling_host(&authority, table, OutboundKind::ByHost);
    let (mut one, mut two) = (Client1::connect(web.outbound()).await, Client2::connect(web.outbound()).await);
    // Twice on the same connections: what follows a body that nobody expects would be read as an answer.
    for _ in 0..2 {
        for (host, expected) in [("reviews", (403, "denied")), ("nobody", (404, "no_destination"))] {
            let request = || Request::head("/").header("host", host);
            let first = one.call(request().body(Default::default()).unwrap()).await.unwrap();
            let request = Request::head(format!("http://{host}/"));
            let second = two.call(request.body(Default::default()).unwrap()).await.unwrap();
            for reply in [first, second] {
                assert_eq!(fault(&reply), expected);
                let length: usize = reply.headers["content-length"].to_str().unwrap().parse().unwrap();
                assert!(length > 0 && reply.body.is_empty(), "{reply:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_application_of_http1_gets_one_cookie_and_a_te_that_is_named() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let mut client = Client2::connect(web.outbound()).await;
    let request = Request::get("http://reviews/").header("cookie", "a=1").header("cookie", "b=2");
    let request = request.header("te", "trailers").body(Default::default()).unwrap();
    let text = client.call(request).await.unwrap().text();
    assert!(text.contains("\ncookie: a=1; b=2\n") && text.matches("cookie").count() == 1, "{text}");
    assert!(text.contains("\nte: trailers\n") && text.contains("\nconnection: te\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_switch_that_nobody_asked_for_is_a_bad_response() {
    let authority = Authority::new();
    let address = scripted(|_, mut stream| async move {
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
        stream.write_all(switch).await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let (web, _reviews) = pair(&authority, address, AppProtocol::Http, OutboundKind::ByHost);
    let (mut one, mut two) = (Client1::connect(web.outbound()).await, Client2::connect(web.outbound()).await);
    let first = one.get("reviews", "/").await.unwrap();
    let second = two.call(Request::get("http://reviews/").body(Default::default()).unwrap()).await.unwrap();
    assert_eq!([fault(&first), fault(&second)], [(502, "bad_response"); 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_application_is_not_asked_for_http2() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let mut client = Client1::connect(web.outbound()).await;
    let request = Request::get("/").header("host", "reviews").header("upgrade", "h2c");
    let request =
        request.header("connection", "upgrade, http2-settings").header("http2-settings", "AAMAAABk");
    let reply = client.call(request.body(Default::default()).unwrap()).await.unwrap();
    assert_eq!(reply.status, 200);
    assert!(!reply.text().contains("upgrade") && !reply.text().contains("http2-settings"), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_spoken_is_known_however_the_first_bytes_come() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, application.address, AppProtocol::Http, OutboundKind::ByHost);
    let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &empty_settings[..]].concat();
    // It begins as the preface does.
    let post = b"PRIX / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n";
    for (sent, answered) in [(&preface[..], &[0_u8, 0][..]), (post, b"HTTP/1.1 200 ")] {
        for piece in [1, 2, 7, 23, 24, 25, sent.len()] {
            let mut stream = TcpStream::connect(web.outbound()).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in sent.chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut answer = vec![0; answered.len()];
            let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut answer));
            read.await.unwrap().unwrap();
            assert_eq!(answer, answered, "in pieces of {piece}");
        }
    }
}
