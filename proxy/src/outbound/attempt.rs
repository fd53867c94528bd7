//! The attempt loop: pick an endpoint, send, and try again what may be tried again.
//!
//! Retried whatever the method: what no application saw (never dispatched, refused in the hello, REFUSED_STREAM, GOAWAY
//! below it). All else only when it is idempotent or declared to be, and only while the request's body can be sent again.

use std::{
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode, Version};
use weft_core::table::{CompiledRouteRule, EndpointSet, EndpointState};

use super::{Downstream, http1, is_plain, record::Report};
use crate::{
    balance::{self, Picked},
    clock::milliseconds,
    fault::{self, Fault, RetryRule},
    headers::{self, Survey},
    http::{body::Body, upgrade},
    resilience::{Attempt, Cause, HealthSettings, Observation, observe},
};

/// How often a request that was never dispatched is put on another connection without counting as tried.
const REDISPATCHES: u8 = 5;

/// What one try came to.
enum Tried {
    /// A response that is passed on.
    Answered(Response<Body>),
    /// A fault, with what is left of the request's body, and the response that names it, if there was one.
    Failed { fault: Fault, body: Body, response: Option<Response<Body>> },
}

/// Sends the request until there is a response, or no reason to try again. `single` asks for HTTP/1 from end to end.
///
/// # Errors
/// The fault of the last try.
pub(crate) async fn run(
    downstream: &Rc<Downstream>,
    head: Request<()>,
    body: Body,
    single: bool,
    report: &mut Report,
) -> Result<Response<Body>, Fault> {
    let Some(rule) = report.routed.as_ref().map(|routed| routed.rule.clone()) else {
        return Err(Fault::Internal);
    };
    match rule.request_timeout {
        None => attempts(downstream, &rule, head, body, single, report).await,
        Some(limit) => {
            // Pinned here and lent: moving a future of kilobytes costs more than starting the timer.
            let attempts = pin!(attempts(downstream, &rule, head, body, single, report));
            tokio::time::timeout(limit, attempts).await.unwrap_or(Err(Fault::ResponseTimeout))
        }
    }
}

async fn attempts(
    downstream: &Rc<Downstream>,
    rule: &CompiledRouteRule,
    head: Request<()>,
    mut body: Body,
    single: bool,
    report: &mut Report,
) -> Result<Response<Body>, Fault> {
    let target = rule.target(|total| fastrand::u32(..total)).ok_or(Fault::NoBackend)?;
    let set = target.endpoints.clone();
    let budget = downstream.worker.budgets.of(&target.service);
    let mut now = milliseconds(Instant::now());
    budget.deposit(now);
    let mut attempt = Attempt::new(head.method(), rule.retries);
    let mut tried: Vec<Arc<EndpointState>> = Vec::new();
    let mut redispatches = 0;
    loop {
        let picked = report.picked.insert(balance::pick(&set, &tried, now).ok_or(Fault::NoEndpoint)?);
        report.attempts = report.attempts.saturating_add(1);
        let outcome = send(downstream, picked, rule, head.clone(), body, single).await;
        now = milliseconds(Instant::now());
        let (fault, response) = match outcome {
            Tried::Answered(response) => {
                let observation = Observation::of_response(response.status().as_u16(), None);
                note(&set, picked, observation, now);
                return Ok(response);
            }
            Tried::Failed { fault, body: left, response } => {
                body = left;
                (fault, response)
            }
        };
        note(&set, picked, Observation::of_fault(fault), now);
        // A connection that went just before it was used says nothing of the endpoint.
        if fault == Fault::NotDispatched && redispatches < REDISPATCHES {
            redispatches += 1;
        } else {
            attempt.begin();
            tried.push(picked.upstream().state.clone());
        }
        match attempt.again(Cause::Fault(fault), rewind(&mut body), budget) {
            Ok(Duration::ZERO) => {}
            Ok(wait) => tokio::time::sleep(wait).await,
            Err(_) => return response.map_or(Err(fault), Ok),
        }
    }
}

/// Takes note of what a try said of its endpoint.
fn note(set: &EndpointSet, picked: &Picked, observation: Observation, now: u64) {
    if let Some(pause) = observe(&HealthSettings::default(), set, picked, observation, now) {
        tracing::info!(instance = %picked.endpoint.instance, ?pause, "an endpoint is left alone");
    }
}

/// Whether the body can be sent from its start.
fn rewind(body: &mut Body) -> bool {
    match body {
        Body::Empty => true,
        Body::Replay(replay) => replay.rewind(),
        _ => false,
    }
}

/// One try on one endpoint. What is rare lies behind a box, so that the common way stays small: every connection of
/// HTTP/1 keeps room for one such future.
async fn send(
    downstream: &Rc<Downstream>,
    picked: &Picked,
    rule: &CompiledRouteRule,
    mut head: Request<()>,
    body: Body,
    single: bool,
) -> Tried {
    let worker = &downstream.worker;
    if is_plain(picked.upstream()) {
        return Box::pin(plain(downstream, picked, rule, head, body)).await;
    }
    if single {
        let (parts, ()) = head.into_parts();
        let request = Request::from_parts(parts, body);
        // Boxed as the way that few requests go: it would make the future of every request five times as large.
        let sending = Box::pin(http1::send(downstream, picked.upstream(), rule.connect_timeout, request));
        return match sending.await {
            Ok(response) => answered(response.map(Body::Incoming), Some(Body::Full(None))),
            Err((fault, body)) => Tried::Failed { fault, body, response: None },
        };
    }
    let origin = worker.pool.mesh(&downstream.role.caller, picked.upstream());
    let lease = match origin.lease(rule.connect_timeout).await {
        Ok(lease) => lease,
        Err(fault) => return Tried::Failed { fault, body, response: None },
    };
    if head.uri().authority().is_none() {
        // Lets the relative URI pass as it is, with Host in place of :authority (RFC 9113 §8.3.1).
        *head.version_mut() = Version::HTTP_11;
    }
    match lease.send(head, body).await {
        Ok((response, body)) => answered(response.map(Body::Mesh), body),
        Err(failure) => Tried::Failed { fault: failure.fault, body: failure.body, response: None },
    }
}

/// Reads another agent's response: one that names a fault may be tried elsewhere.
fn answered(mut response: Response<Body>, body: Option<Body>) -> Tried {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let wanted = switched.then(|| upgrade::wanted(response.headers())).flatten();
    let survey = Survey::of(response.headers());
    headers::clean_response(response.headers_mut(), survey, false);
    if let Some(wanted) = wanted {
        upgrade::restore(response.headers_mut(), wanted);
    }
    match fault::named(response.headers()) {
        Some(fault) if fault.facts().retry != RetryRule::Never => {
            let body = body.unwrap_or(Body::Full(None));
            Tried::Failed { fault, body, response: Some(response) }
        }
        _ => Tried::Answered(response),
    }
}

/// One try on an application outside the mesh.
async fn plain(
    downstream: &Rc<Downstream>,
    picked: &Picked,
    rule: &CompiledRouteRule,
    head: Request<()>,
    body: Body,
) -> Tried {
    let pool = downstream.worker.app(picked.endpoint.address);
    let (parts, ()) = head.into_parts();
    let mut request = Request::from_parts(parts, body);
    *request.version_mut() = Version::HTTP_11;
    let connection = match pool.take() {
        Some(connection) => connection,
        None => match pool.connect(rule.connect_timeout).await {
            Ok(connection) => connection,
            Err(fault) => return Tried::Failed { fault, body: request.into_body(), response: None },
        },
    };
    match connection.send(request).await {
        Ok(response) => {
            let mut response = response.map(Body::Application);
            let survey = Survey::of(response.headers());
            headers::clean_response(response.headers_mut(), survey, true);
            Tried::Answered(response)
        }
        Err(failure) => {
            let body = failure.request.map_or(Body::Full(None), |request| request.into_body());
            Tried::Failed { fault: failure.fault, body, response: None }
        }
    }
}
