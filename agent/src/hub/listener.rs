//! The hub's port: TLS 1.3, the caller's certificate checked where one is shown, then HTTP/2.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ServerConfig, pki_types::UnixTime};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use weft_core::{identity::SYSTEM_NAMESPACE, tls::explain_handshake};

use super::{
    service,
    strangers::{Place, Strangers},
    stream::{Node, Shared},
};

/// How many connections there may be before new ones wait: one per agent, and those that join.
pub const MAX_CONNECTIONS: u32 = 16_384;
/// How long a caller may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many calls one connection may have at a time: an agent has one stream.
const MAX_CALLS: u32 = 8;
/// How often a silent caller is asked for a sign of life, and how long it may take.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// How long a caller without a certificate may stay: to join takes one call.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the accept loop waits after the kernel ran out of something.
const RESOURCE_PAUSE: Duration = Duration::from_millis(200);

/// Who may connect, and what they find.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) config: Arc<ServerConfig>,
    pub(super) trust_domain: String,
    pub(super) shared: Shared,
}

/// Accepts for ever.
pub(super) async fn accept(listener: TcpListener, door: Door) {
    let (slots, strangers) = (Arc::new(Semaphore::new(MAX_CONNECTIONS as usize)), Strangers::default());
    loop {
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => match strangers.admit(from.ip()) {
                Some(place) => drop(tokio::spawn(connection(door.clone(), stream, from, (slot, place)))),
                None => tracing::debug!(%from, "closed: too many that nobody knows"),
            },
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "the hub cannot accept");
                tokio::time::sleep(RESOURCE_PAUSE).await;
            }
        }
    }
}

async fn connection(
    door: Door,
    stream: TcpStream,
    from: SocketAddr,
    (_slot, place): (OwnedSemaphorePermit, Place),
) {
    let _set = stream.set_nodelay(true);
    let handshake = TlsAcceptor::from(door.config.clone()).accept(stream);
    let stream = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return tracing::warn!(%from, fault = %explain_handshake(&error), "handshake failed");
        }
        Err(_) => return tracing::debug!(%from, "no handshake in time"),
    };
    let node = match caller(&door, &stream, from) {
        Ok(node) => node,
        Err(fault) => return tracing::warn!(%from, %fault, "caller refused"),
    };
    // A node is no stranger; who only joins stays one.
    let _place = node.is_none().then_some(place);
    let shared = door.shared;
    let patience = if node.is_some() { Duration::MAX } else { STRANGER_TIMEOUT };
    let service = service_fn(move |request| service::answer(shared.clone(), node.clone(), request));
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CALLS)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(patience, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%from, %error, "connection ended"),
        Err(_) => tracing::debug!(%from, "a caller without a certificate stayed too long"),
    }
}

/// The node whose certificate was shown; none without a certificate. Any other certificate is refused: a workload has
/// nothing to say here.
fn caller(door: &Door, stream: &TlsStream<TcpStream>, from: SocketAddr) -> Result<Option<Node>, String> {
    let Some(chain) = stream.get_ref().1.peer_certificates() else { return Ok(None) };
    let peer = door.shared.tls.check_client(chain, UnixTime::now()).map_err(|fault| fault.to_string())?;
    let identity = peer.identity.clone();
    let ours = identity.trust_domain_str() == door.trust_domain && identity.namespace() == SYSTEM_NAMESPACE;
    match identity.account().strip_prefix("node-").filter(|_| ours) {
        Some(name) => {
            let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
            Ok(Some(Node { name: name.to_owned(), peer, chain, from }))
        }
        None => Err(format!("{identity} is no node of this mesh")),
    }
}
