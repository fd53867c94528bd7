//! Which values of resources mean something. Whoever takes words of a registry in asks here, so that what one kind of
//! registry refuses none passes on.

use super::{Endpoint, Policy, Resource, Route, RouteRule, Service};

/// The largest weight of a backend.
pub const MAX_WEIGHT: u32 = 1_000_000;
/// The most backends of a rule, so that their weights can be summed.
pub const MAX_BACKENDS: usize = 1024;
/// How large a compiled pattern may be, in bytes.
pub const MAX_PATTERN: usize = 256 << 10;
/// The most tries after the first.
pub const MAX_ATTEMPTS: u8 = 10;

/// The first rule that a resource breaks, in words.
pub type ResourceFault = &'static str;

impl Resource {
    /// Checks what names and types do not: counts, ranges, sums. Patterns, paths, methods and header names are read when
    /// they are compiled.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn check(&self) -> Result<(), ResourceFault> {
        match self {
            Self::Service(service) => check_service(service),
            Self::Endpoint(endpoint) => check_endpoint(endpoint),
            Self::Route(route) => check_route(route),
            Self::Policy(policy) => check_policy(policy),
        }
    }
}

fn rule(holds: bool, fault: ResourceFault) -> Result<(), ResourceFault> {
    if holds { Ok(()) } else { Err(fault) }
}

fn check_service(service: &Service) -> Result<(), ResourceFault> {
    rule(!service.ports.is_empty(), "a service has at least one port")?;
    rule(service.ports.iter().all(|port| port.number != 0), "no port has the number 0")?;
    let unique = service.ports.iter().enumerate().all(|(index, port)| {
        service.ports[..index].iter().all(|other| other.name != port.name && other.number != port.number)
    });
    rule(unique, "the names and numbers of a service's ports are unique")
}

fn check_endpoint(endpoint: &Endpoint) -> Result<(), ResourceFault> {
    let mesh = endpoint.mesh_address.as_ref().is_none_or(|mesh| mesh.socket().port() != 0);
    rule(mesh && endpoint.address.socket().port() != 0, "nothing listens on port 0")
}

fn check_route(route: &Route) -> Result<(), ResourceFault> {
    rule(!route.rules.is_empty(), "a route has at least one rule")?;
    let unique = (route.rules.iter().enumerate())
        .all(|(index, one)| route.rules[..index].iter().all(|other| other.name != one.name));
    rule(unique, "the names of a route's rules are unique")?;
    route.rules.iter().try_for_each(check_rule)
}

fn check_rule(one: &RouteRule) -> Result<(), ResourceFault> {
    rule(!one.connect_timeout.is_zero(), "a connection cannot be made in no time")?;
    rule(one.retries.attempts <= MAX_ATTEMPTS, "at most 10 tries follow the first")?;
    rule(one.backends.len() <= MAX_BACKENDS, "a rule has at most 1024 backends")?;
    rule(one.backends.iter().all(|it| it.weight <= MAX_WEIGHT), "a backend weighs at most 1 000 000")?;
    let weighs = one.backends.is_empty() || one.backends.iter().any(|it| it.weight > 0);
    rule(weighs, "the weights of a rule's backends do not add up to 0")
}

fn check_policy(policy: &Policy) -> Result<(), ResourceFault> {
    let mut ports = policy.rules.iter().flat_map(|it| &it.to).flat_map(|it| &it.ports);
    rule(ports.all(|port| *port != 0), "nothing listens on port 0")
}
