//! Carries bytes between a caller and a called side until both have said all, and ends as they ended.
//!
//! Each direction ends on its own: end of file on one side becomes a half-close of the other, which is a FIN on TCP and
//! close_notify on TLS. A TLS stream that ends *without* close_notify was cut, by an attacker or a crash, and reads as an
//! error; so does a reset. Such an end is passed on as a reset of both sides, never as a clean one: who takes the end of
//! the connection for the end of the data must not take half of it for the whole.
//!
//! A side that no longer accepts bytes may still have sent some: the other direction goes on to its own end.
//!
//! All connections of a thread read into one buffer of [`SCRATCH`] bytes, which is free again before the poll ends: only
//! what a slow receiver did not take is kept with the connection. An idle connection has no buffer, and a busy one stays
//! in a part of memory that is in the cache.

mod direction;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};

pub use direction::SCRATCH;

use super::websocket::Sender;
use crate::fault::Fault;
use direction::{Direction, with_scratch};

/// How long a polite close waits for the other side's end. What it sends in that time is read and dropped: closing a
/// socket that has unread bytes would be a reset.
const LINGER: Duration = Duration::from_secs(1);

/// A stream that can be ended so that its peer sees an error.
pub trait Abort {
    /// Makes the coming drop a reset (TCP RST) and no clean end.
    fn abort(&mut self);
}

impl Abort for TcpStream {
    fn abort(&mut self) {
        // It fails only on a socket that is dead already.
        let _ = self.set_zero_linger();
    }
}

impl Abort for UnixStream {
    /// Unix sockets know no reset; the peer sees one if it has sent bytes that nobody read.
    fn abort(&mut self) {}
}

impl<T: Abort + ?Sized> Abort for Box<T> {
    fn abort(&mut self) {
        (**self).abort();
    }
}

impl<T: Abort> Abort for tokio_rustls::client::TlsStream<T> {
    fn abort(&mut self) {
        self.get_mut().0.abort();
    }
}

impl<T: Abort> Abort for tokio_rustls::server::TlsStream<T> {
    fn abort(&mut self) {
        self.get_mut().0.abort();
    }
}

impl<T: Abort> Abort for tokio_rustls::TlsStream<T> {
    fn abort(&mut self) {
        match self {
            Self::Client(stream) => stream.abort(),
            Self::Server(stream) => stream.abort(),
        }
    }
}

/// One end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who connected.
    Caller,
    /// Who was connected to.
    Called,
}

/// Why to stop before the sides do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The drain deadline is over: close politely.
    Drain,
    /// Policy or trust now refuses the connection: reset it.
    Deny,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides said all, and each got all.
    Finished,
    /// This side was reset, or cut off without close_notify; the other was reset in turn.
    Reset(Side),
    /// This side ended while the other still sent.
    Unread(Side),
    /// No byte came for the idle time; closed politely.
    Idle,
    /// Closed politely at the drain deadline.
    Drained,
    /// Reset because it is no longer allowed.
    Denied,
}

impl End {
    /// What is to be blamed for it; `denied` if it is no longer allowed.
    #[must_use]
    pub fn fault(self, denied: Fault) -> Option<Fault> {
        match self {
            Self::Reset(Side::Called) => Some(Fault::ResponseCut),
            Self::Reset(Side::Caller) => Some(Fault::CallerGone),
            Self::Denied => Some(denied),
            Self::Drained => Some(Fault::Drained),
            Self::Finished | Self::Unread(_) | Self::Idle => None,
        }
    }
}

/// What was carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Bytes from the caller that the called side took.
    pub received: u64,
    /// Bytes to the caller.
    pub sent: u64,
    /// How it ended.
    pub end: End,
}

/// Carries bytes until the end, and drops both streams. `idle` ends a connection on which nothing moved for that long,
/// or up to twice as long. `count` is told of bytes from the caller and to the caller as they move.
pub async fn copy<A, B>(
    caller: A,
    called: B,
    stop: impl Future<Output = Stop>,
    idle: Option<Duration>,
    count: impl FnMut(u64, u64),
) -> Copied
where
    A: AsyncRead + AsyncWrite + Abort + Unpin,
    B: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let pair = Pair { caller, called, inward: Direction::default(), outward: Direction::default(), count };
    carry(pair, stop, idle).await
}

/// As [`copy`], for a connection that speaks WebSocket (RFC 6455) from its first byte on. When it is closed politely,
/// both sides get a Close with status 1001, after the frame that is under way.
pub async fn copy_websocket<A, B>(caller: A, called: B, stop: impl Future<Output = Stop>) -> Copied
where
    A: AsyncRead + AsyncWrite + Abort + Unpin,
    B: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let (inward, outward) = (Direction::of_frames(Sender::Client), Direction::of_frames(Sender::Server));
    carry(Pair { caller, called, inward, outward, count: |_, _| {} }, stop, None).await
}

async fn carry<A, B, C>(
    mut pair: Pair<A, B, C>,
    stop: impl Future<Output = Stop>,
    idle: Option<Duration>,
) -> Copied
where
    A: AsyncRead + AsyncWrite + Abort + Unpin,
    B: AsyncRead + AsyncWrite + Abort + Unpin,
    C: FnMut(u64, u64),
{
    let stop = pin!(stop);
    let end = tokio::select! {
        biased;
        end = pair.run(idle) => end,
        stop = stop => match stop {
            Stop::Drain => End::Drained,
            Stop::Deny => End::Denied,
        },
    };
    match end {
        End::Finished => {}
        End::Reset(_) | End::Denied => pair.abort(),
        End::Unread(_) | End::Idle | End::Drained => pair.close_politely().await,
    }
    Copied { received: pair.inward.moved(), sent: pair.outward.moved(), end }
}

/// The two streams and the two directions between them.
struct Pair<A, B, C> {
    caller: A,
    called: B,
    /// From the caller.
    inward: Direction,
    /// To the caller.
    outward: Direction,
    count: C,
}

impl<A, B, C> Pair<A, B, C>
where
    A: AsyncRead + AsyncWrite + Abort + Unpin,
    B: AsyncRead + AsyncWrite + Abort + Unpin,
    C: FnMut(u64, u64),
{
    async fn run(&mut self, idle: Option<Duration>) -> End {
        let Some(idle) = idle else { return poll_fn(|context| self.poll(context)).await };
        loop {
            let before = (self.inward.moved(), self.outward.moved());
            match timeout(idle, poll_fn(|context| self.poll(context))).await {
                Ok(end) => return end,
                Err(_) if before == (self.inward.moved(), self.outward.moved()) => return End::Idle,
                Err(_) => {}
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let Self { caller, called, inward, outward, count } = self;
        let in_ended = inward.poll(context, caller, called, |bytes| count(bytes, 0));
        let out_ended = outward.poll(context, called, caller, |bytes| count(0, bytes));
        match (in_ended, out_ended) {
            (Poll::Ready(Err(_)), _) => Poll::Ready(End::Reset(Side::Caller)),
            (_, Poll::Ready(Err(_))) => Poll::Ready(End::Reset(Side::Called)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                Poll::Ready(match (inward.is_refused(), outward.is_refused()) {
                    (false, false) => End::Finished,
                    (true, _) => End::Unread(Side::Called),
                    (false, true) => End::Unread(Side::Caller),
                })
            }
            _ => Poll::Pending,
        }
    }

    fn abort(&mut self) {
        self.caller.abort();
        self.called.abort();
    }

    /// Sends what is kept and an end to both sides, and reads until they end too, all within [`LINGER`].
    async fn close_politely(&mut self) {
        let Self { caller, called, inward, outward, .. } = self;
        inward.finish();
        outward.finish();
        let (mut caller_ended, mut called_ended) = (false, false);
        let closing = poll_fn(|context| {
            let sent_in = inward.poll(context, caller, called, |_| {}).is_ready();
            let sent_out = outward.poll(context, called, caller, |_| {}).is_ready();
            caller_ended = caller_ended || !inward.is_open() && discard(context, caller).is_ready();
            called_ended = called_ended || !outward.is_open() && discard(context, called).is_ready();
            if sent_in && sent_out && caller_ended && called_ended { Poll::Ready(()) } else { Poll::Pending }
        });
        // Whoever has not ended by now is reset by the drop if it goes on sending.
        let _ = timeout(LINGER, closing).await;
    }
}

/// Reads and drops what comes; ready at the end, clean or not.
fn discard<T: AsyncRead + Unpin>(context: &mut Context<'_>, stream: &mut T) -> Poll<()> {
    with_scratch(|scratch| {
        loop {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
}

#[cfg(test)]
mod tests;
