//! Serving a connection until it ends, drains or is to be replaced.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use hyper::server::conn::http1;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    config::Limits,
    signal::{CLOSING, DRAINING, Listener},
};

/// How long a connection may take to send its last frames after the drain's deadline.
const LAST_FRAMES: Duration = Duration::from_millis(250);

/// How hyper serves HTTP/1. Never with `pipeline_flush`: it keeps back the 400 to a head that cannot be parsed for as long
/// as that head lies in the buffer, which is for ever.
pub(crate) fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .auto_date_header(false)
        .max_buf_size(limits.header_bytes.max(Limits::LEAST_HEADER_BYTES) as usize);
    builder
}

/// What a connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It takes what comes.
    Continue,
    /// It takes nothing new.
    Finish,
    /// It ends at once: the caller is gone.
    Abandon,
}

/// What a connection is to do that can tell its caller at any time to send no more requests: it finishes when the worker
/// drains, of which this is the phase.
pub(crate) fn told(phase: u32) -> Next {
    if phase >= DRAINING { Next::Finish } else { Next::Continue }
}

/// Polls `connection` to its end, or until `next` abandons it. When `next` of the phase of the drain says so, when `replaceable` has risen, or at
/// `replace_at`, `finish` is called: the connection takes nothing new and ends when what it has is done. After the drain's
/// deadline it has a moment for its last frames. Returns what came of it, or nothing if it was cut.
pub(crate) async fn serve<C: Future>(
    connection: C,
    finish: impl Fn(Pin<&mut C>),
    next: impl Fn(u32) -> Next,
    drain: &mut Listener,
    mut replaceable: Option<Listener>,
    replace_at: Option<Instant>,
) -> Option<C::Output> {
    let mut connection = pin!(connection);
    let mut replace: Pin<&mut Option<Sleep>> = pin!(replace_at.map(sleep_until));
    let mut closing: Pin<&mut Option<Sleep>> = pin!(None);
    let mut finishing = false;
    poll_fn(|context| {
        loop {
            if let Poll::Ready(end) = connection.as_mut().poll(context) {
                return Poll::Ready(Some(end));
            }
            let phase = drain.poll(context);
            if phase >= CLOSING {
                if closing.is_none() {
                    closing.set(Some(sleep_until(Instant::now() + LAST_FRAMES)));
                }
                if let Some(closing) = closing.as_mut().as_pin_mut()
                    && closing.poll(context).is_ready()
                {
                    return Poll::Ready(None);
                }
            }
            let next = next(phase);
            if next == Next::Abandon {
                return Poll::Ready(None);
            }
            if finishing {
                return Poll::Pending;
            }
            let renewed = replaceable.as_mut().is_some_and(|listener| listener.poll_risen(context));
            let old = replace.as_mut().as_pin_mut().is_some_and(|replace| replace.poll(context).is_ready());
            if next == Next::Continue && !renewed && !old {
                return Poll::Pending;
            }
            finishing = true;
            finish(connection.as_mut());
        }
    })
    .await
}
