//! What HTTP/1 does between two rests.
//!
//! For each connection that it serves, hyper keeps two buffers of 8 KB and room for a request's future, from the first
//! request to the end of the connection. Most connections rest most of the time. So hyper gives one back when every
//! request that came is answered and nothing came for a while, or when many others wait as well: a resting connection
//! is little more than a socket. To give it to hyper again costs a fifth of a request, so a few wait with all they need.
//! hyper also gives it back when it refused what came: then it is for whoever serves it to say so.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use http_body::Body;
use hyper::{
    Request, Response, body::Incoming, server::conn::http1::UpgradeableConnection, service::Service,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    head::HeadWatch,
    serve,
    strict::{Heads, Strict},
};
use crate::{
    config::Limits,
    signal::{Listener, PARTING},
    stream::{LocalStream, OtherEnd, Prefixed},
};

/// How many connections of a worker wait for a request with all that they need for it, 24 KB each.
const READY: u32 = 256;

/// How many connections of a worker wait so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Rc<Cell<u32>>);

/// A local connection as hyper reads and writes it.
pub(crate) type LocalIo = Io<Prefixed<LocalStream>>;

/// A connection as hyper reads and writes it.
pub(crate) type Io<T> = TokioIo<Strict<T>>;

/// A connection that hyper serves until it is to rest, or a request was refused that the service did not get
/// ([`Heads::refusal`]). Gives it back with its service, or nothing when it has ended.
pub(crate) struct Burst<
    T,
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    B: Body,
> {
    connection: Option<UpgradeableConnection<Io<T>, S>>,
    watch: Arc<HeadWatch>,
    heads: Rc<Heads>,
    /// None of one that never rests.
    waiting: Option<Waiting>,
    /// Whether it is one of those that wait.
    waits: bool,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<T, S, B> Burst<T, S, B>
where
    T: AsyncRead + AsyncWrite + OtherEnd + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    B: Body<Error: Into<BoxError>> + 'static,
{
    /// Serves `io`, of which `watch` and `heads` know. Never rests without a count of those that wait.
    pub(crate) fn new(
        (io, service): (Io<T>, S),
        limits: &Limits,
        watch: &Arc<HeadWatch>,
        heads: &Rc<Heads>,
        waiting: Option<&Waiting>,
    ) -> Self {
        let connection = Some(serve::http1(limits).serve_connection(io, service).with_upgrades());
        let (watch, heads, waiting) = (watch.clone(), heads.clone(), waiting.cloned());
        Self { connection, watch, heads, waiting, waits: false }
    }

    /// Takes nothing new.
    pub(crate) fn finish(&mut self) {
        if let Some(connection) = &mut self.connection {
            Pin::new(connection).graceful_shutdown();
        }
    }
}

impl<T, S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>, B: Body>
    Burst<T, S, B>
{
    fn set_waits(&mut self, waits: bool) {
        let Some(Waiting(count)) = &self.waiting else { return };
        match (std::mem::replace(&mut self.waits, waits), waits) {
            (false, true) => count.set(count.get() + 1),
            (true, false) => count.set(count.get() - 1),
            _ => {}
        }
    }
}

impl<T, S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>, B: Body> Drop
    for Burst<T, S, B>
{
    fn drop(&mut self) {
        self.set_waits(false);
    }
}

impl<T, S, B> Future for Burst<T, S, B>
where
    T: AsyncRead + AsyncWrite + OtherEnd + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Unpin,
    B: Body<Error: Into<BoxError>> + 'static,
{
    type Output = Option<(Io<T>, S)>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        if Pin::new(connection).poll(context).is_ready() {
            return Poll::Ready(None);
        }
        // Settled: hyper has written all, and asked for more, so it holds no byte of a body. Taken: nor of a head.
        let waits = self.watch.is_settled() && self.heads.are_taken();
        self.set_waits(waits);
        // Who had a long answer may send the next request at once, also when the worker drains: it is left only once it
        // has been quiet for a while.
        let are_many = self.waiting.as_ref().is_some_and(|waiting| waiting.0.get() > READY);
        let rests = waits && self.waiting.is_some() && (are_many || self.watch.is_stale());
        if !rests && self.heads.refusal().is_none() {
            return Poll::Pending;
        }
        let parts = self.connection.take().and_then(UpgradeableConnection::into_parts);
        Poll::Ready(parts.map(|parts| (parts.io, parts.service)))
    }
}

/// Waits for the next byte, or the end. False when the worker drains, and has waited long enough.
pub(crate) async fn rest(io: &LocalIo, drain: &mut Listener) -> bool {
    let stream = io.inner().inner().inner();
    poll_fn(|context| match stream.poll_read_ready(context) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if drain.poll(context) >= PARTING => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
    .await
}
