//! Which HTTP a local process speaks: HTTP/2 by prior knowledge begins with its preface (RFC 9113 §3.4), and no
//! HTTP/1 request does.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use bytes::Bytes;
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

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Reads until it is clear what is spoken, at most 24 bytes, which are given back. None when the connection ends, or
/// the worker drains and has waited long enough, before that, when the first byte does not come in time, or the last of these.
pub(crate) async fn sniff(
    stream: &mut LocalStream,
    drain: &mut Listener,
    limits: &Limits,
) -> Option<(Spoken, Bytes)> {
    let mut late: Pin<&mut Option<Sleep>> = pin!(None);
    let mut begun = false;
    let mut bytes = [0; PREFACE.len()];
    let mut buffer = ReadBuf::new(&mut bytes);
    poll_fn(|context| {
        loop {
            let before = buffer.filled().len();
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > before => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending if before == 0 && drain.poll(context) >= PARTING => return Poll::Ready(None),
                Poll::Pending => {
                    if late.is_none() || before > 0 && !begun {
                        begun = before > 0;
                        late.set(Some(sleep(if begun { limits.header } else { limits.first_byte })));
                    }
                    let late = late.as_mut().as_pin_mut();
                    return late.map_or(Poll::Pending, |late| late.poll(context).map(|()| None));
                }
            }
            let read = buffer.filled();
            if !PREFACE.starts_with(read) {
                return Poll::Ready(Some((Spoken::Http1, Bytes::copy_from_slice(read))));
            }
            if read.len() == PREFACE.len() {
                return Poll::Ready(Some((Spoken::Http2, Bytes::copy_from_slice(read))));
            }
        }
    })
    .await
}
