//! Upgraded connections (RFC 9110 §7.8): once both sides have switched, bytes are carried as they are.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::{
    HeaderMap, HeaderValue,
    header::{CONNECTION, TE, UPGRADE},
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tcp::copy::{self, Abort, Stop};

/// What `upgrade` asks for, if `connection` names it. Not the protocols that carry further requests: those would pass
/// every policy by. Asking for them is no more than an offer, so a request that asks for nothing else is one like others.
pub(crate) fn wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let names_it = |value: &HeaderValue| tokens(value).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    if !headers.get_all(CONNECTION).iter().any(names_it) {
        return None;
    }
    let all = headers.get_all(UPGRADE).iter().flat_map(tokens);
    let wanted: Vec<&[u8]> = all.filter(|token| !carries_requests(token)).collect();
    if wanted.is_empty() { None } else { HeaderValue::from_bytes(&wanted.join(&b", "[..])).ok() }
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let tokens = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    tokens.filter(|token| !token.is_empty())
}

/// HTTP/2 and other versions (RFC 7540 §3.2), and HTTP within TLS (RFC 2817 §3).
fn carries_requests(protocol: &[u8]) -> bool {
    let name = protocol.split(|&byte| byte == b'/').next().unwrap_or_default();
    [&b"h2c"[..], b"h2", b"h3", b"http", b"tls"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Asks the next hop, or tells the caller, what its own hop-by-hop fields said.
pub(crate) fn restore(headers: &mut HeaderMap, upgrade: HeaderValue) {
    let connection = if headers.contains_key(TE) { "upgrade, te" } else { "upgrade" };
    headers.insert(CONNECTION, HeaderValue::from_static(connection));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_carries_requests_is_asked_for() {
        let asked = |connection: &'static str, upgrade: &[&'static str]| {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static(connection));
            for value in upgrade {
                headers.append(UPGRADE, HeaderValue::from_static(value));
            }
            wanted(&headers).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(asked("keep-alive, Upgrade", &["websocket"]).as_deref(), Some("websocket"));
        assert_eq!(asked("upgrade", &["h2c, WebSocket", "tcp/1"]).as_deref(), Some("WebSocket, tcp/1"));
        assert_eq!(asked("close", &["websocket"]), None);
        for upgrade in ["h2c", "H2C,h2", "TLS/1.3", "HTTP/2.0", "", ","] {
            assert_eq!(asked("upgrade", &[upgrade]), None, "{upgrade}");
        }
    }
}
