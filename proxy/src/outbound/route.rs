//! Where a request goes: destination by host, port by number or protocol, rule by what it matches.

use std::sync::Arc;

use http::request::Parts;
use weft_core::table::{CompiledRouteRule, Destination, DestinationPort, Table};

use crate::{command::OutboundRole, config::OutboundKind, fault::Fault, headers::Host};

/// Where a host is meant that names no port (RFC 9110 §4.2.1).
const HTTP_PORT: u16 = 80;

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Routed {
    /// The called port.
    pub(crate) port: Arc<DestinationPort>,
    /// The rule that applies.
    pub(crate) rule: Arc<CompiledRouteRule>,
}

/// Finds destination and rule. The path of `parts` is normalised.
///
/// # Errors
/// No such service, or port.
pub(crate) fn route(
    table: &Table,
    role: &OutboundRole,
    host: &Host<'_>,
    parts: &Parts,
) -> Result<Routed, Fault> {
    let port = match &role.kind {
        OutboundKind::ByHost => {
            let destination = destination(table, role, &host.name)?;
            match host.port {
                Some(number) => by_number(destination, number)?,
                None => default_http(destination)?,
            }
        }
        OutboundKind::Upstream { .. } => bound_port(table, role)?,
    };
    let path = parts.uri.path();
    let mut rules = port.rules.iter();
    let rule =
        rules.find(|rule| rule.applies(path, &parts.method, &parts.headers)).ok_or(Fault::NoBackend)?;
    Ok(Routed { port: port.clone(), rule: rule.clone() })
}

/// The port that an upstream listener is bound to.
///
/// # Errors
/// No such service, or port; and for a listener that is bound to none.
pub(crate) fn bound_port<'a>(
    table: &'a Table,
    role: &OutboundRole,
) -> Result<&'a Arc<DestinationPort>, Fault> {
    let OutboundKind::Upstream { service, port } = &role.kind else { return Err(Fault::NoDestination) };
    let destination = destination(table, role, service.as_str())?;
    match port {
        Some(name) => destination.port_named(name),
        None => destination.ports.first(),
    }
    .ok_or(Fault::NoPort)
}

/// The destination of a host name. Of a service that is not in the table, a registry that has yet to be heard may know,
/// and nobody is to remember that there is none; of one that is, that registry may have the name.
fn destination<'a>(table: &'a Table, role: &OutboundRole, host: &str) -> Result<&'a Arc<Destination>, Fault> {
    match find(table, role, host) {
        Some(found) if found.is_held => Err(Fault::NotReady),
        Some(found) => Ok(found),
        None if table.is_partial => Err(Fault::NotReady),
        None => Err(Fault::NoDestination),
    }
}

/// A bare name means the caller's own namespace first.
fn find<'a>(table: &'a Table, role: &OutboundRole, host: &str) -> Option<&'a Arc<Destination>> {
    if host.contains('.') {
        return table.destination(host);
    }
    match table.views.iter().find(|view| view.workload.name == role.caller.workload.name) {
        Some(view) => table.destination_for(view, host),
        None => table.destination(host),
    }
}

/// A caller that names a port gets that one. The default port of HTTP is as good as no port.
fn by_number(destination: &Destination, number: u16) -> Result<&Arc<DestinationPort>, Fault> {
    match destination.port(number) {
        Some(port) => Ok(port),
        None if number == HTTP_PORT => default_http(destination),
        None => Err(Fault::NoPort),
    }
}

/// Port 80, or else the first that speaks HTTP.
fn default_http(destination: &Destination) -> Result<&Arc<DestinationPort>, Fault> {
    let http = |port: &&Arc<DestinationPort>| port.protocol.is_http();
    let by_custom = destination.port(HTTP_PORT).filter(http);
    by_custom.or_else(|| destination.ports.iter().find(http)).ok_or(Fault::NoPort)
}
