//! One question to one address. Every fault is a short text for people; what a server says in it is cut and escaped.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{CheckSettings, Question, grpc, with_connection};
use crate::http_client::causes;

/// Asks `address` once.
///
/// # Errors
/// Says what is wrong with the answer, or that there is none in time.
pub async fn ask(settings: &CheckSettings, address: SocketAddr) -> Result<(), String> {
    let until = Instant::now() + settings.timeout;
    let asked = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        match &settings.question {
            Question::Tcp => Ok(()),
            Question::Http { path, host } => {
                let host = host.clone().unwrap_or_else(|| address.to_string());
                get(stream, path, &host).await
            }
            Question::Grpc { service } => grpc::check(stream, service).await,
        }
    };
    let late = |_| Err(format!("no answer within {} ms", settings.timeout.as_millis()));
    timeout_at(until, asked).await.unwrap_or_else(late)
}

/// A GET whose answer's head is enough.
pub(super) async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    host: &str,
) -> Result<(), String> {
    let text = |error: hyper::Error| causes(&error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("weft-check/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answered = async move { sender.send_request(request).await };
    let response = with_connection(answered, connection).await.map_err(text)?;
    let status = response.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("status {status}")) }
}
