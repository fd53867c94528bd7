//! Compiled endpoints and the state that survives a swap of tables.

use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU32, AtomicU64},
    },
};

use rustls_pki_types::ServerName;

use crate::{
    name::{InstanceName, PortName, RegistryName, ServiceKey},
    resource::{Address, Endpoint, Health},
};

/// What makes two endpoints of successive tables the same one: registry, service, port, instance and address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// The service it was announced for.
    pub service: ServiceKey,
    /// The service's port.
    pub port_name: PortName,
    /// The instance.
    pub instance: InstanceName,
    /// Where it is reached.
    pub address: Address,
}

/// Counters of one endpoint, shared by every worker and every table that knows it. Aligned to a cache line: they are
/// written on every request.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct EndpointState {
    /// Requests and connections under way, over all workers.
    pub in_flight: AtomicU32,
    /// Failures in a row that count against its health.
    pub failures: AtomicU32,
    /// How often it was ejected in a row; the next ejection lasts so many times longer.
    pub ejections: AtomicU32,
    /// Until when it gets no requests, in milliseconds since the process began; 0 when it was never ejected.
    pub ejected_until: AtomicU64,
    /// The framing that its agent asked for, in the data path's own numbers; 0 while it asked for none.
    pub framing: AtomicU8,
}

/// The place of an endpoint's [`EndpointState`], made when it is first asked for: of a hundred thousand endpoints an
/// agent calls a few, and each state takes 128 bytes of cache lines.
#[derive(Debug, Default)]
pub struct LazyState(OnceLock<Arc<EndpointState>>);

impl LazyState {
    /// The state, if anybody has asked for it yet. All its counters are zero otherwise.
    #[must_use]
    pub fn peek(&self) -> Option<&Arc<EndpointState>> {
        self.0.get()
    }

    /// A place for the same state.
    #[must_use]
    pub fn carried_over(&self) -> Self {
        Self(OnceLock::from(Arc::clone(self)))
    }
}

impl Deref for LazyState {
    type Target = Arc<EndpointState>;

    fn deref(&self) -> &Self::Target {
        self.0.get_or_init(Arc::default)
    }
}

/// An endpoint as the data path uses it. Exists once, shared by all that hold it.
#[derive(Debug)]
pub struct Upstream {
    /// Which registry announced it.
    pub registry: RegistryName,
    /// What was announced.
    pub endpoint: Arc<Endpoint>,
    /// How many better tiers there may be: of healthy endpoints, those of the lowest tier get the requests while they can.
    pub tier: u8,
    /// What outlives a swap.
    pub state: LazyState,
}

/// When an endpoint is called: those of the lowest rank share the calls. Its health decides first, then whether it only stands
/// by, then how near it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    health: Health,
    is_stand_by: bool,
    tier: u8,
}

impl Rank {
    /// The rank of an endpoint with so many better tiers.
    #[must_use]
    pub fn of(endpoint: &Endpoint, tier: u8) -> Self {
        Self { health: endpoint.health, is_stand_by: endpoint.weight == 0, tier }
    }
}

/// How many tiers the endpoints of one registry have: in the caller's zone, in its region, elsewhere.
pub const DISTANCES: u8 = 3;

impl Upstream {
    /// When it is called.
    #[must_use]
    pub fn rank(&self) -> Rank {
        Rank::of(&self.endpoint, self.tier)
    }

    /// Whether its registry comes before that of `other` for the service, rather than that it is nearer.
    #[must_use]
    pub fn is_preferred_to(&self, other: &Self) -> bool {
        self.tier / DISTANCES < other.tier / DISTANCES
    }

    /// The name to dial in TLS: the encoding of the identity that must answer; none when plaintext is allowed and no
    /// identity is known. Made anew for each connection: beside a handshake it is nothing, and a hundred thousand
    /// stored names would be megabytes.
    #[must_use]
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        let identity = self.endpoint.identity.as_ref()?;
        ServerName::try_from(identity.server_name()).ok()
    }
}

/// The endpoints that one target chooses from, best rank first.
#[derive(Debug, Default)]
pub struct EndpointSet {
    /// Every eligible endpoint, sorted by [`Health`](crate::resource::Health), then stand-bys (those of weight 0) last,
    /// then by tier, then by instance.
    pub all: Vec<Arc<Upstream>>,
    /// How many of `all`, from the front, are healthy and of the best tier, and are no stand-bys unless all healthy ones
    /// are: the choice is among them unless all are ejected.
    pub first_choice: usize,
    /// Cumulative weights of the first choice; empty when all weigh the same.
    pub cumulative_weights: Vec<u32>,
}
