//! A plain HTTP/1.1 client with kept-alive connections, as any application has one. It never retries.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long one request may take in all.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends requests to one address.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    host: String,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Client {
    pub(super) fn new(address: SocketAddr, host: &str) -> Self {
        Self { address, host: host.into(), idle: Mutex::default() }
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        tokio::time::timeout(TIMEOUT, self.get_without_limit(path)).await.context("no answer in time")?
    }

    async fn get_without_limit(&self, path: &str) -> anyhow::Result<Answer> {
        let mut sender = match self.take_idle() {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let request = Request::get(path)
            .header(header::HOST, &self.host)
            .body(Empty::new())
            .context("a bad request")?;
        let response = sender.send_request(request).await.context("no answer")?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("the answer broke off")?.to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// A connection that is idle and still open.
    fn take_idle(&self) -> Option<SendRequest<Empty<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(SendRequest::is_ready)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        let stream =
            TcpStream::connect(self.address).await.with_context(|| format!("{} refuses", self.address))?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        sender.ready().await?;
        Ok(sender)
    }
}
