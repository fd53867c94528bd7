//! One question to an endpoint of the mesh: over mutual TLS, through its agent, as a call would come.
//!
//! A check has no identity of its own. A node's certificate opens the stream to the hub and nothing else, and one that
//! every policy had to let in would be a hole in all of them. So it is asked as a local workload, and what its agent says
//! before the application is reached is part of the answer: that it is there, proves the identity that the record names,
//! and serves this port. That a policy denies this workload says nothing of the application, and is no failure.

use std::net::SocketAddr;

use rustls::pki_types::{ServerName, UnixTime};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use weft_core::{
    identity::SpiffeId,
    name::ServiceName,
    resource::AppProtocol,
    tls::{TlsContext, explain_handshake},
    wire::{Answer, Framing, Hello, exchange},
};

use super::{CheckSettings, Question, ask::get, grpc};

/// An endpoint that speaks mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MeshTarget {
    /// Where its agent takes mesh traffic.
    pub(crate) mesh: SocketAddr,
    /// Who must answer.
    pub(crate) identity: SpiffeId,
    /// What is called.
    pub(crate) service: ServiceName,
    /// The application's own port at that instance.
    pub(crate) port: u16,
    /// What is spoken there.
    pub(crate) protocol: AppProtocol,
}

/// Asks once.
///
/// # Errors
/// Says what is wrong with the answer, or that there is none in time.
pub(crate) async fn ask_in_time(
    settings: &CheckSettings,
    tls: &TlsContext,
    target: &MeshTarget,
) -> Result<(), String> {
    let late = |_| Err(format!("no answer within {} ms", settings.timeout.as_millis()));
    timeout(settings.timeout, ask(settings, tls, target)).await.unwrap_or_else(late)
}

async fn ask(settings: &CheckSettings, tls: &TlsContext, target: &MeshTarget) -> Result<(), String> {
    let tcp = TcpStream::connect(target.mesh).await.map_err(|error| error.to_string())?;
    // Of several workloads always the same one asks.
    let own = tls.credentials().load().identities().map(|held| held.identity().clone()).min();
    // Without anybody to ask as, that the mesh port is open is all there is to know.
    let Some(own) = own else { return Ok(()) };
    let framing = match (&settings.question, target.protocol.is_http()) {
        (_, false) => Framing::Tcp,
        (Question::Grpc { .. }, true) => Framing::Http2,
        (Question::Http { .. } | Question::Tcp, true) => Framing::Http1,
    };
    let mut stream = handshake(tls, &own, target, framing, tcp).await?;
    let hello = Hello::new(target.service.clone(), target.port);
    let unanswered = |error: exchange::ExchangeError| format!("its agent: {error}");
    exchange::write_hello(&mut stream, &hello).await.map_err(unanswered)?;
    match exchange::read_answer(&mut stream).await.map_err(unanswered)? {
        Answer::Accepted { .. } => {}
        Answer::Denied { .. } => return Ok(()),
        Answer::NotHere => return Err("its agent does not serve it".into()),
        Answer::Draining => return Err("its agent is draining".into()),
        other => return Err(format!("its agent refuses: {other:?}").chars().take(200).collect()),
    }
    match &settings.question {
        Question::Tcp => Ok(()),
        Question::Http { path, host } => {
            let host = host.clone().unwrap_or_else(|| format!("{}.mesh", target.service));
            match get(stream, path, &host).await {
                Err(fault) if fault.starts_with("status 403") => Ok(()),
                answer => answer,
            }
        }
        Question::Grpc { service } => match grpc::check(stream, service).await {
            // gRPC's word for a denial.
            Err(fault) if fault == "gRPC status 7" => Ok(()),
            answer => answer,
        },
    }
}

async fn handshake(
    tls: &TlsContext,
    own: &SpiffeId,
    target: &MeshTarget,
    framing: Framing,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    let config = tls.client_config(own, framing).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(target.identity.server_name()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(config).connect(name, tcp).await;
    let stream = stream.map_err(|error| explain_handshake(&error))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    tls.check_server(chain, &target.identity, UnixTime::now()).map_err(|error| {
        tls.forget_sessions(own);
        error.to_string()
    })?;
    Ok(stream)
}
