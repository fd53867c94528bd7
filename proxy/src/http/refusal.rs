//! The last answer of a connection of HTTP/1: to a request that nobody could read.
//!
//! Whoever is refused may still be sending, and bytes that nobody reads would reset the connection and with it the
//! answer. So our side ends, and the rest is read out for a moment.

use std::{future::poll_fn, io, pin::pin, time::Duration};

use http::{HeaderValue, Response, header::CONNECTION};
use http_body::Body as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::finish::{Finish, ResponseBody};
use crate::message::write_field;

/// How long a caller may take to end its side of a connection.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Ends our side, and waits for the caller to end its own: bytes of it that nobody read would reset the connection, and
/// with it the last answer, if the caller has yet to read it.
pub(crate) async fn part(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let _ = timeout(LAST_WORD, async {
        stream.shutdown().await?;
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<_, io::Error>(())
    })
    .await;
}

/// Sends the last answer of a connection, and parts.
pub(crate) async fn send<F: Finish + Unpin>(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    response: Response<ResponseBody<F>>,
) {
    let _ = timeout(LAST_WORD, write(stream, response)).await;
    part(stream).await;
}

async fn write<F: Finish + Unpin>(
    stream: &mut (impl AsyncWrite + Unpin),
    mut response: Response<ResponseBody<F>>,
) -> io::Result<()> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in response.headers() {
        write_field(&mut head, name.as_str(), value.as_bytes());
    }
    head.extend(b"\r\n");
    let mut body = pin!(response.into_body());
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let Ok(frame) = frame else { break };
        head.extend(frame.data_ref().map_or(&[][..], |chunk| chunk));
    }
    stream.write_all(&head).await
}
