//! A request on its way to an application (RFC 9112 §3, §6 and §7).
//!
//! What is small is gathered, so that a head and a short body are one write; what is large is written from where it lies.
//! The gathering buffer belongs to the thread and is lent to one request at a time: an idle connection has none.

use std::{
    cell::Cell,
    future::poll_fn,
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, Method, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    request::Parts,
};
use http_body::{Body as _, Frame};
use tokio::{io::AsyncWrite, net::TcpStream, time::timeout};

use super::Broken;
use crate::{
    http::body::{Body, BodyError},
    message::write_field,
};

/// How many bytes are gathered before they are written. Chunks of more are not copied.
const GATHERED: usize = 8 << 10;

/// How long the end of a body that is not expected is waited for.
const LATE_END: Duration = Duration::from_millis(100);

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How the end of the request's body is told.
#[derive(Debug)]
enum Framing {
    /// By so many bytes that are left.
    Length(u64),
    /// Chunk by chunk.
    Chunked,
}

/// A request and how far it was written.
#[derive(Debug)]
pub(super) struct Upload {
    /// None once all of it was taken.
    body: Option<Body>,
    framing: Framing,
    /// What was gathered, and how much of it was written.
    gathered: Vec<u8>,
    written: usize,
    /// What comes after that, and is not copied.
    chunk: Bytes,
    /// What comes after `chunk`.
    tail: &'static [u8],
    has_body: bool,
    /// Whether nothing was taken of the body.
    is_whole: bool,
    /// Whether any byte was written.
    is_begun: bool,
}

/// Why a request was not written to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The application reads no more. It may have answered all the same.
    Unread,
    /// The body cannot be had to its end.
    Body(Broken),
}

impl Upload {
    /// Begins a request, of whose body the first frame is known if it came.
    ///
    /// # Errors
    /// That the body broke off.
    pub(super) fn new(head: &Parts, body: Body, first: First) -> Result<Self, Broken> {
        let is_over = matches!(first, Poll::Ready(None));
        let length = if is_over { Some(0) } else { length_of(head, &body) };
        let framing = length.map_or(Framing::Chunked, Framing::Length);
        let has_body = !matches!(framing, Framing::Length(0));
        let mut gathered = BUFFER.take();
        gathered.clear();
        write_head(&mut gathered, head, &framing);
        let mut this = Self {
            body: Some(body).filter(|body| !is_over && (has_body || !body.is_end_stream())),
            framing,
            gathered,
            written: 0,
            chunk: Bytes::new(),
            tail: b"",
            has_body,
            is_whole: first.is_pending(),
            is_begun: false,
        };
        if let Poll::Ready(Some(frame)) = first {
            this.take(Some(frame))?;
        }
        Ok(this)
    }

    /// Whether there is a body.
    pub(super) fn has_body(&self) -> bool {
        self.has_body
    }

    /// Whether any byte went out.
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// The body, if nothing was taken of it, so that another connection can take the request.
    pub(super) fn into_whole(self) -> Option<Body> {
        self.is_whole.then(|| self.body.unwrap_or_default())
    }

    /// The body, if it is kept back until it is welcome.
    pub(super) fn held(&self) -> Option<&crate::http::expect::Held> {
        match &self.body {
            Some(Body::Held(held)) if !held.goes() => Some(held),
            _ => None,
        }
    }

    fn is_written(&self) -> bool {
        self.written == self.gathered.len() && self.chunk.is_empty() && self.tail.is_empty()
    }

    /// Writes as much as there is, and as the application takes.
    pub(super) fn poll(
        &mut self,
        stream: &mut TcpStream,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            let more = self.gather(context).map_err(Stopped::Body)?;
            while !self.is_written() {
                if ready!(self.poll_write(stream, context)).is_err() {
                    return Poll::Ready(Err(Stopped::Unread));
                }
            }
            self.gathered.clear();
            self.written = 0;
            if self.body.is_none() {
                self.give_back();
                return Poll::Ready(Ok(()));
            }
            if !more {
                return Poll::Pending;
            }
        }
    }

    /// Takes of the body what there is room for. Returns whether there may be more at once.
    fn gather(&mut self, context: &mut Context<'_>) -> Result<bool, Broken> {
        while self.chunk.is_empty() && self.tail.is_empty() && self.gathered.len() < GATHERED {
            let Some(body) = &mut self.body else { return Ok(false) };
            let Poll::Ready(frame) = poll_some(body, context) else { return Ok(false) };
            self.is_whole = false;
            self.take(frame)?;
        }
        Ok(true)
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, BodyError>>) -> Result<(), Broken> {
        match frame {
            None => self.end(None),
            Some(Err(_)) => Err(Broken::Request),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.push(data),
                Err(frame) => self.end(frame.into_trailers().ok()),
            },
        }
    }

    fn push(&mut self, data: Bytes) -> Result<(), Broken> {
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Broken::Request)?;
                // Nothing more is asked of a body that is whole.
                if *left == 0 {
                    self.body = None;
                }
            }
            Framing::Chunked => {
                let _never_fails = write!(self.gathered, "{:x}\r\n", data.len());
                self.tail = b"\r\n";
            }
        }
        if data.len() <= GATHERED {
            self.gathered.extend_from_slice(&data);
            self.gathered.extend_from_slice(std::mem::take(&mut self.tail));
        } else {
            self.chunk = data;
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        self.body = None;
        match self.framing {
            Framing::Length(0) => {}
            Framing::Length(_) => return Err(Broken::Request),
            Framing::Chunked => {
                self.gathered.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().flatten() {
                    write_field(&mut self.gathered, name.as_str(), value.as_bytes());
                }
                self.gathered.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }

    fn poll_write(&mut self, stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(stream);
        let gathered = &self.gathered[self.written..];
        let written = if self.chunk.is_empty() && self.tail.is_empty() {
            ready!(stream.poll_write(context, gathered))?
        } else {
            let slices = [gathered, &self.chunk, self.tail].map(IoSlice::new);
            ready!(stream.poll_write_vectored(context, &slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.is_begun = true;
        let of_gathered = written.min(self.gathered.len() - self.written);
        self.written += of_gathered;
        let of_chunk = (written - of_gathered).min(self.chunk.len());
        self.chunk.advance(of_chunk);
        self.tail = &self.tail[written - of_gathered - of_chunk..];
        Poll::Ready(Ok(()))
    }

    fn give_back(&mut self) {
        let buffer = std::mem::take(&mut self.gathered);
        // One that a long head made large would stay so.
        if buffer.capacity() <= 4 * GATHERED {
            BUFFER.set(buffer);
        }
    }
}

/// The first frame of a body, or that there is none, as far as that is known.
pub(super) type First = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// Whether applications expect a body of such a request. There are some that take one that they do not expect for the
/// next request.
pub(super) fn usually_has_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Asks for the first frame of a body of unknown length, to know before the head is written whether there is one: nothing
/// is said of none to an application that does not expect one. By HTTP/2 the end may come a little after the head.
pub(super) async fn first_frame(head: &Parts, body: &mut Body) -> First {
    if length_of(head, body).is_some() {
        return Poll::Pending;
    }
    if usually_has_body(&head.method) {
        return poll_fn(|context| Poll::Ready(poll_some(body, context))).await;
    }
    let frame = Box::pin(timeout(LATE_END, poll_fn(|context| poll_some(body, context))));
    frame.await.map_or(Poll::Pending, Poll::Ready)
}

/// The next frame that is more than nothing.
fn poll_some(body: &mut Body, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(context)) {
            Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
            frame => return Poll::Ready(frame),
        }
    }
}

/// How long the body is, if that is known.
fn length_of(head: &Parts, body: &Body) -> Option<u64> {
    if body.is_end_stream() {
        return Some(0);
    }
    let said = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    said.or(body.size_hint().exact())
}

/// Writes the head; its lines are sound, because the types of `http` hold nothing else. What frames the body is our own
/// word.
fn write_head(to: &mut Vec<u8>, head: &Parts, framing: &Framing) {
    to.extend_from_slice(head.method.as_str().as_bytes());
    to.push(b' ');
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    to.extend_from_slice(target.as_bytes());
    let old = head.version == Version::HTTP_10;
    to.extend_from_slice(if old { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    for (name, value) in &head.headers {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            write_field(to, name.as_str(), value.as_bytes());
        }
    }
    match framing {
        // A request that may have a body says that it has none (RFC 9110 §8.6).
        Framing::Length(0) if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => {
            write_field(to, "content-length", b"0");
        }
        Framing::Length(0) if !head.headers.contains_key(CONTENT_LENGTH) => {}
        Framing::Length(length) => {
            write_field(to, "content-length", itoa::Buffer::new().format(*length).as_bytes());
        }
        Framing::Chunked => write_field(to, "transfer-encoding", b"chunked"),
    }
    to.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// What is written of a request at once.
    fn begun(request: http::request::Builder, body: Body) -> (String, bool) {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut upload = Upload::new(&parts, body, Poll::Pending).unwrap();
        while upload.gather(&mut context).unwrap() {}
        (String::from_utf8(upload.gathered.clone()).unwrap(), upload.has_body())
    }

    fn some() -> Body {
        Body::Full(Some(Bytes::from_static(b"abc")))
    }

    #[test]
    fn a_head_says_where_its_body_ends() {
        let get = || Request::get("/a?b=c").header("host", "x").header("transfer-encoding", "gzip");
        let line = "GET /a?b=c HTTP/1.1\r\nhost: x\r\n";
        for (body, rest, has_body) in
            [(Body::Empty, "\r\n", false), (some(), "content-length: 3\r\n\r\nabc", true)]
        {
            assert_eq!(begun(get(), body), (format!("{line}{rest}"), has_body));
        }
        let empty = |request| begun(request, Body::Empty).0;
        assert_eq!(empty(Request::post("/")), "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
        let lying = Request::delete("/").header("content-length", "5").version(Version::HTTP_10);
        assert_eq!(empty(lying), "DELETE / HTTP/1.0\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(empty(Request::options("*")), "OPTIONS * HTTP/1.1\r\n\r\n");
    }
}
