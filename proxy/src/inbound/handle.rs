//! One incoming request: normalise, decide, forward.

use std::{cell::Cell, pin::pin, rc::Rc};

use http::{
    Request, StatusCode, Uri, Version,
    header::{EXPECT, HOST},
    request::Parts,
};
use weft_core::{context::PolicyRequest, name::RuleName, table::Decision};

use super::{
    forward,
    record::{Answer, Report},
    target::{Serving, Upstream},
};
use crate::{
    fault::Fault,
    headers::{self, RequestId, Survey, TraceContext},
    http::{
        body::{Arriving, Body, Received},
        expect, upgrade,
    },
    normalise::{EncodedSlash, normalise_uri},
    signal::until_closing,
};

/// A refusal and the rule behind it.
type Refusal = (Fault, Option<RuleName>);

/// Answers one request. Whatever goes wrong is an answer too.
pub(crate) async fn handle(upstream: Rc<Upstream>, request: Request<Arriving>) -> Answer {
    let (drain, decided) = (&upstream.worker.drain, upstream.worker.decisions.value());
    let (mut parts, body) = request.into_parts();
    let is_http1 = parts.version < Version::HTTP_2;
    let mut report = Report::new(upstream.clone(), parts.version, parts.method.clone());
    let upgrade = (parts.version == Version::HTTP_11).then(|| upgrade::wanted(&parts.headers)).flatten();
    let serving = match prepare(&upstream, &mut parts, &mut report) {
        Ok(serving) => serving,
        Err((fault, rule)) => return report.refuse(fault, rule.as_ref()),
    };
    report.serving = Some(serving.clone());
    let body = match body.is_end_stream() {
        true => Body::Empty,
        false => Body::Counted(body, report.seen.received.insert(Received::default()).clone()),
    };
    if let Some(wanted) = upgrade {
        upgrade::restore(&mut parts.headers, wanted);
        let mut request = Request::from_parts(parts, body);
        let caller = hyper::upgrade::on(&mut request);
        // Whoever carries the bytes has the last word on the request.
        let switched = Rc::new(Cell::new(None::<Box<Report>>));
        let report_to = switched.clone();
        let at_end = move |carried| {
            if let Some(report) = report_to.take() {
                report.end_switch(carried);
            }
        };
        let switching = forward::switch(&upstream, &serving, caller, request, decided, at_end);
        let outcome = until_closing(drain, true, Box::pin(switching).as_mut()).await;
        return match outcome.unwrap_or(Err(Fault::Drained)) {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let (answer, report) = report.switch(response);
                switched.set(Some(report));
                answer
            }
            outcome => report.conclude(outcome),
        };
    }
    parts.extensions.clear();
    let request = match serving.plain {
        None => expect::hold(Request::from_parts(parts, body)),
        // No 100 comes back by HTTP/2: the caller is told to go on as soon as its body is asked for.
        Some(_) => {
            parts.headers.remove(EXPECT);
            Request::from_parts(parts, body)
        }
    };
    let forwarding = pin!(forward::forward(&serving, request));
    let outcome = until_closing(drain, is_http1, forwarding).await;
    report.conclude(outcome.unwrap_or(Err(Fault::Drained)))
}

/// Checks and decides, then edits the request in place.
fn prepare(upstream: &Upstream, parts: &mut Parts, report: &mut Report) -> Result<Rc<Serving>, Refusal> {
    let fault = |fault| (fault, None);
    let survey = Survey::of(&parts.headers);
    report.seen.grpc = headers::is_grpc(&parts.headers);
    report.seen.host = headers::named_host(parts);
    let serving = upstream.serving().ok_or((Fault::NotHere, None))?;
    report.serving = Some(serving.clone());
    let slashes = if serving.layer_7 { EncodedSlash::Refuse } else { EncodedSlash::Keep };
    normalise_uri(&mut parts.uri, slashes).map_err(fault)?;
    report.seen.uri = parts.uri.clone();
    headers::admit(parts, survey).map_err(fault)?;
    // Before the decision: a denial has a record too, to be joined with the caller's.
    report.seen.request_id = Some(RequestId::ensure(&mut parts.headers, survey));
    report.seen.trace = Some(TraceContext::advance(&mut parts.headers, survey));
    if !upstream.is_trusted() {
        return Err(fault(Fault::Untrusted));
    }
    let request = PolicyRequest { method: &parts.method, path: parts.uri.path() };
    match upstream.decide(&serving, Some(request)) {
        Decision::Allowed(rule) => report.seen.verdict.rule = rule,
        Decision::Denied(rule) | Decision::NotAllowed(rule) => {
            report.seen.verdict.rule = Some(rule.clone());
            return Err((Fault::Denied, Some(rule)));
        }
    }
    headers::clean_request(&mut parts.headers, survey);
    upstream.forwarded.apply(&mut parts.headers, survey, report.seen.host.clone());
    if serving.plain.is_none() {
        to_http1(parts, report);
    }
    Ok(serving)
}

/// HTTP/1.1 names the host in Host, and the path alone in the request line.
fn to_http1(parts: &mut Parts, report: &Report) {
    if parts.uri.authority().is_some() {
        let path = parts.uri.path_and_query().cloned();
        parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        if let Some(host) = report.seen.host.clone() {
            parts.headers.insert(HOST, host);
        }
    }
    if parts.version != Version::HTTP_10 {
        parts.version = Version::HTTP_11;
    }
    headers::fit_http1(&mut parts.headers);
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
