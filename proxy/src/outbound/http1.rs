//! Requests that go by HTTP/1 from end to end: Upgrade, Expect, HTTP/1.0, and those to applications outside the mesh.
//! Each has a connection to the other agent of its own.

use std::{rc::Rc, sync::Arc, time::Duration};

use http::{
    HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, HOST},
};
use hyper::body::Incoming;
use weft_core::{table::Upstream, wire::Framing};

use super::{Downstream, framing::learn};
use crate::{
    connect::connect,
    dial::{self, Missed},
    fault::Fault,
    headers::fit_http1,
    http::{body::Body, single},
};

/// Sends the request to the agent of `upstream` by `framing`, which is `weft-h1/1`, or `weft-tcp/1` where the agent takes
/// only opaque bytes: to it, a request of HTTP/1 is that too. When the agent names the other of the two, that is used,
/// and remembered. `single` is a request that cannot go by HTTP/2.
/// Returns the framing with the response, and with a response that switches the grounds on which the agent is believed.
///
/// # Errors
/// Why there is no response, and what is left of the body.
pub(crate) async fn send(
    downstream: &Rc<Downstream>,
    upstream: &Arc<Upstream>,
    limit: Duration,
    mut framing: Framing,
    single: bool,
    request: Request<Body>,
) -> Result<(Response<Incoming>, Framing), (Missed, Body)> {
    let dialer = &downstream.worker.dialer;
    let mut redialled = false;
    let dialled = loop {
        let dialing = dial::dial(dialer, &downstream.role.caller, upstream, framing, None);
        match tokio::time::timeout(limit, dialing).await {
            Ok(Ok(dialled)) => break dialled,
            Ok(Err(missed)) => {
                if let Some(wanted) = missed.framing {
                    learn(&upstream.state, wanted);
                    // To an agent that serves HTTP, this is the way of a request that HTTP/2 cannot carry.
                    let wanted = if wanted == Framing::Http2 && single { Framing::Http1 } else { wanted };
                    if !redialled && matches!(wanted, Framing::Http1 | Framing::Tcp) {
                        framing = wanted;
                        redialled = true;
                        continue;
                    }
                }
                return Err((missed, request.into_body()));
            }
            Err(_) => return Err((Fault::ConnectTimeout.into(), request.into_body())),
        }
    };
    let grounds = dialled.grounds();
    match single::exchange(dialled.stream, request).await {
        Ok(mut response) => {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                response.extensions_mut().insert(grounds);
            }
            Ok((response, framing))
        }
        Err(fault) => Err((fault.into(), Body::Full(None))),
    }
}

/// Sends the request to an application outside the mesh, on a connection of its own.
///
/// # Errors
/// Why there is no response, and what is left of the body.
pub(crate) async fn send_plain(
    upstream: &Upstream,
    limit: Duration,
    request: Request<Body>,
) -> Result<Response<Incoming>, (Missed, Body)> {
    let stream = match connect(upstream.endpoint.address.socket(), limit).await {
        Ok(stream) => stream,
        Err(fault) => return Err((fault.into(), request.into_body())),
    };
    single::exchange(stream, request).await.map_err(|fault| (fault.into(), Body::Full(None)))
}

/// Turns the head of a request that came by HTTP/2 into one of HTTP/1.1, which names the host in Host and the path alone
/// in its first line.
pub(crate) fn to_http1(head: &mut Request<()>) {
    if let Some(authority) = head.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str());
        let path = head.uri().path_and_query().cloned();
        *head.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        if let Ok(host) = host {
            head.headers_mut().insert(HOST, host);
        }
    }
    if head.version() == Version::HTTP_2 {
        *head.version_mut() = Version::HTTP_11;
    }
    // One that switches says more in its `connection`, and has no cookies in several fields.
    if !head.headers().contains_key(CONNECTION) {
        fit_http1(head.headers_mut());
    }
}
