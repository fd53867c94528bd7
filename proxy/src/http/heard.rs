//! A stream that tells whether anything was read from it, and hides what h2 does not bear.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frames::EmptyFrames;

/// A stream that raises a flag whenever bytes come from it.
#[derive(Debug)]
pub(crate) struct Heard<T> {
    inner: T,
    heard: Rc<Cell<bool>>,
    /// None of a peer that sends no empty frames.
    frames: Option<EmptyFrames>,
}

impl<T> Heard<T> {
    /// Raises `heard` for whoever lowers it. `frames` hides empty frames.
    pub(crate) fn new(inner: T, heard: Rc<Cell<bool>>, frames: Option<EmptyFrames>) -> Self {
        Self { inner, heard, frames }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.inner).poll_read(context, buffer);
        let came = &mut buffer.filled_mut()[before..];
        if !came.is_empty() {
            this.heard.set(true);
            if let Some(frames) = &mut this.frames {
                frames.hide(came);
            }
        }
        outcome
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
