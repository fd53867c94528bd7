//! TCP connections, and what it means when there is none.

use std::{net::SocketAddr, time::Duration};

use tokio::net::TcpStream;

use crate::fault::Fault;

/// A TCP connection without Nagle's delay.
///
/// # Errors
/// Why there is none; [`Fault::ConnectTimeout`] after `limit`.
pub(crate) async fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, Fault> {
    match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Ok(stream) => {
            let stream = stream.map_err(|error| connect_fault(&error))?;
            stream.set_nodelay(true).map_err(|error| connect_fault(&error))?;
            Ok(stream)
        }
        Err(_) => Err(Fault::ConnectTimeout),
    }
}

/// The fault that a failure to connect is.
pub(crate) fn connect_fault(error: &std::io::Error) -> Fault {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset => Fault::ConnectRefused,
        std::io::ErrorKind::TimedOut => Fault::ConnectTimeout,
        _ => Fault::ConnectFailed,
    }
}
