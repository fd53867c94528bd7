//! Listening sockets before they belong to a runtime.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixListener as StdUnixListener,
    },
    path::Path,
};

use crate::config::ListenAddress;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A listening socket that can be shared between workers.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP over IPv4 or IPv6.
    Tcp(StdTcpListener),
    /// A Unix socket.
    Unix(StdUnixListener),
}

impl Socket {
    /// Binds and listens.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            ListenAddress::Unix(path) => bind_unix(path).map(Self::Unix),
        }
    }

    /// The same socket for another worker.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }

    /// Where it listens, with the port that the system chose.
    pub(crate) fn address(&self) -> Option<ListenAddress> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok().map(ListenAddress::Tcp),
            Self::Unix(socket) => {
                let address = socket.local_addr().ok()?;
                address.as_pathname().map(|path| ListenAddress::Unix(path.into()))
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<StdTcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Accepted connections inherit it: one system call less for each.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() && !address.ip().is_unspecified() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Replaces the socket that an earlier process left; anything else at the path is not ours to remove. Every user may
/// connect, as to a TCP port: a workload is seldom the user that we run as, and who it is is asked of the kernel then.
fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = StdUnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
