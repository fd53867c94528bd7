//! How a fault is told to the caller, and read again by the agent on the other side.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use weft_core::name::RuleName;

use super::Fault;

/// Names the fault that a response stands for.
pub const FAULT_HEADER: HeaderName = HeaderName::from_static("x-weft-fault");
/// Names the policy rule that refused the request.
pub const RULE_HEADER: HeaderName = HeaderName::from_static("x-weft-rule");

/// In seconds: what is not ready is on its way.
const SOON: HeaderValue = HeaderValue::from_static("1");

/// The response that tells the caller of a fault.
///
/// A gRPC caller gets status 200 and `grpc-status`, as trailers in the header ("Trailers-Only"). With `named` off, neither
/// header nor text say more than the status does.
#[must_use]
pub fn respond(fault: Fault, rule: Option<&RuleName>, grpc: bool, named: bool) -> Response<Bytes> {
    let facts = fault.facts();
    let text = match (named, rule) {
        (false, _) => String::new(),
        (true, None) => format!("weft: {} ({})", fault.text(), fault.label()),
        (true, Some(rule)) => format!("weft: {} ({}, rule {rule})", fault.text(), fault.label()),
    };
    let mut response = if grpc { trailers_only(fault, &text) } else { plain(facts.status, text) };
    if fault == Fault::NotReady {
        response.headers_mut().insert(RETRY_AFTER, SOON);
    }
    if named {
        let headers = response.headers_mut();
        headers.insert(FAULT_HEADER, HeaderValue::from_static(fault.label()));
        if let Some(value) = rule.and_then(|rule| HeaderValue::from_str(rule.as_str()).ok()) {
            headers.insert(RULE_HEADER, value);
        }
    }
    response
}

fn plain(status: u16, mut text: String) -> Response<Bytes> {
    if !text.is_empty() {
        text.push('\n');
    }
    let length = text.len();
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONTENT_LENGTH, length.into());
    response
}

/// gRPC over HTTP/2, "Responses": the message is percent-encoded, and ours is printable ASCII, so only `%` would change.
fn trailers_only(fault: Fault, text: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", (fault.facts().grpc as u16).into());
    if let Ok(message) = HeaderValue::from_str(&text.replace('%', "%25")) {
        headers.insert("grpc-message", message);
    }
    response
}

/// The fault that another agent named in its response. Only to be believed of an agent: what an application answers has
/// lost its headers of ours by [`strip`].
#[must_use]
pub fn named(headers: &HeaderMap) -> Option<Fault> {
    Fault::from_label(headers.get(FAULT_HEADER)?.to_str().ok()?)
}

/// The rule that another agent named in its response, to be believed as [`named`] is.
#[must_use]
pub fn named_rule(headers: &HeaderMap) -> Option<RuleName> {
    RuleName::new(headers.get(RULE_HEADER)?.to_str().ok()?).ok()
}

/// Takes the names of fault and rule from a response.
pub fn strip(headers: &mut HeaderMap) {
    headers.remove(FAULT_HEADER);
    headers.remove(RULE_HEADER);
}

#[cfg(test)]
mod tests {
    use super::{super::RetryRule, *};

    #[test]
    fn labels_are_unique_and_read_back() {
        for &fault in Fault::ALL {
            assert_eq!(Fault::from_label(fault.label()), Some(fault));
        }
        assert_eq!(Fault::from_label("nonsense"), None);
    }

    #[test]
    fn every_status_is_one_that_can_be_sent_and_an_error() {
        for &fault in Fault::ALL {
            let response = respond(fault, None, false, true);
            assert!(response.status().as_u16() >= 400, "{fault:?}");
            assert_eq!(named(response.headers()), Some(fault));
            assert_eq!(response.headers()[CONTENT_LENGTH], response.body().len().to_string().as_str());
        }
    }

    #[test]
    fn what_an_application_may_have_seen_is_never_always_safe() {
        use Fault::*;
        for fault in
            [ConnectionLost, PeerSilent, StreamReset, BadResponse, ResponseTimeout, ResponseCut, Drained]
        {
            assert_ne!(fault.facts().retry, RetryRule::Always, "{fault:?}");
        }
        for fault in [Denied, PeerDenied, ResponseCut, CallerGone, BadPath] {
            assert_eq!(fault.facts().retry, RetryRule::Never, "{fault:?}");
        }
    }

    #[test]
    fn a_denial_names_its_rule() {
        let rule = RuleName::new("static/only-web/0").unwrap();
        let response = respond(Fault::Denied, Some(&rule), false, true);
        assert_eq!(response.status(), 403);
        assert_eq!(named_rule(response.headers()), Some(rule));
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        assert_eq!(body, "weft: a policy refused it (denied, rule static/only-web/0)\n");
    }

    #[test]
    fn a_silent_agent_names_nothing() {
        let rule = RuleName::new("static/only-web/0").unwrap();
        let response = respond(Fault::Denied, Some(&rule), false, false);
        assert!(response.body().is_empty());
        assert!(!response.headers().keys().any(|name| name.as_str().starts_with("x-weft")));
    }

    #[test]
    fn who_comes_too_early_may_come_again() {
        let response = respond(Fault::NotReady, None, false, true);
        assert_eq!(
            (response.status().as_u16(), response.headers()[RETRY_AFTER].as_bytes()),
            (503, &b"1"[..])
        );
        assert!(!respond(Fault::NoDestination, None, false, true).headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn grpc_callers_get_a_grpc_status() {
        let response = respond(Fault::ResponseTimeout, None, true, true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        let denied = respond(Fault::Denied, Some(&RuleName::new("a%b").unwrap()), true, true);
        assert_eq!(denied.headers()["grpc-message"], "weft: a policy refused it (denied, rule a%25b)");
    }
}
