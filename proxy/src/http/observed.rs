//! What both sides of the proxy find out about a request, gathered as it goes and recorded at its end.

use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use weft_core::{
    context::{Asked, Outcome, Protocol, Reporter, Verdict},
    workload::Source,
};

use super::{body::Received, finish::End};
use crate::{
    fault::Fault,
    headers::{self, RequestId, TraceContext, TraceId},
    signal::{CLOSING, Signal},
    tcp::copy::Copied,
};

/// One request.
pub(crate) struct Observed {
    started: Instant,
    pub(crate) version: Version,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) grpc: bool,
    pub(crate) verdict: Verdict,
    pub(crate) received: Option<Received>,
    /// Whether nothing is known of what was asked for, because it could not be read.
    pub(crate) unread: bool,
    /// Whether another records it.
    pub(crate) silent: bool,
    ended: bool,
}

impl Observed {
    /// A request that has just come.
    pub(crate) fn new(version: Version, method: Method) -> Self {
        Self {
            started: Instant::now(),
            version,
            method,
            uri: Uri::default(),
            host: None,
            request_id: None,
            trace: None,
            grpc: false,
            verdict: Verdict::default(),
            received: None,
            unread: false,
            silent: false,
            ended: false,
        }
    }

    /// Why the request's own body broke off, if it did.
    pub(crate) fn broken(&self) -> Option<Fault> {
        self.received.as_ref()?.broken()
    }

    /// What the head of the answer says.
    pub(crate) fn answered(&mut self, status: u16, headers: &HeaderMap) {
        self.verdict.status = status;
        self.trailers(headers);
    }

    /// What the end of the answer says; in gRPC the head may be its end.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if self.grpc {
            self.verdict.grpc_status = headers::grpc_status(trailers).or(self.verdict.grpc_status);
        }
    }

    /// Blames a fault; `exhausted` when no further try was left.
    pub(crate) fn blame(&mut self, fault: Fault, exhausted: bool) {
        let facts = fault.facts();
        self.verdict.fault = Some(fault.label());
        self.verdict.flags = if exhausted { facts.flag_exhausted } else { facts.flag };
    }

    /// The answer ended. The first fault is the one that counts.
    pub(crate) fn end(&mut self, end: End) {
        self.ended = true;
        if let (Some(fault), None) = (end.fault(), self.verdict.fault) {
            self.blame(fault, false);
        }
    }

    /// The connection that it switched to another protocol ended; `denied` if that is because it is no longer allowed.
    pub(crate) fn switched(&mut self, carried: Copied, denied: Fault) {
        self.ended = true;
        self.received.get_or_insert_default().add(carried.received);
        if let Some(fault) = carried.end.fault(denied) {
            self.blame(fault, false);
        }
    }

    /// Whether the request is given up before it was answered; then that is what is known of it, and it has ended.
    pub(crate) fn give_up(&mut self, drain: &Signal) -> bool {
        if self.ended {
            return false;
        }
        let end = if drain.value() >= CLOSING { End::Drained } else { End::CallerGone };
        self.verdict.status = end.fault().map_or(0, |fault| fault.facts().status);
        self.end(end);
        true
    }

    /// The identifier of its trace.
    pub(crate) fn trace_id(&self) -> Option<TraceId> {
        self.trace.map(|trace| trace.trace_id())
    }

    /// What is recorded, but for what only one side of the proxy knows.
    pub(crate) fn outcome<'a>(
        &'a self,
        reporter: Reporter,
        source: &'a Source,
        trace: Option<&'a TraceId>,
        sent: u64,
        ended: Instant,
    ) -> Outcome<'a> {
        Outcome {
            reporter,
            source,
            destination: None,
            local_address: None,
            peer_address: None,
            protocol: if self.version == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 },
            mutual_tls: true,
            request: Some(Asked {
                method: if self.unread { "" } else { self.method.as_str() },
                path: if self.unread { "" } else { self.uri.path() },
                authority: self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default(),
                id: self.request_id.as_ref().map_or("", RequestId::as_str),
                trace: trace.map_or("", TraceId::as_str),
                grpc: self.grpc,
            }),
            route: None,
            attempts: 1,
            verdict: &self.verdict,
            duration: ended.saturating_duration_since(self.started),
            received_bytes: self.received.as_ref().map_or(0, |received| received.bytes()),
            sent_bytes: sent,
        }
    }
}
