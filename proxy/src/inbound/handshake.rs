//! From an accepted connection to an answered hello.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use rustls_pki_types::UnixTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use weft_core::{
    table::Decision,
    wire::{Answer, Framing, Hello, OUR_VERSIONS, exchange},
    workload::Source,
};

use super::{
    forward::CONNECT,
    target::{Caller, Target, Upstream},
    tcp,
};
use crate::{connect::connect, quiet::About, signal::DRAINING, worker::Worker};

/// How long a refused caller gets to read why.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A connection whose hello was accepted.
pub(crate) struct Admitted {
    /// What follows the answer.
    pub(crate) stream: TlsStream<TcpStream>,
    /// Who calls what.
    pub(crate) upstream: Rc<Upstream>,
    /// What is spoken.
    pub(crate) framing: Framing,
    /// The application's side of opaque bytes.
    pub(crate) application: Option<TcpStream>,
    /// When the certificate that ends first, theirs or ours, ends.
    pub(crate) earliest_end: SystemTime,
}

/// A hello that is to be accepted.
struct Greeted {
    upstream: Rc<Upstream>,
    application: Option<TcpStream>,
    earliest_end: SystemTime,
    /// The version that both sides speak from here on.
    version: u8,
}

/// Handshake, check, hello, answer. None when the connection is not to be served.
pub(crate) async fn admit(worker: &Rc<Worker>, stream: TcpStream) -> Option<Admitted> {
    let peer_address = stream.peer_addr().ok()?;
    let local_address = stream.local_addr().ok()?;
    let limits = &worker.limits;
    let _slot = worker.slots.take(peer_address.ip(), limits)?;
    let accepting = TlsAcceptor::from(worker.dialer.tls.server_config()).accept(stream);
    let mut stream = match timeout(limits.handshake, accepting).await.ok()? {
        Ok(stream) => stream,
        Err(error) => {
            let about = About::Caller(peer_address.ip());
            worker.dialer.quiet.handshake_failed(about, peer_address, &error);
            return None;
        }
    };
    // Whoever names no framing does not know the rules; there is no answer that it would understand.
    let framing = Framing::negotiated(stream.get_ref().1.alpn_protocol())?;
    let greeting = greet(worker, &mut stream, framing, peer_address, local_address);
    match timeout(limits.hello, greeting).await.ok()? {
        Ok(Greeted { upstream, application, earliest_end, version }) => {
            exchange::write_answer(&mut stream, &Answer::Accepted { version }).await.ok()?;
            Some(Admitted { stream, upstream, framing, application, earliest_end })
        }
        Err(answer) => {
            tracing::debug!(peer = %peer_address, ?answer, "a hello is refused");
            refuse(&mut stream, &answer).await;
            None
        }
    }
}

/// Answers and closes, and waits for the caller to close too: bytes of it that nobody read would reset the connection,
/// and the answer with it.
async fn refuse(stream: &mut TlsStream<TcpStream>, answer: &Answer) {
    let _ = timeout(LAST_WORD, async {
        exchange::write_answer(stream, answer).await?;
        stream.shutdown().await?;
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<_, std::io::Error>(())
    })
    .await;
}

/// Everything between handshake and answer.
async fn greet(
    worker: &Rc<Worker>,
    stream: &mut TlsStream<TcpStream>,
    framing: Framing,
    peer_address: SocketAddr,
    local_address: SocketAddr,
) -> Result<Greeted, Answer> {
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().unwrap_or_default().to_vec();
    let certificate = session.server_name().and_then(|name| {
        let credentials = worker.dialer.credentials.load();
        credentials.by_server_name(name).cloned()
    });
    let checked_at = UnixTime::now();
    let checked = worker.dialer.tls.check_client(&chain, checked_at);
    let hello = exchange::read_hello(stream).await.map_err(|error| match error {
        exchange::ExchangeError::Wire(error) => Answer::Malformed { reason: error.to_string() },
        exchange::ExchangeError::Stream(_) => Answer::Malformed { reason: "it is not complete".into() },
    })?;
    let peer = checked.map_err(|error| {
        worker.dialer.quiet.certificate_refused(About::Caller(peer_address.ip()), peer_address, &error);
        Answer::Untrusted
    })?;
    let version = hello.common_version().ok_or(Answer::Version { ours: OUR_VERSIONS })?;
    let certificate = certificate.ok_or(Answer::NotHere)?;
    if worker.drain.value() >= DRAINING {
        return Err(Answer::Draining);
    }
    let earliest_end = peer.not_after.min(certificate.leaf().validity.not_after);
    let Hello { service, port, source_workload, source_labels, .. } = hello;
    let target = Target { identity: certificate.identity().clone(), service, port };
    let workload = worker.names.borrow_mut().admit(&peer.identity, source_workload, Instant::now());
    let source = Source { workload, identity: peer.identity, labels: source_labels };
    let trust_generation = peer.trust_generation;
    let caller = Caller { source, chain, checked_at, trust_generation, peer_address, local_address };
    let upstream = Upstream::new(worker.clone(), target, caller, framing).ok_or(Answer::NotHere)?;
    // What we trust may have changed while the hello was on its way.
    if !upstream.is_trusted() {
        return Err(Answer::Untrusted);
    }
    accept_framing(&upstream, framing)?;
    let application = match (framing, upstream.serving()) {
        // Before the answer: what cannot be delivered here is tried elsewhere.
        (Framing::Tcp, Some(serving)) => {
            Some(connect(serving.port.port.address, CONNECT).await.map_err(|_| Answer::NotHere)?)
        }
        _ => None,
    };
    Ok(Greeted { upstream, application, earliest_end, version })
}

/// The receiver decides the protocol, and opaque connections are decided once, here.
fn accept_framing(upstream: &Upstream, framing: Framing) -> Result<(), Answer> {
    let serving = upstream.serving().ok_or(Answer::NotHere)?;
    let is_http = serving.port.port.protocol.is_http();
    match framing {
        Framing::Http2 | Framing::Http1 if is_http => Ok(()),
        Framing::Http2 | Framing::Http1 => Err(Answer::WrongFraming { using: Framing::Tcp }),
        Framing::Tcp if is_http || serving.layer_7 => Err(Answer::WrongFraming { using: Framing::Http2 }),
        Framing::Tcp => match upstream.decide(&serving, None) {
            Decision::Allowed(_) => Ok(()),
            Decision::Denied(rule) | Decision::NotAllowed(rule) => {
                let answer = Answer::Denied { rule: rule.to_string() };
                tcp::record_denied(upstream, serving, rule);
                Err(answer)
            }
        },
        Framing::Mux => Err(Answer::WrongFraming { using: Framing::Http2 }),
    }
}
