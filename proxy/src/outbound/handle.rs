//! One outgoing request: checks, destination, headers, and the answer.

use std::rc::Rc;

use http::{
    HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{EXPECT, HOST, UPGRADE},
    request::Parts,
};
use hyper::upgrade::OnUpgrade;

use super::{
    Downstream, attempt,
    record::{Answer, Report},
    route,
};
use crate::{
    dial::Grounds,
    executor::LocalExecutor,
    fault::Fault,
    headers::{self, RequestId, Survey, TraceContext},
    http::{
        body::{Arriving, Body, Received},
        replay::Replay,
        upgrade,
    },
    normalise::{EncodedSlash, normalise_uri},
};

/// Answers one request. Whatever goes wrong is an answer too.
pub(crate) async fn handle(downstream: Rc<Downstream>, mut request: Request<Arriving>) -> Answer {
    let decided = downstream.worker.decisions.value();
    let switch = wanted_switch(&mut request);
    let (mut parts, body) = request.into_parts();
    let single = switch.is_some()
        || parts.version == Version::HTTP_10
        || parts.version == Version::HTTP_11 && parts.headers.contains_key(EXPECT);
    let mut report = Report::new(downstream.clone(), parts.version, parts.method.clone());
    if let Err(fault) = prepare(&downstream, &mut parts, &mut report) {
        return report.refuse(fault);
    }
    let body = match body.is_end_stream() {
        true => Body::Empty,
        false => {
            let received = report.seen.received.insert(Received::default()).clone();
            Body::Replay(Box::new(Replay::new(body, received)))
        }
    };
    let mut head = Request::from_parts(parts, ());
    head.extensions_mut().clear();
    if let Some((wanted, _)) = &switch {
        upgrade::restore(head.headers_mut(), wanted.clone());
    }
    match attempt::run(&downstream, head, body, single, &mut report).await {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => match switch {
            Some((_, caller)) => carry_switched(&downstream, caller, response, decided, report),
            // Nobody asked for it.
            None => report.refuse(Fault::BadResponse),
        },
        Ok(response) => report.answer(response),
        Err(fault) => report.refuse(fault),
    }
}

/// What an HTTP/1.1 caller wants to switch to, and its connection when it does.
fn wanted_switch(request: &mut Request<Arriving>) -> Option<(HeaderValue, OnUpgrade)> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let wanted = upgrade::wanted(request.headers())?;
    Some((wanted, hyper::upgrade::on(request)))
}

/// Once the application has switched, its bytes and the caller's are carried as they are.
/// When trust changes after `decided`, the other agent must still be believed. It is recorded when it ends.
fn carry_switched(
    downstream: &Rc<Downstream>,
    caller: OnUpgrade,
    mut response: Response<Body>,
    decided: u32,
    report: Box<Report>,
) -> Answer {
    downstream.head.release();
    let grounds: Option<Grounds> = response.extensions_mut().remove();
    let protocol = response.headers().get(UPGRADE).cloned();
    let called = hyper::upgrade::on(&mut response);
    let (answer, report) = report.switch(response);
    let downstream = downstream.clone();
    let counted = downstream.worker.count();
    LocalExecutor.spawn(async move {
        let _counted = counted;
        let worker = &downstream.worker;
        let stop = worker.stop_by_trust(decided, grounds);
        if let Some(carried) = upgrade::carry(caller, called, protocol, stop).await {
            report.end_switch(carried);
        }
    });
    answer
}

/// Checks the request, finds out where it goes, and edits its headers in place.
fn prepare(downstream: &Downstream, parts: &mut Parts, report: &mut Report) -> Result<(), Fault> {
    let survey = Survey::of(&parts.headers);
    report.seen.grpc = headers::is_grpc(&parts.headers);
    report.seen.host = headers::named_host(parts);
    normalise_uri(&mut parts.uri, EncodedSlash::Keep)?;
    report.seen.uri = parts.uri.clone();
    let host = headers::admit(parts, survey)?;
    let routed = route::route(&downstream.worker.table.load(), &downstream.role, &host, parts)?;
    report.routed = Some(routed);
    drop(host);
    if parts.version < Version::HTTP_2 && parts.uri.authority().is_some() {
        to_origin_form(parts, report)?;
    }
    let headers = &mut parts.headers;
    headers::clean_request(headers, survey);
    report.seen.request_id = Some(RequestId::ensure(headers, survey));
    report.seen.trace = Some(TraceContext::advance(headers, survey));
    Ok(())
}

/// An absolute URI overrides Host (RFC 9112 §3.2.2), and only a proxy is asked with one.
fn to_origin_form(parts: &mut Parts, report: &Report) -> Result<(), Fault> {
    let path = parts.uri.path_and_query().cloned();
    parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    parts.headers.insert(HOST, report.seen.host.clone().ok_or(Fault::BadHost)?);
    Ok(())
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

    const LIMIT: usize = 3840;
}
