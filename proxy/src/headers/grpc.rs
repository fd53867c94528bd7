//! What tells gRPC from other HTTP, and how its calls end.

use http::{HeaderMap, header::CONTENT_TYPE};

/// Whether a message is gRPC: `application/grpc`, with or without `+proto` and the like.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let rest = value.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// gRPC's highest status code (<https://grpc.io/docs/guides/status-codes/>).
const UNAUTHENTICATED: u16 = 16;
/// What every code that gRPC does not define means.
const UNKNOWN: u16 = 2;

/// The status of a call: in the trailers of its response, or in the headers of one without a body. A code that gRPC does
/// not define is `UNKNOWN`, as it is to gRPC's own clients: an application must not make as many series as it likes.
#[must_use]
pub fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    let text = fields.get("grpc-status")?.to_str().ok()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().ok().filter(|status| *status <= UNAUTHENTICATED).unwrap_or(UNKNOWN))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (value, wanted) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&map("content-type", value)), wanted, "{value}");
        }
    }

    #[test]
    fn the_status_is_a_number() {
        for (value, wanted) in
            [("0", Some(0)), ("14", Some(14)), ("", None), ("+1", None), ("17", Some(2)), ("70000", Some(2))]
        {
            assert_eq!(grpc_status(&map("grpc-status", value)), wanted, "{value}");
        }
        assert_eq!(grpc_status(&HeaderMap::new()), None);
    }
}
