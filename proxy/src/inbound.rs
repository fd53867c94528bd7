//! From the mesh to local applications: who calls, what for, whether they may.
//!
//! The order is fixed: TLS, then the full check of the peer (a resumed handshake checks nothing), then the hello, then
//! for every request normalise, decide, forward. The hello only informs; the certificate authorizes. The receiver decides
//! the protocol: a port that is HTTP, or has a rule on requests, takes no opaque bytes.

mod forward;
mod handle;
mod handshake;
mod record;
mod target;
mod tcp;

use std::{pin::Pin, rc::Rc};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::server::TlsStream;
use weft_core::wire::Framing;

use crate::{
    http::{
        body::Arriving,
        burst::Burst,
        refusal, serve,
        streams::Streams,
        strict::{Heads, Strict},
    },
    pool::lifetime_until,
    signal::{DRAINING, Listener, PARTING},
    slots::Place,
    worker::{Counted, Worker},
};
use handshake::Admitted;
use target::Upstream;

/// Serves one connection on the mesh port.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, counted: Counted, place: Place) {
    let _counted = counted;
    let mut drain = worker.drain.listen();
    // From before the handshake on: it may show the certificate that is renewed while it lasts.
    let before = worker.dialer.credentials.load_full();
    let Some(admitted) = handshake::admit(&worker, stream).await else { return };
    let Admitted { stream, upstream, framing, application, earliest_end } = admitted;
    // It is held by whatever holds the connection, also after a switch to another protocol.
    let _set = upstream.place.set(place);
    let identity = &upstream.target.identity;
    let renewals = Some(worker.shown.watch(identity, &before, &worker.dialer.credentials.load()));
    drop(before);
    let replace_at = Some(Instant::now() + lifetime_until(earliest_end));
    let limits = &worker.limits;
    match framing {
        Framing::Http2 => {
            let answer = move |request| handle::handle(upstream.clone(), request);
            let streams = Streams::new(stream, limits, answer);
            let finish = |mut streams: Pin<&mut Streams<_, _>>| streams.finish();
            serve::serve(streams, finish, serve::told, &mut drain, renewals, replace_at).await;
        }
        Framing::Http1 => Box::pin(serve_http1(upstream, stream, &mut drain)).await,
        Framing::Tcp => {
            if let Some(application) = application {
                tcp::serve(&upstream, stream, application).await;
            }
        }
        Framing::Mux => {}
    }
}

async fn serve_http1(upstream: Rc<Upstream>, stream: TlsStream<TcpStream>, drain: &mut Listener) {
    let limits = upstream.worker.limits;
    let heads = Rc::new(Heads::default());
    let head = upstream.head.clone();
    let io = TokioIo::new(Strict::new(stream, &heads, head.clone()));
    let (marking, serving) = (heads.clone(), upstream.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let upstream = serving.clone();
        // Before hyper reads on: it may find the caller's end.
        upstream.head.request();
        let flawed = marking.mark(&mut request);
        let drain = upstream.worker.drain.clone();
        async move {
            let mut response = handle::handle(upstream, request.map(Arriving::Http1)).await;
            if flawed || drain.value() >= DRAINING {
                Heads::close(&mut response);
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = Burst::new((io, service), &limits, &head, &heads, None);
    let finish = |mut connection: Pin<&mut Burst<_, _, _>>| connection.finish();
    // Whoever has a connection accepted may be about to send its request: so it is not replaced, and may be late
    // in a drain. No agent closes its half while it waits: who does is gone.
    let next = |phase| match phase {
        _ if head.is_half_closed() => serve::Next::Abandon,
        PARTING.. => serve::Next::Finish,
        _ => serve::Next::Continue,
    };
    let left = serve::serve(connection, finish, next, drain, None, None).await.flatten();
    if let (Some((mut io, _)), Some(fault)) = (left, heads.refusal()) {
        let answer = record::Report::unread(upstream).refuse(fault, None);
        refusal::send(io.inner_mut().inner_mut(), answer).await;
    }
}
