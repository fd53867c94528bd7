//! The operator's side of the admin socket, used by every reading verb.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// How long an answer may take; a stream only its first byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes: a table of ten thousand services fits many times.
const MAX_ANSWER: usize = 256 << 20;

/// Asks one agent or hub.
#[derive(Clone, Debug)]
pub struct AdminClient {
    socket: PathBuf,
    /// Whom we ask, for people: what is missing when nobody answers.
    whom: Whom,
}

#[derive(Clone, Copy, Debug)]
enum Whom {
    Agent,
    Hub,
}

impl AdminClient {
    /// A client of the agent that listens on `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), whom: Whom::Agent }
    }

    /// A client of the hub that listens on `socket`.
    #[must_use]
    pub fn of_hub(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), whom: Whom::Hub }
    }

    /// Reads a page.
    ///
    /// # Errors
    /// When nobody answers (naming the socket and how to start), or the answer is an error.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.document(Method::GET, path).await
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// As [`AdminClient::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.document(Method::POST, path).await
    }

    /// Follows a stream of lines.
    ///
    /// # Errors
    /// As [`AdminClient::get`].
    pub async fn lines(&self, path: &str) -> anyhow::Result<Lines> {
        let response = self.send(Method::GET, path).await?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        Ok(Lines { body: response.into_body(), pending: BytesMut::new() })
    }

    async fn document<T: DeserializeOwned>(&self, method: Method, path: &str) -> anyhow::Result<T> {
        let response = self.send(method, path).await?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let body = whole(response).await?;
        match serde_json::from_slice(&body) {
            Ok(value) => Ok(value),
            Err(error) => {
                self.check_kind().await?;
                let message = format!("the answer to {path} is not what this version of weft expects");
                Err(anyhow::Error::new(error).context(message))
            }
        }
    }

    /// Why an answer is none: a page that the other kind of process has is not named as missing.
    async fn refused(&self, response: Response<Incoming>) -> anyhow::Error {
        let is_unknown = response.status() == StatusCode::NOT_FOUND;
        let refusal = refusal(response).await;
        match is_unknown {
            true => self.check_kind().await.err().unwrap_or_else(|| anyhow::anyhow!(refusal)),
            false => anyhow::anyhow!(refusal),
        }
    }

    /// Looks whether a process of the other kind answers here.
    ///
    /// # Errors
    /// Says so when it does.
    async fn check_kind(&self) -> anyhow::Result<()> {
        let Ok(response) = self.send(Method::GET, "/status").await else { return Ok(()) };
        let Ok(body) = whole(response).await else { return Ok(()) };
        let Ok(status) = serde_json::from_slice::<serde_json::Value>(&body) else { return Ok(()) };
        let socket = self.socket.display();
        match self.whom {
            Whom::Agent if status.get("roots").is_some() => {
                bail!(
                    "a hub answers at {socket}, and this is a question to an agent (`weft hub status` asks a hub)"
                )
            }
            Whom::Hub if status.get("workloads").is_some() => {
                bail!(
                    "an agent answers at {socket}, and this is a question to a hub (`weft status` asks an agent)"
                )
            }
            _ => Ok(()),
        }
    }

    async fn send(&self, method: Method, path: &str) -> anyhow::Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.explain(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "weft")
            .body(Empty::<Bytes>::new())?;
        tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request))
            .await
            .with_context(|| format!("{} did not answer in time", self.socket.display()))?
            .with_context(|| format!("{} closed the connection", self.socket.display()))
    }

    /// Why a connection failed and what to do about it.
    fn explain(&self, error: &io::Error) -> anyhow::Error {
        let socket = self.socket.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                let (whom, file, variable) = match self.whom {
                    Whom::Agent => ("agent", "weft.toml", "WEFT_SOCKET"),
                    Whom::Hub => ("hub", "hub.toml", "WEFT_HUB_SOCKET"),
                };
                anyhow::anyhow!(
                    "no {whom} answers at {socket}\n  start one:          weft {whom} --config /etc/weft/{file}\n  \
                     or name its socket: --socket PATH (or {variable})"
                )
            }
            io::ErrorKind::PermissionDenied => anyhow::anyhow!(
                "{socket} is not yours to open: it belongs to the user that runs the process there (try sudo)"
            ),
            _ => anyhow::anyhow!("cannot connect to {socket}: {error}"),
        }
    }
}

/// Lines as they come.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    pending: BytesMut,
}

impl Lines {
    /// The next line without its end; none when the stream is over.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = self.pending.split_to(end + 1);
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.context("the stream broke")?.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

async fn read(body: Incoming) -> anyhow::Result<Bytes> {
    let limited = http_body_util::Limited::new(body, MAX_ANSWER);
    Ok(limited.collect().await.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes())
}

async fn whole(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    tokio::time::timeout(ANSWER_TIMEOUT, read(response.into_body()))
        .await
        .context("the answer did not end in time")?
}

async fn refusal(response: Response<Incoming>) -> String {
    let status = response.status();
    let text = match read(response.into_body()).await {
        Ok(body) => String::from_utf8_lossy(&body).into_owned(),
        Err(error) => error.to_string(),
    };
    let named = serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|value| value.get("error").and_then(|error| error.as_str().map(str::to_owned)));
    format!("{status}: {}", named.unwrap_or(text))
}
