//! The attempt loop: pick an endpoint, send, and try again what may be tried again.
//!
//! Retried whatever the method: what no application saw (never dispatched, refused in the hello, REFUSED_STREAM, GOAWAY
//! below it). All else only when it is idempotent or declared to be, and only while the request's body can be sent again.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use http::{
    Request, Response, StatusCode, Version,
    header::{EXPECT, UPGRADE},
};
use tokio::time::sleep;
use weft_core::{
    resource::AppProtocol,
    table::{CompiledRouteRule, EndpointSet, Target},
    wire::Framing,
};

use super::{Downstream, framing, http1, is_plain, record::Report};
use crate::{
    balance::{self, Failures, Picked},
    clock::milliseconds,
    dial::Missed,
    fault::{self, Fault, RetryRule},
    headers,
    http::{
        body::Body,
        multiplexed::{MeshBody, StreamFailure},
        replay::Pace,
        upgrade,
    },
    resilience::{Attempt, Cause, HealthSettings, Observation, Refused, observe},
    signal::until_closing,
};

/// How often a request that was never dispatched is put on another connection without counting as tried.
const REDISPATCHES: u8 = 5;

/// What one try came to.
enum Tried {
    /// A response that is passed on, unless it is a gateway error that is to be tried again, with what is left of the
    /// request's body.
    Answered { response: Response<Body>, body: Body },
    /// A fault, with what is left of the request's body, and the response that names it, if there was one.
    Failed { missed: Missed, body: Body, response: Option<Response<Body>> },
}

impl Tried {
    fn failed((missed, body): (Missed, Body)) -> Self {
        Self::Failed { missed, body, response: None }
    }
}

/// Who answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Another agent, whose word is believed.
    Agent,
    /// The application itself.
    Application,
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
    let target = rule.target(|total| fastrand::u32(..total)).ok_or(Fault::NoBackend)?;
    let (drain, is_http1) = (&downstream.worker.drain, report.seen.version < Version::HTTP_2);
    let pace = match &body {
        Body::Replay(body) if rule.request_timeout.is_some() => Some(body.pace()),
        _ => None,
    };
    let outcome = {
        // Pinned here and lent: moving a future of kilobytes costs more than starting the timer.
        let attempts = pin!(attempts(downstream, &rule, target, head, body, single, report));
        let answered = pin!(until_closing(drain, is_http1, attempts));
        match rule.request_timeout {
            None => Some(answered.await),
            // Boxed, because few routes have a limit, and every request keeps room for what stands here.
            Some(limit) => Box::pin(within(limit, pace, answered)).await,
        }
    };
    let Some(outcome) = outcome else {
        let now = milliseconds(Instant::now());
        if let Some(picked) = blamed(report, rule.request_timeout, now) {
            note(&target.endpoints, picked, Observation::of_fault(Fault::ResponseTimeout), now);
        }
        return Err(Fault::ResponseTimeout);
    };
    outcome.unwrap_or(Err(Fault::Drained))
}

/// Whose fault it is that the time ran out: the endpoint's that was waited for, if it had at least half of the limit.
/// Nobody's if the next try was waited for, or had just begun: what others came to is noted already.
fn blamed(report: &Report, limit: Option<Duration>, now: u64) -> Option<&Picked> {
    let waited = Duration::from_millis(now.saturating_sub(report.asked_at?));
    report.picked.as_ref().filter(|_| limit.is_some_and(|limit| waited >= limit / 2))
}

/// What `future` comes to, unless it lets `limit` pass. The time in which the caller is waited for, by the `pace` of its
/// request, is its own affair, and the limit begins anew with what it sends.
async fn within<F: Future>(
    limit: Duration,
    pace: Option<Rc<Pace>>,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    let (mut late, mut turn) = (pin!(sleep(limit)), 0);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        if let Some((by_caller, turns)) = pace.as_ref().map(|pace| pace.poll(context)) {
            if by_caller {
                return Poll::Pending;
            }
            if turns != turn {
                turn = turns;
                late.as_mut().reset(tokio::time::Instant::now() + limit);
            }
        }
        late.as_mut().poll(context).map(|()| None)
    })
    .await
}

async fn attempts(
    downstream: &Rc<Downstream>,
    rule: &CompiledRouteRule,
    target: &Target,
    head: Request<()>,
    mut body: Body,
    single: bool,
    report: &mut Report,
) -> Result<Response<Body>, Fault> {
    let set = &target.endpoints;
    let budget = downstream.worker.budgets.of(&target.service);
    let mut now = milliseconds(Instant::now());
    budget.deposit(now);
    let mut attempt = Attempt::new(head.method(), rule.retries);
    let mut tried = Failures::default();
    let mut redispatches = 0;
    let protocol = report.routed.as_ref().map_or(AppProtocol::Http, |routed| routed.port.protocol);
    loop {
        let picked = report.picked.insert(balance::pick(set, &tried, now).ok_or(Fault::NoEndpoint)?);
        report.attempts = report.attempts.saturating_add(1);
        report.asked_at = Some(now);
        let outcome = send(downstream, picked, rule, protocol, head.clone(), body, single).await;
        report.asked_at = None;
        now = milliseconds(Instant::now());
        let (cause, met, observation, outcome) = match outcome {
            Tried::Answered { response, body: left } => {
                let observation = Observation::of_response(response.status().as_u16(), None);
                // A fault that another agent named, and that is not to be tried again, is no gateway error of an application.
                if observation == Observation::Success || fault::named(response.headers()).is_some() {
                    note(set, picked, observation, now);
                    return Ok(response);
                }
                body = left;
                (Cause::GatewayError, None, observation, Ok(response))
            }
            Tried::Failed { missed, body: left, response } => {
                if let Some(fault) = report.seen.broken() {
                    return Err(fault);
                }
                body = left;
                let observation = missed.observation();
                report.seen.verdict.rule = missed.rule;
                let met = response.is_none().then_some(missed.fault);
                (Cause::Fault(missed.fault), met, observation, response.ok_or(missed.fault))
            }
        };
        note(set, picked, observation, now);
        // A connection that went just before it was used says nothing of the endpoint.
        if cause == Cause::Fault(Fault::NotDispatched) && redispatches < REDISPATCHES {
            redispatches += 1;
        } else {
            attempt.begin();
            tried.note(picked.upstream(), met);
        }
        match attempt.again(cause, rewind(&mut body), budget) {
            Ok(wait) => {
                // Its connection is not to be held meanwhile.
                drop(outcome);
                if !wait.is_zero() {
                    sleep(wait).await;
                    now = milliseconds(Instant::now());
                }
            }
            Err(refused) => {
                report.exhausted = refused == Refused::Exhausted && report.attempts > 1;
                return outcome;
            }
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
    protocol: AppProtocol,
    head: Request<()>,
    body: Body,
    single: bool,
) -> Tried {
    // Boxed are the ways that few requests go: they would make the future of every request five times as large.
    if is_plain(picked.upstream()) {
        return Box::pin(plain(downstream, picked, rule, protocol, head, body, single)).await;
    }
    let state = &picked.upstream().state;
    let learnt = framing::learnt(state);
    if single {
        let framing = learnt.unwrap_or(Framing::Http1);
        return Box::pin(one_by_one(downstream, picked, rule, (framing, true), head, body)).await;
    }
    let (head, body) = match learnt {
        None => (head, body),
        Some(framing) => match Box::pin(as_learnt(downstream, picked, rule, framing, head, body)).await {
            Ok(tried) => return tried,
            Err(unsent) => unsent,
        },
    };
    let origin = downstream.worker.pool.mesh(&downstream.role.caller, picked.upstream());
    match origin.lease(rule.connect_timeout).await {
        Ok(lease) => shared_outcome(lease.send(shared_head(head), body).await, By::Agent),
        Err(Missed { framing: Some(framing @ (Framing::Http1 | Framing::Tcp)), .. }) => {
            framing::learn(state, framing);
            Box::pin(one_by_one(downstream, picked, rule, (framing, false), head, body)).await
        }
        Err(missed) => Tried::failed((missed, body)),
    }
}

/// One try in the framing that the agent asked for once. Gives the request back if it asks for the usual one now.
async fn as_learnt(
    downstream: &Rc<Downstream>,
    picked: &Picked,
    rule: &CompiledRouteRule,
    framing: Framing,
    head: Request<()>,
    body: Body,
) -> Result<Tried, (Request<()>, Body)> {
    match one_by_one(downstream, picked, rule, (framing, false), head.clone(), body).await {
        Tried::Failed { missed: Missed { framing: Some(Framing::Http2), .. }, body, .. } => Err((head, body)),
        tried => Ok(tried),
    }
}

/// The head of a request for a connection that many share.
fn shared_head(mut head: Request<()>) -> Request<()> {
    if head.uri().authority().is_none() {
        // Lets the relative URI pass as it is, with Host in place of :authority (RFC 9113 §8.3.1).
        *head.version_mut() = Version::HTTP_11;
    }
    head
}

/// What became of a request on a connection that many share.
fn shared_outcome(outcome: Result<(Response<MeshBody>, Option<Body>), StreamFailure>, by: By) -> Tried {
    match outcome {
        Ok((response, body)) => answered(response.map(Body::Mesh), body.unwrap_or(Body::Full(None)), by),
        Err(failure) => Tried::failed((failure.fault.into(), failure.body)),
    }
}

/// One try on a connection of its own to another agent, in a framing. `single` is a request that cannot go by HTTP/2.
async fn one_by_one(
    downstream: &Rc<Downstream>,
    picked: &Picked,
    rule: &CompiledRouteRule,
    (framing, single): (Framing, bool),
    mut head: Request<()>,
    body: Body,
) -> Tried {
    http1::to_http1(&mut head);
    let spent = spent(&body);
    let (parts, ()) = head.into_parts();
    let request = Request::from_parts(parts, body);
    match http1::send(downstream, picked.upstream(), rule.connect_timeout, framing, single, request).await {
        Ok((response, Framing::Tcp)) => answered(response.map(Body::Incoming), spent, By::Application),
        Ok((response, _)) => answered(response.map(Body::Incoming), spent, By::Agent),
        Err((missed, body)) => Tried::failed((missed, kept(body, spent))),
    }
}

/// What is left of a body once it was handed on for good: an empty one is as good as before.
fn spent(body: &Body) -> Body {
    if matches!(body, Body::Empty) { Body::Empty } else { Body::Full(None) }
}

/// `body` if it came back, else what is left of it.
fn kept(body: Body, spent: Body) -> Body {
    if matches!(body, Body::Full(None)) { spent } else { body }
}

/// Reads a response: one in which another agent names a fault may be tried elsewhere.
fn answered(mut response: Response<Body>, body: Body, by: By) -> Tried {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let wanted = switched.then(|| upgrade::wanted(response.headers())).flatten();
    if switched && wanted.is_none() {
        // A switch says to what (RFC 9110 §15.2.2).
        return Tried::failed((Fault::BadResponse.into(), body));
    }
    headers::clean_response(&mut response, by == By::Application);
    if let Some(wanted) = wanted {
        upgrade::restore(response.headers_mut(), wanted);
    }
    match fault::named(response.headers()) {
        Some(fault) if fault.facts().retry != RetryRule::Never => {
            Tried::Failed { missed: fault.into(), body, response: Some(response) }
        }
        _ => Tried::Answered { response, body },
    }
}

/// One try on an application outside the mesh.
async fn plain(
    downstream: &Rc<Downstream>,
    picked: &Picked,
    rule: &CompiledRouteRule,
    protocol: AppProtocol,
    mut head: Request<()>,
    body: Body,
    single: bool,
) -> Tried {
    let (worker, address, limit) =
        (&downstream.worker, picked.endpoint.address.socket(), rule.connect_timeout);
    // Only a switch cannot go by HTTP/2. An expectation can be left out: it is the caller's to be told to go on.
    if matches!(protocol, AppProtocol::Http2 | AppProtocol::Grpc)
        && !(single && head.headers().contains_key(UPGRADE))
    {
        head.headers_mut().remove(EXPECT);
        return match worker.pool.plain(address).lease(limit).await {
            Ok(lease) => shared_outcome(lease.send(shared_head(head), body).await, By::Application),
            Err(missed) => Tried::failed((missed, body)),
        };
    }
    http1::to_http1(&mut head);
    let spent = spent(&body);
    let (parts, ()) = head.into_parts();
    let request = Request::from_parts(parts, body);
    if single {
        return match http1::send_plain(picked.upstream(), limit, request).await {
            Ok(response) => answered(response.map(Body::Incoming), spent, By::Application),
            Err((missed, body)) => Tried::failed((missed, kept(body, spent))),
        };
    }
    let pool = worker.app(address);
    let connection = match pool.take() {
        Some(connection) => connection,
        None => match pool.connect(limit).await {
            Ok(connection) => connection,
            Err(fault) => return Tried::failed((fault.into(), request.into_body())),
        },
    };
    match connection.send(request).await {
        Ok(response) => answered(response.map(Body::Application), spent, By::Application),
        Err(failure) => {
            let body = failure.request.map_or(spent, |request| request.into_body());
            Tried::failed((failure.fault.into(), body))
        }
    }
}
