//! The end of a request: what is recorded of it, once its last byte went to the caller or the caller left.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use super::body::{Body, BodyError};
use crate::{
    fault::Fault,
    signal::{CLOSING, Listener},
};

/// Takes note of how a request ended; dropped when that is done.
pub(crate) trait Finish {
    /// The response ends with these trailers.
    fn trailers(&mut self, trailers: &HeaderMap);

    /// The response's body ended after `sent` bytes.
    fn finish(&mut self, sent: u64, end: End);
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its last byte went to the caller.
    Complete,
    /// The caller left before that.
    CallerGone,
    /// What was to be passed on broke off.
    Cut,
    /// It was not done by the drain's deadline.
    Drained,
}

impl End {
    /// What is to be blamed for it.
    pub(crate) fn fault(self) -> Option<Fault> {
        match self {
            Self::Complete => None,
            Self::CallerGone => Some(Fault::CallerGone),
            Self::Cut => Some(Fault::ResponseCut),
            Self::Drained => Some(Fault::Drained),
        }
    }
}

/// A response's body, with what is to be recorded at its end.
pub(crate) struct ResponseBody<F: Finish> {
    body: Body,
    /// Why the body broke off, until that is passed on.
    broken: Option<BodyError>,
    sent: u64,
    end: End,
    /// Tells when the drain's deadline is over.
    drain: Listener,
    finish: F,
}

impl<F: Finish> ResponseBody<F> {
    /// Passes `body` on and calls `finish` at its end.
    pub(crate) fn new(body: Body, drain: Listener, finish: F) -> Self {
        let end = if body.is_end_stream() { End::Complete } else { End::CallerGone };
        Self { body, broken: None, sent: 0, end, drain, finish }
    }
}

impl<F: Finish + Unpin> http_body::Body for ResponseBody<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            if this.drain.poll(context) < CLOSING {
                return Poll::Pending;
            }
            this.end = End::Drained;
            return Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())));
        };
        match &frame {
            None => this.end = End::Complete,
            Some(Ok(frame)) => {
                this.sent += frame.data_ref().map_or(0, |chunk| chunk.len() as u64);
                if frame.is_trailers() || this.body.is_end_stream() {
                    this.end = End::Complete;
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.finish.trailers(trailers);
                }
            }
            Some(Err(_)) => this.end = End::Cut,
        }
        match frame {
            // Whoever serves it has not sent what came before, and would drop that with the connection or the stream.
            Some(Err(error)) => {
                this.broken = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<F: Finish> Drop for ResponseBody<F> {
    fn drop(&mut self) {
        // Dropped with its connection at the deadline, while it waited for a reader.
        if self.end == End::CallerGone && self.drain.value() >= CLOSING {
            self.end = End::Drained;
        }
        self.finish.finish(self.sent, self.end);
    }
}
