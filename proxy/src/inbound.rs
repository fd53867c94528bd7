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

use std::rc::Rc;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};
use weft_core::wire::Framing;

use crate::{
    http::{
        serve,
        strict::{Heads, Strict},
    },
    pool::lifetime_until,
    worker::{Counted, Worker},
};
use handshake::Admitted;

/// Serves one connection on the mesh port.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, counted: Counted) {
    let _counted = counted;
    let drain = worker.drain.listen();
    // From before the handshake on: it may show the certificate that is renewed while it lasts.
    let renewals = Some(worker.renewals.listen());
    let Some(admitted) = handshake::admit(&worker, stream).await else { return };
    let Admitted { stream, upstream, framing, application, earliest_end } = admitted;
    let replace_at = Some(Instant::now() + lifetime_until(earliest_end));
    let handler = upstream.clone();
    let heads = Rc::new(Heads::default());
    let marking = heads.clone();
    let service = service_fn(move |mut request| {
        let upstream = handler.clone();
        // Before hyper reads on: it may find the caller's end.
        upstream.head.request();
        let flawed = marking.mark(&mut request);
        async move {
            let mut response = handle::handle(upstream, request).await;
            if flawed {
                Heads::close(&mut response);
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let limits = &worker.limits;
    match framing {
        Framing::Http2 => {
            let connection = serve::http2(limits).serve_connection(TokioIo::new(stream), service);
            serve::serve(
                connection,
                |connection| connection.graceful_shutdown(),
                || serve::Caller::Present,
                drain,
                renewals,
                replace_at,
            )
            .await;
        }
        Framing::Http1 => {
            let io = TokioIo::new(Strict::new(stream, &heads, upstream.head.clone()));
            let connection = serve::http1(limits).serve_connection(io, service).with_upgrades();
            let head = &upstream.head;
            let caller =
                || if head.is_half_closed() { serve::Caller::HalfClosed } else { serve::Caller::Present };
            serve::serve(
                connection,
                |connection| connection.graceful_shutdown(),
                caller,
                drain,
                renewals,
                replace_at,
            )
            .await;
        }
        Framing::Tcp => {
            if let Some(application) = application {
                tcp::serve(&upstream, stream, application).await;
            }
        }
        Framing::Mux => {}
    }
}
