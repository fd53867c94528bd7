//! What tells gRPC from other HTTP, and how its calls end.

use http::{HeaderMap, header::CONTENT_TYPE};

/// Whether a message is gRPC: `application/grpc`, with or without `+proto` and the like.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let rest = value.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The status of a call: in the trailers of its response, or in the headers of one without a body.
#[must_use]
pub fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    let text = fields.get("grpc-status")?.to_str().ok()?;
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
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
        for (value, wanted) in [("0", Some(0)), ("14", Some(14)), ("", None), ("+1", None), ("70000", None)] {
            assert_eq!(grpc_status(&map("grpc-status", value)), wanted, "{value}");
        }
        assert_eq!(grpc_status(&HeaderMap::new()), None);
    }
}
