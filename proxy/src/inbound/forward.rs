//! To the application.

use std::time::Duration;

use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use weft_core::context::PolicyRequest;

use super::{
    target::{Serving, Upstream},
    tcp,
};
use crate::{
    connect::connect,
    executor::LocalExecutor,
    fault::Fault,
    headers,
    http::{body::Body, single, upgrade},
    pool::Origin,
    tcp::copy::Copied,
};

/// How long a connection to the application may take.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// How often a request that the application did not take goes on another connection.
const REDISPATCHES: usize = 3;

/// Sends the request to the application. One that a pooled connection did not take goes on a new one, and so does one on
/// which the application ended it without a word if it may be repeated.
///
/// # Errors
/// Why there is no response.
pub(crate) async fn forward(serving: &Serving, request: Request<Body>) -> Result<Response<Body>, Fault> {
    let mut response = match &serving.plain {
        Some(origin) => multiplexed(origin, request).await?,
        None => pooled(serving, request).await?,
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for it.
        return Err(Fault::BadResponse);
    }
    headers::clean_response(&mut response, true);
    Ok(response)
}

async fn pooled(serving: &Serving, request: Request<Body>) -> Result<Response<Body>, Fault> {
    let request = match serving.pool.take() {
        None => request,
        Some(connection) => match connection.send(request).await {
            Ok(response) => return Ok(response.map(Body::Application)),
            Err(failure) => *failure.request.ok_or(failure.fault)?,
        },
    };
    let connection = Box::pin(serving.pool.connect(CONNECT)).await?;
    match connection.send(request).await {
        Ok(response) => Ok(response.map(Body::Application)),
        Err(failure) => Err(failure.fault),
    }
}

async fn multiplexed(origin: &std::rc::Rc<Origin>, request: Request<Body>) -> Result<Response<Body>, Fault> {
    let (parts, mut body) = request.into_parts();
    let mut head = Request::from_parts(parts, ());
    if head.uri().authority().is_none() {
        *head.version_mut() = Version::HTTP_11;
    }
    let bodyless = body.is_end_stream();
    let mut tries = 0;
    loop {
        tries += 1;
        let lease = origin.lease(CONNECT).await.map_err(|missed| missed.fault)?;
        match lease.send(head.clone(), body).await {
            Ok((response, _)) => return Ok(response.map(Body::Mesh)),
            Err(failure) => {
                let again = bodyless && failure.fault == Fault::NotDispatched && tries < REDISPATCHES;
                if !again {
                    return Err(failure.fault);
                }
                body = Body::Empty;
            }
        }
    }
}

/// Asks the application to switch protocols, on a connection of its own, and carries the bytes when it does, until trust
/// or policy changes after `decided` and denies it. `at_end` is told what was carried.
///
/// # Errors
/// Why there is no response.
pub(crate) async fn switch(
    upstream: &std::rc::Rc<Upstream>,
    serving: &Serving,
    caller: hyper::upgrade::OnUpgrade,
    request: Request<Body>,
    decided: u32,
    at_end: impl FnOnce(Copied) + 'static,
) -> Result<Response<Body>, Fault> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let stream = connect(serving.port.port.address, CONNECT).await?;
    let mut response = single::exchange(stream, request).await?;
    let switched = (response.status() == StatusCode::SWITCHING_PROTOCOLS)
        .then(|| (hyper::upgrade::on(&mut response), upgrade::wanted(response.headers())));
    headers::clean_response(&mut response, true);
    if let Some((called, wanted)) = switched {
        // A switch says to what (RFC 9110 §15.2.2).
        let wanted = wanted.ok_or(Fault::BadResponse)?;
        upgrade::restore(response.headers_mut(), wanted.clone());
        upstream.head.release();
        let upstream = upstream.clone();
        let counted = upstream.worker.count();
        LocalExecutor.spawn(async move {
            let _counted = counted;
            let request = PolicyRequest { method: &method, path: uri.path() };
            let stop = upstream.worker.stop(decided, || tcp::allowance(&upstream, Some(request)));
            if let Some(carried) = upgrade::carry(caller, called, Some(wanted), stop).await {
                at_end(carried);
            }
        });
    }
    Ok(response.map(Body::Incoming))
}
