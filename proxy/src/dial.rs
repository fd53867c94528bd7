//! Making a connection to another agent: TCP, mutual TLS, hello, answer.
//!
//! No request byte is sent before the answer, so whatever fails here may be tried again elsewhere whatever the method.

use std::{net::SocketAddr, sync::Arc};

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::HandshakeKind};
use weft_core::{
    publish::Reader,
    table::Upstream,
    tls::{Credentials, Peer, PeerError, TlsContext, explain_handshake, peer_fault},
    wire::{Answer, Framing, Hello, OUR_VERSIONS, exchange},
    workload::Workload,
};

use crate::{connect::connect_fault, fault::Fault};

/// What dialling needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    /// How TLS is spoken.
    pub(crate) tls: Arc<TlsContext>,
    /// Who we are and whom we trust.
    pub(crate) credentials: Reader<Credentials>,
}

/// The local workload in whose name connections are made. Its number is unique in the process.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Tells pools of workloads apart; never reused.
    pub(crate) number: u64,
    /// Who it is.
    pub(crate) workload: Arc<Workload>,
}

/// An accepted connection to another agent.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// What follows the answer.
    pub(crate) stream: TlsStream<TcpStream>,
    /// Who answered.
    pub(crate) peer: Peer,
    /// The certificates it showed.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// When they were checked.
    pub(crate) checked_at: UnixTime,
    /// The serial number of our certificate on it.
    pub(crate) own_serial: String,
}

/// Connects to the agent of `upstream` in the name of `caller`. Has no deadline of its own.
///
/// # Errors
/// Why there is no connection; nothing was asked of the application.
pub(crate) async fn dial(
    dialer: &Dialer,
    caller: &Caller,
    upstream: &Upstream,
    framing: Framing,
    original: Option<SocketAddr>,
) -> Result<Dialled, Fault> {
    match attempt(dialer, caller, upstream, framing, original).await {
        // The session may be what is not trusted any more: once more with a full handshake. When it was one already,
        // the next would end as this one did.
        Err(Missed { fault: Fault::PeerUntrusted | Fault::WrongIdentity, resumed: true }) => {
            dialer.tls.forget_sessions(&caller.workload.identity);
            attempt(dialer, caller, upstream, framing, original).await
        }
        outcome => outcome,
    }
    .map_err(|missed| missed.fault)
}

/// Why an attempt failed.
struct Missed {
    fault: Fault,
    /// Whether it was on a resumed session.
    resumed: bool,
}

impl From<Fault> for Missed {
    fn from(fault: Fault) -> Self {
        Self { fault, resumed: false }
    }
}

async fn attempt(
    dialer: &Dialer,
    caller: &Caller,
    upstream: &Upstream,
    framing: Framing,
    original: Option<SocketAddr>,
) -> Result<Dialled, Missed> {
    let endpoint = &upstream.endpoint;
    let (Some(address), Some(expected), Some(name)) =
        (endpoint.mesh_address, &endpoint.identity, upstream.server_name())
    else {
        return Err(Fault::NoIdentity.into());
    };
    let own = &caller.workload.identity;
    let (config, certificate) = dialer.tls.client_config_and_certificate(own, framing).map_err(|error| {
        tracing::warn!(%error, "cannot dial");
        Fault::NotReady
    })?;
    let tcp = TcpStream::connect(address).await.map_err(|error| connect_fault(&error))?;
    tcp.set_nodelay(true).map_err(|error| connect_fault(&error))?;
    let mut stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|error| {
        tracing::debug!(%address, reason = %explain_handshake(&error), "the handshake failed");
        match peer_fault(&error) {
            Some(PeerError::WrongIdentity { .. }) => Fault::WrongIdentity,
            _ => Fault::TlsFailed,
        }
    })?;
    let (_, session) = stream.get_ref();
    if Framing::negotiated(session.alpn_protocol()) != Some(framing) {
        return Err(Fault::TlsFailed.into());
    }
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let chain = session.peer_certificates().unwrap_or_default().to_vec();
    let checked_at = UnixTime::now();
    let peer = dialer.tls.check_server(&chain, expected, checked_at).map_err(|error| {
        tracing::warn!(%address, %error, "another agent is not who it should be");
        Missed { fault: Fault::WrongIdentity, resumed }
    })?;
    exchange::write_hello(&mut stream, &hello(caller, upstream, original))
        .await
        .map_err(|_| Fault::HelloFailed)?;
    let answer = exchange::read_answer(&mut stream).await.map_err(|_| Fault::HelloFailed)?;
    match refusal(&answer) {
        None => {
            let own_serial = certificate.leaf().serial.clone();
            Ok(Dialled { stream, peer, chain, checked_at, own_serial })
        }
        Some(fault) => {
            tracing::debug!(%address, ?answer, "another agent refused");
            Err(Missed { fault, resumed })
        }
    }
}

fn hello(caller: &Caller, upstream: &Upstream, original: Option<SocketAddr>) -> Hello {
    let endpoint = &upstream.endpoint;
    Hello {
        instance: Some(endpoint.instance.clone()),
        source_workload: Some(caller.workload.name.clone()),
        source_labels: caller.workload.labels.clone(),
        original_address: original,
        versions: OUR_VERSIONS,
        ..Hello::new(endpoint.service.clone(), endpoint.address.port())
    }
}

/// The fault that an answer is; none when it accepts.
fn refusal(answer: &Answer) -> Option<Fault> {
    match answer {
        Answer::Accepted { .. } => None,
        Answer::NotHere => Some(Fault::NotHere),
        Answer::Draining => Some(Fault::PeerDraining),
        Answer::WrongFraming { .. } => Some(Fault::WrongFraming),
        Answer::Denied { .. } => Some(Fault::PeerDenied),
        Answer::Overloaded { .. } => Some(Fault::PeerOverloaded),
        Answer::Untrusted => Some(Fault::PeerUntrusted),
        Answer::Malformed { .. } | Answer::Version { .. } | Answer::Unknown { .. } => {
            Some(Fault::HelloFailed)
        }
    }
}
