//! gRPC over one HTTP/2 connection over TLS 1.3, without a client library's pool, names or retries: there is one peer,
//! and the link above knows best when to try again.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{
    body::Body,
    client::{Grpc, GrpcService},
};
use weft_core::{
    control::MAX_MESSAGE,
    identity::{SpiffeId, TrustDomain},
    tls::explain_handshake,
};

use crate::http_client;

/// How long it may take until an HTTP/2 connection to one address of the hub stands, to which there is a connection of TCP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After this long without a sign of life the hub is asked for one.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A hub that does not answer a ping for this long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends requests on one connection.
#[derive(Clone, Debug)]
pub(super) struct Channel(http2::SendRequest<Body>);

impl GrpcService<Body> for Channel {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Connects to the hub of `trust_domain`, at the first address that answers, and leaves the connection to a task of its own, which ends with the client.
pub(super) async fn connect(
    address: &str,
    tls: Arc<ClientConfig>,
    trust_domain: &TrustDomain,
) -> Result<Grpc<Channel>, String> {
    at_first(address, |place| handshake(place, tls.clone(), trust_domain)).await
}

/// Whether anybody takes a connection at this address, `host:port`: all that can be asked by who trusts nobody yet.
///
/// # Errors
/// Says why there is none.
pub async fn answers(address: &str) -> Result<(), String> {
    at_first(address, tcp).await.map(drop)
}

/// Takes a step at one address of a name after the other, until it is done at one.
async fn at_first<T, F>(address: &str, step: impl Fn(SocketAddr) -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let found = in_time(async { lookup_host(address).await.map_err(|fault| fault.to_string()) }).await;
    let mut fault = "the name has no address".to_owned();
    for place in found.map_err(|fault| format!("{address}: {fault}"))? {
        match in_time(step(place)).await {
            Ok(done) => return Ok(done),
            Err(reason) => fault = reason,
        }
    }
    Err(format!("{address}: {fault}"))
}

/// Each address has its own time: one that is dead must not hide the next.
async fn in_time<T>(step: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
    timeout(CONNECT_TIMEOUT, step).await.unwrap_or_else(late)
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, String> {
    let late = |_| format!("nobody is there within {} s", http_client::CONNECT.as_secs());
    let connected = timeout(http_client::CONNECT, TcpStream::connect(address)).await.map_err(late)?;
    connected.map_err(|fault| fault.to_string())
}

async fn handshake(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    trust_domain: &TrustDomain,
) -> Result<Grpc<Channel>, String> {
    let text = |fault: io::Error| fault.to_string();
    let tcp = tcp(address).await?;
    tcp.set_nodelay(true).map_err(text)?;
    http_client::end_when_dead(&tcp).map_err(text)?;
    let name = SpiffeId::hub(trust_domain).server_name();
    let name = ServerName::try_from(name).map_err(|fault| fault.to_string())?;
    let stream =
        TlsConnector::from(tls).connect(name, tcp).await.map_err(|fault| explain_handshake(&fault))?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(|fault| fault.to_string())?;
    tokio::spawn(async move {
        if let Err(fault) = connection.await {
            tracing::debug!(%fault, "the connection to the hub ended");
        }
    });
    Ok(Grpc::with_origin(Channel(sender), Uri::from_static("https://hub"))
        .max_decoding_message_size(MAX_MESSAGE))
}
