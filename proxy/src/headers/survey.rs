//! One look at the names of all fields, so that nothing is looked up that is not there.

use http::HeaderMap;

/// A field, or group of fields, that the proxy treats specially.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Seen {
    /// `host`.
    Host = 1,
    /// `connection`.
    Connection = 1 << 1,
    /// `keep-alive`, `proxy-connection`, `proxy-authenticate`, `proxy-authorization`, `http2-settings`.
    Hop = 1 << 2,
    /// `te`.
    Te = 1 << 3,
    /// `transfer-encoding`.
    TransferEncoding = 1 << 4,
    /// `upgrade`.
    Upgrade = 1 << 5,
    /// `content-length`.
    ContentLength = 1 << 6,
    /// `x-weft-…`, however spelt.
    Ours = 1 << 7,
    /// `x-forwarded-client-cert`, however spelt.
    ClientCertificate = 1 << 8,
    /// `x-forwarded-for`.
    ForwardedFor = 1 << 9,
    /// `x-forwarded-proto`.
    ForwardedProto = 1 << 10,
    /// `x-forwarded-host`.
    ForwardedHost = 1 << 11,
    /// `x-request-id`.
    RequestId = 1 << 12,
    /// `traceparent`.
    TraceParent = 1 << 13,
    /// `tracestate`.
    TraceState = 1 << 14,
    /// `expect`.
    Expect = 1 << 15,
    /// `content-type`.
    ContentType = 1 << 16,
}

/// Which of the special fields a message has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    seen: u32,
    repeated: bool,
}

impl Survey {
    /// Looks through the names.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let seen = headers.keys().fold(0, |seen, name| seen | classify(name.as_str()));
        Self { seen, repeated: headers.len() != headers.keys_len() }
    }

    /// Whether the field is there.
    #[must_use]
    pub fn has(self, field: Seen) -> bool {
        self.seen & field as u32 != 0
    }

    /// Whether any field has more than one line.
    #[must_use]
    pub fn has_repeated(self) -> bool {
        self.repeated
    }
}

fn classify(name: &str) -> u32 {
    let seen = match name.as_bytes().first() {
        Some(b'h') => match name {
            "host" => Seen::Host,
            "http2-settings" => Seen::Hop,
            _ => return 0,
        },
        Some(b'c') => match name {
            "connection" => Seen::Connection,
            "content-length" => Seen::ContentLength,
            "content-type" => Seen::ContentType,
            _ => return 0,
        },
        Some(b't') => match name {
            "te" => Seen::Te,
            "transfer-encoding" => Seen::TransferEncoding,
            "traceparent" => Seen::TraceParent,
            "tracestate" => Seen::TraceState,
            _ => return 0,
        },
        Some(b'x') => match name {
            "x-forwarded-for" => Seen::ForwardedFor,
            "x-forwarded-proto" => Seen::ForwardedProto,
            "x-forwarded-host" => Seen::ForwardedHost,
            "x-forwarded-client-cert" => Seen::ClientCertificate,
            "x-request-id" => Seen::RequestId,
            _ if is_ours(name) => Seen::Ours,
            _ if is_client_certificate(name) => Seen::ClientCertificate,
            _ => return 0,
        },
        Some(b'k' | b'p') => match name {
            "keep-alive" | "proxy-connection" | "proxy-authenticate" | "proxy-authorization" => Seen::Hop,
            _ => return 0,
        },
        Some(b'u') if name == "upgrade" => Seen::Upgrade,
        Some(b'e') if name == "expect" => Seen::Expect,
        _ => return 0,
    };
    seen as u32
}

/// Whether a field speaks in our name. CGI and what descends from it (RFC 3875 §4.1.18) turn `-` into `_`, so an
/// application there reads `x_weft_rule` as `x-weft-rule`.
pub(super) fn is_ours(name: &str) -> bool {
    matches!(name.as_bytes(), [b'x', b'-' | b'_', b'w', b'e', b'f', b't', b'-' | b'_', ..])
}

/// Whether a field says whose certificate a caller had, by its name or by one that an application takes for it.
pub(super) fn is_client_certificate(name: &str) -> bool {
    const NAME: &str = "x-forwarded-client-cert";
    let spelt_out = |byte| if byte == b'_' { b'-' } else { byte };
    name.len() == NAME.len() && name.bytes().map(spelt_out).eq(NAME.bytes())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn finds_what_is_there_and_nothing_else() {
        let mut headers = HeaderMap::new();
        for name in ["host", "accept", "x-weft-fault", "x-forwarded-for-real", "traceparent", "user-agent"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        let survey = Survey::of(&headers);
        for field in [Seen::Host, Seen::Ours, Seen::TraceParent] {
            assert!(survey.has(field), "{field:?}");
        }
        for field in [Seen::ForwardedFor, Seen::Upgrade, Seen::Connection, Seen::TraceState] {
            assert!(!survey.has(field), "{field:?}");
        }
        assert!(!survey.has_repeated());
        headers.append("accept", HeaderValue::from_static("2"));
        assert!(Survey::of(&headers).has_repeated());
    }
}
