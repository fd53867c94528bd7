//! What is known of one incoming request, gathered as it goes and recorded at its end.

use std::{rc::Rc, time::Instant};

use http::{HeaderMap, HeaderValue, Method, Response, Uri, Version};
use weft_core::{
    context::{Asked, Outcome, Protocol, Reached, Reporter, Verdict},
    name::RuleName,
};

use super::target::{Serving, Upstream};
use crate::{
    fault::{self, Fault},
    headers::{self, RequestId, TraceContext, TraceId},
    http::{
        body::{Body, Received},
        finish::{Finish, ResponseBody},
    },
};

/// One incoming request.
pub(crate) struct Report {
    upstream: Rc<Upstream>,
    started: Instant,
    pub(crate) version: Version,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) grpc: bool,
    pub(crate) serving: Option<Rc<Serving>>,
    pub(crate) verdict: Verdict,
    pub(crate) received: Option<Received>,
}

/// What is answered.
pub(crate) type Answer = Response<ResponseBody<Box<Report>>>;

impl Report {
    /// A request that has just come.
    pub(crate) fn new(upstream: Rc<Upstream>, version: Version, method: Method) -> Box<Self> {
        Box::new(Self {
            upstream,
            started: Instant::now(),
            version,
            method,
            uri: Uri::default(),
            host: None,
            request_id: None,
            trace: None,
            grpc: false,
            serving: None,
            verdict: Verdict::default(),
            received: None,
        })
    }

    /// Passes the response on, to be recorded when its body ends.
    pub(crate) fn answer(mut self: Box<Self>, mut response: Response<Body>) -> Answer {
        *response.version_mut() = self.version;
        self.verdict.status = response.status().as_u16();
        self.trailers(response.headers());
        let drain = self.upstream.worker.drain.listen();
        response.map(|body| ResponseBody::new(body, drain, self))
    }

    /// Answers with a fault of our own, which the other agent is always told by name: it decides on it.
    pub(crate) fn refuse(mut self: Box<Self>, fault: Fault, rule: Option<&RuleName>) -> Answer {
        let mut response = fault::respond(fault, rule, self.grpc, true);
        *response.version_mut() = self.version;
        self.blame(fault);
        self.verdict.status = response.status().as_u16();
        self.trailers(response.headers());
        let drain = self.upstream.worker.drain.listen();
        response.map(|text| {
            let body = if text.is_empty() { Body::Empty } else { Body::text(text) };
            ResponseBody::new(body, drain, self)
        })
    }

    fn blame(&mut self, fault: Fault) {
        self.verdict.fault = Some(fault.label());
        self.verdict.flags = fault.facts().flag;
    }

    fn outcome<'a>(&'a self, sent: u64, trace: &'a str, ended: Instant) -> Outcome<'a> {
        let destination = self.serving.as_ref().map(|serving| Reached {
            service: &serving.service,
            port: self.upstream.target.port,
            workload: Some(&serving.view.workload.name),
            instance: None,
            identity: Some(&self.upstream.target.identity),
            address: Some(serving.port.port.address),
        });
        Outcome {
            reporter: Reporter::Destination,
            source: &self.upstream.caller.source,
            destination,
            local_address: Some(self.upstream.caller.local_address),
            peer_address: Some(self.upstream.caller.peer_address),
            protocol: if self.version == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 },
            mutual_tls: true,
            request: Some(Asked {
                method: self.method.as_str(),
                path: self.uri.path(),
                authority: self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default(),
                id: self.request_id.as_ref().map_or("", RequestId::as_str),
                trace,
                grpc: self.grpc,
            }),
            route: None,
            attempts: 1,
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
        if !complete && self.verdict.fault.is_none() {
            self.blame(Fault::CallerGone);
        }
        let ended = Instant::now();
        let trace = self.trace.map(|trace| trace.trace_id());
        let trace = trace.as_ref().map_or("", TraceId::as_str);
        self.upstream.worker.recorder.record(&self.outcome(sent, trace, ended), ended);
    }
}
