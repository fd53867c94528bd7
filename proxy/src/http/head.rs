//! Callers that begin the header of a request and do not end it.
//!
//! hyper's own limit also ends connections that idle between two requests, which costs a caller that does not retry its
//! next one. Here only a header that was begun has a limit. No connection has a timer: the worker looks at all of them
//! now and then, and a connection pays for a read with one load.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// No byte of a further request came.
const IDLE: u32 = 0;
/// The first byte of a request came. Every sweep after that adds 1.
const BEGUN: u32 = 1;
/// HTTP is no longer spoken.
const RELEASED: u32 = u32::MAX - 1;
/// A request is under way.
const BUSY: u32 = u32::MAX;

/// What a connection of HTTP/1 waits for. Used by one thread; atomic because hyper wants I/O types to be `Send`.
#[derive(Debug, Default)]
pub(crate) struct HeadWatch {
    state: AtomicU32,
    late: AtomicBool,
    waker: AtomicWaker,
}

impl HeadWatch {
    /// A whole header came.
    pub(crate) fn request(&self) {
        self.change(|state| state != RELEASED, BUSY);
    }

    /// The answer is out.
    pub(crate) fn answered(&self) {
        self.change(|state| state == BUSY, IDLE);
    }

    /// From here on, nothing is waited for.
    pub(crate) fn release(&self) {
        self.state.store(RELEASED, Relaxed);
    }

    /// Ends the connection if it was begun `limit` sweeps ago.
    pub(crate) fn sweep(&self, limit: u32) {
        let state = self.state.load(Relaxed);
        if !(BEGUN..RELEASED).contains(&state) {
            return;
        }
        self.state.store(state + 1, Relaxed);
        if state >= limit {
            self.late.store(true, Relaxed);
            self.waker.wake();
        }
    }

    fn change(&self, from: impl Fn(u32) -> bool, to: u32) {
        if from(self.state.load(Relaxed)) {
            self.state.store(to, Relaxed);
        }
    }
}

/// A stream whose reads are watched. One whose header is late fails.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    inner: T,
    watch: Arc<HeadWatch>,
}

impl<T> Watched<T> {
    /// Tells `watch` of what is read.
    pub(crate) fn new(inner: T, watch: Arc<HeadWatch>) -> Self {
        Self { inner, watch }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(context, buffer);
        let state = self.watch.state.load(Relaxed);
        if outcome.is_ready() {
            if state == IDLE && buffer.filled().len() > before {
                self.watch.state.store(BEGUN, Relaxed);
            }
        } else if (BEGUN..RELEASED).contains(&state) {
            if self.watch.late.load(Relaxed) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.watch.waker.register(context.waker());
        }
        outcome
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
