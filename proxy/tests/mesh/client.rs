//! A client that does not retry.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    client::conn::{http1, http2},
    rt::{Read, Write},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    time::timeout,
};

/// What comes until the other side ends the connection, which it must in time; and how it ended it.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> (String, io::Result<usize>) {
    let mut bytes = Vec::new();
    let end = timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await.unwrap();
    (String::from_utf8(bytes).unwrap(), end)
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One HTTP/1.1 connection.
pub(crate) struct Client1(http1::SendRequest<Full<Bytes>>);

impl Client1 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(TokioIo::new(stream)).await
    }

    pub(crate) async fn over(io: impl Read + Write + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn call(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Reply> {
        self.0.ready().await?;
        let (parts, body) = self.0.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }

    /// Whether the other side has ended it.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> hyper::Result<Reply> {
        self.call(Request::get(path).header("host", host).body(Full::default()).unwrap()).await
    }
}

/// One HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Client2(http2::SendRequest<Full<Bytes>>);

impl Client2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn call(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Reply> {
        self.0.ready().await?;
        let (parts, body) = self.0.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }
}
