//! One HTTP/2 connection of which we are the client: to another agent, or to an application that speaks h2c.
//!
//! Requests are handed to `h2` by the task that has them, and that task waits for the response itself: no channel and no
//! task of its own per request. One driver task per connection reads and writes, so that frames of many requests share
//! a system call. The driver also finds out that another host is gone, which ends the connection and with it everything
//! on it ([`Silence`]).

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, client};
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::Instant,
};

use super::{
    body::{Body, BodyError, poll_stream, stream_size_hint},
    bounds,
    heard::Heard,
    pump::Pump,
    silence::{Question, Silence},
};
use crate::{executor::LocalExecutor, fault::Fault, frames::EmptyFrames};

/// How many streams a peer may open on one connection.
pub(crate) const STREAMS: u32 = 256;
/// How much of one stream's body may be on its way unread.
pub(crate) const STREAM_WINDOW: u32 = 64 * 1024;

/// Who is on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// An agent, which answers a PING whenever it is alive.
    Agent,
    /// An application on this host, which tells us when it is gone.
    Application,
    /// An application on another host, at this address.
    Remote(SocketAddr),
}

/// Whether a connection takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Yes.
    Open,
    /// Only while there is no other: it is to be replaced.
    Replaceable,
    /// No more; what is on it finishes.
    Retired,
    /// It is gone.
    Dead,
}

impl Phase {
    /// Its name.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replaceable => "replaceable",
            Self::Retired => "retired",
            Self::Dead => "dead",
        }
    }
}

/// The shared half of a connection; the driver task has the other.
pub(crate) struct Multiplexed {
    sender: client::SendRequest<Bytes>,
    phase: Cell<Phase>,
    streams: Cell<u32>,
    /// When the last stream ended, or when it was opened.
    idle_since: Cell<Instant>,
    opened: Instant,
    /// Whether it was given up because the peer was silent.
    silent: Cell<bool>,
    /// Wakes the driver when the first request comes on an idle connection, or when the connection is to end.
    wake: Notify,
}

/// One stream's place on a connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease(Rc<Multiplexed>);

/// A response's body on a multiplexed connection.
#[derive(Debug)]
pub(crate) struct MeshBody {
    stream: RecvStream,
    _lease: Lease,
}

/// Why a request on a multiplexed connection got no response.
#[derive(Debug)]
pub(crate) struct StreamFailure {
    /// What happened.
    pub(crate) fault: Fault,
    /// The request's body; what was read of it is gone, unless it can be replayed.
    pub(crate) body: Body,
}

impl std::fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Multiplexed").field("phase", &self.phase).field("streams", &self.streams).finish()
    }
}

impl Multiplexed {
    /// Speaks HTTP/2 on `io`, waits for the peer's SETTINGS (what is sent before may be refused) and starts the driver.
    /// `window` is per stream; the connection's is 256 times that.
    pub(crate) async fn open<T>(io: T, window: u32, peer: Peer) -> Result<Rc<Self>, h2::Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let heard = Rc::new(Cell::new(false));
        let told = heard.clone();
        // Another agent sends none.
        let mut empty_frames = (peer != Peer::Agent).then(EmptyFrames::default);
        let io = Heard::new(io, move |came: &mut [u8]| {
            told.set(true);
            if let Some(frames) = &mut empty_frames {
                frames.hide(came);
            }
        });
        let (sender, mut connection) = client::Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(window.saturating_mul(STREAMS))
            .initial_max_send_streams(0)
            .max_send_buffer_size(1024 * 1024)
            .data_frame_budget(bounds::UNREAD_FRAMES)
            .max_concurrent_reset_streams(bounds::REMEMBERED_RESETS)
            .reset_stream_duration(bounds::REMEMBERED_FOR)
            .max_local_error_reset_streams(bounds::BROKEN_STREAMS)
            .enable_push(false)
            .handshake(io)
            .await?;
        poll_fn(|context| match Pin::new(&mut connection).poll(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => Poll::Ready(Err(h2::Reason::NO_ERROR.into())),
            Poll::Pending if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let now = Instant::now();
        let this = Rc::new(Self {
            sender,
            phase: Cell::new(Phase::Open),
            streams: Cell::new(0),
            idle_since: Cell::new(now),
            opened: now,
            silent: Cell::new(false),
            wake: Notify::new(),
        });
        let question = match peer {
            Peer::Agent => connection.ping_pong().map(Question::Ping),
            Peer::Application => None,
            Peer::Remote(address) => Some(Question::Connect(address, None)),
        };
        let silence = question.map(|question| Silence::new(question, heard));
        LocalExecutor.spawn(drive(connection, silence, this.clone()));
        Ok(this)
    }

    /// Whether it takes requests.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Lets it take fewer requests than before; never more.
    pub(crate) fn demote(&self, phase: Phase) {
        if phase as u8 > self.phase.get() as u8 {
            self.phase.set(phase);
            if phase == Phase::Retired && self.streams.get() == 0 {
                self.wake.notify_one();
            }
        }
    }

    /// Ends it at once, with all that is on it.
    pub(crate) fn abort(&self) {
        self.phase.set(Phase::Dead);
        self.wake.notify_one();
    }

    /// Requests under way on it.
    pub(crate) fn streams(&self) -> u32 {
        self.streams.get()
    }

    /// How many requests may be under way on it.
    pub(crate) fn capacity(&self) -> u32 {
        let limit = self.sender.current_max_send_streams();
        u32::try_from(limit).unwrap_or(STREAMS).min(STREAMS)
    }

    /// Since when nothing is under way; none while something is.
    pub(crate) fn idle_for(&self, now: Instant) -> Option<Duration> {
        (self.streams.get() == 0).then(|| now.saturating_duration_since(self.idle_since.get()))
    }

    /// How long it is open.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }

    /// A place for one stream.
    pub(crate) fn lease(self: &Rc<Self>) -> Lease {
        let streams = self.streams.get();
        if streams == 0 {
            self.wake.notify_one();
        }
        self.streams.set(streams + 1);
        Lease(self.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let streams = self.0.streams.get() - 1;
        self.0.streams.set(streams);
        if streams == 0 {
            self.0.idle_since.set(Instant::now());
            if self.0.phase.get() == Phase::Retired {
                self.0.wake.notify_one();
            }
        }
    }
}

impl Lease {
    /// Sends a request and waits for the response's head, which comes with the request's body, if that was sent whole
    /// and may be sent again. The rest of a longer body goes on by a task of its own.
    pub(crate) async fn send(
        self,
        head: Request<()>,
        body: Body,
    ) -> Result<(Response<MeshBody>, Option<Body>), StreamFailure> {
        let bodyless = body.is_end_stream();
        // One of our own: whoever waits on one that others use too may take their wake-ups.
        let mut sender = self.0.sender.clone();
        let sent = match poll_fn(|context| sender.poll_ready(context)).await {
            Ok(()) => sender.send_request(head, bodyless),
            Err(error) => Err(error),
        };
        drop(sender);
        let (mut answer, stream) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                self.0.demote(if is_fatal(&error) { Phase::Dead } else { Phase::Retired });
                return Err(StreamFailure { fault: Fault::NotDispatched, body });
            }
        };
        let mut pump = (!bodyless).then(|| Pump::new(stream, body, h2::Reason::CANCEL));
        let outcome = poll_fn(|context| {
            if let Some(pump) = pump.as_mut().filter(|pump| !pump.is_done()) {
                // A failure of the stream is the answer's too.
                let _ = Pin::new(pump).poll(context);
            }
            Pin::new(&mut answer).poll(context)
        })
        .await;
        match outcome {
            Ok(response) => {
                let body = match pump {
                    None => Some(Body::Empty),
                    Some(mut pump) if pump.is_done() => Some(pump.take_body()),
                    Some(pump) => {
                        LocalExecutor.spawn(pump);
                        None
                    }
                };
                Ok((response.map(|stream| MeshBody { stream, _lease: self }), body))
            }
            Err(error) => {
                if error.is_go_away() && error.is_remote() {
                    self.0.demote(Phase::Retired);
                } else if !error.is_reset() {
                    self.0.demote(Phase::Dead);
                }
                let body = pump.map_or(Body::Empty, |mut pump| pump.take_body());
                Err(StreamFailure { fault: self.0.fault(&error), body })
            }
        }
    }
}

impl Multiplexed {
    fn fault(&self, error: &h2::Error) -> Fault {
        if is_unprocessed(error) {
            Fault::NotDispatched
        } else if error.is_reset() {
            Fault::StreamReset
        } else if self.silent.get() {
            Fault::PeerSilent
        } else {
            Fault::ConnectionLost
        }
    }
}

/// Whether the peer says that it did nothing with the request: REFUSED_STREAM, or GOAWAY below it (RFC 9113 §8.7).
fn is_unprocessed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let above_last = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    refused && error.is_remote() || above_last
}

fn is_fatal(error: &h2::Error) -> bool {
    error.is_io() || error.is_go_away() && error.reason() != Some(h2::Reason::NO_ERROR)
}

/// Reads and writes until the connection ends or, retired, has nothing left to do.
async fn drive<T>(
    mut connection: client::Connection<T, Bytes>,
    mut silence: Option<Silence>,
    shared: Rc<Multiplexed>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut woken = pin!(shared.wake.notified());
    poll_fn(|context| {
        if Pin::new(&mut connection).poll(context).is_ready() {
            return Poll::Ready(());
        }
        while woken.as_mut().poll(context).is_ready() {
            woken.set(shared.wake.notified());
        }
        let (phase, idle) = (shared.phase.get(), shared.streams.get() == 0);
        if phase == Phase::Dead || phase == Phase::Retired && idle {
            return Poll::Ready(());
        }
        let Some(silence) = &mut silence else { return Poll::Pending };
        silence.poll(context, idle).map(|()| shared.silent.set(true))
    })
    .await;
    shared.demote(Phase::Dead);
}

impl MeshBody {
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        poll_stream(&mut self.stream, context)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        stream_size_hint(&self.stream)
    }
}

#[cfg(test)]
mod tests;
