//! What the data path is told: checked values, no files and no text formats.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use weft_core::{
    name::{HostName, PortName},
    workload::Workload,
};

pub use crate::record::AccessLogTarget;

/// Everything the proxy needs beside tables and credentials.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Threads that carry traffic, at least 1. Fixed for the life of the process.
    pub workers: usize,
    /// The mesh port; none for a host that only calls.
    pub inbound: Option<InboundConfig>,
    /// Local workloads and where they connect.
    pub workloads: Vec<WorkloadListeners>,
    /// Whether answers of our own say in a header why.
    pub fault_header: bool,
    /// Where requests are logged.
    pub access_log: AccessLogTarget,
    /// What metric names begin with, `weft` or `istio`.
    pub metric_prefix: String,
    /// Bounds.
    pub limits: Limits,
}

/// The mesh port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundConfig {
    /// Addresses to listen on; port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
}

/// A workload and the listeners it connects to.
#[derive(Clone, Debug)]
pub struct WorkloadListeners {
    /// Who it is.
    pub workload: Arc<Workload>,
    /// Where it connects.
    pub outbound: Vec<OutboundListener>,
}

/// A listener for one workload's calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundListener {
    /// Where it listens.
    pub address: ListenAddress,
    /// How the destination is found.
    pub kind: OutboundKind,
    /// Which local processes may connect.
    pub allowed: AllowedLocal,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenAddress {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket's path, replaced when it exists.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How an outbound listener finds the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundKind {
    /// By the request's absolute URI, `:authority` or Host.
    ByHost,
    /// Always the same service; the Host header passes unchanged.
    Upstream {
        /// A host name of the service.
        service: HostName,
        /// Its port; none means the first.
        port: Option<PortName>,
    },
}

/// Which local processes may use a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedLocal {
    /// Those of these users.
    Uids(Vec<u32>),
    /// Any that can connect.
    Any,
}

/// Bounds that keep one caller from using up what all share. Of the whole process where they do not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, on the mesh port, and on each outbound listener by itself; more are closed at once.
    pub connections: u32,
    /// Handshakes and hellos under way at a time.
    pub handshakes: u32,
    /// The same per source address.
    pub handshakes_per_address: u32,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a hello may take.
    pub hello: Duration,
    /// How long a local process may keep a connection for requests without having said anything on it.
    pub first_byte: Duration,
    /// How long the header of a request of HTTP/1 may take, from its first byte, give or take a second.
    pub header: Duration,
    /// The largest header of a request, in bytes over all fields, at least [`Self::LEAST_HEADER_BYTES`].
    pub header_bytes: u32,
    /// Requests at a time on one connection of HTTP/2, at least 1.
    pub streams: u32,
    /// How long an opaque connection may have nothing to say; none is for ever.
    pub opaque_idle: Option<Duration>,
    /// How long an open stream may go on whose other side is not trusted any more, because its root was withdrawn. Nothing
    /// new is taken from it meanwhile; then the stream is closed politely.
    pub distrusted: Duration,
    /// Bytes per worker that peers may send unread, over all multiplexed connections.
    pub window_bytes: u64,
}

impl Limits {
    /// What `header_bytes` must not go below.
    pub const LEAST_HEADER_BYTES: u32 = 8 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            handshakes: 4096,
            handshakes_per_address: 256,
            handshake: Duration::from_secs(5),
            hello: Duration::from_secs(5),
            first_byte: Duration::from_secs(60),
            header: Duration::from_secs(30),
            header_bytes: 64 * 1024,
            streams: 256,
            opaque_idle: None,
            distrusted: Duration::from_secs(60),
            window_bytes: 1 << 30,
        }
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            workers: 2,
            inbound: None,
            workloads: Vec::new(),
            fault_header: true,
            access_log: AccessLogTarget::Off,
            metric_prefix: "weft".into(),
            limits: Limits::default(),
        }
    }
}
