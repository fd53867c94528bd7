//! A request on its way to an application (RFC 9112 §3, §6 and §7).
//!
//! What is small is gathered, so that a head and a short body are one write; what is large is written from where it lies.
//! The gathering buffer belongs to the thread and is lent to one request at a time: an idle connection has none.

use std::{
    cell::Cell,
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, Method, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    request::Parts,
};
use http_body::Body as _;
use tokio::{io::AsyncWrite, net::TcpStream};

use super::Broken;
use crate::{headers::clean_trailers, http::body::Body};

/// How many bytes are gathered before they are written. Chunks of more are not copied.
const GATHERED: usize = 8 << 10;

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
    /// Whether nothing was taken of the body, nor written of the head.
    untouched: bool,
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
    /// Begins a request.
    pub(super) fn new(head: &Parts, body: Body) -> Self {
        let mut gathered = BUFFER.take();
        gathered.clear();
        let framing = write_head(&mut gathered, head, &body);
        let body = Some(body).filter(|body| !body.is_end_stream());
        Self { body, framing, gathered, written: 0, chunk: Bytes::new(), tail: b"", untouched: true }
    }

    /// Whether the request is as it was, so that another connection can take it.
    pub(super) fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// What is left of the body.
    pub(super) fn into_body(self) -> Body {
        self.body.unwrap_or_default()
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
            let Poll::Ready(frame) = Pin::new(body).poll_frame(context) else { return Ok(false) };
            self.untouched = false;
            match frame {
                None => self.end(None)?,
                Some(Err(_)) => return Err(Broken::Request),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.push(data)?,
                    Err(frame) => self.end(frame.into_trailers().ok())?,
                },
            }
        }
        Ok(true)
    }

    fn push(&mut self, data: Bytes) -> Result<(), Broken> {
        if data.is_empty() {
            return Ok(());
        }
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
                if let Some(mut trailers) = trailers {
                    clean_trailers(&mut trailers);
                    write_fields(&mut self.gathered, &trailers);
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
        self.untouched = false;
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

/// Writes the head; its lines are sound, because the types of `http` hold nothing else. What frames the body is our own
/// word, except for a length that the caller gave.
fn write_head(to: &mut Vec<u8>, head: &Parts, body: &Body) -> Framing {
    to.extend_from_slice(head.method.as_str().as_bytes());
    to.push(b' ');
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    to.extend_from_slice(target.as_bytes());
    let old = head.version == Version::HTTP_10;
    to.extend_from_slice(if old { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    let mut length = None;
    for (name, value) in &head.headers {
        if name == CONTENT_LENGTH {
            length = value.to_str().ok().and_then(|length| length.parse().ok());
        } else if name != TRANSFER_ENCODING {
            write_field(to, name.as_str(), value.as_bytes());
        }
    }
    // A request without a body that may have one says so (RFC 9110 §8.6).
    let may_have = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
    let framing = match (body.is_end_stream(), length.or(body.size_hint().exact())) {
        (true, _) if length.is_none() && !may_have => Framing::Length(0),
        (true, _) => {
            write_field(to, "content-length", b"0");
            Framing::Length(0)
        }
        (false, Some(length)) => {
            write_field(to, "content-length", itoa::Buffer::new().format(length).as_bytes());
            Framing::Length(length)
        }
        (false, None) => {
            write_field(to, "transfer-encoding", b"chunked");
            Framing::Chunked
        }
    };
    to.extend_from_slice(b"\r\n");
    framing
}

fn write_fields(to: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        write_field(to, name.as_str(), value.as_bytes());
    }
}

fn write_field(to: &mut Vec<u8>, name: &str, value: &[u8]) {
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b": ");
    to.extend_from_slice(value);
    to.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(request: http::request::Builder, body: &Body) -> String {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut text = Vec::new();
        write_head(&mut text, &parts, body);
        String::from_utf8(text).unwrap()
    }

    fn some() -> Body {
        Body::Full(Some(Bytes::from_static(b"abc")))
    }

    #[test]
    fn a_head_says_where_its_body_ends() {
        let get = || Request::get("/a?b=c").header("host", "x").header("transfer-encoding", "gzip");
        assert_eq!(head(get(), &Body::Empty), "GET /a?b=c HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(head(get(), &some()), "GET /a?b=c HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n");
        assert_eq!(head(Request::post("/"), &Body::Empty), "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
        let lying = Request::delete("/").header("content-length", "5").version(Version::HTTP_10);
        assert_eq!(head(lying, &Body::Empty), "DELETE / HTTP/1.0\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(head(Request::options("*"), &Body::Empty), "OPTIONS * HTTP/1.1\r\n\r\n");
    }
}
