//! Opaque bytes from another agent to an application.

use std::{rc::Rc, time::Instant};

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use weft_core::{
    context::{Outcome, PolicyRequest, Protocol, Reached, Reporter, Verdict},
    name::RuleName,
    table::Decision,
};

use super::target::{Serving, Upstream};
use crate::{fault::Fault, tcp::copy, worker::Allowance};

/// Carries one connection from its first byte to its last. Only a change of policy that denies it, the loss of trust
/// in its caller, or the end of a drain, ends it before.
pub(crate) async fn serve(upstream: &Rc<Upstream>, stream: TlsStream<TcpStream>, application: TcpStream) {
    let Some(serving) = upstream.serving() else { return };
    let rule = match upstream.decide(&serving, None) {
        Decision::Allowed(rule) => rule,
        _ => None,
    };
    let verdict = Verdict { rule, ..Verdict::default() };
    let mut record = Record { upstream, serving, verdict, began: Instant::now() };
    let worker = &upstream.worker;
    let series = worker.recorder.open_connection(&record.outcome(0, 0, record.began), record.began);
    let stop = worker.stop(upstream.decided_at, || allowance(upstream, None));
    let carried = copy::copy(stream, application, stop, worker.limits.opaque_idle, |received, sent| {
        series.add(received, sent)
    })
    .await;
    if let Some(fault) = carried.end.fault(Fault::Denied) {
        record.blame(fault);
    }
    let ended = Instant::now();
    let outcome = record.outcome(carried.received, carried.sent, ended);
    worker.recorder.close_connection(&series, &outcome, ended);
}

/// Records a connection that a rule denies.
pub(crate) fn record_denied(upstream: &Upstream, serving: Rc<Serving>, rule: RuleName) {
    let (verdict, began) = (Verdict { rule: Some(rule), ..Verdict::default() }, Instant::now());
    let mut record = Record { upstream, serving, verdict, began };
    record.blame(Fault::Denied);
    upstream.worker.recorder.record(&record.outcome(0, 0, began), began);
}

/// Decides an open stream again, by the request that it began with if it did with one. A target that is gone denies
/// nothing: only a rule does.
pub(crate) fn allowance(upstream: &Upstream, request: Option<PolicyRequest<'_>>) -> Allowance {
    match upstream.serving() {
        Some(serving) if !upstream.decide(&serving, request).is_allowed() => Allowance::Denied,
        _ => Allowance::by_trust(upstream.is_trusted()),
    }
}

/// What is recorded of the connection.
struct Record<'a> {
    upstream: &'a Upstream,
    serving: Rc<Serving>,
    verdict: Verdict,
    began: Instant,
}

impl Record<'_> {
    fn blame(&mut self, fault: Fault) {
        self.verdict.fault = Some(fault.label());
        self.verdict.flags = fault.facts().flag;
    }

    fn outcome(&self, received: u64, sent: u64, ended: Instant) -> Outcome<'_> {
        let caller = &self.upstream.caller;
        Outcome {
            reporter: Reporter::Destination,
            source: &caller.source,
            destination: Some(Reached {
                service: &self.serving.service,
                port: self.upstream.target.port,
                workload: Some(&self.serving.view.workload.name),
                instance: None,
                identity: Some(&self.upstream.target.identity),
                address: Some(self.serving.port.port.address),
            }),
            local_address: Some(caller.local_address),
            peer_address: Some(caller.peer_address),
            protocol: Protocol::Tcp,
            mutual_tls: true,
            request: None,
            route: None,
            attempts: 1,
            verdict: &self.verdict,
            duration: ended.saturating_duration_since(self.began),
            received_bytes: received,
            sent_bytes: sent,
        }
    }
}
