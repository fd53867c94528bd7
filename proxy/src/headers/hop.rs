//! Fields that concern one connection only, and fields that only agents may set.

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
    },
};

use super::{
    Seen, Survey,
    survey::{is_client_certificate, is_ours},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Takes from a request what concerns the connection it came on (RFC 9110 §7.6.1) and what speaks in our name.
/// `te: trailers` stays, and is all that stays of `te`: gRPC needs it.
///
/// Do it before adding anything: a field that `connection` names goes too, whoever added it.
pub fn clean_request(headers: &mut HeaderMap, survey: Survey) {
    if survey.has(Seen::Te) {
        let wants_trailers = names(headers, &TE, "trailers");
        headers.remove(TE);
        remove_hop_by_hop(headers, survey);
        if wants_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    } else {
        remove_hop_by_hop(headers, survey);
    }
    if survey.has(Seen::Ours) {
        remove_all(headers, is_ours);
    }
    if survey.has(Seen::ClientCertificate) {
        remove_all(headers, is_client_certificate);
    }
}

/// Takes from a response what concerns its connection, and a length where there must be none. What speaks in our name is
/// taken if the response is an `application`'s and left if it is another agent's.
pub fn clean_response<B>(response: &mut Response<B>, application: bool) {
    let status = response.status();
    let headers = response.headers_mut();
    let survey = Survey::of(headers);
    remove_hop_by_hop(headers, survey);
    // RFC 9110 §8.6; callers of HTTP/2 reset the stream for it.
    if survey.has(Seen::ContentLength) && (status == StatusCode::NO_CONTENT || status.is_informational()) {
        headers.remove(CONTENT_LENGTH);
    }
    // It means nothing in a response, and would be a fault of the stream in HTTP/2.
    if survey.has(Seen::Te) {
        headers.remove(TE);
    }
    if application && survey.has(Seen::Ours) {
        remove_all(headers, is_ours);
    }
}

/// Takes from trailers what must not stand there (RFC 9110 §6.5.1): what frames, routes or authorizes a message, says how
/// to read or keep it, tells where it came from, or speaks in our name.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers, Survey::of(trailers));
    remove_all(trailers, is_claim);
}

/// Whether a field would say in trailers what has been decided without them.
fn is_claim(name: &str) -> bool {
    let claims = matches!(
        name,
        "authorization"
            | "cache-control"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "host"
            | "max-forwards"
            | "set-cookie"
            | "te"
            | "trailer"
            | "vary"
            | "www-authenticate"
    );
    claims || is_ours(name) || is_client_certificate(name) || name.starts_with("x-forwarded-")
}

fn remove_hop_by_hop(headers: &mut HeaderMap, survey: Survey) {
    if survey.has(Seen::Connection) {
        remove_named(headers);
    }
    if survey.has(Seen::Hop) {
        let names = [KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION];
        for name in names {
            headers.remove(name);
        }
    }
    if survey.has(Seen::TransferEncoding) {
        headers.remove(TRANSFER_ENCODING);
    }
    if survey.has(Seen::Upgrade) {
        headers.remove(UPGRADE);
    }
}

/// Removes `connection` and every field that it names. Fields meant for all recipients are not a connection's to name:
/// a caller could hide them from the application that way.
fn remove_named(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(CONNECTION) {
        let tokens = value.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii);
        named.extend(tokens.filter(|token| !is_option(token)).filter_map(|t| HeaderName::from_bytes(t).ok()));
    }
    headers.remove(CONNECTION);
    for name in named.iter().filter(|name| !is_end_to_end(name)) {
        headers.remove(name);
    }
}

fn is_option(token: &[u8]) -> bool {
    token.is_empty()
        || [&b"close"[..], b"keep-alive", b"upgrade"].iter().any(|o| token.eq_ignore_ascii_case(o))
}

fn is_end_to_end(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, CONTENT_TYPE, AUTHORIZATION, COOKIE, CACHE_CONTROL].contains(name)
        || name.as_str().starts_with("x-forwarded-")
}

fn remove_all(headers: &mut HeaderMap, is_one: fn(&str) -> bool) {
    let found: Vec<_> = headers.keys().filter(|name| is_one(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Whether `wanted` stands in a list of tokens, in however many fields that comes.
pub(crate) fn names(headers: &HeaderMap, list: &HeaderName, wanted: &str) -> bool {
    let mut tokens = headers.get_all(list).iter().flat_map(|value| value.as_bytes().split(|&b| b == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn cleaned(fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = map(fields);
        let survey = Survey::of(&headers);
        clean_request(&mut headers, survey);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        left.sort();
        left
    }

    #[test]
    fn requests_lose_what_is_not_for_the_next_hop() {
        let none: [&str; 0] = [];
        assert_eq!(cleaned(&[("connection", "close")]), none);
        assert_eq!(
            cleaned(&[("connection", "X-Secret, keep-alive"), ("x-secret", "1"), ("a", "2")]),
            ["a=2"]
        );
        assert_eq!(cleaned(&[("keep-alive", "1"), ("proxy-connection", "1"), ("upgrade", "h2c")]), none);
        assert_eq!(cleaned(&[("transfer-encoding", "chunked"), ("proxy-authorization", "x")]), none);
        assert_eq!(cleaned(&[("connection", "upgrade, http2-settings"), ("http2-settings", "x")]), none);
    }

    #[test]
    fn te_keeps_trailers_only() {
        assert_eq!(cleaned(&[("te", "trailers")]), ["te=trailers"]);
        assert_eq!(cleaned(&[("te", "gzip, Trailers"), ("connection", "te")]), ["te=trailers"]);
        assert!(cleaned(&[("te", "gzip")]).is_empty());
    }

    #[test]
    fn a_connection_cannot_hide_end_to_end_fields() {
        let fields =
            [("connection", "host, x-forwarded-for, authorization"), ("host", "a"), ("authorization", "b")];
        assert_eq!(cleaned(&fields), ["authorization=b", "host=a"]);
    }

    #[test]
    fn trailers_change_nothing_that_was_decided() {
        let fields = [
            ("x-sum", "1"),
            ("grpc-status", "0"),
            ("content-length", "2"),
            ("host", "a"),
            ("x-weft-fault", "b"),
            ("te", "c"),
            ("x-forwarded-for", "d"),
            ("x-weft_rule", "e"),
            ("set-cookie", "f"),
        ];
        let mut trailers = map(&fields);
        clean_trailers(&mut trailers);
        assert_eq!(
            trailers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["x-sum", "grpc-status"]
        );
    }

    #[test]
    fn nobody_speaks_in_our_name() {
        let fields =
            [("x-weft-fault", "a"), ("x-weft-fault", "b"), ("x-forwarded-client-cert", "c"), ("d", "e")];
        assert_eq!(cleaned(&fields), ["d=e"]);
        let other_spellings = [
            ("x_weft_rule", "a"),
            ("x-weft_rule", "b"),
            ("x_forwarded-client_cert", "c"),
            ("x-weftless", "d"),
            ("x_wefty", "e"),
        ];
        assert_eq!(cleaned(&other_spellings), ["x-weftless=d", "x_wefty=e"]);
    }

    #[test]
    fn an_agents_response_keeps_the_name_of_its_fault() {
        for (application, left) in [(true, 0), (false, 1)] {
            let mut response = Response::new(());
            *response.headers_mut() = map(&[("x-weft-fault", "connect_refused"), ("connection", "close")]);
            clean_response(&mut response, application);
            assert_eq!(response.headers().len(), left);
        }
    }

    #[test]
    fn an_answer_that_has_no_body_has_no_length() {
        for (status, left) in
            [(StatusCode::NO_CONTENT, 0), (StatusCode::NOT_MODIFIED, 1), (StatusCode::OK, 1)]
        {
            let mut response = Response::new(());
            *response.status_mut() = status;
            *response.headers_mut() = map(&[("content-length", "5")]);
            clean_response(&mut response, true);
            assert_eq!(response.headers().len(), left, "{status}");
        }
    }
}
