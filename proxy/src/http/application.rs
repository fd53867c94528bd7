//! HTTP/1.1 connections to applications, as their client (RFC 9112).
//!
//! A pooled connection has no task and no buffers of its own: the request's task reads and writes, then the response's
//! body does, and at the end of the body it goes back to its pool, no more than a socket. So a request costs no wake-up
//! of another task, and hundreds of connections that are used in turn do not push each other out of the core's cache.
//! Reading goes through a buffer of the thread.
//!
//! Whoever takes a connection out looks at it first: one that was closed, or that received something unasked, is
//! dropped. Connections idle for at most a second, less than any application's own limit that is worth the name.
//!
//! An application may answer before it has read the request. What it says is passed on at once, while the rest is sent
//! for as long as it listens, and as fast as its answer is read; a connection on which that was not finished is not used
//! again. Nor is one after a request that is not expected to have a body and had one.

mod upload;

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, Version, request::Parts};
use http_body::{Frame, SizeHint};
use rustix::net::{RecvFlags, recv};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_util::io::poll_read_buf;

use self::upload::{First, Stopped, Upload};
use super::body::{Body, BodyError};
use crate::{
    connect::connect,
    fault::Fault,
    message::{Framing, Head, MAX_HEAD, Malformed, Piece, parse_head},
};

/// How long a connection may idle.
pub(crate) const IDLE: Duration = Duration::from_secs(1);
/// After how long an idle connection is looked at before it is used. The runtime knows of an end only when it has asked
/// the kernel for news.
const FRESH: Duration = Duration::from_millis(2);
/// How many idle connections to one address are kept.
const IDLE_CONNECTIONS: usize = 1024;
/// How much is read at a time. More is there only of long bodies, which are then read to where they stay.
const READ: usize = 16 << 10;
/// How much of a long body is read at a time.
const LONG_READ: usize = 64 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Why a message to or from an application broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The application closed the connection in the middle of its response.
    #[error("the connection ended in the middle of a message")]
    Ended,
    /// What came is no response.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The request's own body broke off, or has another length than it said.
    #[error("the request's body broke off")]
    Request,
    /// Nothing of the request was sent.
    #[error("the connection takes nothing")]
    Unsent,
}

/// The idle connections to one address.
#[derive(Debug)]
pub(crate) struct AppPool {
    address: SocketAddr,
    idle: RefCell<Vec<(Instant, TcpStream)>>,
}

/// A connection that someone uses.
#[derive(Debug)]
pub(crate) struct AppConnection {
    stream: TcpStream,
    home: Weak<AppPool>,
    /// The request, until all of it was sent.
    upload: Option<Upload>,
    /// What was read and belongs to what is read next.
    unread: Bytes,
    /// How the response's body ends; none when it has ended.
    framing: Option<Framing>,
    /// Whether the last read filled its buffer.
    brims: bool,
    /// Whether another request may follow.
    keeps_alive: bool,
    /// Whether the request may be sent again: nothing was heard of the application, and it would do no harm.
    may_repeat: bool,
}

/// A response's body, with the connection that it comes on.
pub(crate) struct AppBody {
    /// None once it ended and went back to the pool, or failed.
    connection: Option<Box<AppConnection>>,
}

impl fmt::Debug for AppBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AppBody").finish_non_exhaustive()
    }
}

/// Why an application gave no response.
#[derive(Debug)]
pub(crate) struct AppFailure {
    /// What happened.
    pub(crate) fault: Fault,
    /// The request, if it may be sent on another connection: nothing was sent of it nor taken of its body, or the
    /// connection ended without a word and the request is idempotent and has no body (RFC 9110 §9.2.2).
    pub(crate) request: Option<Box<Request<Body>>>,
}

impl AppPool {
    /// A pool for one address.
    pub(crate) fn new(address: SocketAddr) -> Rc<Self> {
        Rc::new(Self { address, idle: RefCell::default() })
    }

    /// An idle connection that is still good.
    pub(crate) fn take(self: &Rc<Self>) -> Option<Box<AppConnection>> {
        loop {
            let (since, stream) = self.idle.borrow_mut().pop()?;
            let idled = since.elapsed();
            if idled < IDLE && is_quiet(&stream, idled >= FRESH) {
                return Some(AppConnection::new(stream, self));
            }
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// The fault of the connection.
    pub(crate) async fn connect(self: &Rc<Self>, limit: Duration) -> Result<Box<AppConnection>, Fault> {
        Ok(AppConnection::new(connect(self.address, limit).await?, self))
    }

    /// Closes connections that idled too long.
    pub(crate) fn sweep(&self) {
        self.idle.borrow_mut().retain(|(since, _)| since.elapsed() < IDLE);
    }

    /// How many idle connections there are.
    pub(crate) fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    fn keep(&self, stream: TcpStream) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_CONNECTIONS {
            idle.push((Instant::now(), stream));
        }
    }
}

/// Whether there is nothing to read on an idle connection, not even its end; the kernel is asked if the runtime may not
/// have heard of it.
fn is_quiet(stream: &TcpStream, ask: bool) -> bool {
    let nothing = |outcome: Result<usize, io::ErrorKind>| outcome == Err(io::ErrorKind::WouldBlock);
    nothing(stream.try_read(&mut [0]).map_err(|error| error.kind()))
        && (!ask
            || nothing(
                recv(stream, &mut [0_u8], RecvFlags::PEEK | RecvFlags::DONTWAIT)
                    .map(|(read, _)| read)
                    .map_err(|error| io::Error::from(error).kind()),
            ))
}

impl AppConnection {
    fn new(stream: TcpStream, home: &Rc<AppPool>) -> Box<Self> {
        Box::new(Self {
            stream,
            home: Rc::downgrade(home),
            upload: None,
            unread: Bytes::new(),
            framing: None,
            brims: false,
            keeps_alive: true,
            may_repeat: false,
        })
    }

    /// Sends a request and waits for the response's head.
    ///
    /// # Errors
    /// Why there is no response.
    pub(crate) async fn send(
        mut self: Box<Self>,
        request: Request<Body>,
    ) -> Result<Response<AppBody>, AppFailure> {
        let (parts, mut body) = request.into_parts();
        let first = upload::first_frame(&parts, &mut body).await;
        let outcome = match self.begin(&parts, body, first) {
            Ok(()) => poll_fn(|context| self.poll_head(&parts.method, context)).await,
            Err(broken) => Err(broken),
        };
        match outcome {
            Ok(response) => Ok(response.map(|()| AppBody::new(self))),
            Err(broken) => {
                let fault = match broken {
                    Broken::Unsent => Fault::NotDispatched,
                    Broken::Malformed(_) => Fault::BadResponse,
                    Broken::Io(_) | Broken::Ended | Broken::Request => Fault::ConnectionLost,
                };
                let unsent = self.upload.take().filter(|_| matches!(broken, Broken::Unsent));
                let repeats = self.may_repeat && matches!(broken, Broken::Io(_) | Broken::Ended);
                let body = unsent.and_then(Upload::into_whole).or_else(|| repeats.then_some(Body::Empty));
                let request = body.map(|body| Box::new(Request::from_parts(parts, body)));
                Err(AppFailure { fault, request })
            }
        }
    }

    fn begin(&mut self, head: &Parts, body: Body, first: First) -> Result<(), Broken> {
        let upload = Upload::new(head, body, first)?;
        let is_usual = upload::usually_has_body(&head.method) || !upload.has_body();
        self.keeps_alive = head.version == Version::HTTP_11 && is_usual;
        self.may_repeat = !upload.has_body() && head.method.is_idempotent();
        self.upload = Some(upload);
        Ok(())
    }

    fn poll_head(
        &mut self,
        method: &Method,
        context: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, Broken>> {
        self.poll_upload(context)?;
        loop {
            if !self.unread.is_empty() {
                match parse_head(&self.unread, method)? {
                    Some(head) => {
                        if let Some(response) = self.take_head(head, context)? {
                            return Poll::Ready(Ok(response));
                        }
                        continue;
                    }
                    None if self.unread.len() >= MAX_HEAD => {
                        return Poll::Ready(Err(Malformed("the response's head is too long").into()));
                    }
                    None => {}
                }
            }
            if ready!(self.poll_read(context))? == 0 {
                return Poll::Ready(Err(Broken::Ended));
            }
        }
    }

    /// Takes note of a head. An interim response is not the one that is waited for.
    fn take_head(&mut self, head: Head, context: &mut Context<'_>) -> Result<Option<Response<()>>, Broken> {
        drop(self.unread.split_to(head.length));
        let held = self.upload.as_ref().and_then(Upload::held);
        match head.response.status() {
            // After it, the connection would speak another protocol.
            StatusCode::SWITCHING_PROTOCOLS => self.keeps_alive = false,
            status if status.is_informational() => {
                if let (StatusCode::CONTINUE, Some(held)) = (status, held) {
                    held.welcome();
                    self.poll_upload(context)?;
                }
                return Ok(None);
            }
            // It decided without the body.
            _ if held.is_some() => {
                self.upload = None;
                self.keeps_alive = false;
            }
            _ => {}
        }
        self.keeps_alive &= head.keeps_alive;
        self.framing = Some(head.framing).filter(|framing| !matches!(framing, Framing::Length(0)));
        Ok(Some(head.response))
    }

    /// Sends what can be sent. An application that reads no more may answer all the same.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        match upload.poll(&mut self.stream, context) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.upload = None,
            Poll::Ready(Err(Stopped::Unread)) if !upload.is_begun() => return Err(Broken::Unsent),
            Poll::Ready(Err(Stopped::Unread)) => {
                self.upload = None;
                self.keeps_alive = false;
            }
            Poll::Ready(Err(Stopped::Body(broken))) => return Err(broken),
        }
        Ok(())
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.poll_upload(context)?;
        loop {
            let data = match &mut self.framing {
                None => return Poll::Ready(None),
                Some(Framing::UntilClose) => std::mem::take(&mut self.unread),
                Some(Framing::Length(left)) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.unread.len());
                    *left -= here as u64;
                    let data = self.unread.split_to(here);
                    if *left == 0 {
                        self.framing = None;
                    }
                    data
                }
                Some(Framing::Chunked(chunks)) => match chunks.next(&mut self.unread)? {
                    Piece::More => Bytes::new(),
                    Piece::Data(data) => {
                        if chunks.ends(&mut self.unread) {
                            self.framing = None;
                        }
                        data
                    }
                    Piece::Trailers(trailers) => {
                        self.framing = None;
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    Piece::End => {
                        self.framing = None;
                        return Poll::Ready(None);
                    }
                },
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if ready!(self.poll_read(context))? == 0 {
                return match self.framing.take() {
                    Some(Framing::UntilClose) | None => Poll::Ready(None),
                    Some(_) => Poll::Ready(Some(Err(Broken::Ended))),
                };
            }
        }
    }

    /// Reads more; nothing is read at the end of the connection.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.brims && self.unread.is_empty() {
            return self.poll_long_read(context);
        }
        let mut buffer = BUFFER.take();
        buffer.resize(READ, 0);
        let mut read = ReadBuf::new(&mut buffer);
        let outcome = Pin::new(&mut self.stream).poll_read(context, &mut read).map_ok(|()| {
            let read = read.filled();
            self.may_repeat &= read.is_empty();
            self.brims = read.len() == READ;
            self.unread = match self.unread.is_empty() {
                true => Bytes::copy_from_slice(read),
                false => {
                    let mut whole = BytesMut::from(std::mem::take(&mut self.unread));
                    whole.extend_from_slice(read);
                    whole.freeze()
                }
            };
            read.len()
        });
        BUFFER.set(buffer);
        outcome
    }

    /// Reads a long body to where it stays.
    fn poll_long_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = BytesMut::with_capacity(LONG_READ);
        let read = ready!(poll_read_buf(Pin::new(&mut self.stream), context, &mut buffer))?;
        self.brims = read >= READ;
        self.unread = buffer.freeze();
        Poll::Ready(Ok(read))
    }

    /// Goes back to the pool, if it can be used again.
    fn retire(self) {
        if self.keeps_alive
            && self.upload.is_none()
            && self.unread.is_empty()
            && let Some(home) = self.home.upgrade()
        {
            home.keep(self.stream);
        }
    }
}

impl AppBody {
    fn new(connection: Box<AppConnection>) -> Self {
        let mut this = Self { connection: Some(connection) };
        this.finish();
        this
    }

    /// Gives the connection back once the response has ended.
    fn finish(&mut self) {
        if let Some(connection) = self.connection.take_if(|connection| connection.framing.is_none()) {
            connection.retire();
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        let frame = ready!(connection.poll_data(context));
        match &frame {
            Some(Err(_)) => self.connection = None,
            _ => self.finish(),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.connection.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.connection.as_ref().map(|connection| &connection.framing) {
            None | Some(None) => SizeHint::with_exact(0),
            Some(Some(Framing::Length(left))) => SizeHint::with_exact(*left),
            Some(Some(_)) => SizeHint::default(),
        }
    }
}
