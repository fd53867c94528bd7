//! One incoming request: normalise, decide, forward.

use std::rc::Rc;

use http::{HeaderValue, Request, Uri, Version, header::HOST, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use weft_core::{
    context::{PolicyInput, PolicyRequest},
    name::RuleName,
    table::Decision,
};

use super::{
    forward,
    record::{Answer, Report},
    target::{Serving, Upstream},
};
use crate::{
    fault::Fault,
    headers::{self, RequestId, Survey, TraceContext},
    http::{
        body::{Body, Received},
        upgrade,
    },
    normalise::{EncodedSlash, normalise_uri},
};

/// A refusal and the rule behind it.
type Refusal = (Fault, Option<RuleName>);

/// Answers one request. Whatever goes wrong is an answer too.
pub(crate) async fn handle(upstream: Rc<Upstream>, request: Request<Incoming>) -> Answer {
    let (mut parts, body) = request.into_parts();
    let mut report = Report::new(upstream.clone(), parts.version, parts.method.clone());
    let upgrade = (parts.version == Version::HTTP_11).then(|| upgrade::wanted(&parts.headers)).flatten();
    let serving = match prepare(&upstream, &mut parts, &mut report) {
        Ok(serving) => serving,
        Err((fault, rule)) => return report.refuse(fault, rule.as_ref()),
    };
    report.serving = Some(serving.clone());
    let body = match body.is_end_stream() {
        true => Body::Empty,
        false => Body::Counted(body, report.received.insert(Received::default()).clone()),
    };
    if let Some(wanted) = upgrade {
        upgrade::restore(&mut parts.headers, wanted);
        let mut request = Request::from_parts(parts, body);
        let caller = hyper::upgrade::on(&mut request);
        return match Box::pin(forward::switch(&upstream, &serving, caller, request)).await {
            Ok(response) => report.answer(response),
            Err(fault) => report.refuse(fault, None),
        };
    }
    parts.extensions.clear();
    match forward::forward(&serving, Request::from_parts(parts, body)).await {
        Ok(response) => report.answer(response),
        Err(fault) => report.refuse(fault, None),
    }
}

/// Checks and decides, then edits the request in place.
fn prepare(upstream: &Upstream, parts: &mut Parts, report: &mut Report) -> Result<Rc<Serving>, Refusal> {
    let fault = |fault| (fault, None);
    let survey = Survey::of(&parts.headers);
    report.grpc = headers::is_grpc(&parts.headers);
    report.host = host_value(parts);
    let serving = upstream.serving().ok_or((Fault::NotHere, None))?;
    report.serving = Some(serving.clone());
    let slashes = if serving.layer_7 { EncodedSlash::Refuse } else { EncodedSlash::Keep };
    normalise_uri(&mut parts.uri, slashes).map_err(fault)?;
    report.uri = parts.uri.clone();
    headers::admit(parts, survey).map_err(fault)?;
    if !upstream.is_trusted() {
        return Err(fault(Fault::Untrusted));
    }
    let request = PolicyRequest { method: &parts.method, path: parts.uri.path() };
    let identity = &upstream.caller.source.identity;
    let input = PolicyInput { identity, port: upstream.target.port, request: Some(request) };
    match serving.port.authorization.decide(&input) {
        Decision::Allowed(rule) => report.verdict.rule = rule,
        Decision::Denied(rule) | Decision::NotAllowed(rule) => {
            report.verdict.rule = Some(rule.clone());
            return Err((Fault::Denied, Some(rule)));
        }
    }
    headers::clean_request(&mut parts.headers, survey);
    upstream.forwarded.apply(&mut parts.headers, survey, report.host.clone());
    report.request_id = Some(RequestId::ensure(&mut parts.headers, survey));
    report.trace = Some(TraceContext::advance(&mut parts.headers, survey));
    if serving.plain.is_none() {
        to_http1(parts, report);
    }
    Ok(serving)
}

fn host_value(parts: &Parts) -> Option<HeaderValue> {
    match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(HOST).cloned(),
    }
}

/// HTTP/1.1 names the host in Host, and the path alone in the request line.
fn to_http1(parts: &mut Parts, report: &Report) {
    if parts.uri.authority().is_some() {
        let path = parts.uri.path_and_query().cloned();
        parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        if let Some(host) = report.host.clone() {
            parts.headers.insert(HOST, host);
        }
    }
    if parts.version != Version::HTTP_10 {
        parts.version = Version::HTTP_11;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// Each request under way costs this much, and it is moved when it is spawned.
    #[test]
    fn a_request_stays_small() {
        let size = size_of_future(handle);
        assert!(size <= LIMIT, "{size}");
    }

    const LIMIT: usize = 2432;
}
