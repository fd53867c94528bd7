//! Upgraded connections (RFC 9110 §7.8): once both sides have switched, bytes are carried as they are.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::{
    HeaderMap, HeaderValue,
    header::{CONNECTION, UPGRADE},
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tcp::copy::{self, Abort, Stop};

/// The value of `upgrade`, if the caller asks to switch; `connection` must name it.
pub(crate) fn wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let names_it = |value: &HeaderValue| {
        let mut tokens = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        tokens.any(|token| token.eq_ignore_ascii_case(b"upgrade"))
    };
    headers.get_all(CONNECTION).iter().any(names_it).then(|| headers.get(UPGRADE).cloned()).flatten()
}

/// Asks the next hop, or tells the caller, what its own hop-by-hop fields said.
pub(crate) fn restore(headers: &mut HeaderMap, upgrade: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, upgrade);
}

/// Carries bytes once both sides have switched to `protocol`.
pub(crate) async fn carry(
    caller: OnUpgrade,
    called: OnUpgrade,
    protocol: Option<HeaderValue>,
    stop: impl Future<Output = Stop>,
) {
    let (Ok(caller), Ok(called)) = futures_util::join!(caller, called) else { return };
    let (caller, called) = (Switched::new(caller), Switched::new(called));
    if protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        copy::copy_websocket(caller, called, stop).await;
    } else {
        copy::copy(caller, called, stop, None, |_, _| {}).await;
    }
}

/// A connection after the switch. It cannot be reset from here; dropping it closes it.
struct Switched(TokioIo<Upgraded>);

impl Switched {
    fn new(upgraded: Upgraded) -> Self {
        Self(TokioIo::new(upgraded))
    }
}

impl Abort for Switched {
    fn abort(&mut self) {}
}

impl AsyncRead for Switched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Switched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
