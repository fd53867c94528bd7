//! What an operator sees of pools.

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;
use weft_core::{
    identity::SpiffeId,
    name::{InstanceName, ServiceKey},
};

/// One pooled connection to another agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionInfo {
    /// The local workload's identity.
    pub source: SpiffeId,
    /// The serial number of our certificate on it.
    pub own_serial: String,
    /// The called service.
    pub service: ServiceKey,
    /// The instance.
    pub instance: InstanceName,
    /// The other agent's address.
    pub address: SocketAddr,
    /// Who answered.
    pub peer: SpiffeId,
    /// The serial number of its certificate.
    pub peer_serial: String,
    /// Requests under way.
    pub streams: u32,
    /// Whether it takes new requests: `open`, `replaceable`, `retired` or `dead`.
    pub state: &'static str,
    /// How long it is open.
    pub age: Duration,
}
