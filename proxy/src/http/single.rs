//! One exchange of HTTP/1 on a connection of its own: what HTTP/2 cannot carry unchanged (Upgrade, Expect, HTTP/1.0).

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{body::Body, expect};
use crate::{executor::LocalExecutor, fault::Fault};

/// Sends a request on `io` and waits for the response's head. A connection that both sides switch is given up to
/// `hyper::upgrade::on`; any other ends with the response.
///
/// # Errors
/// Why there is no response.
pub(crate) async fn exchange<T>(io: T, request: Request<Body>) -> Result<Response<Incoming>, Fault>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake::<_, Body>(TokioIo::new(io)).await.map_err(|_| Fault::NotDispatched)?;
    LocalExecutor.spawn(connection.with_upgrades());
    sender.send_request(expect::hold_for_hyper(request)).await.map_err(|error| match error {
        error if error.is_canceled() => Fault::NotDispatched,
        error if error.is_parse() => Fault::BadResponse,
        _ => Fault::ConnectionLost,
    })
}
