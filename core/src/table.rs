//! What the data path reads: everything that configuration and registries say, compiled for looking up.
//!
//! A [`Table`] is immutable and shared by all workers. It is a persistent map of destinations plus one [`View`] per
//! local workload, so that a change copies only the path to what changed. A request holds its rule and its endpoint,
//! never the table. What must outlive a swap (requests in flight, failures, ejection) hangs on the endpoint's
//! [`EndpointState`], which the compiler carries over.

mod access;
mod directory;
mod endpoint;
mod routing;
mod shared_map;

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

pub use access::{
    Authorization, CompiledOperation, CompiledPolicy, CompiledRule, Decision, OWN_TRUST_DOMAIN, PathRule,
};
pub use directory::{Directory, Place, Places};
pub use endpoint::{DISTANCES, EndpointKey, EndpointSet, EndpointState, LazyState, Rank, Upstream};
pub use routing::{CompiledHeader, CompiledMatch, CompiledPath, CompiledRouteRule, CompiledValue, Target};
pub use shared_map::SharedMap;

use crate::{
    name::{HostName, PortName, RegistryName, ServiceKey, ServiceName},
    resource::AppProtocol,
    workload::{Workload, WorkloadPort},
};

/// Everything a request needs, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Counts compilations that changed something.
    pub generation: u64,
    /// Whether a registry has yet to say all it has, in this life or before: a service that is not here may exist.
    pub is_partial: bool,
    /// Destinations by every host name that leads to them, lower case, without a port.
    pub hosts: Directory,
    /// What concerns each local workload, in the order of the configuration.
    pub views: Arc<[Arc<View>]>,
}

impl Table {
    /// Every destination once, in no order.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.hosts.destinations()
    }

    /// The destination that a host name leads to, whoever asks. `host` is lower case and has no port and no final dot.
    #[must_use]
    pub fn destination(&self, host: &str) -> Option<&Arc<Destination>> {
        self.hosts.get(host)
    }

    /// The destination that a host name leads to when the workload of `view` asks: a bare name means its own
    /// namespace first.
    #[must_use]
    pub fn destination_for<'a>(&'a self, view: &'a View, host: &str) -> Option<&'a Arc<Destination>> {
        let own = view.hosts.get(host).and_then(|place| self.hosts.places.get(*place));
        own.or_else(|| self.hosts.get(host))
    }
}

/// A service as its callers see it.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Which service.
    pub key: ServiceKey,
    /// Its ports, at least one; callers that name no port get the first one that fits their protocol.
    pub ports: Vec<Arc<DestinationPort>>,
    /// Whether nobody may call it yet: a registry that has yet to be heard for the first time may have its names.
    pub is_held: bool,
}

impl Destination {
    /// The port with this number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&Arc<DestinationPort>> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The port with this name.
    #[must_use]
    pub fn port_named(&self, name: &PortName) -> Option<&Arc<DestinationPort>> {
        self.ports.iter().find(|port| port.name == *name)
    }
}

/// One port of a service, with its routing.
#[derive(Clone, Debug)]
pub struct DestinationPort {
    /// The service it belongs to.
    pub service: ServiceKey,
    /// Its name.
    pub name: PortName,
    /// The number callers use.
    pub number: u16,
    /// What is spoken there.
    pub protocol: AppProtocol,
    /// Tried in order; the last one matches everything, so a request always finds one.
    pub rules: Arc<[Arc<CompiledRouteRule>]>,
}

/// What concerns one local workload.
#[derive(Clone, Debug)]
pub struct View {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Bare names (`reviews`) of the services in the workload's own namespace, unless that is `default`, whose bare
    /// names are in [`Table::hosts`]. Asked first; the places are the table's.
    pub hosts: SharedMap<HostName, Place>,
    /// What it serves, by the service and the application's port that a hello names.
    pub inbound: HashMap<(ServiceName, u16), Arc<InboundPort>, RandomState>,
}

/// A served port, with the policy that protects it.
#[derive(Clone, Debug)]
pub struct InboundPort {
    /// The port as configured.
    pub port: WorkloadPort,
    /// The registry that declares the service: of several, the one whose word counts most. None when nobody does.
    pub registry: Option<RegistryName>,
    /// Who may do what there.
    pub authorization: Arc<Authorization>,
}
