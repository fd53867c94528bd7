//! Opaque bytes from a local process to an instance of the service that its listener is bound to.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use weft_core::{
    context::{Outcome, Protocol, Reporter, Verdict},
    table::{CompiledRouteRule, DestinationPort},
    wire::Framing,
};

use super::{Downstream, route};
use crate::{
    balance::{self, Failures, Picked},
    clock::milliseconds,
    config::OutboundKind,
    connect::connect,
    dial::{self, Grounds, Missed},
    fault::Fault,
    resilience::{Attempt, Cause, HealthSettings, observe},
    stream::{LocalStream, MeshStream},
    tcp::copy,
};

/// Where the bytes go.
pub(crate) struct Way {
    port: Arc<DestinationPort>,
    rule: Arc<CompiledRouteRule>,
}

/// The way of a listener that is bound to a port of opaque bytes; none when it is bound to another, or to none. What is
/// not known may be a port on which the server speaks first, whose callers would wait in silence: they are refused.
pub(crate) fn way(downstream: &Downstream) -> Option<Result<Way, Fault>> {
    if downstream.role.kind == OutboundKind::ByHost {
        return None;
    }
    let table = downstream.worker.table.load();
    let port = match route::bound_port(&table, &downstream.role) {
        Ok(port) if port.protocol.is_http() => return None,
        Ok(port) => port.clone(),
        Err(fault) => return Some(Err(fault)),
    };
    let rule = port.rules.iter().find(|rule| rule.applies_to_bytes()).cloned();
    Some(rule.map(|rule| Way { port, rule }).ok_or(Fault::NoBackend))
}

/// Records a connection of a process that may not use the listener.
pub(crate) fn record_refused(downstream: &Rc<Downstream>, way: Option<Way>) {
    let verdict = Verdict::default();
    let mut record = Record { downstream, way, picked: None, verdict, began: Instant::now() };
    record.blame(Fault::CallerRefused);
    record.write();
}

/// Carries one connection from its first byte to its last.
pub(crate) async fn serve(downstream: &Rc<Downstream>, stream: LocalStream, way: Result<Way, Fault>) {
    let began = Instant::now();
    let decided = downstream.worker.decisions.value();
    let mut record = Record { downstream, way: None, picked: None, verdict: Verdict::default(), began };
    let outcome = match way {
        Ok(way) => {
            let way = record.way.insert(way);
            reach(downstream, way).await
        }
        Err(fault) => Err(fault.into()),
    };
    match outcome {
        Ok((picked, upstream)) => {
            record.picked = Some(picked);
            carry(downstream, &mut record, stream, upstream, decided).await;
        }
        Err(missed) => {
            record.blame(missed.fault);
            record.verdict.rule = missed.rule;
            let mut stream = stream;
            copy::Abort::abort(&mut stream);
            record.write();
        }
    }
}

async fn carry(
    downstream: &Rc<Downstream>,
    record: &mut Record<'_>,
    stream: LocalStream,
    upstream: Instance,
    decided: u32,
) {
    let worker = &downstream.worker;
    let opened = Instant::now();
    let series = worker.recorder.open_connection(&record.outcome(0, 0, opened), opened);
    let stop = worker.stop_by_trust(decided, upstream.grounds);
    let carried = copy::copy(stream, upstream.stream, stop, worker.limits.opaque_idle, |received, sent| {
        series.add(received, sent)
    })
    .await;
    if let Some(fault) = carried.end.fault(Fault::WrongIdentity) {
        record.blame(fault);
    }
    let ended = Instant::now();
    let outcome = record.outcome(carried.received, carried.sent, ended);
    worker.recorder.close_connection(&series, &outcome, ended);
}

/// A connection to an instance.
struct Instance {
    stream: MeshStream,
    /// None without TLS.
    grounds: Option<Grounds>,
}

/// Picks and dials until an instance takes the connection. Whatever fails here may be tried elsewhere.
async fn reach(downstream: &Downstream, way: &Way) -> Result<(Picked, Instance), Missed> {
    let target = way.rule.target(|total| fastrand::u32(..total)).ok_or(Fault::NoBackend)?;
    let budget = downstream.worker.budgets.of(&target.service);
    let mut attempt = Attempt::new(&http::Method::CONNECT, way.rule.retries);
    let mut tried = Failures::default();
    loop {
        let now = milliseconds(Instant::now());
        let picked = balance::pick(&target.endpoints, &tried, now).ok_or(Fault::NoEndpoint)?;
        attempt.begin();
        let limit = way.rule.connect_timeout;
        let missed = match tokio::time::timeout(limit, dial(downstream, &picked, limit)).await {
            Ok(Ok(reached)) => return Ok((picked, reached)),
            Ok(Err(missed)) => missed,
            Err(_) => Fault::ConnectTimeout.into(),
        };
        let _ = observe(&HealthSettings::default(), &target.endpoints, &picked, missed.observation(), now);
        tried.note(picked.upstream(), Some(missed.fault));
        let Ok(wait) = attempt.again(Cause::Fault(missed.fault), true, budget) else { return Err(missed) };
        tokio::time::sleep(wait).await;
    }
}

async fn dial(downstream: &Downstream, picked: &Picked, limit: Duration) -> Result<Instance, Missed> {
    let upstream = picked.upstream();
    if super::is_plain(upstream) {
        let stream = connect(upstream.endpoint.address.socket(), limit).await?;
        return Ok(Instance { stream: MeshStream::Plain(stream), grounds: None });
    }
    let caller = &downstream.role.caller;
    let original = downstream.local_address;
    let dialled = dial::dial(&downstream.worker.dialer, caller, upstream, Framing::Tcp, original).await?;
    let grounds = Some(dialled.grounds());
    Ok(Instance { stream: MeshStream::Mesh(Box::new(dialled.stream)), grounds })
}

/// What is recorded of the connection.
struct Record<'a> {
    downstream: &'a Rc<Downstream>,
    way: Option<Way>,
    picked: Option<Picked>,
    verdict: Verdict,
    began: Instant,
}

impl Record<'_> {
    fn blame(&mut self, fault: Fault) {
        self.verdict.fault = Some(fault.label());
        self.verdict.flags = fault.facts().flag;
    }

    fn outcome(&self, received: u64, sent: u64, ended: Instant) -> Outcome<'_> {
        let endpoint = self.picked.as_ref().map(|picked| &picked.endpoint);
        Outcome {
            reporter: Reporter::Source,
            source: &self.downstream.role.source,
            destination: self.way.as_ref().map(|way| super::reached(&way.port, endpoint)),
            local_address: self.downstream.local_address,
            peer_address: self.downstream.peer_address,
            protocol: Protocol::Tcp,
            mutual_tls: endpoint.is_some_and(|endpoint| endpoint.mesh_address.is_some()),
            request: None,
            route: self.way.as_ref().map(|way| &way.rule.name),
            attempts: 1,
            verdict: &self.verdict,
            duration: ended.saturating_duration_since(self.began),
            received_bytes: received,
            sent_bytes: sent,
        }
    }

    /// Records a connection that was never made.
    fn write(&self) {
        let ended = Instant::now();
        self.downstream.worker.recorder.record(&self.outcome(0, 0, ended), ended);
    }
}
