//! One direction of a connection, polled.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::websocket::{Frames, Sender};

/// How many bytes are read at a time: four full TLS records.
pub const SCRATCH: usize = 64 * 1024;

/// How often a direction reads before other tasks get their turn: a quarter of a megabyte, some hundred microseconds.
const TURNS: usize = 4;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// Lends the thread's buffer. A stream that is itself made of such a connection, polled from within, gets a buffer of
/// its own.
pub(super) fn with_scratch<R>(then: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH_BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut scratch) => then(&mut scratch),
        Err(_) => then(&mut vec![0; SCRATCH]),
    })
}

/// Where a direction stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Bytes may come.
    #[default]
    Open,
    /// No more will come; the receiver is to be told.
    Ending,
    /// The receiver knows.
    Ended,
    /// The receiver takes nothing more.
    Refused,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// What the receiver did not take yet, from `kept_from` on.
    kept: Vec<u8>,
    kept_from: usize,
    state: State,
    unflushed: bool,
    moved: u64,
    /// Where the frames of WebSocket begin, when they are that.
    frames: Option<Box<Frames>>,
    /// Whether only the rest of a frame is still wanted.
    last_frame: bool,
}

impl Direction {
    /// One that carries WebSocket.
    pub(super) fn of_frames(sender: Sender) -> Self {
        Self { frames: Some(Box::new(Frames::new(sender))), ..Self::default() }
    }

    /// Whether it still reads.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Bytes that the receiver took.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether the receiver failed before the sender ended.
    pub(super) fn is_refused(&self) -> bool {
        self.state == State::Refused
    }

    /// Reads no more; what is kept is still sent, and then the end. Of WebSocket, the frame under way is carried to its
    /// end, and a Close is sent after it.
    pub(super) fn finish(&mut self) {
        if self.state != State::Open {
            return;
        }
        match self.frames.as_deref() {
            Some(frames) if frames.is_between() => self.kept.extend_from_slice(&frames.close()),
            Some(frames) if frames.is_known() => {
                self.last_frame = true;
                return;
            }
            _ => {}
        }
        self.state = State::Ending;
    }

    /// Moves what can be moved. Ready when this direction has ended; with an error if reading failed. `count` is told
    /// of every byte that the receiver took.
    pub(super) fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        mut count: impl FnMut(u64),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if matches!(self.state, State::Ended | State::Refused) {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll_parts(context, reader, writer, &mut count)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Failed::Reading(error)) => Poll::Ready(Err(error)),
            Err(Failed::Writing) => {
                self.state = State::Refused;
                self.kept = Vec::new();
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_parts<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        count: &mut impl FnMut(u64),
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..TURNS {
            ready!(self.poll_kept(context, writer, count))?;
            if self.state == State::Ending {
                ready!(Pin::new(&mut *writer).poll_shutdown(context)).map_err(|_| Failed::Writing)?;
                self.state = State::Ended;
                return Poll::Ready(Ok(()));
            }
            match with_scratch(|scratch| self.poll_once(context, reader, writer, count, scratch)) {
                Poll::Ready(moved) => moved?,
                Poll::Pending => {
                    if self.unflushed && self.kept.is_empty() {
                        ready!(Pin::new(&mut *writer).poll_flush(context)).map_err(|_| Failed::Writing)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what is kept.
    fn poll_kept<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        writer: &mut W,
        count: &mut impl FnMut(u64),
    ) -> Poll<Result<(), Failed>> {
        while let Some(rest @ [_, ..]) = self.kept.get(self.kept_from..) {
            let taken = ready!(poll_write(context, writer, rest))?;
            self.kept_from += taken;
            self.moved += taken as u64;
            count(taken as u64);
        }
        if !self.kept.is_empty() {
            (self.kept, self.kept_from) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and sends what came; what is not taken is kept.
    fn poll_once<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        count: &mut impl FnMut(u64),
        scratch: &mut [u8],
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(reader).poll_read(context, &mut buffer)).map_err(Failed::Reading)?;
        let mut rest = buffer.filled();
        if rest.is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        if let Some(frames) = self.frames.as_deref_mut() {
            if !self.last_frame {
                frames.follow(rest);
            } else if let Some(end) = frames.follow_to_boundary(rest) {
                self.unflushed = true;
                self.kept = rest[..end].to_vec();
                self.finish();
                return Poll::Ready(Ok(()));
            } else if !frames.is_known() {
                self.state = State::Ending;
                return Poll::Ready(Ok(()));
            }
        }
        self.unflushed = true;
        while !rest.is_empty() {
            match poll_write(context, writer, rest) {
                Poll::Ready(taken) => {
                    let taken = taken?;
                    self.moved += taken as u64;
                    count(taken as u64);
                    rest = rest.get(taken..).unwrap_or_default();
                }
                Poll::Pending => {
                    self.kept = rest.to_vec();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Which side of a direction failed.
enum Failed {
    Reading(io::Error),
    Writing,
}

/// A writer that takes nothing takes nothing ever.
fn poll_write<W: AsyncWrite + Unpin>(
    context: &mut Context<'_>,
    writer: &mut W,
    bytes: &[u8],
) -> Poll<Result<usize, Failed>> {
    match ready!(Pin::new(writer).poll_write(context, bytes)) {
        Ok(0) | Err(_) => Poll::Ready(Err(Failed::Writing)),
        Ok(taken) => Poll::Ready(Ok(taken)),
    }
}
