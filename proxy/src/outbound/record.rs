//! What is known of one outgoing request, gathered as it goes and recorded at its end.

use std::{rc::Rc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, Version};
use weft_core::{
    context::{Outcome, Reporter},
    name::RuleName,
};

use super::{Downstream, route::Routed};
use crate::{
    balance::Picked,
    fault::{self, Fault},
    http::{
        body::Body,
        finish::{End, Finish, ResponseBody},
        observed::Observed,
    },
    tcp::copy::Copied,
};

/// One outgoing request.
pub(crate) struct Report {
    downstream: Rc<Downstream>,
    pub(crate) seen: Observed,
    pub(crate) routed: Option<Routed>,
    pub(crate) picked: Option<Picked>,
    pub(crate) attempts: u8,
    /// Since when `picked` is waited for, in [milliseconds](crate::clock::milliseconds).
    pub(crate) asked_at: Option<u64>,
    /// Whether it was tried again as often as it may be.
    pub(crate) exhausted: bool,
}

/// What is answered.
pub(crate) type Answer = Response<ResponseBody<Box<Report>>>;

impl Report {
    /// A request that has just come.
    pub(crate) fn new(downstream: Rc<Downstream>, version: Version, method: Method) -> Box<Self> {
        let seen = Observed::new(version, method);
        Box::new(Self {
            downstream,
            seen,
            routed: None,
            picked: None,
            attempts: 0,
            asked_at: None,
            exhausted: false,
        })
    }

    /// A request of HTTP/1 that could not be read.
    pub(crate) fn unread(downstream: Rc<Downstream>) -> Box<Self> {
        let mut report = Self::new(downstream, Version::HTTP_11, Method::GET);
        report.seen.unread = true;
        report
    }

    /// Passes the response on, to be recorded when its body ends.
    pub(crate) fn answer(mut self: Box<Self>, response: Response<Body>) -> Answer {
        let (mut parts, body) = response.into_parts();
        parts.version = self.seen.version;
        self.seen.answered(parts.status.as_u16(), &parts.headers);
        if let Some(fault) = fault::named(&parts.headers) {
            self.seen.blame(fault, self.exhausted);
            self.seen.verdict.rule = fault::named_rule(&parts.headers);
            if !self.downstream.worker.fault_header.get() {
                fault::strip(&mut parts.headers);
            }
        } else if self.exhausted {
            self.seen.verdict.flags = "URX";
        }
        let drain = self.downstream.worker.drain.listen();
        Response::from_parts(parts, ResponseBody::new(body, drain, self))
    }

    /// Passes on the answer with which the connection switches to another protocol. The report that comes back is for
    /// its [end](Self::end_switch).
    pub(crate) fn switch(mut self: Box<Self>, response: Response<Body>) -> (Answer, Box<Self>) {
        let mut silent = Self::new(self.downstream.clone(), self.seen.version, self.seen.method.clone());
        silent.seen.silent = true;
        self.seen.answered(response.status().as_u16(), response.headers());
        (silent.answer(response), self)
    }

    /// Records a request whose connection switched to another protocol, and has ended now.
    pub(crate) fn end_switch(mut self: Box<Self>, carried: Copied) {
        self.seen.switched(carried, Fault::WrongIdentity);
        self.record(carried.sent);
    }

    /// Answers with a fault of our own, and the rule behind it, where another agent named one.
    pub(crate) fn refuse(mut self: Box<Self>, fault: Fault) -> Answer {
        // A body that ends too early is no fault of one who has left.
        let left = self.seen.broken() == Some(Fault::BadRequest) && self.downstream.is_caller_gone();
        let fault = if left { Fault::CallerGone } else { fault };
        let rule: Option<&RuleName> = self.seen.verdict.rule.as_ref();
        let named = self.downstream.worker.fault_header.get();
        let mut response: Response<Bytes> = fault::respond(fault, rule, self.seen.grpc, named);
        *response.version_mut() = self.seen.version;
        self.seen.blame(fault, self.exhausted);
        self.seen.answered(response.status().as_u16(), response.headers());
        let drain = self.downstream.worker.drain.listen();
        response.map(|text| ResponseBody::new(Body::answer(text, &self.seen.method), drain, self))
    }

    fn record(&self, sent: u64) {
        if self.seen.silent {
            return;
        }
        let ended = Instant::now();
        let endpoint = self.picked.as_ref().map(|picked| &picked.endpoint);
        let trace = self.seen.trace_id();
        let source = &self.downstream.role.source;
        let outcome = Outcome {
            destination: self.routed.as_ref().map(|routed| super::reached(&routed.port, endpoint)),
            local_address: self.downstream.local_address,
            peer_address: self.downstream.peer_address,
            mutual_tls: endpoint.is_some_and(|endpoint| endpoint.mesh_address.is_some()),
            route: self.routed.as_ref().map(|routed| &routed.rule.name),
            attempts: self.attempts,
            ..self.seen.outcome(Reporter::Source, source, trace.as_ref(), sent, ended)
        };
        self.downstream.worker.recorder.record(&outcome, ended);
    }
}

impl Finish for Box<Report> {
    fn trailers(&mut self, trailers: &HeaderMap) {
        self.seen.trailers(trailers);
    }

    fn finish(&mut self, sent: u64, end: End) {
        self.downstream.head.answered();
        self.seen.end(end);
        self.record(sent);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.seen.give_up(&self.downstream.worker.drain) {
            self.record(0);
        }
    }
}
