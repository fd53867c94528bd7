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

/// Who holds a request up: its caller, or those it is sent to. For who limits the time that the latter take.
#[derive(Debug, Default)]
pub(crate) struct Pace(RefCell<Held>);

#[derive(Debug, Default)]
struct Held {
    by_caller: bool,
    turns: u32,
    asked: Option<Waker>,
}

impl Pace {
    /// Whether the caller is waited for, and how often that may have ended; wakes when either changes.
    pub(crate) fn poll(&self, context: &Context<'_>) -> (bool, u32) {
        let held = &mut *self.0.borrow_mut();
        match &mut held.asked {
            Some(asked) => asked.clone_from(context.waker()),
            None => held.asked = Some(context.waker().clone()),
        }
        (held.by_caller, held.turns)
    }

    fn set(&self, by_caller: bool) {
        let held = &mut *self.0.borrow_mut();
        if by_caller && held.by_caller {
            return;
        }
        held.by_caller = by_caller;
        held.turns = held.turns.wrapping_add(u32::from(!by_caller));
        if let Some(asked) = held.asked.take() {
            asked.wake();
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
    pace: Rc<Pace>,
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
            pace: Rc::default(),
        }
    }

    /// Tells who holds the request up.
    pub(crate) fn pace(&self) -> Rc<Pace> {
        self.pace.clone()
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
        let Poll::Ready(frame) = self.source.poll_frame(context) else {
            self.pace.set(true);
            return Poll::Pending;
        };
        self.pace.set(false);
        self.received.note(frame.as_ref());
        match frame {
            None => self.finished = true,
            Some(Err(error)) => {
                self.spilled = true;
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => {
                self.keep(&frame);
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
