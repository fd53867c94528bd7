//! HTTP calls from end to end.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::net::TcpStream;
use weft_core::resource::AppProtocol;
use weft_proxy::OutboundKind;

use crate::{
    application::Application,
    authority::Authority,
    client::{Client1, Client2},
    world::{Host, Serving, calling_host, calling_table, endpoint, open_to_domain, serving_host, until},
};

async fn pair(authority: &Authority, application: &Application) -> (Host, Host) {
    let serving = Serving {
        address: application.address,
        protocol: AppProtocol::Http,
        authorization: open_to_domain(),
    };
    let reviews = serving_host(authority, serving);
    let table = calling_table(vec![endpoint("r1", application.address, &reviews)], AppProtocol::Http, 1);
    let web = calling_host(authority, table, OutboundKind::ByHost);
    (web, reviews)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_goes_through_both_proxies() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, &application).await;
    let mut client = Client1::connect(web.outbound()).await;
    for turn in 0..3 {
        let reply = client.get("reviews", &format!("/a/../b?turn={turn}")).await.unwrap();
        let text = reply.text();
        assert_eq!(reply.status, 200, "{text}");
        assert!(text.starts_with(&format!("v1\nGET /b?turn={turn} HTTP/1.1\n")), "{text}");
        assert!(text.contains("host: reviews\n") && text.contains("traceparent: 00-"), "{text}");
        assert!(text.contains("x-forwarded-for: 127.0.0.1\n") && text.contains("x-request-id: "), "{text}");
    }
    let connections = web.proxy.connections().await;
    assert_eq!(connections.len(), 1, "{connections:?}");
    assert_eq!(connections[0].peer.account(), "reviews");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bodies_of_all_sizes_arrive_whole() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, &application).await;
    let mut one = Client1::connect(web.outbound()).await;
    let mut two = Client2::connect(web.outbound()).await;
    for size in [0, 1, 10_000, 64 * 1024, 64 * 1024 + 1, 3_000_000] {
        let body = Bytes::from((0..size).map(|index| (index % 251) as u8).collect::<Vec<_>>());
        let request = Request::post("/echo").header("host", "reviews").body(Full::new(body.clone())).unwrap();
        let reply = one.call(request).await.unwrap();
        assert!(reply.status == 200 && reply.body.ends_with(&body), "HTTP/1.1, {size} bytes");
        let request = Request::post("http://reviews/echo").body(Full::new(body.clone())).unwrap();
        let reply = two.call(request).await.unwrap();
        assert!(reply.status == 200 && reply.body.ends_with(&body), "HTTP/2, {size} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_at_once_share_connections() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, &application).await;
    let client = Client2::connect(web.outbound()).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..150 {
        let mut client = client.clone();
        calls.spawn(async move {
            let request =
                Request::get("http://reviews/").header("x-delay", "100").body(Full::default()).unwrap();
            client.call(request).await.unwrap().status
        });
    }
    while let Some(status) = calls.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert!(web.proxy.connections().await.len() <= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn faults_are_named() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let (web, _reviews) = pair(&authority, &application).await;
    let mut client = Client1::connect(web.outbound()).await;
    let reply = client.get("nobody", "/").await.unwrap();
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["x-weft-fault"]),
        (404, &"no_destination".parse().unwrap())
    );
    application.kill();
    until("the application is gone", async || TcpStream::connect(application.address).await.is_err()).await;
    let mut client = Client1::connect(web.outbound()).await;
    let reply = client.get("reviews", "/").await.unwrap();
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["x-weft-fault"]),
        (503, &"connect_refused".parse().unwrap())
    );
}
