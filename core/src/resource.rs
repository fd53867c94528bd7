//! What registries speak of: services, endpoints, routes and policies, in one model for all platforms.
//!
//! Resources are plain checked data. They say nothing about how they were read and nothing about how they are used:
//! converters make them, [`crate::merge`] keeps them, [`crate::compile`] turns them into tables.

mod address;
mod check;
mod labels;
mod policy;
mod route;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use address::Address;
pub use check::{MAX_ATTEMPTS, MAX_BACKENDS, MAX_PATTERN, MAX_WEIGHT, ResourceFault};
pub use labels::{FOR_ZONES, Labels};
pub use policy::{Action, Operation, Policy, PolicyRule, PolicyTarget, PrincipalMatch};
pub use route::{
    Backend, DEFAULT_CONNECT_TIMEOUT, HeaderMatch, Hidden, PathMatch, Retries, Route, RouteMatch, RouteRule,
    ValueMatch, hidden,
};

use crate::{
    identity::SpiffeId,
    locality::Locality,
    name::{HostName, InstanceName, PortName, RuleName, ServiceName},
};

/// One thing a registry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// A service: its ports and names.
    Service(Arc<Service>),
    /// One instance's port of a service.
    Endpoint(Arc<Endpoint>),
    /// How requests to a service are routed.
    Route(Arc<Route>),
    /// Who may call what.
    Policy(Arc<Policy>),
}

/// What a resource is called within its registry: at most one resource of a key is in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKey {
    /// A service by name.
    Service(ServiceName),
    /// An endpoint by service, port name and instance.
    Endpoint(ServiceName, PortName, InstanceName),
    /// A route by name.
    Route(RuleName),
    /// A policy by name.
    Policy(RuleName),
}

impl Resource {
    /// The key under which the resource stands in its registry.
    #[must_use]
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Service(service) => ResourceKey::Service(service.name.clone()),
            Self::Endpoint(endpoint) => ResourceKey::Endpoint(
                endpoint.service.clone(),
                endpoint.port_name.clone(),
                endpoint.instance.clone(),
            ),
            Self::Route(route) => ResourceKey::Route(route.name.clone()),
            Self::Policy(policy) => ResourceKey::Policy(policy.name.clone()),
        }
    }
}

impl ResourceKey {
    /// Names the resource for people: "service `reviews.default`".
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Service(name) => format!("service `{name}`"),
            Self::Endpoint(service, port, instance) => {
                format!("port `{port}` of instance `{instance}` of service `{service}`")
            }
            Self::Route(name) => format!("route `{name}`"),
            Self::Policy(name) => format!("policy `{name}`"),
        }
    }
}

/// The protocol an application speaks on a port, as declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2 without TLS, by prior knowledge.
    Http2,
    /// gRPC: HTTP/2 without TLS, with trailers.
    Grpc,
    /// Opaque bytes.
    Tcp,
}

impl AppProtocol {
    /// Whether requests can be told apart, so that routing and policy of layer 7 apply.
    #[must_use]
    pub fn is_http(self) -> bool {
        !matches!(self, Self::Tcp)
    }
}

/// A service: the thing callers name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name in its registry.
    pub name: ServiceName,
    /// The ports callers use, at least one.
    pub ports: Vec<ServicePort>,
    /// Further host names by which the platform knows it (`reviews.default.svc.cluster.local`).
    pub hosts: Vec<HostName>,
    /// Whether callers prefer the endpoints nearest to them while these can take requests: those of their own zone, then
    /// of their own region (Kubernetes' `trafficDistribution`).
    #[serde(default)]
    pub nearest: bool,
    /// Whether its registry knows it by more than its instances. Where it does not, whoever may register an instance
    /// makes the service, with its host names, and the last instance takes it away.
    #[serde(default)]
    pub declared: bool,
}

/// A port of a service as callers know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Unique within the service; endpoints refer to it.
    pub name: PortName,
    /// The number callers use, 1 to 65535.
    pub number: u16,
    /// What is spoken there.
    pub protocol: AppProtocol,
}

/// Whether an endpoint can take requests, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// The registry no longer mentions it but may have been unable to; it was ready then. Kept, for when no other is ready.
    Unconfirmed,
    /// Finishing: no new requests while another endpoint can take them.
    Draining,
    /// The registry says it does not work.
    Unhealthy,
}

/// Whether calls to an endpoint must be mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Never in plaintext.
    #[default]
    Required,
    /// Plaintext is for applications outside the mesh, declared so.
    Off,
}

/// Who said something about an endpoint: for whoever asks why it is reached so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sayer {
    /// The operator, endpoint by endpoint, in a file.
    #[default]
    Declared,
    /// The platform, which gives each workload an account (a pod's service account).
    Platform,
    /// What the instance's own record in the registry says of it, under a fixed key.
    Metadata,
    /// A rule of the agent's or the hub's file for this service of the registry.
    ServiceRule,
    /// The rule of the agent's or the hub's file for all services of the registry.
    RegistryRule,
    /// Nobody: what holds where nothing is said.
    Default,
}

/// Who said what of how an endpoint is reached. It only explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidBy {
    /// Who must answer; means nothing where there is no identity.
    pub identity: Sayer,
    /// The port that takes mesh traffic; means nothing where there is none.
    pub mesh_address: Sayer,
    /// Whether plaintext is allowed.
    pub tls: Sayer,
}

impl SaidBy {
    /// One that said all of it.
    #[must_use]
    pub const fn all(sayer: Sayer) -> Self {
        Self { identity: sayer, mesh_address: sayer, tls: sayer }
    }
}

/// One port of one instance of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The service it belongs to.
    pub service: ServiceName,
    /// The service's port that it serves.
    pub port_name: PortName,
    /// The instance within the registry.
    pub instance: InstanceName,
    /// The application's own address and port at that instance.
    pub address: Address,
    /// Where that instance's agent accepts mesh traffic; none when it speaks no mesh.
    pub mesh_address: Option<Address>,
    /// Who must answer there. An endpoint that requires TLS and has none is never dialled.
    pub identity: Option<SpiffeId>,
    /// Who said how it is reached.
    #[serde(default)]
    pub said_by: SaidBy,
    /// Whether plaintext is allowed.
    pub tls: TlsMode,
    /// Labels: subsets select by them.
    pub labels: Labels,
    /// Relative share of requests, 0 to 65535; 0 takes none while others can.
    pub weight: u16,
    /// Where it runs.
    pub locality: Locality,
    /// Whether it can take requests.
    pub health: Health,
}

impl Endpoint {
    /// Whether it can only be reached as the identity that it names.
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        self.tls == TlsMode::Required && self.identity.is_some()
    }

    /// Whether it may be dialled.
    #[must_use]
    pub fn can_be_called(&self) -> bool {
        self.unusable().is_none()
    }

    /// Why it must not be dialled, if so.
    #[must_use]
    pub fn unusable(&self) -> Option<&'static str> {
        match (self.tls, &self.identity, &self.mesh_address) {
            (TlsMode::Required, None, _) => Some("TLS is required and no identity is named that must answer"),
            (TlsMode::Required, _, None) => Some("TLS is required and no mesh address is announced"),
            _ => None,
        }
    }
}
