//! A stream that is listened in on by whoever must know of its bytes before h2 does.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that shows what is read from it to somebody first, who may change it.
#[derive(Debug)]
pub(crate) struct Heard<T, L> {
    inner: T,
    listen: L,
}

impl<T, L: FnMut(&mut [u8])> Heard<T, L> {
    /// `listen` gets all that is read, in order, and never an empty piece.
    pub(crate) fn new(inner: T, listen: L) -> Self {
        Self { inner, listen }
    }
}

impl<T: AsyncRead + Unpin, L: FnMut(&mut [u8]) + Unpin> AsyncRead for Heard<T, L> {
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
            (this.listen)(came);
        }
        outcome
    }
}

impl<T: AsyncWrite + Unpin, L: Unpin> AsyncWrite for Heard<T, L> {
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
