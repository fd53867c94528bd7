//! The health check that gRPC servers answer (`grpc.health.v1`, gRPC's health checking protocol): one call with one string
//! and one number, which need no generated code.

use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::with_connection;
use crate::http_client::causes;

const PATH: &str = "http://health/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;
/// The longest answer that is read.
const LONGEST: usize = 1024;

/// Asks whether `service` is serving.
pub(super) async fn check(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: &str,
) -> Result<(), String> {
    let text = |error: hyper::Error| causes(&error);
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(text)?;
    let request = Request::post(PATH)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(question(service)))
        .map_err(|error| error.to_string())?;
    let answered = async move {
        let (head, body) = sender.send_request(request).await.map_err(text)?.into_parts();
        if !head.status.is_success() {
            return Err(format!("status {}", head.status));
        }
        status_of(&head.headers)?;
        let whole = Limited::new(body, LONGEST).collect().await.map_err(|error| error.to_string())?;
        if let Some(trailers) = whole.trailers() {
            status_of(trailers)?;
        }
        judge(&whole.to_bytes())
    };
    with_connection(answered, connection).await
}

/// `HealthCheckRequest { string service = 1 }` in a gRPC frame.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put(message);
    frame.freeze()
}

fn put_varint(into: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        into.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.put_u8(number as u8);
}

fn status_of(headers: &http::HeaderMap) -> Result<(), String> {
    match headers.get("grpc-status").map(|value| value.to_str().unwrap_or_default()) {
        None | Some("0") => Ok(()),
        Some("5") => Err("the service is not known there (gRPC status 5)".into()),
        Some("12") => Err("it answers no gRPC health checks (gRPC status 12)".into()),
        Some(code) => Err(format!("gRPC status {}", code.chars().take(3).collect::<String>())),
    }
}

/// `HealthCheckResponse { ServingStatus status = 1 }` in a gRPC frame.
fn judge(frame: &[u8]) -> Result<(), String> {
    let message = frame.get(5..).ok_or("an answer without a message")?;
    // The default, unknown, is left out on the wire.
    let status = match message {
        [] => 0,
        [8, status, ..] => u64::from(*status),
        _ => return Err("an answer that makes no sense".into()),
    };
    match status {
        SERVING => Ok(()),
        2 => Err("it says that it is not serving".into()),
        3 => Err("it says that it does not know the service".into()),
        _ => Err("it says that its health is unknown".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_grpc_has_them() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        let long = question(&"a".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 10, 0xac, 2]);
        assert_eq!(judge(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        for unhealthy in [
            &[0, 0, 0, 0, 0][..],
            &[0, 0, 0, 0, 2, 8, 2],
            &[0, 0, 0, 0, 2, 8, 3],
            &[0],
            &[],
            &[0, 0, 0, 0, 2, 9, 1],
        ] {
            assert!(judge(unhealthy).is_err(), "{unhealthy:?}");
        }
    }
}
