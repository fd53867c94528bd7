//! The one body type of the data path: what is received is passed on as it comes, chunk by chunk, without a copy.

use std::{
    cell::Cell,
    error::Error as _,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::Method;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    application::{AppBody, Broken},
    expect::Held,
    multiplexed::MeshBody,
    replay::Replay,
};
use crate::{fault::Fault, headers::clean_trailers};

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection it came on failed, or broke HTTP's rules.
    #[error("the body broke off")]
    Hyper(#[from] hyper::Error),
    /// The HTTP/2 stream it came on was reset, or its connection failed.
    #[error("the stream broke off")]
    Http2(#[from] h2::Error),
    /// The exchange with an application that it is a part of broke off.
    #[error(transparent)]
    Application(#[from] Broken),
}

impl BodyError {
    /// What the stream that it came on was reset with.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Hyper(_) | Self::Application(_) => None,
            Self::Http2(error) => error.reason(),
        }
    }

    /// What it means of a body that somebody sends to us: that they gave it up, or that it is not one. The end of a
    /// connection in the middle of a body is the latter: who only closed its half waits for an answer.
    fn fault(&self) -> Fault {
        let gone = match self {
            Self::Hyper(error) => {
                let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
                source.is_some_and(|source| source.kind() == io::ErrorKind::ConnectionReset)
            }
            Self::Http2(error) => !error.is_library(),
            // A response's; nobody sends one to us.
            Self::Application(_) => false,
        };
        if gone { Fault::CallerGone } else { Fault::BadRequest }
    }
}

/// A request's body as it comes from a connection that we serve.
#[derive(Debug)]
pub(crate) enum Arriving {
    /// By HTTP/1.
    Http1(Incoming),
    /// By HTTP/2.
    Stream(RecvStream),
}

impl Arriving {
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Http1(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Stream(stream) => poll_stream(stream, context),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Stream(stream) => stream_size_hint(stream),
        }
    }
}

/// The next frame of an HTTP/2 stream, whose window opens again by what was read.
pub(super) fn poll_stream(
    stream: &mut RecvStream,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    match ready!(stream.poll_data(context)) {
        Some(Ok(chunk)) => {
            let released = stream.flow_control().release_capacity(chunk.len());
            Poll::Ready(Some(released.map(|()| Frame::data(chunk)).map_err(Into::into)))
        }
        Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
        None => match ready!(stream.poll_trailers(context)) {
            Ok(None) => Poll::Ready(None),
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        },
    }
}

/// How much there is to come of an HTTP/2 stream: known only once it is nothing.
pub(super) fn stream_size_hint(stream: &RecvStream) -> SizeHint {
    if stream.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
}

/// What came of a request's body, for whoever records it at the end.
pub(crate) type Received = Rc<Arrived>;

/// How much of a body arrived, and what was wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    bytes: Cell<u64>,
    broken: Cell<Option<Fault>>,
}

impl Arrived {
    /// The bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Why the body broke off, if it did: then nobody else is to blame for what became of the request.
    pub(crate) fn broken(&self) -> Option<Fault> {
        self.broken.get()
    }

    /// Takes note of bytes that came after the request.
    pub(super) fn add(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// Takes note of what was read.
    pub(super) fn note(&self, frame: Option<&Result<Frame<Bytes>, BodyError>>) {
        match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.bytes.set(self.bytes.get() + length);
            }
            Some(Err(error)) => self.broken.set(Some(error.fault())),
            None => {}
        }
    }
}

/// A message's body, by where it comes from.
#[derive(Debug, Default)]
pub(crate) enum Body {
    /// No body.
    #[default]
    Empty,
    /// Text of our own.
    Full(Option<Bytes>),
    /// The answer to a request that had a connection of its own.
    Incoming(Incoming),
    /// A request's body, counted.
    Counted(Arriving, Received),
    /// A request's body that can be sent a second time, up to a limit.
    Replay(Box<Replay>),
    /// A request's body that is kept back until the next hop wants it.
    Held(Box<Held>),
    /// From a multiplexed connection to another agent or to an application.
    Mesh(MeshBody),
    /// From a connection to an application, which goes back to its pool at the end.
    Application(AppBody),
}

impl Body {
    /// The body of an answer of our own to `method`. The answer to HEAD has none, whatever its header says of one
    /// (RFC 9110 §9.3.2); in HTTP/2 it would be a fault of the stream.
    pub(crate) fn answer(text: Bytes, method: &Method) -> Self {
        if text.is_empty() || *method == Method::HEAD { Self::Empty } else { Self::Full(Some(text)) }
    }

    /// The next frame as it comes.
    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Incoming(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Counted(body, received) => {
                let frame = ready!(body.poll_frame(context));
                received.note(frame.as_ref());
                Poll::Ready(frame)
            }
            Self::Replay(body) => body.poll_frame(context),
            Self::Held(body) => body.poll_frame(context),
            Self::Mesh(body) => body.poll_frame(context),
            Self::Application(body) => body.poll_frame(context),
        }
    }
}

/// Every body passes here, whoever sent it and by whatever version: its trailers must not say what was decided without
/// them.
fn without_claims(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            clean_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.get_mut().poll_source(context));
        Poll::Ready(frame.map(|frame| frame.map(without_claims)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(text) => text.is_none(),
            Self::Incoming(body) => body.is_end_stream(),
            Self::Counted(body, _) => body.is_end_stream(),
            Self::Replay(body) => body.is_end_stream(),
            Self::Held(body) => body.is_end_stream(),
            Self::Mesh(body) => body.is_end_stream(),
            Self::Application(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Incoming(body) => body.size_hint(),
            Self::Counted(body, _) => body.size_hint(),
            Self::Replay(body) => body.size_hint(),
            Self::Held(body) => body.size_hint(),
            Self::Mesh(body) => body.size_hint(),
            Self::Application(body) => body.size_hint(),
        }
    }
}
