//! Which HTTP a local process speaks: HTTP/2 by prior knowledge begins with its preface (RFC 9113 §3.4), and no
//! HTTP/1 request does.

use std::{
    future::{Future, poll_fn},
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::Poll,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Sleep, sleep},
};

use crate::{
    config::Limits,
    signal::{Listener, PARTING},
    stream::LocalStream,
};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many bytes are read at first.
const FIRST_READ: usize = 2048;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Reads until it is clear what is spoken, and gives back what was read: often the whole of a first request, so that it
/// costs no second read. None when the connection ends, or the worker drains and has waited long enough, before that, when
/// the first byte does not come in time, or the last of these.
pub(crate) async fn sniff(
    stream: &mut LocalStream,
    drain: &mut Listener,
    limits: &Limits,
) -> Option<(Spoken, Bytes)> {
    let mut late: Pin<&mut Option<Sleep>> = pin!(None);
    let mut begun = false;
    let mut read = BytesMut::new();
    poll_fn(|context| {
        loop {
            // Only here while it is read into: a connection that says nothing should hold no room for it.
            let mut bytes = [const { MaybeUninit::uninit() }; FIRST_READ];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending if read.is_empty() && drain.poll(context) >= PARTING => {
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    if late.is_none() || !read.is_empty() && !begun {
                        begun = !read.is_empty();
                        late.set(Some(sleep(if begun { limits.header } else { limits.first_byte })));
                    }
                    let late = late.as_mut().as_pin_mut();
                    return late.map_or(Poll::Pending, |late| late.poll(context).map(|()| None));
                }
            }
            read.extend_from_slice(buffer.filled());
            let known = read.len().min(PREFACE.len());
            if read[..known] != PREFACE[..known] {
                return Poll::Ready(Some((Spoken::Http1, read.split().freeze())));
            }
            if known == PREFACE.len() {
                return Poll::Ready(Some((Spoken::Http2, read.split().freeze())));
            }
        }
    })
    .await
}
