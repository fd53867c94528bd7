//! From local workloads into the mesh: who connects, what is spoken, where it goes.

mod admit;
mod attempt;
mod framing;
mod handle;
mod http1;
mod record;
mod route;
mod sniff;
mod tcp;

use std::{net::SocketAddr, pin::Pin, rc::Rc, sync::Arc};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use weft_core::{
    context::Reached,
    resource::{Endpoint, TlsMode},
    table::{DestinationPort, Upstream},
};

use crate::{
    command::OutboundRole,
    frames::EmptyFrames,
    http::{
        body::Arriving,
        burst::{self, Burst, LocalIo},
        head::HeadWatch,
        heard::Heard,
        refusal, serve,
        streams::Streams,
        strict::{Heads, Strict},
    },
    quiet::About,
    signal::{DRAINING, Listener, PARTING, Signal},
    slots::Place,
    stream::{LocalStream, Prefixed},
    worker::{Counted, Worker},
};
use sniff::Spoken;

/// One accepted connection of a local workload.
pub(crate) struct Downstream {
    pub(crate) worker: Rc<Worker>,
    pub(crate) role: Arc<OutboundRole>,
    /// Raised when the worker drains, and when the listener is not for this workload any more.
    pub(crate) drain: Rc<Signal>,
    pub(crate) local_address: Option<SocketAddr>,
    pub(crate) peer_address: Option<SocketAddr>,
    /// Told of every request of HTTP/1.
    pub(crate) head: Arc<HeadWatch>,
    /// Its place, also after a switch to another protocol.
    _place: Place,
}

impl Downstream {
    /// Whether the process has closed its socket, as far as can be told.
    fn is_caller_gone(&self) -> bool {
        let addresses = self.peer_address.zip(self.local_address);
        addresses.is_some_and(|addresses| admit::is_gone(&self.worker, addresses))
    }
}

/// Serves one accepted connection. All but HTTP/1 is boxed, because the many connections are of HTTP/1 and an idle one
/// should hold no room for the others.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    role: Arc<OutboundRole>,
    drain: Rc<Signal>,
    mut stream: LocalStream,
    counted: Counted,
    place: Place,
) {
    let (local_address, peer_address) = match &stream {
        LocalStream::Tcp(stream) => (stream.local_addr().ok(), stream.peer_addr().ok()),
        LocalStream::Unix(_) => (None, None),
    };
    let addresses = peer_address.zip(local_address);
    let admitted = admit::admit(&worker, &role, &stream, addresses);
    let (head, mut told) = (worker.watch_head(), drain.listen());
    let downstream =
        Rc::new(Downstream { worker, role, drain, local_address, peer_address, head, _place: place });
    let way = tcp::way(&downstream);
    if let Err(refusal) = admitted {
        let workload = &downstream.role.caller.workload.name;
        if let Some(kept_back) = downstream.worker.dialer.quiet.admit(About::Local(workload.clone())) {
            tracing::warn!(%workload, %refusal, kept_back, "a local process is refused");
        }
        let http = way.is_none();
        tcp::record_refused(&downstream, way.and_then(Result::ok));
        let named = downstream.worker.fault_header.get();
        return Box::pin(admit::refuse(stream, &refusal, http, named)).await;
    }
    if let Some(way) = way {
        return Box::pin(tcp::serve(&downstream, stream, way)).await;
    }
    let limits = downstream.worker.limits;
    let Some((spoken, prefix)) = sniff::sniff(&mut stream, &mut told, &limits).await else {
        if downstream.drain.value() >= PARTING {
            drop(counted);
            Box::pin(refusal::part(&mut stream)).await;
        }
        return;
    };
    let stream = Prefixed::new(prefix, stream);
    match spoken {
        Spoken::Http1 => {
            let Some(mut left) = serve_http1(downstream, stream, told).await else { return };
            drop(counted);
            Box::pin(refusal::part(left.inner_mut().inner_mut())).await;
        }
        Spoken::Http2 => {
            let answer = move |request| handle::handle(downstream.clone(), request);
            // Who is no agent may flush with as many empty frames as it likes, as an application may.
            let mut empty_frames = EmptyFrames::behind_preface();
            let stream = Heard::new(stream, move |came: &mut [u8]| empty_frames.hide(came));
            let streams = Streams::new(stream, &limits, answer).of_caller(&limits);
            let finish = |mut streams: Pin<&mut Streams<_, _>>| streams.finish();
            Box::pin(serve::serve(streams, finish, serve::told, &mut told, None, None)).await;
        }
    }
}

/// Serves burst after burst of requests. Gives the connection back if the worker drains while it rests.
///
/// While the worker drains, the caller is told so with the next answer. One that waits for none may be about to send a
/// request, and to close the connection would lose it: so it stays for a while yet.
async fn serve_http1(
    downstream: Rc<Downstream>,
    stream: Prefixed<LocalStream>,
    mut drain: Listener,
) -> Option<LocalIo> {
    let worker = downstream.worker.clone();
    let head = downstream.head.clone();
    let heads = Rc::new(Heads::default());
    let io = TokioIo::new(Strict::new(stream, &heads, head.clone()));
    let (marking, serving) = (heads.clone(), downstream.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let downstream = serving.clone();
        // Before hyper reads on: it may find the caller's end.
        downstream.head.request();
        let flawed = marking.mark(&mut request);
        let drain = downstream.drain.clone();
        async move {
            let mut response = handle::handle(downstream, request.map(Arriving::Http1)).await;
            if flawed || drain.value() >= DRAINING {
                Heads::close(&mut response);
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let asked = downstream.clone();
    let next = |_| {
        if !head.is_half_closed() {
            return serve::Next::Continue;
        }
        let gone = head.is_doubted() && asked.is_caller_gone();
        if gone { serve::Next::Abandon } else { serve::Next::Finish }
    };
    let mut resting = (io, service);
    loop {
        let burst = Burst::new(resting, &worker.limits, &head, &heads, Some(&worker.waiting));
        // Boxed, so that a resting connection holds no room for it.
        let finish = |mut burst: Pin<&mut Burst<_, _, _>>| burst.finish();
        let served = Box::pin(serve::serve(burst, finish, next, &mut drain, None, None));
        let mut rested = served.await.flatten()?;
        if let Some(fault) = heads.refusal() {
            let answer = record::Report::unread(downstream).refuse(fault);
            Box::pin(refusal::send(rested.0.inner_mut().inner_mut(), answer)).await;
            return None;
        }
        if !burst::rest(&rested.0, &mut drain).await {
            return Some(rested.0);
        }
        resting = rested;
    }
}

/// What is recorded of where a request or a connection went: to the endpoint's agent, or to the application itself.
fn reached<'a>(port: &'a DestinationPort, endpoint: Option<&'a Arc<Endpoint>>) -> Reached<'a> {
    Reached {
        service: &port.service,
        port: port.number,
        workload: None,
        instance: endpoint.map(|endpoint| &endpoint.instance),
        identity: endpoint.and_then(|endpoint| endpoint.identity.as_ref()),
        address: endpoint
            .map(|endpoint| endpoint.mesh_address.as_ref().unwrap_or(&endpoint.address).socket()),
    }
}

/// Whether an endpoint is an application outside the mesh, declared so.
fn is_plain(upstream: &Upstream) -> bool {
    upstream.endpoint.tls == TlsMode::Off && upstream.endpoint.mesh_address.is_none()
}
