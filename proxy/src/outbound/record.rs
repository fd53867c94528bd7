//! What is known of one outgoing request, gathered as it goes and recorded at its end.

use std::{rc::Rc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, Uri, Version, header::HOST};
use weft_core::{
    context::{Asked, Outcome, Protocol, Reached, Reporter, Verdict},
    name::RuleName,
};

use super::{Downstream, route::Routed};
use crate::{
    balance::Picked,
    fault::{self, Fault},
    headers::{self, RequestId, TraceContext, TraceId},
    http::{
        body::{Body, Received},
        finish::{Finish, ResponseBody},
    },
};

/// One outgoing request.
pub(crate) struct Report {
    downstream: Rc<Downstream>,
    started: Instant,
    pub(crate) version: Version,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) grpc: bool,
    pub(crate) routed: Option<Routed>,
    pub(crate) picked: Option<Picked>,
    pub(crate) attempts: u8,
    pub(crate) verdict: Verdict,
    pub(crate) received: Option<Received>,
    /// Whether it was tried again as often as it may be.
    pub(crate) exhausted: bool,
}

/// What is answered.
pub(crate) type Answer = Response<ResponseBody<Box<Report>>>;

impl Report {
    /// A request that has just come.
    pub(crate) fn new(downstream: Rc<Downstream>, version: Version, method: Method) -> Box<Self> {
        Box::new(Self {
            downstream,
            started: Instant::now(),
            version,
            method,
            uri: Uri::default(),
            host: None,
            request_id: None,
            trace: None,
            grpc: false,
            routed: None,
            picked: None,
            attempts: 0,
            verdict: Verdict::default(),
            received: None,
            exhausted: false,
        })
    }

    /// Passes the response on, to be recorded when its body ends.
    pub(crate) fn answer(mut self: Box<Self>, response: Response<Body>) -> Answer {
        let (mut parts, body) = response.into_parts();
        parts.version = self.version;
        self.verdict.status = parts.status.as_u16();
        self.trailers(&parts.headers);
        if let Some(fault) = fault::named(&parts.headers) {
            self.blame(fault);
            self.verdict.rule = fault::named_rule(&parts.headers);
            if !self.downstream.worker.fault_header.get() {
                fault::strip(&mut parts.headers);
            }
        } else if self.exhausted {
            self.verdict.flags = "URX";
        }
        let drain = self.downstream.worker.drain.listen();
        Response::from_parts(parts, ResponseBody::new(body, drain, self))
    }

    /// Answers with a fault of our own, and the rule behind it, where another agent named one.
    pub(crate) fn refuse(mut self: Box<Self>, fault: Fault) -> Answer {
        let rule: Option<&RuleName> = self.verdict.rule.as_ref();
        let named = self.downstream.worker.fault_header.get();
        let mut response: Response<Bytes> = fault::respond(fault, rule, self.grpc, named);
        *response.version_mut() = self.version;
        self.blame(fault);
        self.verdict.status = response.status().as_u16();
        self.trailers(response.headers());
        let drain = self.downstream.worker.drain.listen();
        response.map(|text| {
            let body = if text.is_empty() { Body::Empty } else { Body::text(text) };
            ResponseBody::new(body, drain, self)
        })
    }

    fn blame(&mut self, fault: Fault) {
        let facts = fault.facts();
        self.verdict.fault = Some(fault.label());
        self.verdict.flags = if self.exhausted { facts.flag_exhausted } else { facts.flag };
    }

    fn outcome<'a>(&'a self, sent: u64, trace: &'a str, ended: Instant) -> Outcome<'a> {
        let destination = self.routed.as_ref().map(|routed| Reached {
            service: &routed.port.service,
            port: routed.port.number,
            workload: None,
            instance: self.picked.as_ref().map(|picked| &picked.endpoint.instance),
            identity: self.picked.as_ref().and_then(|picked| picked.endpoint.identity.as_ref()),
            address: self.picked.as_ref().and_then(|picked| picked.endpoint.mesh_address),
        });
        Outcome {
            reporter: Reporter::Source,
            source: &self.downstream.role.source,
            destination,
            local_address: self.downstream.local_address,
            peer_address: self.downstream.peer_address,
            protocol: if self.version == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 },
            mutual_tls: self.picked.as_ref().is_some_and(|picked| picked.endpoint.mesh_address.is_some()),
            request: Some(Asked {
                method: self.method.as_str(),
                path: self.uri.path(),
                authority: self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default(),
                id: self.request_id.as_ref().map_or("", RequestId::as_str),
                trace,
                grpc: self.grpc,
            }),
            route: self.routed.as_ref().map(|routed| &routed.rule.name),
            attempts: self.attempts,
            verdict: &self.verdict,
            duration: ended.saturating_duration_since(self.started),
            received_bytes: self.received.as_ref().map_or(0, |received| received.get()),
            sent_bytes: sent,
        }
    }
}

impl Finish for Box<Report> {
    fn trailers(&mut self, trailers: &HeaderMap) {
        if self.grpc {
            self.verdict.grpc_status = headers::grpc_status(trailers).or(self.verdict.grpc_status);
        }
    }

    fn finish(&mut self, sent: u64, complete: bool) {
        self.downstream.head.answered();
        if !complete && self.verdict.fault.is_none() {
            self.blame(Fault::CallerGone);
        }
        let ended = Instant::now();
        let trace = self.trace.map(|trace| trace.trace_id());
        let trace = trace.as_ref().map_or("", TraceId::as_str);
        self.downstream.worker.recorder.record(&self.outcome(sent, trace, ended), ended);
    }
}

/// The value of `host`, as the caller named it.
pub(crate) fn host_value(headers: &HeaderMap, uri: &Uri) -> Option<HeaderValue> {
    match uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => headers.get(HOST).cloned(),
    }
}
