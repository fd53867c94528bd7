//! Requests that go by HTTP/1 from end to end: Upgrade, Expect, HTTP/1.0, and those to applications outside the mesh.
//! Each has a connection to the other agent of its own.

use std::{rc::Rc, sync::Arc};

use http::{Request, Response};
use weft_core::{table::Upstream, wire::Framing};

use super::Downstream;
use crate::{dial, fault::Fault, http::body::Body, http::single};

/// Sends the request by `weft-h1/1`.
///
/// # Errors
/// Why there is no response.
pub(crate) async fn send(
    downstream: &Rc<Downstream>,
    upstream: &Arc<Upstream>,
    limit: std::time::Duration,
    request: Request<Body>,
) -> Result<Response<hyper::body::Incoming>, (Fault, Body)> {
    let dialing =
        dial::dial(&downstream.worker.dialer, &downstream.role.caller, upstream, Framing::Http1, None);
    let dialled = match tokio::time::timeout(limit, dialing).await {
        Ok(Ok(dialled)) => dialled,
        Ok(Err(fault)) => return Err((fault, request.into_body())),
        Err(_) => return Err((Fault::ConnectTimeout, request.into_body())),
    };
    single::exchange(dialled.stream, request).await.map_err(|fault| (fault, Body::Full(None)))
}
