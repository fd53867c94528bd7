use std::{future::pending, io::ErrorKind, sync::Arc};

use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::*;

impl Abort for DuplexStream {
    fn abort(&mut self) {}
}

const DEADLINE: Duration = Duration::from_secs(10);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("it takes too long")
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (one.unwrap(), other.unwrap().0)
}

/// A TLS connection over TCP: client and server.
async fn tls_pair() -> (TlsStream<TcpStream>, TlsStream<TcpStream>) {
    let made = rcgen::generate_simple_self_signed(["peer".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (one, other) = tcp_pair().await;
    let name = ServerName::try_from("peer").unwrap();
    let connect = TlsConnector::from(Arc::new(client)).connect(name, one);
    let (client, server) = tokio::join!(connect, TlsAcceptor::from(Arc::new(server)).accept(other));
    (client.unwrap().into(), server.unwrap().into())
}

/// A connection that is carried from TLS to TCP: the caller's end, the called end, the way to stop it, its result.
async fn carried() -> (TlsStream<TcpStream>, TcpStream, oneshot::Sender<Stop>, JoinHandle<Copied>) {
    let (caller, from) = tls_pair().await;
    let (to, called) = tcp_pair().await;
    let (stop, stopped) = oneshot::channel();
    let stopped = async move {
        match stopped.await {
            Ok(stop) => stop,
            Err(_) => pending().await,
        }
    };
    (caller, called, stop, tokio::spawn(copy(from, to, stopped, None, |_, _| {})))
}

#[tokio::test]
async fn each_direction_ends_on_its_own() {
    let (mut caller, mut called, _stop, copied) = carried().await;
    caller.write_all(b"question").await.unwrap();
    caller.shutdown().await.unwrap();
    let mut text = String::new();
    within(called.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "question");
    called.write_all(b"the answer, after the question's end").await.unwrap();
    called.shutdown().await.unwrap();
    text.clear();
    within(caller.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "the answer, after the question's end");
    assert_eq!(within(copied).await.unwrap(), Copied { received: 8, sent: 36, end: End::Finished });
}

#[tokio::test]
async fn large_amounts_pass_whole_both_ways_at_once() {
    let (caller, called, _stop, copied) = carried().await;
    let sent: Vec<u8> = (0..4_000_000_u32).map(|index| (index % 251) as u8).collect();
    async fn exchange(stream: impl AsyncRead + AsyncWrite, data: &[u8]) -> Vec<u8> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut got = Vec::new();
        let write = async {
            writer.write_all(data).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(write, reader.read_to_end(&mut got));
        read.unwrap();
        got
    }
    let (one, other) = within(async { tokio::join!(exchange(caller, &sent), exchange(called, &sent)) }).await;
    assert!(one == sent && other == sent);
    let copied = within(copied).await.unwrap();
    assert_eq!((copied.received, copied.sent), (4_000_000, 4_000_000));
}

#[tokio::test]
async fn a_tls_stream_that_is_cut_is_not_a_clean_end() {
    let (mut caller, mut called, _stop, copied) = carried().await;
    caller.write_all(b"half of i").await.unwrap();
    let mut text = [0; 9];
    within(called.read_exact(&mut text)).await.unwrap();
    // A FIN without close_notify, as someone on the way could send it.
    caller.get_mut().0.shutdown().await.unwrap();
    let error = within(called.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(within(copied).await.unwrap().end, End::Reset(Side::Caller));
}

#[tokio::test]
async fn a_reset_is_passed_on_without_close_notify() {
    let (mut caller, mut called, _stop, copied) = carried().await;
    called.write_all(b"half of i").await.unwrap();
    let mut text = [0; 9];
    within(caller.read_exact(&mut text)).await.unwrap();
    called.abort();
    drop(called);
    let error = within(caller.read(&mut [0; 1])).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
    assert_eq!(within(copied).await.unwrap().end, End::Reset(Side::Called));
}

#[tokio::test]
async fn a_drain_closes_both_sides_cleanly() {
    let (mut caller, mut called, stop, copied) = carried().await;
    caller.write_all(b"x").await.unwrap();
    within(called.read_exact(&mut [0])).await.unwrap();
    stop.send(Stop::Drain).unwrap();
    assert_eq!(within(caller.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(within(called.read(&mut [0])).await.unwrap(), 0);
    // Bytes that come too late are no reason for a reset.
    caller.write_all(b"late").await.unwrap();
    caller.shutdown().await.unwrap();
    called.shutdown().await.unwrap();
    assert_eq!(within(copied).await.unwrap(), Copied { received: 1, sent: 0, end: End::Drained });
}

#[tokio::test]
async fn a_denial_resets_both_sides() {
    let (mut caller, mut called, stop, copied) = carried().await;
    stop.send(Stop::Deny).unwrap();
    assert!(within(caller.read(&mut [0])).await.is_err());
    assert!(within(called.read(&mut [0])).await.is_err());
    assert_eq!(within(copied).await.unwrap().end, End::Denied);
}

#[tokio::test]
async fn an_answer_arrives_although_the_question_was_not_read_to_its_end() {
    let (mut caller, mut called, _stop, copied) = carried().await;
    caller.write_all(b"x").await.unwrap();
    within(called.read_exact(&mut [0])).await.unwrap();
    called.write_all(b"enough").await.unwrap();
    called.shutdown().await.unwrap();
    let mut text = String::new();
    within(caller.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "enough");
    drop(called);
    // The first write after the drop is answered with a reset, the second one fails.
    within(async {
        while !copied.is_finished() && caller.write_all(b"more").await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(caller);
    let end = within(copied).await.unwrap().end;
    assert!(matches!(end, End::Unread(Side::Called) | End::Reset(_)), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_idle_ends_and_what_moves_does_not() {
    let ((mut caller, from), (to, mut called)) = (duplex(64), duplex(64));
    let idle = Some(Duration::from_secs(60));
    let started = tokio::time::Instant::now();
    let copied = tokio::spawn(copy(from, to, pending(), idle, |_, _| {}));
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        caller.write_all(b"x").await.unwrap();
        called.read_exact(&mut [0]).await.unwrap();
    }
    assert_eq!(called.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(caller.read(&mut [0]).await.unwrap(), 0);
    drop((caller, called));
    assert_eq!(copied.await.unwrap().end, End::Idle);
    let passed = started.elapsed();
    assert!((Duration::from_secs(310)..Duration::from_secs(375)).contains(&passed), "{passed:?}");
}

#[tokio::test]
async fn bytes_are_counted_as_they_move() {
    let ((mut caller, from), (to, mut called)) = (duplex(64), duplex(64));
    let mut counted = (0, 0);
    let count = |received, sent| counted = (counted.0 + received, counted.1 + sent);
    let carrying = copy(from, to, pending(), None, count);
    let talking = async {
        let (mut question, mut answer) = (Vec::new(), Vec::new());
        let asking = async {
            caller.write_all(&[0; 200]).await.unwrap();
            caller.shutdown().await.unwrap();
        };
        let _ = tokio::join!(asking, called.read_to_end(&mut question));
        called.write_all(b"abc").await.unwrap();
        called.shutdown().await.unwrap();
        caller.read_to_end(&mut answer).await.unwrap();
        (question.len(), answer.len())
    };
    let (copied, got) = within(async { tokio::join!(carrying, talking) }).await;
    assert_eq!(got, (200, 3));
    assert_eq!((copied.received, copied.sent), (200, 3));
    assert_eq!(counted, (200, 3));
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffer() {
    let ((_caller, from), (to, _called)) = (duplex(64), duplex(64));
    let future = copy(from, to, pending(), None, |_, _| {});
    assert!(size_of_val(&future) < 1_024, "{}", size_of_val(&future));
}
