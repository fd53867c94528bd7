//! One question to one address: what counts as an answer, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use weft_registries::check::{CheckSettings, Question, ask};

fn settings(question: Question) -> CheckSettings {
    CheckSettings { question, timeout: Duration::from_secs(60), ..CheckSettings::default() }
}

fn http(path: &str) -> CheckSettings {
    settings(Question::Http { path: path.into(), host: Some("web.example".into()) })
}

fn grpc(service: &str) -> CheckSettings {
    settings(Question::Grpc { service: service.into() })
}

/// Answers with the status that the path names, and says 400 to another host's requests.
async fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = async |request: Request<Incoming>| {
        let status = request.uri().path()[1..].parse().unwrap_or(404);
        let is_ours = request.headers()["host"] == "web.example";
        let response = Response::builder().status(if is_ours { status } else { 400 });
        Ok::<_, Infallible>(response.body(Full::new(Bytes::from_static(b"words"))).unwrap())
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    address
}

/// A gRPC server whose health is what the asked service's name says.
async fn grpc_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = async |request: Request<Incoming>| {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let service =
            asked.get(7..).map(|name| String::from_utf8(name.to_vec()).unwrap()).unwrap_or_default();
        let (message, status): (&'static [u8], _) = match service.as_str() {
            "" | "serving" => (&[0, 0, 0, 0, 2, 8, 1], "0"),
            "ill" => (&[0, 0, 0, 0, 2, 8, 2], "0"),
            _ => (&[], "5"),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        let body = Full::new(Bytes::from_static(message)).with_trailers(async move { Some(Ok(trailers)) });
        Ok::<_, Infallible>(
            Response::builder().header("content-type", "application/grpc").body(body).unwrap(),
        )
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let served = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(served.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    address
}

#[tokio::test]
async fn a_status_from_200_to_399_is_an_answer() {
    let address = application().await;
    for (path, expected) in
        [("/200", Ok(())), ("/204", Ok(())), ("/302", Ok(())), ("/404", Err("404")), ("/503", Err("503"))]
    {
        let answer = ask(&http(path), address).await;
        match expected {
            Ok(()) => assert_eq!(answer, Ok(()), "{path}"),
            Err(status) => assert!(answer.as_ref().unwrap_err().contains(status), "{path}: {answer:?}"),
        }
    }
    let other = settings(Question::Http { path: "/200".into(), host: None });
    assert!(ask(&other, address).await.unwrap_err().contains("400"), "the host that is named is sent");
    assert_eq!(ask(&settings(Question::Tcp), address).await, Ok(()));
    let wrong = ask(&grpc(""), address).await;
    assert!(wrong.is_err(), "no gRPC there");
}

#[tokio::test]
async fn a_grpc_service_says_whether_it_is_serving() {
    let address = grpc_server().await;
    assert_eq!(ask(&grpc(""), address).await, Ok(()));
    assert_eq!(ask(&grpc("serving"), address).await, Ok(()));
    assert!(ask(&grpc("ill"), address).await.unwrap_err().contains("not serving"));
    assert!(ask(&grpc("unheard of"), address).await.unwrap_err().contains("not known"));
}

#[tokio::test]
async fn silence_and_refusal_are_no_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for question in [http("/").question, grpc("").question] {
        let impatient = CheckSettings { timeout: Duration::from_millis(50), ..settings(question) };
        assert!(ask(&impatient, address).await.unwrap_err().contains("no answer within 50 ms"));
    }
    let port = weft_testbed::Port::free().unwrap();
    let address = ([127, 0, 0, 1], port.number()).into();
    for question in [Question::Tcp, http("/").question, grpc("").question] {
        assert!(ask(&settings(question), address).await.unwrap_err().contains("refused"));
    }
}
