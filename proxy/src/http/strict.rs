//! What hyper's HTTP/1 parser lets pass or hides, found in the bytes before it reads them.
//!
//! hyper ends lines at a bare LF, and takes `content-length` away where `transfer-encoding` stands beside it, so that
//! nobody behind it can see that two parsers could have read the message differently (RFC 9112 §2.2 and §6.3). So the
//! bytes of each head are looked at on their way to hyper ([`Strict`]), and the first request with a flaw is marked by
//! its number ([`Heads`]): it and all that follow on the connection are to be refused. Nothing is buffered but the
//! beginning of a line that is not complete yet, and bodies are skipped without being looked at.
//!
//! Because it knows where a message ends, [`Strict`] also tells [`HeadWatch`] of headers that do not come to an end, and
//! keeps the end of a caller's side from hyper while the caller waits for an answer.
//!
//! Chunk sizes are followed only to find the next head; what is wrong with them is hyper's to refuse. But a request whose
//! end is not found is the last one: were hyper to find one, the next would be refused. So nothing that a caller sends
//! ends the looking. After a switch to another protocol there are no more requests to mark, and what is found among its
//! bytes means nothing. Whoever looks so closely also knows when the last request is whole, and says so.

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
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::HeadWatch;
use crate::{fault::Fault, stream::OtherEnd};

/// How much of an incomplete line is kept. No line that matters here is longer.
const LINE: usize = 256;

/// In the middle of a request.
const INCOMPLETE: u64 = u64::MAX;

/// What the stream of a connection tells its service. Could be shared between threads only because hyper wants its
/// streams so.
#[derive(Debug, Default)]
struct Findings {
    /// The number of the first request whose head has a flaw, and the flaw.
    first_flaw: OnceLock<(u64, Fault)>,
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
    scan: Scan,
    watch: Arc<HeadWatch>,
}

impl<T> Strict<T> {
    /// Looks at what is read from `inner`, for `heads`, and tells `watch` how far it came.
    pub(crate) fn new(inner: T, heads: &Heads, watch: Arc<HeadWatch>) -> Self {
        Self { inner, scan: Scan { findings: heads.findings.clone(), ..Scan::default() }, watch }
    }

    /// The stream itself.
    pub(crate) fn inner(&self) -> &T {
        &self.inner
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// Lines of a head.
    #[default]
    Head,
    /// A body of so many bytes.
    Body(u64),
    /// The line with a chunk's size.
    Size,
    /// A chunk of so many bytes.
    Chunk(u64),
    /// The end of line after a chunk.
    ChunkEnd,
    /// Lines after the last chunk.
    Trailer,
    /// Nothing any more: a flaw was found.
    Lost,
}

/// How far the bytes have been looked at.
#[derive(Debug, Default)]
struct Scan {
    findings: Arc<Findings>,
    /// How many heads have ended.
    ended: u64,
    part: Part,
    head: Head,
    /// The beginning of a line that is not complete yet, at most [`LINE`] bytes.
    line: Vec<u8>,
    /// The last byte of it.
    last: u8,
}

/// What a head has said so far.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    length: Option<u64>,
    chunked: bool,
    coded: bool,
    ambiguous: bool,
}

impl Scan {
    /// Whether all messages that were begun have ended.
    fn is_between(&self) -> bool {
        self.part == Part::Head && !self.is_in_head()
    }

    /// Whether the beginning of a head was read.
    fn is_in_head(&self) -> bool {
        self.part == Part::Head && (self.head.begun || !self.line.is_empty())
    }

    /// Looks at the next bytes of the stream.
    fn look(&mut self, bytes: &[u8]) {
        self.follow(bytes);
        self.findings.whole.store(if self.is_between() { self.ended } else { INCOMPLETE }, Relaxed);
    }

    fn follow(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.part {
                Part::Lost => return,
                Part::Body(left) => {
                    let left = skip(&mut at, bytes.len(), left);
                    self.part = if left == 0 { Part::Head } else { Part::Body(left) };
                }
                Part::Chunk(left) => {
                    let left = skip(&mut at, bytes.len(), left);
                    self.part = if left == 0 { Part::ChunkEnd } else { Part::Chunk(left) };
                }
                Part::Head | Part::Size | Part::ChunkEnd | Part::Trailer => {
                    let Some(length) = memchr(b'\n', &bytes[at..]) else { return self.keep(&bytes[at..]) };
                    let end = at + length;
                    if let Err(fault) = self.end_line(&bytes[at..end]) {
                        // Only this sets it, and never twice: nothing is looked at afterwards.
                        let _set = self.findings.first_flaw.set((self.ended, fault));
                        self.part = Part::Lost;
                        return;
                    }
                    at = end + 1;
                }
            }
        }
    }

    /// Keeps the beginning of a line.
    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(&bytes[..room]);
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// Reads the line that ends with these bytes, which are followed by LF.
    ///
    /// # Errors
    /// The flaw that it gives to the head, or to the next one if it is not a head's.
    fn end_line(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.line.is_empty() {
            let Some((b'\r', line)) = bytes.split_last() else { return Err(Fault::BadRequest) };
            return self.read(line);
        }
        self.keep(bytes);
        let mut line = std::mem::take(&mut self.line);
        if self.last != b'\r' {
            return Err(Fault::BadRequest);
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let fine = self.read(&line);
        line.clear();
        self.line = line;
        fine
    }

    fn read(&mut self, line: &[u8]) -> Result<(), Fault> {
        match self.part {
            Part::Head if line.is_empty() && !self.head.begun => {}
            Part::Head if line.is_empty() => {
                let head = std::mem::take(&mut self.head);
                if head.ambiguous || head.coded && head.length.is_some() {
                    return Err(Fault::AmbiguousLength);
                }
                self.ended += 1;
                self.part = head.body().ok_or(Fault::BadRequest)?;
            }
            Part::Head => self.head.read(line),
            Part::Size => {
                self.part = match chunk_size(line) {
                    Some(0) => Part::Trailer,
                    Some(size) => Part::Chunk(size),
                    None => return Err(Fault::BadRequest),
                }
            }
            Part::ChunkEnd if line.is_empty() => self.part = Part::Size,
            Part::ChunkEnd => return Err(Fault::BadRequest),
            Part::Trailer if line.is_empty() => self.part = Part::Head,
            Part::Trailer | Part::Body(_) | Part::Chunk(_) | Part::Lost => {}
        }
        Ok(())
    }
}

impl Head {
    /// Reads the request line or a field.
    fn read(&mut self, line: &[u8]) {
        if !self.begun {
            self.begun = true;
            return;
        }
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
            return;
        }
        let Some(colon) = memchr(b':', line) else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            self.ambiguous |= self.length.is_some() || length.is_none() || line.len() >= LINE;
            self.length = length;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = !self.coded && value.eq_ignore_ascii_case(b"chunked");
            self.coded = true;
            // Its end may not have been kept.
            self.ambiguous |= line.len() >= LINE;
        }
    }

    /// What follows this head; nothing that is known after codings that are not one `chunked`, which are refused by
    /// whoever sees the request.
    fn body(&self) -> Option<Part> {
        match (self.coded, self.length) {
            (true, _) => self.chunked.then_some(Part::Size),
            (false, Some(length)) if length > 0 => Some(Part::Body(length)),
            (false, _) => Some(Part::Head),
        }
    }
}

/// Passes over at most `left` bytes, and says how many of them are left.
fn skip(at: &mut usize, end: usize, left: u64) -> u64 {
    let here = u64::try_from(end - *at).unwrap_or(u64::MAX).min(left);
    *at += usize::try_from(here).unwrap_or(end - *at);
    left - here
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

impl<T: AsyncRead + OtherEnd + Unpin> AsyncRead for Strict<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.watch.is_half_closed() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                this.scan.look(&buffer.filled()[before..]);
                this.watch.fed();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(()))
                if this.scan.is_between() && !this.inner.is_gone() && this.watch.half_close() =>
            {
                Poll::Pending
            }
            Poll::Pending if this.watch.starved(cx, this.scan.is_in_head()) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            outcome => outcome,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Strict<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch.written(outcome.is_pending());
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch.written(outcome.is_pending());
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first flaw when the text comes in pieces of this length.
    fn flaw(text: &str, piece: usize) -> Option<(u64, Fault)> {
        let mut scan = Scan::default();
        text.as_bytes().chunks(piece).for_each(|piece| scan.look(piece));
        scan.findings.first_flaw.get().copied()
    }

    fn check(text: &str, wanted: Option<(u64, Fault)>) {
        for piece in 1..=text.len() {
            assert_eq!(flaw(text, piece), wanted, "{text:?} in pieces of {piece}");
        }
    }

    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    #[test]
    fn sound_requests_pass() {
        let post = "POST / HTTP/1.1\r\nContent-Length: 4\r\nhost: a\r\n\r\n\n\r\n\n";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n2;x=y\r\n\n\n\r\nA\r\n0123\n56789\r\n0\r\nt: u\r\n\r\n";
        let long = format!("GET / HTTP/1.1\r\ncookie: {}\r\n\r\n", "c".repeat(3 * LINE));
        let flawed = "GET / HTTP/1.1\n\r\n";
        let upgrade = "GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
        let connect = "CONNECT a:1 HTTP/1.1\r\n\r\n";
        for text in [GET, post, chunked, &long, upgrade, connect, "\r\nGET / HTTP/1.1\r\n\r\n"] {
            check(text, None);
            // What comes after it is found, so its end was.
            check(&format!("{text}{GET}{text}{flawed}"), Some((3, Fault::BadRequest)));
        }
    }

    #[test]
    fn it_is_known_when_the_last_request_is_whole() {
        let post = "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nab";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nt: u\r\n\r\n";
        for text in [GET, post, chunked] {
            let heads = Heads::default();
            let mut strict = Strict::new((), &heads, Arc::default());
            assert!(heads.are_taken());
            for (position, byte) in text.bytes().enumerate() {
                strict.scan.look(&[byte]);
                assert!(!heads.are_taken(), "{text:?} at {position}");
            }
            heads.mark(&mut Request::new(()));
            assert!(heads.are_taken(), "{text:?}");
            strict.scan.look(b"G");
            assert!(!heads.are_taken(), "{text:?}");
        }
    }

    #[test]
    fn ambiguous_requests_do_not() {
        use Fault::{AmbiguousLength, BadRequest};
        let long = format!("GET / HTTP/1.1\r\ncookie: {}\n\r\n", "c".repeat(3 * LINE));
        for (text, fault) in [
            ("GET / HTTP/1.1\nhost: a\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nhost: a\nb: c\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nhost: a\r\n\n", BadRequest),
            ("GET / HTTP/1.1\r\n\n", BadRequest),
            ("\nGET / HTTP/1.1\r\n\r\n", BadRequest),
            (&long, BadRequest),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", AmbiguousLength),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nCONTENT-LENGTH: 3\r\n\r\n", AmbiguousLength),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n", AmbiguousLength),
            ("POST / HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\n", AmbiguousLength),
        ] {
            check(text, Some((0, fault)));
            check(&format!("{GET}{text}{GET}"), Some((1, fault)));
        }
        for field in ["Transfer-Encoding:", "content-length: 0"] {
            let padded = format!("POST / HTTP/1.1\r\n{field}{}chunked\r\n\r\n", " ".repeat(LINE));
            check(&padded, Some((0, AmbiguousLength)));
        }
    }

    #[test]
    fn after_a_request_without_a_clear_end_there_is_none() {
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        let coded = "POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n";
        for body in ["0\r\nt: u\n\r\n", "0\r\n\n", "0\n", "x\r\n", "1\r\nab\r\n"] {
            check(&format!("{head}{body}"), Some((1, Fault::BadRequest)));
        }
        check(coded, Some((1, Fault::BadRequest)));
    }

    #[test]
    fn the_flawed_request_is_marked_and_all_after_it() {
        let heads = Heads::default();
        let mut strict = Strict::new((), &heads, Arc::default());
        strict.scan.look(format!("{GET}GET / HTTP/1.1\nhost: a\r\n\r\n").as_bytes());
        let marked = || {
            let mut request = Request::new(());
            let flawed = heads.mark(&mut request);
            assert_eq!(request.extensions().get::<Fault>().is_some(), flawed);
            flawed
        };
        assert_eq!([marked(), marked(), marked()], [false, true, true]);
    }
}
