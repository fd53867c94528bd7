//! Feeds a body into an HTTP/2 stream as flow control allows.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use super::body::BodyError;

/// A body on its way into a stream. The future ends when all was handed over, or when the stream or the body failed:
/// a body that fails resets its stream, a stream that fails is seen by whoever waits for the response or records it.
#[derive(Debug)]
pub(crate) struct Pump<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// What the stream is reset with when the body breaks off for a reason that is not one of HTTP/2's.
    broken: Reason,
    /// A chunk that waits for capacity.
    waiting: Option<Bytes>,
    done: bool,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Pump<B> {
    /// Begins to send `body`, which has at least a chance of a frame. If it breaks off, the stream is reset with
    /// `broken`, or with the reason that the body's own stream was reset with.
    pub(crate) fn new(stream: SendStream<Bytes>, body: B, broken: Reason) -> Self {
        Self { stream, body, broken, waiting: None, done: false }
    }

    /// Whether everything was handed over.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The body, to be sent again.
    pub(crate) fn take_body(&mut self) -> B
    where
        B: Default,
    {
        std::mem::take(&mut self.body)
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if let Some(chunk) = self.waiting.take() {
                if self.stream.capacity() == 0 {
                    match self.stream.poll_capacity(context) {
                        Poll::Ready(Some(capacity)) => drop(capacity?),
                        Poll::Ready(None) => return Poll::Ready(Ok(())),
                        Poll::Pending => {
                            self.waiting = Some(chunk);
                            return Poll::Pending;
                        }
                    }
                }
                self.send(chunk)?;
                continue;
            }
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(reason) = self.stream.poll_reset(context) {
                reason?;
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => {
                    self.done = true;
                    self.stream.send_data(Bytes::new(), true)?;
                }
                Some(Err(error)) => {
                    self.done = true;
                    self.stream.send_reset(error.reason().unwrap_or(self.broken));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    // Nothing to wait for capacity with; the last frame of a stream is often empty.
                    Ok(chunk) if chunk.is_empty() => {}
                    Ok(chunk) => {
                        self.stream.reserve_capacity(chunk.len());
                        self.waiting = Some(chunk);
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.done = true;
                            self.stream.send_trailers(trailers)?;
                        }
                    }
                },
            }
        }
    }

    /// Sends as much of `chunk` as there is room for.
    fn send(&mut self, mut chunk: Bytes) -> Result<(), h2::Error> {
        let room = self.stream.capacity();
        if room < chunk.len() {
            let now = chunk.split_to(room);
            self.stream.send_data(now, false)?;
            self.stream.reserve_capacity(chunk.len());
            self.waiting = Some(chunk);
            return Ok(());
        }
        self.done = self.body.is_end_stream();
        self.stream.send_data(chunk, self.done)
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Future for Pump<B> {
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let outcome = ready!(this.poll_step(context));
        this.done = true;
        Poll::Ready(outcome)
    }
}

impl<B> Drop for Pump<B> {
    fn drop(&mut self) {
        if !self.done {
            self.stream.send_reset(Reason::CANCEL);
        }
    }
}
