//! To the application.

use std::time::Duration;

use http::{Request, Response};

use super::target::Serving;
use crate::{
    fault::Fault,
    headers::{self, Survey},
    http::body::Body,
};

/// How long a connection to the application may take.
const CONNECT: Duration = Duration::from_secs(1);

/// Whether the application speaks HTTP/2.
pub(crate) fn is_http2(serving: &Serving) -> bool {
    use weft_core::resource::AppProtocol::{Grpc, Http2};
    matches!(serving.port.port.protocol, Http2 | Grpc)
}

/// Sends the request to the application. One that a pooled connection did not take goes on a new one.
///
/// # Errors
/// Why there is no response.
pub(crate) async fn forward(serving: &Serving, request: Request<Body>) -> Result<Response<Body>, Fault> {
    let mut response = exchange(serving, request).await?;
    let survey = Survey::of(response.headers());
    headers::clean_response(response.headers_mut(), survey, true);
    Ok(response)
}

async fn exchange(serving: &Serving, request: Request<Body>) -> Result<Response<Body>, Fault> {
    let request = match serving.pool.take() {
        None => request,
        Some(connection) => match connection.send(request).await {
            Ok(response) => return Ok(response.map(Body::Application)),
            Err(failure) => *failure.request.ok_or(failure.fault)?,
        },
    };
    let connection = serving.pool.connect(CONNECT).await?;
    match connection.send(request).await {
        Ok(response) => Ok(response.map(Body::Application)),
        Err(failure) => Err(failure.fault),
    }
}
