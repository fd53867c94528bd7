//! Agents that fall silent: behind their handshake, and behind their answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use weft_core::{
    name::RegistryName,
    publish::Publisher,
    resource::AppProtocol,
    table::Upstream,
    tls::TlsContext,
    wire::{Answer, exchange},
};
use weft_proxy::OutboundKind;

use crate::{
    application::Application,
    authority::Authority,
    client::Client1,
    world::{
        CONNECT_TIMEOUT, Serving, calling_host, calling_table, endpoint, endpoint_at, identity,
        open_to_domain, serving_host,
    },
};

/// How far the agent goes before it says nothing more, and reads on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SilentAfter {
    Handshake,
    Answer,
}

/// An agent with the certificate of `reviews`. Returns where it is.
async fn silent(authority: &Authority, after: SilentAfter) -> std::net::SocketAddr {
    let credentials = Publisher::new(authority.credentials(&[&identity("reviews")]));
    let tls = Arc::new(TlsContext::new(credentials.reader()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        // The certificates are served for as long as it is published.
        let _credentials = credentials;
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(fall_silent(tls.clone(), stream, after));
        }
    });
    address
}

async fn fall_silent(tls: Arc<TlsContext>, stream: TcpStream, after: SilentAfter) -> Option<()> {
    let mut stream = TlsAcceptor::from(tls.server_config()).accept(stream).await.ok()?;
    if after == SilentAfter::Answer {
        let hello = exchange::read_hello(&mut stream).await.ok()?;
        let version = hello.common_version()?;
        exchange::write_answer(&mut stream, &Answer::Accepted { version }).await.ok()?;
        // HTTP/2's SETTINGS (RFC 9113 §6.5), without any: what comes now may have been taken for a request.
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.ok()?;
    }
    let mut unanswered = [0; 1024];
    while stream.read(&mut unanswered).await.ok()? > 0 {}
    Some(())
}

fn is_ejected(upstream: &Upstream) -> bool {
    let until = upstream
        .state
        .peek()
        .map_or(0, |state| state.ejected_until.load(std::sync::atomic::Ordering::Relaxed));
    until > weft_proxy::clock::milliseconds(Instant::now())
}

/// Calls until the silent endpoint is left alone. Gives the longest call, and the statuses that were not 200.
async fn call_past(after: SilentAfter) -> (Duration, Vec<u16>) {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let host = serving_host(
        &authority,
        Serving {
            address: application.address,
            protocol: AppProtocol::Http,
            authorization: open_to_domain(),
        },
    );
    let mute = Arc::new(Upstream {
        registry: RegistryName::new("static").unwrap(),
        endpoint: Arc::new(endpoint_at("r1", application.address, silent(&authority, after).await)),
        tier: 0,
        state: Default::default(),
    });
    let endpoints = vec![mute.clone(), endpoint("r2", application.address, &host)];
    let web = calling_host(&authority, calling_table(endpoints, AppProtocol::Http, 1), OutboundKind::ByHost);
    let mut client = Client1::connect(web.outbound()).await;
    let (mut longest, mut others) = (Duration::ZERO, Vec::new());
    let mut call = async || {
        let began = Instant::now();
        let request = Request::post("/").header("host", "reviews").body(Full::new(Bytes::from("x"))).unwrap();
        let status = client.call(request).await.unwrap().status.as_u16();
        (began.elapsed(), status)
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_ejected(&mute) {
        assert!(Instant::now() < deadline, "it is tried for ever");
        let (took, status) = call().await;
        longest = longest.max(took);
        others.extend((status != 200).then_some(status));
    }
    // While it is left alone it costs nothing.
    let began = Instant::now();
    while is_ejected(&mute) && began.elapsed() < Duration::from_millis(500) {
        let (took, status) = call().await;
        if is_ejected(&mute) {
            assert!(status == 200 && took < Duration::from_millis(900), "{status} after {took:?}");
        }
    }
    (longest, others)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_agent_that_is_silent_after_its_handshake_costs_the_connect_timeout_and_no_call() {
    let (longest, others) = call_past(SilentAfter::Handshake).await;
    assert_eq!(others, Vec::<u16>::new(), "nothing of a request was sent, so it goes elsewhere");
    assert!(longest >= CONNECT_TIMEOUT * 9 / 10 && longest < CONNECT_TIMEOUT * 4, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_agent_that_is_silent_after_its_answer_is_found_out_by_a_ping() {
    let (longest, others) = call_past(SilentAfter::Answer).await;
    // The one request that it got may have been done: a POST is not sent twice.
    assert_eq!(others, [503]);
    assert!(longest < Duration::from_secs(12), "the request's own limit is 15 s: {longest:?}");
}
