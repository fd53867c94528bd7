//! The transport: HTTP/1.1 on Unix and TCP sockets, answered by a [`Handler`].

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
};

/// How many connections one admin socket serves at a time; the others wait.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the accept loop waits after the kernel ran out of something.
const RESOURCE_PAUSE: Duration = Duration::from_millis(200);
/// How long a process that ends waits for its last answers to be taken.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What a handler says to one request.
#[derive(Debug)]
pub enum Answer {
    /// A JSON document.
    Json(StatusCode, serde_json::Value),
    /// Plain text.
    Text(StatusCode, String),
    /// Lines for as long as the client listens.
    Lines(mpsc::Receiver<Bytes>),
    /// What takes a moment to find out.
    Later(Later),
}

/// An answer that is still being made.
pub struct Later(pub BoxFuture<'static, Answer>);

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Later")
    }
}

impl Answer {
    /// A JSON document with status 200.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => Self::Json(StatusCode::OK, value),
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }

    /// Plain text with status 200.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(StatusCode::OK, text.into())
    }

    /// Readiness: 200 when nothing is missing, else 503 with what is, a line each.
    #[must_use]
    pub fn ready_unless(missing: &[String]) -> Self {
        if missing.is_empty() {
            return Self::text("ok\n");
        }
        let lines: String = missing.iter().map(|what| format!("missing: {what}\n")).collect();
        Self::Text(StatusCode::SERVICE_UNAVAILABLE, lines)
    }

    /// `{"error": …}`.
    pub fn error(status: StatusCode, error: impl ToString) -> Self {
        Self::Json(status, serde_json::json!({ "error": error.to_string() }))
    }

    /// An answer that takes a moment; it must not be another such one.
    pub fn later(answer: impl Future<Output = Self> + Send + 'static) -> Self {
        Self::Later(Later(Box::pin(answer)))
    }

    /// Nothing of that name.
    #[must_use]
    pub fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "no such page")
    }
}

/// Answers requests. `path` has no query, `query` is what came after the question mark.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request at once; long work goes through [`Answer::Lines`].
    fn answer(&self, method: &Method, path: &str, query: &str) -> Answer;
}

/// The admin sockets of a process. Dropping it closes them and removes the Unix socket's path.
#[derive(Debug)]
pub struct Admin {
    socket: Option<PathBuf>,
    tcp: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
    /// Raised at the end; every connection holds a receiver, so that the end is known too.
    ending: watch::Sender<bool>,
}

impl Admin {
    /// Serves `full` on the Unix socket `path` (mode 0600, its folder made if needed).
    ///
    /// # Errors
    /// When another process answers there, or the socket cannot be made.
    pub fn serve_unix(&mut self, path: &Path, full: Arc<dyn Handler>) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let listener = bind_unix(path)?;
        self.socket = Some(path.to_owned());
        self.tasks.push(tokio::spawn(accept_loop(Acceptor::Unix(listener), full, self.ending.subscribe())));
        Ok(())
    }

    /// Serves `read_only` on the TCP address `address`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve_tcp(&mut self, address: SocketAddr, read_only: Arc<dyn Handler>) -> io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        self.tcp = Some(listener.local_addr()?);
        self.tasks.push(tokio::spawn(accept_loop(
            Acceptor::Tcp(listener),
            read_only,
            self.ending.subscribe(),
        )));
        Ok(())
    }

    /// No socket yet.
    #[must_use]
    pub fn new() -> Self {
        Self { socket: None, tcp: None, tasks: Vec::new(), ending: watch::Sender::new(false) }
    }

    /// Closes the sockets once the answers under way have been sent, so that whoever asked the process to end
    /// hears that it will. Streams of lines end; a client that does not read is given up after a second.
    pub async fn finish(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
        self.ending.send_replace(true);
        if tokio::time::timeout(LAST_ANSWERS, self.ending.closed()).await.is_err() {
            tracing::debug!("an admin client did not take its answer");
        }
    }

    /// The Unix socket's path.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The TCP address that was bound.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(path) = &self.socket {
            // Someone may have removed it already, which is what we want.
            let _removed = std::fs::remove_file(path);
        }
    }
}

/// Binds `path`. A socket that nobody answers on is left over from a process that died: it is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
    }
    if path.symlink_metadata().is_ok_and(|data| std::os::unix::fs::FileTypeExt::is_socket(&data.file_type()))
    {
        std::fs::remove_file(path)?;
    }
    // Bound under a private name and mode first, so that nobody can connect before the mode is right. The name is short:
    // it counts towards the longest path that a socket can have.
    let folder = path.parent().unwrap_or(Path::new("."));
    let private = folder.join(format!(".{}", std::process::id()));
    let _left_over = std::fs::remove_file(&private);
    let listener = UnixListener::bind(&private)?;
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&private, path)?;
    Ok(listener)
}

enum Acceptor {
    Unix(UnixListener),
    Tcp(TcpListener),
}

enum Accepted {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

impl Acceptor {
    /// The next connection; errors of a peer are passed over, errors of resources wait.
    async fn next(&self) -> Accepted {
        loop {
            let accepted = match self {
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
            };
            match accepted {
                Ok(stream) => return stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "the admin socket cannot accept");
                    tokio::time::sleep(RESOURCE_PAUSE).await;
                }
            }
        }
    }
}

async fn accept_loop(acceptor: Acceptor, handler: Arc<dyn Handler>, ending: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = acceptor.next().await;
        let (handler, ending) = (handler.clone(), ending.clone());
        tokio::spawn(async move {
            let _slot = slot;
            match stream {
                Accepted::Unix(stream) => serve(stream, handler, ending).await,
                Accepted::Tcp(stream) => serve(stream, handler, ending).await,
            }
        });
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handler: Arc<dyn Handler>,
    mut ending: watch::Receiver<bool>,
) {
    let lines_until = ending.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer =
            handler.answer(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
        let lines_until = lines_until.clone();
        async move {
            let answer = match answer {
                Answer::Later(Later(answer)) => answer.await,
                answer => answer,
            };
            Ok::<_, Infallible>(respond(answer, lines_until))
        }
    });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = raised(&mut ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// Waits until `ending` is raised, or its sender is gone, which is the same.
async fn raised(ending: &mut watch::Receiver<bool>) {
    let _gone = ending.wait_for(|ending| *ending).await.is_err();
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn respond(answer: Answer, mut ending: watch::Receiver<bool>) -> Response<Body> {
    let (status, kind, body) = match answer {
        Answer::Json(status, value) => {
            (status, "application/json", Full::new(format!("{value}\n").into()).boxed_unsync())
        }
        Answer::Text(status, text) => {
            (status, "text/plain; version=0.0.4; charset=utf-8", Full::new(text.into()).boxed_unsync())
        }
        Answer::Later(_) => {
            let answer = Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "an answer was put off twice");
            return respond(answer, ending);
        }
        Answer::Lines(mut lines) => {
            let frames = futures_util::stream::poll_fn(move |context| {
                lines.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
            });
            let frames = frames.take_until(Box::pin(async move { raised(&mut ending).await }));
            (StatusCode::OK, "application/x-ndjson", StreamBody::new(frames).boxed_unsync())
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client::AdminClient;

    struct Echo;

    impl Handler for Echo {
        fn answer(&self, method: &Method, path: &str, query: &str) -> Answer {
            match path {
                "/echo" => Answer::json(&format!("{method} {query}")),
                "/lines" => {
                    let (sender, receiver) = mpsc::channel(2);
                    sender.try_send("1\n".into()).unwrap();
                    sender.try_send("2\n".into()).unwrap();
                    Answer::Lines(receiver)
                }
                _ => Answer::not_found(),
            }
        }
    }

    #[tokio::test]
    async fn answers_on_a_private_socket_and_removes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/admin.sock");
        let mut admin = Admin::new();
        admin.serve_unix(&path, Arc::new(Echo)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(admin.serve_unix(&path, Arc::new(Echo)).unwrap_err().kind(), io::ErrorKind::AddrInUse);

        let client = AdminClient::new(&path);
        assert_eq!(client.get::<String>("/echo?a=1").await.unwrap(), "GET a=1");
        assert_eq!(client.post::<String>("/echo").await.unwrap(), "POST ");
        let refused = client.get::<String>("/nothing").await.unwrap_err().to_string();
        assert!(refused.contains("no such page"), "{refused}");
        let mut lines = client.lines("/lines").await.unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap(), "1");
        assert_eq!(lines.next().await.unwrap().unwrap(), "2");
        assert!(lines.next().await.unwrap().is_none());
        admin.finish().await;
        assert!(!path.exists());
        let gone = client.get::<String>("/echo").await.unwrap_err().to_string();
        assert!(gone.contains("weft agent") && gone.contains("admin.sock"), "{gone}");
    }
    /// Asks its process to end, and answers only after that has begun.
    struct Last(Arc<tokio::sync::Notify>);

    impl Handler for Last {
        fn answer(&self, _: &Method, path: &str, _: &str) -> Answer {
            if path == "/lines" {
                let (sender, receiver) = mpsc::channel(1);
                tokio::spawn(async move { sender.closed().await });
                return Answer::Lines(receiver);
            }
            self.0.notify_one();
            Answer::later(async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Answer::json(&"ends")
            })
        }
    }

    #[tokio::test]
    async fn the_last_answer_is_sent_and_streams_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let asked = Arc::new(tokio::sync::Notify::new());
        let mut admin = Admin::new();
        admin.serve_unix(&path, Arc::new(Last(asked.clone()))).unwrap();
        let client = AdminClient::new(&path);
        let mut lines = client.lines("/lines").await.unwrap();
        let answer = tokio::spawn(async move { AdminClient::new(&path).post::<String>("/drain").await });
        asked.notified().await;
        let began = tokio::time::Instant::now();
        admin.finish().await;
        assert!(began.elapsed() < LAST_ANSWERS, "nobody was waited for in vain");
        assert_eq!(answer.await.unwrap().unwrap(), "ends");
        assert!(lines.next().await.unwrap().is_none());
    }
}
