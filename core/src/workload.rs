//! Local workloads: processes of this host that have an identity of their own.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    identity::SpiffeId,
    locality::Locality,
    name::{PortName, ServiceName, WorkloadName},
    resource::{AppProtocol, Labels},
};

/// A local process, or group of processes, with one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Unique on this host.
    pub name: WorkloadName,
    /// Who it is to all others.
    pub identity: SpiffeId,
    /// Labels, for telemetry and routing.
    pub labels: Labels,
    /// Where it runs.
    pub locality: Locality,
    /// What it serves; empty for a pure client.
    pub ports: Vec<WorkloadPort>,
}

/// A port on which a local application serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadPort {
    /// The service it is an instance of; policies that target the service apply.
    pub service: ServiceName,
    /// The service's port name.
    pub name: PortName,
    /// Where the application listens. Its port number is what a caller's hello names.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: AppProtocol,
}

/// Who makes a request, known before its first byte is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The workload's name; for a remote caller as its hello says, for information only.
    pub workload: Option<WorkloadName>,
    /// The certified identity.
    pub identity: SpiffeId,
    /// Labels; for a remote caller as its hello says, and no input of policy.
    pub labels: Labels,
}
