//! A byte stream from a local process: TCP or a Unix socket, with the bytes that were read to tell what is spoken.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

use crate::tcp::copy::Abort;

/// A local connection.
#[derive(Debug)]
pub(crate) enum LocalStream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// A stream whose other end can be asked after once it has ended its side.
pub(crate) trait OtherEnd {
    /// Whether nobody holds it any more, as far as the stream itself can tell: a TCP stream cannot.
    fn is_gone(&self) -> bool;
}

impl OtherEnd for LocalStream {
    /// A Unix socket hangs up when its other end is closed, and not when it is shut down for writing.
    fn is_gone(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let Self::Unix(stream) = self else { return false };
        let mut asked = [PollFd::new(stream, PollFlags::empty())];
        let answered = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        answered.is_ok() && asked[0].revents().contains(PollFlags::HUP)
    }
}

impl OtherEnd for tokio_rustls::server::TlsStream<TcpStream> {
    fn is_gone(&self) -> bool {
        false
    }
}

impl<T: OtherEnd> OtherEnd for Prefixed<T> {
    fn is_gone(&self) -> bool {
        self.inner.is_gone()
    }
}

/// A connection to an instance: through another agent, or straight to an application outside the mesh.
#[derive(Debug)]
pub(crate) enum MeshStream {
    /// Mutual TLS.
    Mesh(Box<TlsStream<TcpStream>>),
    /// Without TLS.
    Plain(TcpStream),
}

/// How many bytes are rather copied than written from several places: a plain `send` costs the kernel less than a list.
const GATHERED: usize = 1024;

/// Writes few bytes in one piece, and many from where they are.
fn poll_write_gathered<T: AsyncWrite>(
    stream: Pin<&mut T>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [slice] = slices {
        return stream.poll_write(cx, slice);
    }
    let length = slices.iter().map(|slice| slice.len()).sum();
    if length > GATHERED {
        return stream.poll_write_vectored(cx, slices);
    }
    let mut gathered = [0; GATHERED];
    let mut free = &mut gathered[..];
    for slice in slices {
        let (place, rest) = free.split_at_mut(slice.len());
        place.copy_from_slice(slice);
        free = rest;
    }
    stream.poll_write(cx, &gathered[..length])
}

/// Implements the stream traits by passing on to whichever stream it is.
macro_rules! either_stream {
    ($name:ident, $first:ident, $second:ident) => {
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_read(cx, buffer),
                    Self::$second(stream) => Pin::new(stream).poll_read(cx, buffer),
                }
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_write(cx, bytes),
                    Self::$second(stream) => Pin::new(stream).poll_write(cx, bytes),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::$first(stream) => poll_write_gathered(Pin::new(stream), cx, slices),
                    Self::$second(stream) => poll_write_gathered(Pin::new(stream), cx, slices),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    Self::$first(stream) => stream.is_write_vectored(),
                    Self::$second(stream) => stream.is_write_vectored(),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_flush(cx),
                    Self::$second(stream) => Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_shutdown(cx),
                    Self::$second(stream) => Pin::new(stream).poll_shutdown(cx),
                }
            }
        }

        impl Abort for $name {
            fn abort(&mut self) {
                match self {
                    Self::$first(stream) => stream.abort(),
                    Self::$second(stream) => stream.abort(),
                }
            }
        }
    };
}

either_stream!(LocalStream, Tcp, Unix);

impl LocalStream {
    /// Waits until there is something to read, or an end, without taking it.
    pub(crate) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
        }
    }
}

either_stream!(MeshStream, Mesh, Plain);

/// A stream whose first bytes were read already.
#[derive(Debug)]
pub(crate) struct Prefixed<T> {
    prefix: Bytes,
    inner: T,
}

impl<T> Prefixed<T> {
    /// Gives `prefix` before what `inner` gives.
    pub(crate) fn new(prefix: Bytes, inner: T) -> Self {
        Self { prefix, inner }
    }

    /// The stream itself.
    pub(crate) fn inner(&self) -> &T {
        &self.inner
    }
}

impl<T: Abort> Abort for Prefixed<T> {
    fn abort(&mut self) {
        self.inner.abort();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let length = self.prefix.len().min(buffer.remaining());
            buffer.put_slice(&self.prefix[..length]);
            self.prefix.advance(length);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// What was written by a call each, and whether it came from several places.
    #[derive(Default)]
    struct Writes(Vec<(Vec<u8>, bool)>);

    impl AsyncWrite for Writes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push((bytes.to_vec(), false));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<_>>();
            let length = bytes.len();
            self.0.push((bytes, true));
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn only_little_is_gathered() {
        let long = vec![7; GATHERED];
        for (slices, listed) in [
            (vec![], false),
            (vec![&long[..], &long], true),
            (vec![&long[..]], false),
            (vec![&long[1..], b"a"], false),
            (vec![&long[..], b"a"], true),
            (vec![b"one, ", b"", b"two"], false),
        ] {
            let mut writes = Writes::default();
            let all: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            let mut context = Context::from_waker(Waker::noop());
            let written = poll_write_gathered(Pin::new(&mut writes), &mut context, &all);
            let expected = slices.concat();
            assert!(matches!(written, Poll::Ready(Ok(length)) if length == expected.len()));
            assert_eq!(writes.0, [(expected, listed)]);
        }
    }
}
