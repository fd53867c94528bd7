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
use hyper::{
    rt::{Read, Write},
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client, server};

use super::burst::Io;
use crate::{
    headers::names,
    stream::{LocalStream, Prefixed},
    tcp::copy::{self, Abort, Copied, Stop},
};

/// What `upgrade` asks for, if `connection` names it. Not the protocols that carry further requests: those would pass
/// every policy by. Asking for them is no more than an offer, so a request that asks for nothing else is one like others.
pub(crate) fn wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    if !names(headers, &CONNECTION, "upgrade") {
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

/// Carries bytes once both sides have switched to `protocol`. None if they do not come to it.
pub(crate) async fn carry(
    caller: OnUpgrade,
    called: OnUpgrade,
    protocol: Option<HeaderValue>,
    stop: impl Future<Output = Stop>,
) -> Option<Copied> {
    let (Ok(caller), Ok(called)) = futures_util::join!(caller, called) else { return None };
    let (caller, called) = (open(caller), open(called));
    Some(if protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        copy::copy_websocket(caller, called, stop).await
    } else {
        copy::copy(caller, called, stop, None, |_, _| {}).await
    })
}

/// A connection after the switch.
trait Switched: AsyncRead + AsyncWrite + Abort + Unpin {}

impl<T: AsyncRead + AsyncWrite + Abort + Unpin> Switched for T {}

/// The connection itself, which can be reset: what is cut on one side must not seem to end well on the other. It is
/// that of a caller, of which no more heads are to be looked at, or one that we made.
fn open(upgraded: Upgraded) -> Box<dyn Switched> {
    let local = take(upgraded, |io: Io<Prefixed<LocalStream>>| io.into_inner().into_inner());
    let agent = local
        .or_else(|other| take(other, |io: Io<server::TlsStream<TcpStream>>| io.into_inner().into_inner()));
    let dialled = agent.or_else(|other| take(other, TokioIo::<client::TlsStream<TcpStream>>::into_inner));
    let application = dialled.or_else(|other| take(other, TokioIo::<TcpStream>::into_inner));
    application.unwrap_or_else(|other| Box::new(Closed(TokioIo::new(other))))
}

/// What `inner` takes out of the connection, if it is one of that kind.
fn take<T, S>(upgraded: Upgraded, inner: impl FnOnce(T) -> S) -> Result<Box<dyn Switched>, Upgraded>
where
    T: Read + Write + Unpin + 'static,
    S: AsyncRead + AsyncWrite + Abort + Unpin + 'static,
{
    let parts = upgraded.downcast::<T>()?;
    Ok(Box::new(Prefixed::new(parts.read_buf, inner(parts.io))))
}

/// A connection of another kind. It cannot be reset from here; dropping it closes it.
struct Closed(TokioIo<Upgraded>);

impl Abort for Closed {
    fn abort(&mut self) {}
}

impl AsyncRead for Closed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Closed {
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
