//! Applications that know nothing of the mesh.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// An HTTP/1.1 application. It answers with what it saw: its name, the request line, and the headers, a line each, then
/// the body. `/slow` answers after `x-delay` milliseconds.
pub(crate) struct Application {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Application {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::answering(name, 200).await
    }

    /// One whose every answer has this status.
    pub(crate) async fn answering(name: &'static str, status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicU64::new(0));
        let counter = requests.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                stream.set_nodelay(true).unwrap();
                let counter = counter.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        counter.fetch_add(1, Ordering::Relaxed);
                        answer(name, status, request)
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, requests, task }
    }

    pub(crate) fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    name: &str,
    status: u16,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    if let Some(delay) = parts.headers.get("x-delay") {
        let delay = delay.to_str().unwrap().parse().unwrap();
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(Response::builder().status(400).body(Full::default()).unwrap()),
    };
    let mut text = format!("{name}\n{} {} {:?}\n", parts.method, parts.uri, parts.version);
    for (name, value) in &parts.headers {
        text += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    let mut bytes = text.into_bytes();
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    Ok(Response::builder().status(status).header("x-instance", name).body(Full::new(bytes.into())).unwrap())
}

/// Reads the head of a message, byte by byte.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// An application that reads the head of a request on each connection, and then does with it what `script` says.
pub(crate) async fn scripted<F, S>(script: S) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(String, TcpStream) -> F + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let script = script.clone();
            tokio::spawn(async move { script(read_head(&mut stream).await, stream).await });
        }
    });
    address
}
