//! What hyper's HTTP/1 parser lets pass or hides, found in the bytes before it reads them.
//!
//! hyper ends lines at a bare LF, and takes `content-length` away where `transfer-encoding` stands beside it, so that
//! nobody behind it can see that two parsers could have read the message differently (RFC 9112 §2.2 and §6.3). So the
//! bytes of each head are looked at on their way to hyper ([`Strict`]), and the first request with a flaw is marked by
//! its number ([`Heads`]): it and all that follow on the connection are to be refused.
//!
//! Because it knows where a message ends, [`Strict`] also tells [`HeadWatch`] of headers that do not come to an end, says
//! when the last request is whole, and keeps the end of a caller's side from hyper while the caller waits for an answer.
//!
//! What hyper cannot read at all it answers itself, with a bare status that nobody else gets to know of. So what it says
//! when no answer of the service is due is kept back, and the connection is to be taken from it ([`Heads::refusal`]):
//! whoever serves it answers, and records that.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, StatusCode, header::CONNECTION};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::HeadWatch;
use crate::{fault::Fault, headers::HeadScan, stream::OtherEnd};

/// In the middle of a request.
const INCOMPLETE: u64 = u64::MAX;

/// What the stream of a connection tells its service. Could be shared between threads only because hyper wants its
/// streams so.
#[derive(Debug, Default)]
struct Findings {
    /// The number of the first request whose head has a flaw, and the flaw.
    first_flaw: OnceLock<(u64, Fault)>,
    /// Why a request is refused that the service never gets.
    refusal: OnceLock<Fault>,
    /// How many requests came if the last of them is whole, else [`INCOMPLETE`].
    whole: AtomicU64,
}

/// The requests of one connection as its service gets them.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    findings: Arc<Findings>,
    next: Cell<u64>,
}

impl Heads {
    /// Takes note of the next request, and puts the fault into its extensions if its head has a flaw. Returns whether
    /// it has: the connection must end with the answer.
    pub(crate) fn mark<B>(&self, request: &mut Request<B>) -> bool {
        let number = self.next.replace(self.next.get() + 1);
        match self.findings.first_flaw.get() {
            Some((first, fault)) if *first <= number => {
                request.extensions_mut().insert(*fault);
                true
            }
            _ => false,
        }
    }

    /// Whether the service got all that was read.
    pub(crate) fn are_taken(&self) -> bool {
        self.findings.whole.load(Relaxed) == self.next.get()
    }

    /// Why the next request was refused before the service got it. Nothing goes in or out by hyper any more: the
    /// connection is to be taken from it, and to end with the answer that says so.
    pub(crate) fn refusal(&self) -> Option<Fault> {
        self.findings.refusal.get().copied()
    }

    /// Ends the connection with this answer, unless another protocol begins with it.
    pub(crate) fn close<B>(response: &mut Response<B>) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// A stream of HTTP/1 requests whose heads are looked at.
#[derive(Debug)]
pub(crate) struct Strict<T> {
    inner: T,
    scan: HeadScan,
    findings: Arc<Findings>,
    watch: Arc<HeadWatch>,
}

impl<T> Strict<T> {
    /// Looks at what is read from `inner`, for `heads`, and tells `watch` how far it came.
    pub(crate) fn new(inner: T, heads: &Heads, watch: Arc<HeadWatch>) -> Self {
        Self { inner, scan: HeadScan::default(), findings: heads.findings.clone(), watch }
    }

    /// The stream itself.
    pub(crate) fn inner(&self) -> &T {
        &self.inner
    }

    /// The stream itself, of which nothing more is looked at.
    pub(crate) fn into_inner(self) -> T {
        self.inner
    }

    /// The stream itself, for whoever takes it from hyper.
    pub(crate) fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    fn look(&mut self, bytes: &[u8]) {
        self.scan.look(bytes);
        if let Some(flaw) = self.scan.flaw() {
            self.findings.first_flaw.get_or_init(|| flaw);
        }
        let whole = if self.scan.is_between() { self.scan.ended() } else { INCOMPLETE };
        self.findings.whole.store(whole, Relaxed);
    }

    fn refuse(&self, fault: Fault) {
        // The first counts: hyper says nothing more after its own answer.
        let _set = self.findings.refusal.set(fault);
    }
}

/// What hyper found that answers with this status: 431 and 414 say that it is too large.
fn refused_with(answer: &[u8]) -> Fault {
    match answer.get(b"HTTP/1.1 ".len()..b"HTTP/1.1 431".len()) {
        Some(b"431" | b"414") => Fault::HeaderTooLarge,
        _ => Fault::BadRequest,
    }
}

impl<T: AsyncRead + OtherEnd + Unpin> AsyncRead for Strict<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.findings.refusal.get().is_some() {
            return Poll::Pending;
        }
        if this.watch.is_half_closed() {
            this.watch.stay_half_closed(cx);
            return if this.inner.is_gone() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                this.look(&buffer.filled()[before..]);
                this.watch.fed();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(()))
                if this.scan.is_between() && !this.inner.is_gone() && this.watch.half_close(cx) =>
            {
                Poll::Pending
            }
            Poll::Pending if this.watch.starved(cx, this.scan.is_in_head()) => {
                if this.scan.is_in_head() {
                    this.refuse(Fault::CallerTooSlow);
                    return Poll::Pending;
                }
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            outcome => outcome,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Strict<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.watch.is_owing() {
            self.refuse(refused_with(bytes));
            return Poll::Ready(Ok(bytes.len()));
        }
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch.written(outcome.is_pending());
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.watch.is_owing() {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write(cx, first.map_or(&[], |slice| slice));
        }
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch.written(outcome.is_pending());
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        if outcome.is_ready() {
            self.watch.flushed();
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.findings.refusal.get().is_some() {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    #[test]
    fn it_is_known_when_the_last_request_is_whole() {
        let post = "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nab";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nt: u\r\n\r\n";
        for text in [GET, post, chunked] {
            let heads = Heads::default();
            let mut strict = Strict::new((), &heads, Arc::default());
            assert!(heads.are_taken());
            for (position, byte) in text.bytes().enumerate() {
                strict.look(&[byte]);
                assert!(!heads.are_taken(), "{text:?} at {position}");
            }
            heads.mark(&mut Request::new(()));
            assert!(heads.are_taken(), "{text:?}");
            strict.look(b"G");
            assert!(!heads.are_taken(), "{text:?}");
        }
    }

    #[test]
    fn the_flawed_request_is_marked_and_all_after_it() {
        let heads = Heads::default();
        let mut strict = Strict::new((), &heads, Arc::default());
        strict.look(format!("{GET}GET / HTTP/1.1\nhost: a\r\n\r\n").as_bytes());
        let marked = || {
            let mut request = Request::new(());
            let flawed = heads.mark(&mut request);
            assert_eq!(request.extensions().get::<Fault>().is_some(), flawed);
            flawed
        };
        assert_eq!([marked(), marked(), marked()], [false, true, true]);
    }
}
