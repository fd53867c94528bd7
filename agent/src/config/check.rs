//! Checks across sections: what is right by itself and wrong together.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use weft_core::{
    config::{Fault, Located, Place},
    identity::TrustDomain,
    workload::WorkloadPort,
};
use weft_registries::Plan;

use super::{
    Listener,
    identity::IdentityConfig,
    workload::{ListenAddress, RawWorkload},
};

/// Names of registries are given once.
pub(super) fn registries(plans: &[Plan]) -> Vec<Fault> {
    twice(plans.iter().map(|plan| (format!("registry `{}`", plan.name.value), &plan.name.place)))
}

/// What an agent relays comes over the one stream of a host that joined.
pub(super) fn hub_registries(plans: &[Plan], identity: Option<&IdentityConfig>) -> Vec<Fault> {
    let mut relayed = plans.iter().filter(|plan| plan.kind == "hub");
    let Some(first) = relayed.next() else { return Vec::new() };
    let second = |plan: &Plan| {
        let message =
            format!("registry `{}` follows the hub, and so does `{}`", plan.name.value, first.name.value);
        let fault = Fault::error(plan.name.place.clone(), message);
        fault
            .expected("all that the hub relays comes as one registry")
            .related(first.name.place.clone(), "first here")
    };
    let mut faults: Vec<_> = relayed.map(second).collect();
    if matches!(identity, Some(IdentityConfig::Files { .. })) {
        let message = format!(
            "registry `{}` follows the hub, which speaks only to hosts that joined, and certificates come from files",
            first.name.value
        );
        let fault = Fault::error(first.name.place.clone(), message);
        faults.push(fault.expected("expected `kind = \"hub\"` in `[identity]`, or no `[identity]` at all"));
    }
    faults
}

/// All that is wrong between workloads.
pub(super) fn workloads(
    workloads: &[RawWorkload],
    trust_domain: Option<&Located<TrustDomain>>,
) -> Vec<Fault> {
    let names = workloads.iter().map(|it| (format!("workload `{}`", it.name.value), &it.name.place));
    let mut faults = twice(names);
    faults.extend(trust_domains(workloads, trust_domain));
    faults.extend(workloads.iter().flat_map(own_ports));
    faults.extend(shared_ports(workloads));
    faults.extend(alike_ports(workloads));
    faults.extend(workloads.iter().flat_map(upstreams_to_itself));
    faults.extend(unix_sockets(workloads));
    faults
}

/// One fault for each name that was given before.
fn twice<'p>(named: impl Iterator<Item = (String, &'p Place)>) -> Vec<Fault> {
    let mut first: BTreeMap<String, &Place> = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, place) in named {
        match first.get(&name) {
            Some(before) => faults.push(
                Fault::error(place.clone(), format!("{name} is defined twice"))
                    .related((*before).clone(), "first defined here"),
            ),
            None => drop(first.insert(name, place)),
        }
    }
    faults
}

/// All workloads are of one trust domain: the file's where it names one, else the first workload's.
fn trust_domains(workloads: &[RawWorkload], named: Option<&Located<TrustDomain>>) -> Vec<Fault> {
    let first = workloads.first().map(|it| (it.identity.value.trust_domain(), &it.identity.place));
    let Some((domain, place)) = named.map(|it| (it.value.clone(), &it.place)).or(first) else {
        return Vec::new();
    };
    let strangers = workloads.iter().filter(|it| it.identity.value.trust_domain() != domain);
    let fault = |it: &RawWorkload| {
        let other = it.identity.value.trust_domain_str();
        let message = format!("the trust domain `{other}` of workload `{}` is not `{domain}`", it.name.value);
        let fault = Fault::error(it.identity.place.clone(), message);
        let fault = fault.expected("the workloads of an agent are of one trust domain");
        fault.related(place.clone(), format!("`{domain}` is named here"))
    };
    strangers.map(fault).collect()
}

/// Within a workload, a service's port is given once.
fn own_ports(workload: &RawWorkload) -> Vec<Fault> {
    let named = |port: &Located<WorkloadPort>| {
        format!(
            "port `{}` of service `{}` in workload `{}`",
            port.value.name, port.value.service, workload.name.value
        )
    };
    twice(workload.ports.iter().map(|port| (named(port), &port.place)))
}

/// An application's address belongs to one workload, else a call could be answered as either. That it is several
/// services is worth a word: policies go by the service that a caller names.
fn shared_ports(workloads: &[RawWorkload]) -> Vec<Fault> {
    let mut first: BTreeMap<SocketAddr, (&RawWorkload, &Located<WorkloadPort>)> = BTreeMap::new();
    let mut faults = Vec::new();
    for workload in workloads {
        for port in &workload.ports {
            let address = port.value.address;
            let (owner, before) = *first.entry(address).or_insert((workload, port));
            let fault = if owner.name.value != workload.name.value {
                let (one, other) = (&owner.name.value, &workload.name.value);
                let message = format!("workloads `{one}` and `{other}` both serve on {address}");
                Fault::error(port.place.clone(), message)
            } else if before.value.service != port.value.service {
                let (one, other) = (&before.value.service, &port.value.service);
                let message = format!("`{one}` and `{other}` are one application, on {address}");
                let fault = Fault::warning(port.place.clone(), message);
                fault.help(
                    "a policy on one of them does not protect the other: callers choose which they name",
                )
            } else {
                continue;
            };
            faults.push(fault.related(before.place.clone(), "first given here"));
        }
    }
    faults
}

/// Other agents name a port by identity, service and number: two that differ by nothing but their IP address would be
/// one to them, and one of the two would get the other's calls.
fn alike_ports(workloads: &[RawWorkload]) -> Vec<Fault> {
    let mut first = BTreeMap::new();
    let mut faults = Vec::new();
    for workload in workloads {
        for port in &workload.ports {
            let (service, address) = (&port.value.service, port.value.address);
            let key = (workload.identity.value.to_string(), service.clone(), address.port());
            let (known, place) = *first.entry(key).or_insert((address, &port.place));
            if known != address {
                let (number, identity) = (address.port(), &workload.identity.value);
                let message = format!(
                    "port {number} of service `{service}` as {identity} is on {known} and on {address}"
                );
                let fault = Fault::error(port.place.clone(), message);
                let fault =
                    fault.expected("another port number, or another identity: callers name no address");
                faults.push(fault.related(place.clone(), "first given here"));
            }
        }
    }
    faults
}

fn upstreams_to_itself(workload: &RawWorkload) -> Vec<Fault> {
    let own = |service| workload.ports.iter().find(|port| port.value.service == service);
    let fault = |upstream: &Located<super::workload::RawUpstream>| {
        let service = upstream.value.config.service.clone();
        let port = own(service.clone())?;
        let message =
            format!("workload `{}` is its own upstream: it serves `{service}` itself", workload.name.value);
        Some(Fault::error(upstream.place.clone(), message).related(port.place.clone(), "served here"))
    };
    workload.upstreams.iter().filter_map(fault).collect()
}

fn unix_sockets(workloads: &[RawWorkload]) -> Vec<Fault> {
    let paths = listen_addresses(workloads).into_iter().filter_map(|(address, _)| match &address.value {
        ListenAddress::Unix(path) => Some((format!("the socket `{}`", path.display()), &address.place)),
        ListenAddress::Tcp(_) => None,
    });
    twice(paths)
}

/// Every listener of the workloads, with what it is.
fn listen_addresses(workloads: &[RawWorkload]) -> Vec<(&Located<ListenAddress>, String)> {
    let mut found = Vec::new();
    for workload in workloads {
        let name = &workload.name.value;
        found.extend(
            workload.outbound.iter().map(|it| (it, format!("the outbound port of workload `{name}`"))),
        );
        found.extend(workload.upstreams.iter().map(|it| {
            let service = &it.value.config.service;
            (&it.value.listen, format!("the upstream `{service}` of workload `{name}`"))
        }));
    }
    found
}

/// The workloads' TCP listeners.
pub(super) fn tcp_listeners(workloads: &[RawWorkload]) -> Vec<Listener> {
    let tcp = listen_addresses(workloads).into_iter().filter_map(|(address, what)| match address.value {
        ListenAddress::Tcp(tcp) => {
            Some(Listener { address: Located { value: tcp, place: address.place.clone() }, what })
        }
        ListenAddress::Unix(_) => None,
    });
    tcp.collect()
}

/// A listener proves which workload a connection is of, so no two share an address; and none takes an application's.
pub(super) fn clashes(listeners: &[Listener], workloads: &[RawWorkload]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        let before = listeners[..index].iter().find(|it| overlap(it.address.value, listener.address.value));
        if let Some(before) = before {
            let message =
                format!("{} and {} both listen on {}", before.what, listener.what, listener.address.value);
            // A default stands nowhere: the other one is what can be pointed at.
            let by_default = listener.address.place.line == 0;
            let (at, other) = if by_default { (before, listener) } else { (listener, before) };
            faults.push(point_to(Fault::error(at.address.place.clone(), message), other));
        }
    }
    for port in workloads.iter().flat_map(|workload| &workload.ports) {
        let taken = listeners.iter().find(|it| overlap(it.address.value, port.value.address));
        if let Some(taken) = taken {
            let message = format!("the application's address {} is {}", port.value.address, taken.what);
            faults.push(point_to(Fault::error(port.place.clone(), message), taken));
        }
    }
    faults
}

/// Names the place of the other listener, or that it is one by default.
fn point_to(fault: Fault, other: &Listener) -> Fault {
    match other.address.place.line {
        0 => fault.help(format!("{} is {} by default", other.what, other.address.value)),
        _ => fault.related(other.address.place.clone(), "given here"),
    }
}

/// Whether two sockets could not listen at once. An unspecified address covers all of its family, and `[::]` those of
/// IPv4 too. Port 0 is chosen by the kernel and never clashes.
fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
    let covers = |any: IpAddr, other: IpAddr| {
        any == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || any.is_unspecified() && any.is_ipv4() == other.is_ipv4()
    };
    let (a, b) = (left.ip(), right.ip());
    left.port() != 0 && left.port() == right.port() && (a == b || covers(a, b) || covers(b, a))
}
