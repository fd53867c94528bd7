//! HTTP/1.1 connections to applications.
//!
//! A pooled connection has no task of its own: the request's task polls it, then the response's body does, and at the
//! end of the body it goes back to its pool. So a request costs no wake-up of another task, and whoever takes a
//! connection out polls it once first: one that was closed, or that received something unasked, is seen there and
//! dropped. Connections idle for at most a second, less than any application's own limit that is worth the name.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::body::{Body, BodyError};
use crate::{connect::connect, fault::Fault, stream::LocalStream};

/// How long a connection may idle.
pub(crate) const IDLE: Duration = Duration::from_secs(1);
/// How many idle connections to one address are kept.
const IDLE_CONNECTIONS: usize = 1024;

/// The idle connections to one address.
#[derive(Debug)]
pub(crate) struct AppPool {
    address: SocketAddr,
    idle: RefCell<Vec<(Instant, Box<AppConnection>)>>,
}

/// A connection that someone polls.
#[derive(Debug)]
pub(crate) struct AppConnection {
    connection: http1::Connection<TokioIo<LocalStream>, Body>,
    sender: http1::SendRequest<Body>,
    home: Weak<AppPool>,
    /// Whether the connection ended; it must not be polled again.
    ended: bool,
}

/// A response's body, with the connection that it comes on.
#[derive(Debug)]
pub(crate) struct AppBody {
    body: Incoming,
    /// None once it went back to the pool.
    connection: Option<Box<AppConnection>>,
}

/// Why an application gave no response.
#[derive(Debug)]
pub(crate) struct AppFailure {
    /// What happened.
    pub(crate) fault: Fault,
    /// The request, if nothing of it was sent.
    pub(crate) request: Option<Box<Request<Body>>>,
}

impl AppPool {
    /// A pool for one address.
    pub(crate) fn new(address: SocketAddr) -> Rc<Self> {
        Rc::new(Self { address, idle: RefCell::default() })
    }

    /// An idle connection that is still good.
    pub(crate) fn take(&self) -> Option<Box<AppConnection>> {
        loop {
            let (since, mut connection) = self.idle.borrow_mut().pop()?;
            if since.elapsed() < IDLE && connection.is_good() {
                return Some(connection);
            }
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// The fault of the connection.
    pub(crate) async fn connect(self: &Rc<Self>, limit: Duration) -> Result<Box<AppConnection>, Fault> {
        let stream = connect(self.address, limit).await?;
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(false)
            .handshake::<_, Body>(TokioIo::new(LocalStream::Tcp(stream)))
            .await
            .map_err(|_| Fault::NotDispatched)?;
        Ok(Box::new(AppConnection { connection, sender, home: Rc::downgrade(self), ended: false }))
    }

    /// Closes connections that idled too long.
    pub(crate) fn sweep(&self) {
        self.idle.borrow_mut().retain(|(since, _)| since.elapsed() < IDLE);
    }

    /// How many idle connections there are.
    pub(crate) fn idle(&self) -> usize {
        self.idle.borrow().len()
    }
}

impl AppConnection {
    /// Looks at an idle connection: whatever there is to read on it makes it useless.
    fn is_good(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.poll(&mut context);
        !self.ended && !self.sender.is_closed()
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        if !self.ended {
            self.ended = Pin::new(&mut self.connection).poll(context).is_ready();
        }
    }

    /// Sends a request and waits for the response's head.
    pub(crate) async fn send(
        mut self: Box<Self>,
        request: Request<Body>,
    ) -> Result<Response<AppBody>, AppFailure> {
        let outcome = {
            let mut answer = pin!(self.sender.try_send_request(request));
            let connection = &mut self.connection;
            let ended = &mut self.ended;
            poll_fn(|context| {
                if !*ended {
                    *ended = Pin::new(&mut *connection).poll(context).is_ready();
                }
                // Only the connection can complete it, and that was just polled: no waker is needed.
                answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            })
            .await
        };
        match outcome {
            Ok(response) => Ok(response.map(|body| AppBody::new(body, self))),
            Err(mut failure) => {
                let request = failure.take_message().map(Box::new);
                let fault = match &request {
                    Some(_) => Fault::NotDispatched,
                    None if failure.error().is_parse() => Fault::BadResponse,
                    None => Fault::ConnectionLost,
                };
                Err(AppFailure { fault, request })
            }
        }
    }

    /// Goes back to the pool, if it can be used again.
    fn retire(mut self: Box<Self>) {
        let Some(home) = self.home.upgrade() else { return };
        // Takes note of the end of the message; a connection that is to close says so here.
        if !self.is_good() || !self.sender.is_ready() {
            return;
        }
        let mut idle = home.idle.borrow_mut();
        if idle.len() < IDLE_CONNECTIONS {
            idle.push((Instant::now(), self));
        }
    }
}

impl AppBody {
    fn new(body: Incoming, connection: Box<AppConnection>) -> Self {
        let mut this = Self { body, connection: Some(connection) };
        if this.body.is_end_stream() {
            this.finish();
        }
        this
    }

    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.retire();
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Asking the body tells the connection that more is wanted; only the connection can then bring it.
        let mut unwoken = Context::from_waker(Waker::noop());
        let mut frame = Pin::new(&mut self.body).poll_frame(&mut unwoken);
        if frame.is_pending()
            && let Some(connection) = self.connection.as_mut()
        {
            connection.poll(context);
            frame = Pin::new(&mut self.body).poll_frame(&mut unwoken);
        }
        if matches!(&frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.finish();
        }
        frame.map_err(Into::into)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
