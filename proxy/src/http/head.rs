//! What a connection of HTTP/1 waits for: callers that begin the header of a request and do not end it, callers that
//! have said all and wait for their answer, and callers that say nothing for a while.
//!
//! hyper's own limit also ends connections that idle between two requests, which costs a caller that does not retry its
//! next one. Here only a header that was begun has a limit. No connection has a timer: the worker looks at all of them
//! now and then, and a connection pays for a read with one load.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    task::Context,
};

use futures_util::task::AtomicWaker;

/// No byte of a further request came.
const IDLE: u32 = 0;
/// The first byte of a request came. Every sweep after that adds 1.
const BEGUN: u32 = 1;
/// HTTP is no longer spoken.
const RELEASED: u32 = u32::MAX - 1;
/// A request is under way.
const BUSY: u32 = u32::MAX;

/// What a connection of HTTP/1 waits for. Used by one thread; atomic because hyper wants I/O types to be `Send`.
#[derive(Debug, Default)]
pub(crate) struct HeadWatch {
    state: AtomicU32,
    late: AtomicBool,
    half_closed: AtomicBool,
    /// Whether who half-closed is to be looked after: it may have closed altogether since.
    doubted: AtomicBool,
    waker: AtomicWaker,
    /// Whether the last read found nothing.
    starved: AtomicBool,
    /// Whether the last write has to wait.
    blocked: AtomicBool,
    /// Whether an answer of the service, or the end of one, may have yet to be written.
    owing: AtomicBool,
    /// Whether nothing was read since the last sweep.
    quiet: AtomicBool,
    /// Whether nothing was read from one sweep to the next, while no request was under way.
    stale: AtomicBool,
}

impl HeadWatch {
    /// A whole header came.
    pub(crate) fn request(&self) {
        self.change(|state| state != RELEASED, BUSY);
        self.owing.store(true, Relaxed);
        self.late.store(false, Relaxed);
    }

    /// The answer is out.
    pub(crate) fn answered(&self) {
        self.change(|state| state == BUSY, IDLE);
    }

    /// From here on, nothing is waited for.
    pub(crate) fn release(&self) {
        self.state.store(RELEASED, Relaxed);
        self.half_closed.store(false, Relaxed);
    }

    /// A request is due: from here on its header has as long as if its first byte had come.
    pub(crate) fn begin(&self) {
        self.change(|state| state == IDLE, BEGUN);
    }

    /// The caller ended its side. True if it waits for an answer: then that is remembered, and the end is to be kept
    /// from hyper, which takes it for the caller's departure.
    pub(super) fn half_close(&self, context: &Context<'_>) -> bool {
        let waits = self.state.load(Relaxed) == BUSY;
        self.half_closed.store(waits, Relaxed);
        self.doubted.store(waits, Relaxed);
        self.stay_half_closed(context);
        waits
    }

    /// Wakes whoever reads with every sweep: nothing else tells that a caller closed altogether after its half.
    pub(super) fn stay_half_closed(&self, context: &Context<'_>) {
        self.waker.register(context.waker());
    }

    /// Whether the caller ended its side and waits for an answer. The connection is to end with that answer.
    pub(crate) fn is_half_closed(&self) -> bool {
        self.half_closed.load(Relaxed)
    }

    /// Whether it is to be found out anew if the caller that half-closed is still there. True once a sweep.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted.swap(false, Relaxed)
    }

    /// Takes note of a read that gave something.
    pub(super) fn fed(&self) {
        self.starved.store(false, Relaxed);
        self.quiet.store(false, Relaxed);
        self.stale.store(false, Relaxed);
        self.begin();
    }

    /// Takes note of a read that gave nothing: `begun` if a header's beginning was read before. True if the connection
    /// is to end, because a header is late.
    pub(super) fn starved(&self, context: &Context<'_>, begun: bool) -> bool {
        self.starved.store(true, Relaxed);
        if begun {
            self.begin();
        }
        if self.state.load(Relaxed) >= RELEASED {
            return false;
        }
        self.waker.register(context.waker());
        self.late.load(Relaxed)
    }

    /// Takes note of whether a write has to wait.
    pub(super) fn written(&self, blocked: bool) {
        self.blocked.store(blocked, Relaxed);
    }

    /// Takes note that all there was to write is written.
    pub(super) fn flushed(&self) {
        if self.state.load(Relaxed) < RELEASED {
            self.owing.store(false, Relaxed);
        }
    }

    /// Whether what is written next may belong to an answer of the service. If not, hyper itself has something to say.
    pub(super) fn is_owing(&self) -> bool {
        self.owing.load(Relaxed)
    }

    /// Whether the last answer is written and all that came was read, as far as the socket is asked.
    pub(super) fn is_settled(&self) -> bool {
        self.state.load(Relaxed) == IDLE
            && self.starved.load(Relaxed)
            && !self.blocked.load(Relaxed)
            && !self.is_half_closed()
    }

    /// Whether it waits for a request for so long that it should rest.
    pub(super) fn is_stale(&self) -> bool {
        self.stale.load(Relaxed)
    }

    /// Ends the connection if a header was begun `limit` sweeps ago, and lets it rest if nothing came since the last. Has
    /// a caller that half-closed looked after.
    pub(crate) fn sweep(&self, limit: u32) {
        let state = self.state.load(Relaxed);
        if self.is_half_closed() {
            self.doubted.store(true, Relaxed);
            self.waker.wake();
        }
        if self.quiet.swap(true, Relaxed) && state == IDLE && !self.stale.swap(true, Relaxed) {
            self.waker.wake();
        }
        // Who reads an answer slowly may have begun the next header already: to say that it is late would cut the answer.
        if !(BEGUN..RELEASED).contains(&state) || self.is_owing() {
            return;
        }
        self.state.store(state + 1, Relaxed);
        if state >= limit {
            self.late.store(true, Relaxed);
            self.waker.wake();
        }
    }

    fn change(&self, from: impl Fn(u32) -> bool, to: u32) {
        if from(self.state.load(Relaxed)) {
            self.state.store(to, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_never_late_while_the_answer_before_it_is_being_written() {
        const LIMIT: u32 = 3;
        let (watch, context) = (HeadWatch::default(), &Context::from_waker(std::task::Waker::noop()));
        let is_late = |sweeps: u32| {
            (0..sweeps).for_each(|_| watch.sweep(LIMIT));
            watch.starved(context, true)
        };
        watch.request();
        assert!(!is_late(LIMIT + 1));
        watch.answered();
        assert!(!is_late(LIMIT + 1));
        watch.flushed();
        assert!(!is_late(LIMIT - 1));
        assert!(is_late(1));
    }
}
