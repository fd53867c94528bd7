//! A request's body that remembers what it gave, so that the request can be sent again.
//!
//! Only references to the received chunks are kept, and only up to [`REPLAY_LIMIT`]: a longer body is
//! forgotten, and its request is not sent again once its body was begun.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::body::{Arriving, BodyError, Received};

/// How many bytes of a request's body are kept for a retry.
pub(crate) const REPLAY_LIMIT: usize = 64 * 1024;

/// Whether the caller has sent its whole request, for who waits for that.
#[derive(Debug, Default)]
pub(crate) struct Whole(RefCell<Progress>);

#[derive(Debug, Default)]
enum Progress {
    /// No, and nobody has asked.
    #[default]
    Unasked,
    /// No, and this one wants to know.
    Asked(Waker),
    /// Yes.
    Whole,
}

impl Whole {
    /// Ready when the whole request came.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut progress = self.0.borrow_mut();
        match &mut *progress {
            Progress::Whole => return Poll::Ready(()),
            Progress::Asked(waker) => waker.clone_from(context.waker()),
            Progress::Unasked => *progress = Progress::Asked(context.waker().clone()),
        }
        Poll::Pending
    }

    fn set(&self) {
        if let Progress::Asked(waker) = self.0.replace(Progress::Whole) {
            waker.wake();
        }
    }
}

/// The body and what was read of it.
#[derive(Debug)]
pub(crate) struct Replay {
    source: Arriving,
    received: Received,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// How many of `kept` were given since the last rewind.
    given: usize,
    /// Whether more was read than may be kept, or reading failed.
    spilled: bool,
    /// Whether the source has no more.
    finished: bool,
    whole: Rc<Whole>,
}

impl Replay {
    /// Wraps a body of which nothing was read; what is read is added to `received`, once.
    pub(crate) fn new(source: Arriving, received: Received) -> Self {
        Self {
            source,
            received,
            kept: Vec::new(),
            kept_bytes: 0,
            given: 0,
            spilled: false,
            finished: false,
            whole: Rc::default(),
        }
    }

    /// Tells when the source has no more.
    pub(crate) fn whole(&self) -> Rc<Whole> {
        self.whole.clone()
    }

    /// Goes back to the start; false when that is no longer possible.
    pub(crate) fn rewind(&mut self) -> bool {
        if !self.spilled {
            self.given = 0;
        }
        !self.spilled
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(chunk) = self.kept.get(self.given).filter(|_| !self.spilled) {
            self.given += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if self.finished {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(self.source.poll_frame(context));
        match frame {
            None => {
                self.finished = true;
                self.whole.set();
            }
            Some(Err(error)) => {
                self.spilled = true;
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => {
                self.keep(&frame);
                // Often nobody asks again after the last frame.
                if self.source.is_end_stream() {
                    self.whole.set();
                }
                return Poll::Ready(Some(Ok(frame)));
            }
        }
        Poll::Ready(None)
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(chunk) = frame.data_ref() else {
            // Trailers are rare in requests; one with them is sent once.
            self.spill();
            return;
        };
        self.received.set(self.received.get() + chunk.len() as u64);
        self.kept_bytes += chunk.len();
        if self.kept_bytes > REPLAY_LIMIT {
            self.spill();
        } else if !self.spilled {
            self.kept.push(chunk.clone());
            self.given = self.kept.len();
        }
    }

    fn spill(&mut self) {
        self.spilled = true;
        self.kept = Vec::new();
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        (self.spilled || self.given == self.kept.len()) && (self.finished || self.source.is_end_stream())
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        if self.spilled || self.given == self.kept.len() {
            return self.source.size_hint();
        }
        let ahead: usize = self.kept[self.given..].iter().map(Bytes::len).sum();
        let mut hint = self.source.size_hint();
        let ahead = ahead as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + ahead);
        }
        hint.set_lower(hint.lower() + ahead);
        hint
    }
}
