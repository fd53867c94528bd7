//! What is known of one incoming request, gathered as it goes and recorded at its end.

use std::{rc::Rc, time::Instant};

use http::{HeaderMap, Method, Response, Version};
use weft_core::{
    context::{Outcome, Reached, Reporter},
    name::RuleName,
};

use super::target::{Serving, Upstream};
use crate::{
    fault::{self, Fault},
    http::{
        body::Body,
        finish::{End, Finish, ResponseBody},
        observed::Observed,
    },
    tcp::copy::Copied,
};

/// One incoming request.
pub(crate) struct Report {
    upstream: Rc<Upstream>,
    pub(crate) seen: Observed,
    pub(crate) serving: Option<Rc<Serving>>,
}

/// What is answered.
pub(crate) type Answer = Response<ResponseBody<Box<Report>>>;

impl Report {
    /// A request that has just come.
    pub(crate) fn new(upstream: Rc<Upstream>, version: Version, method: Method) -> Box<Self> {
        Box::new(Self { upstream, seen: Observed::new(version, method), serving: None })
    }

    /// A request of HTTP/1 that could not be read.
    pub(crate) fn unread(upstream: Rc<Upstream>) -> Box<Self> {
        let mut report = Self::new(upstream, Version::HTTP_11, Method::GET);
        report.seen.unread = true;
        report
    }

    /// Passes the response on, to be recorded when its body ends.
    pub(crate) fn answer(mut self: Box<Self>, mut response: Response<Body>) -> Answer {
        *response.version_mut() = self.seen.version;
        self.seen.answered(response.status().as_u16(), response.headers());
        let drain = self.upstream.worker.drain.listen();
        response.map(|body| ResponseBody::new(body, drain, self))
    }

    /// Passes on the answer with which the connection switches to another protocol. The report that comes back is for
    /// its [end](Self::end_switch).
    pub(crate) fn switch(mut self: Box<Self>, response: Response<Body>) -> (Answer, Box<Self>) {
        let mut silent = Self::new(self.upstream.clone(), self.seen.version, self.seen.method.clone());
        silent.seen.silent = true;
        self.seen.answered(response.status().as_u16(), response.headers());
        (silent.answer(response), self)
    }

    /// Records a request whose connection switched to another protocol, and has ended now.
    pub(crate) fn end_switch(mut self: Box<Self>, carried: Copied) {
        self.seen.switched(carried, Fault::Denied);
        self.record(carried.sent);
    }

    /// Answers with a fault of our own, which the other agent is always told by name: it decides on it.
    pub(crate) fn refuse(mut self: Box<Self>, fault: Fault, rule: Option<&RuleName>) -> Answer {
        let mut response = fault::respond(fault, rule, self.seen.grpc, true);
        *response.version_mut() = self.seen.version;
        self.seen.blame(fault, false);
        self.seen.answered(response.status().as_u16(), response.headers());
        let drain = self.upstream.worker.drain.listen();
        response.map(|text| ResponseBody::new(Body::answer(text, &self.seen.method), drain, self))
    }

    /// Answers with what the request came to.
    pub(crate) fn conclude(self: Box<Self>, outcome: Result<Response<Body>, Fault>) -> Answer {
        match outcome {
            Ok(response) => self.answer(response),
            Err(fault) => {
                let fault = self.seen.broken().unwrap_or(fault);
                self.refuse(fault, None)
            }
        }
    }

    fn record(&self, sent: u64) {
        if self.seen.silent {
            return;
        }
        let ended = Instant::now();
        let trace = self.seen.trace_id();
        let caller = &self.upstream.caller;
        let outcome = Outcome {
            destination: self.serving.as_ref().map(|serving| Reached {
                service: &serving.service,
                port: self.upstream.target.port,
                workload: Some(&serving.view.workload.name),
                instance: None,
                identity: Some(&self.upstream.target.identity),
                address: Some(serving.port.port.address),
            }),
            local_address: Some(caller.local_address),
            peer_address: Some(caller.peer_address),
            ..self.seen.outcome(Reporter::Destination, &caller.source, trace.as_ref(), sent, ended)
        };
        self.upstream.worker.recorder.record(&outcome, ended);
    }
}

impl Finish for Box<Report> {
    fn trailers(&mut self, trailers: &HeaderMap) {
        self.seen.trailers(trailers);
    }

    fn finish(&mut self, sent: u64, end: End) {
        self.upstream.head.answered();
        self.seen.end(end);
        self.record(sent);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.seen.give_up(&self.upstream.worker.drain) {
            self.record(0);
        }
    }
}
