//! Connections end with age: they are told to go before a certificate ends, and what is under way on them finishes.

use std::time::{Duration, Instant};

use http::Request;
use weft_core::wire::Framing;

use crate::{
    agent::greet,
    application::Application,
    authority::Authority,
    world::{http_host, identity},
};

const LIFE: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_is_told_to_go_before_its_certificate_ends_and_its_request_finishes() {
    let authority = Authority::new();
    let application = Application::start("v1").await;
    let mut reviews = http_host(&authority, application.address);
    let port = application.address.port();
    let short = authority.issue_for(&identity("reviews"), LIFE);
    let chain = short.chain().to_vec();
    let renewed = (*reviews.credentials.current()).clone().with_identity(short);
    let began = Instant::now();
    reviews.credentials.publish(renewed);
    let stream = loop {
        let stream = greet(&authority, &reviews, port, Framing::Http2).await;
        if stream.get_ref().1.peer_certificates() == Some(&chain[..]) {
            break stream;
        }
        assert!(began.elapsed() < LIFE / 2, "the new certificate is not shown");
    };
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let request =
        |delay: u32| Request::get("http://reviews/").header("x-delay", delay.to_string()).body(()).unwrap();
    let mut client = client.ready().await.unwrap();
    let (quick, _) = client.send_request(request(0), true).unwrap();
    assert_eq!(quick.await.unwrap().status(), 200);
    // Longer than the certificate lives.
    let (slow, _) = client.send_request(request(14_000), true).unwrap();
    let slow = tokio::spawn(slow);
    let told = loop {
        // A client that was told to go takes no new request.
        match client.clone().ready().await {
            Ok(mut ready) => {
                if let Ok((response, _)) = ready.send_request(request(0), true) {
                    let _ = response.await;
                }
            }
            Err(_) => break began.elapsed(),
        }
        assert!(began.elapsed() < LIFE + Duration::from_secs(1), "it is not told to go");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(told > LIFE / 2 && told < LIFE, "five sixths of its life are over: {told:?}");
    assert!(!slow.is_finished());
    assert_eq!(slow.await.unwrap().unwrap().status(), 200, "what was under way finishes");
    drop(client);
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("then it ends").unwrap().unwrap();
}
