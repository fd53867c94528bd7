//! The end of a request: what is recorded of it, once its last byte went to the caller or the caller left.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use super::body::{Body, BodyError};
use crate::signal::{CLOSING, Listener};

/// Takes note of how a request ended; dropped when that is done.
pub(crate) trait Finish {
    /// The response ends with these trailers.
    fn trailers(&mut self, trailers: &HeaderMap);

    /// The response's body ended: with `sent` bytes, and complete or not.
    fn finish(&mut self, sent: u64, complete: bool);
}

/// A response's body, with what is to be recorded at its end.
pub(crate) struct ResponseBody<F: Finish> {
    body: Body,
    sent: u64,
    complete: bool,
    /// Tells when the drain's deadline is over.
    drain: Listener,
    finish: F,
}

impl<F: Finish> ResponseBody<F> {
    /// Passes `body` on and calls `finish` at its end.
    pub(crate) fn new(body: Body, drain: Listener, finish: F) -> Self {
        let complete = body.is_end_stream();
        Self { body, sent: 0, complete, drain, finish }
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
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            return if this.drain.poll(context) >= CLOSING {
                Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())))
            } else {
                Poll::Pending
            };
        };
        match &frame {
            None => this.complete = true,
            Some(Ok(frame)) => {
                this.sent += frame.data_ref().map_or(0, |chunk| chunk.len() as u64);
                this.complete = frame.is_trailers() || this.body.is_end_stream();
                if let Some(trailers) = frame.trailers_ref() {
                    this.finish.trailers(trailers);
                }
            }
            Some(Err(_)) => this.complete = false,
        }
        Poll::Ready(frame)
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
        self.finish.finish(self.sent, self.complete);
    }
}
