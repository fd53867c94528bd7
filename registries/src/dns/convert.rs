//! Answers as resources. Pure.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use weft_core::{
    identity::TrustDomain,
    name::{HostName, InstanceName, OriginName},
    registry::OriginFault,
    resource::{AppProtocol, Endpoint, Health, Labels, Resource, Service, ServicePort},
};

use super::{
    answers::{Answers, Host, Offer},
    settings::{Followed, Mode, Source},
};
use crate::{
    address, names,
    speaking::{Instance, Rules},
    told::Words,
};

/// The most endpoints of a service.
const MAX_ENDPOINTS: usize = 1000;
/// The port that callers know a service by whose instances have ports of their own.
const ANY_PORT: u16 = 80;

/// What a followed service says, or that there is none.
#[derive(Debug)]
pub(super) enum Outcome {
    /// This.
    Says(Words),
    /// Its name does not exist, says who must know.
    Gone,
}

/// One address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    instance: String,
    host: String,
    ip: IpAddr,
    port: u16,
    weight: u16,
    /// Whether nobody has confirmed it for long.
    is_old: bool,
}

/// What a service is read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) answers: &'a Answers,
    /// The addresses that logical hosts had the last time.
    pub(super) used: &'a BTreeSet<IpAddr>,
    /// Whether what has not been answered yet may still be.
    pub(super) patient: bool,
    /// Whether the service is found under its host's name too.
    pub(super) has_its_host: bool,
    pub(super) now: Instant,
}

/// The origin of a followed service.
pub(super) fn origin(followed: &Followed) -> OriginName {
    names::origin_name(&["name", followed.service.as_str()])
}

/// What a followed service says. A part of it is no reason to let go of what an earlier process knew of the rest.
pub(super) fn convert(
    followed: &Followed,
    view: &View<'_>,
    rules: &Rules,
    trust_domain: Option<&TrustDomain>,
) -> Outcome {
    let (answers, now) = (view.answers, view.now);
    let mut faults = Vec::new();
    let found = match &followed.source {
        Source::Host(name, port) => {
            let host = answers.host(name, now);
            if host.is_denied {
                return Outcome::Gone;
            }
            tell(name, &host, &mut faults);
            host.is_answered.then(|| of_host(followed.mode, name, &host, *port, view.used))
        }
        Source::Service(name) => {
            let known = answers.known.get(&(name.clone(), super::answers::Kind::Srv));
            if known.is_some_and(|known| known.stands == Some(super::answers::Answer::NoName)) {
                return Outcome::Gone;
            }
            let failure = known.and_then(|known| known.failure.as_ref());
            faults.extend(failure.map(|failure| names::fault(name, failure.why.clone())));
            let places =
                answers.offers(name).and_then(|offers| of_offers(followed, offers, view, &mut faults));
            let is_old = known.is_some_and(|known| known.is_old(now));
            places.map(|places| {
                places.into_iter().map(|it| Place { is_old: is_old || it.is_old, ..it }).collect()
            })
        }
    };
    let waits = found.is_none() || (view.patient && answers.is_partial(followed));
    if waits {
        // What was known by an earlier process stands.
        if faults.is_empty() {
            faults.push(names::fault(followed.service.as_str(), "there is no answer yet"));
        }
        let keeps = |fault: &mut OriginFault| fault.keeps_last_good = true;
        faults.iter_mut().for_each(keeps);
    }
    let Some(places) = found else { return Outcome::Says(Words::new(Vec::new(), faults)) };
    Outcome::Says(words(followed, places, view.has_its_host, rules, trust_domain, faults))
}

fn tell(name: &str, host: &Host, faults: &mut Vec<OriginFault>) {
    faults.extend(host.failures.iter().map(|why| names::fault(name, why.clone())));
    if host.is_answered && host.addresses.is_empty() && host.failures.is_empty() {
        let why = if host.is_denied { "there is no such name" } else { "the name has no addresses" };
        faults.push(names::fault(name, why));
    }
}

fn of_host(mode: Mode, name: &str, host: &Host, port: u16, used: &BTreeSet<IpAddr>) -> Vec<Place> {
    let place = |instance: String, ip: IpAddr| Place {
        instance,
        host: name.to_owned(),
        ip,
        port,
        weight: 1,
        is_old: host.old.contains(&ip),
    };
    match mode {
        Mode::Strict => {
            let mut addresses = host.addresses.clone();
            addresses.sort();
            addresses.dedup();
            addresses.into_iter().map(|ip| place(format!("{name}:{port}/{ip}"), ip)).collect()
        }
        Mode::Logical => {
            let in_use = host.addresses.iter().find(|ip| used.contains(ip));
            let chosen = in_use.or(host.addresses.first());
            chosen.into_iter().map(|ip| place(format!("{name}:{port}"), *ip)).collect()
        }
    }
}

/// Those of the best priority get the requests; others have no weight, so that they are asked when no one else can be.
/// None while not one of the hosts is known.
fn of_offers(
    followed: &Followed,
    offers: &[Offer],
    view: &View<'_>,
    faults: &mut Vec<OriginFault>,
) -> Option<Vec<Place>> {
    let best = offers.iter().map(|offer| offer.priority).min();
    let mut offers: Vec<&Offer> = offers.iter().filter(|offer| !offer.target.is_empty()).collect();
    offers.sort();
    // The same host and port once, with the best that is said of it.
    let mut seen = BTreeSet::new();
    offers.retain(|offer| seen.insert((&offer.target, offer.port)));
    let mut hosts = Vec::new();
    let mut is_known = offers.is_empty();
    let mut told = BTreeSet::new();
    if offers.is_empty() {
        faults.push(names::fault(followed.service.as_str(), "nobody offers it"));
    }
    for offer in offers {
        let host = view.answers.host(&offer.target, view.now);
        if told.insert(&offer.target) {
            tell(&offer.target, &host, faults);
        }
        is_known |= host.is_answered;
        let weight = if Some(offer.priority) == best { offer.weight.max(1) } else { 0 };
        let places = of_host(followed.mode, &offer.target, &host, offer.port, view.used);
        if !places.is_empty() {
            hosts.push((weight, places));
        }
    }
    is_known.then(|| shared(hosts))
}

/// A weight is a host's (RFC 2782): its addresses share it. All are multiplied so that little is lost by rounding.
fn shared(hosts: Vec<(u16, Vec<Place>)>) -> Vec<Place> {
    let heaviest = hosts.iter().map(|(weight, _)| u64::from(*weight)).max().unwrap_or_default().max(1);
    let at_most = u64::from(u16::MAX) / heaviest;
    let count = |places: &Vec<Place>| u64::try_from(places.len()).unwrap_or(u64::MAX);
    // Once no more is possible the exact multiple does not matter.
    let even = hosts.iter().fold(1, |even: u64, (_, places)| match even > at_most {
        true => even,
        false => even.saturating_mul(count(places) / greatest_divisor(even, count(places))),
    });
    let times = even.min(at_most);
    let share = |(weight, mut places): (u16, Vec<Place>)| {
        let share = (u64::from(weight) * times) / count(&places);
        let share = u16::try_from(share).unwrap_or(u16::MAX).max(u16::from(weight > 0));
        places.iter_mut().for_each(|place| place.weight = share);
        places
    };
    hosts.into_iter().flat_map(share).collect()
}

fn greatest_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { greatest_divisor(other, one % other) }
}

fn words(
    followed: &Followed,
    mut places: Vec<Place>,
    has_its_host: bool,
    rules: &Rules,
    trust_domain: Option<&TrustDomain>,
    mut faults: Vec<OriginFault>,
) -> Words {
    if places.len() > MAX_ENDPOINTS {
        let message =
            format!("{} addresses are left out: at most {MAX_ENDPOINTS}", places.len() - MAX_ENDPOINTS);
        faults.push(names::fault(followed.service.as_str(), message));
        places.truncate(MAX_ENDPOINTS);
    }
    let protocol = rules.protocol(&followed.service);
    let port_name = if protocol == AppProtocol::Tcp { "tcp" } else { "" };
    let port_name = names::port_name(port_name).expect("a port's name");
    let (number, host) = match &followed.source {
        Source::Host(name, port) => (*port, HostName::new(name).ok().filter(|_| has_its_host)),
        Source::Service(_) => (ANY_PORT, None),
    };
    let ports = vec![ServicePort { name: port_name.clone(), number, protocol }];
    let service = Service {
        name: followed.service.clone(),
        ports,
        hosts: host.into_iter().collect(),
        nearest: false,
        declared: true,
    };
    let mut resources = vec![Resource::Service(service.into())];
    for place in places {
        let endpoint = endpoint(followed, &place, rules, trust_domain, &mut faults);
        match endpoint {
            Ok(endpoint) => {
                let endpoint = Endpoint { port_name: port_name.clone(), ..endpoint };
                resources.push(Resource::Endpoint(endpoint.into()));
            }
            Err(message) => faults.push(names::fault(&place.instance, message)),
        }
    }
    Words::new(resources, faults)
}

fn endpoint(
    followed: &Followed,
    place: &Place,
    rules: &Rules,
    trust_domain: Option<&TrustDomain>,
    faults: &mut Vec<OriginFault>,
) -> Result<Endpoint, String> {
    let address = address::endpoint_address(place.ip, place.port.into(), rules.allow_loopback)?;
    let instance = Instance {
        service: &followed.service,
        address: &address,
        platform: None,
        record: &|_| None,
        unread: None,
        strays: &[],
        words: &[("host", &place.host)],
    };
    let speaks = rules.speaks(instance, trust_domain);
    faults.extend(speaks.faults.into_iter().map(|fault| names::fault(&place.instance, fault)));
    let name = InstanceName::new(&place.instance)
        .or_else(|_| InstanceName::new(names::origin_name(&[&place.instance]).as_str()))
        .map_err(|error| error.to_string())?;
    Ok(Endpoint {
        service: followed.service.clone(),
        port_name: names::port_name("").expect("a port's name"),
        instance: name,
        mesh_address: speaks.mesh_address,
        identity: speaks.identity,
        said_by: speaks.said_by,
        tls: speaks.tls,
        labels: Labels::default(),
        weight: place.weight,
        locality: followed.locality.clone(),
        health: if place.is_old { Health::Unconfirmed } else { Health::Healthy },
        address,
    })
}

#[cfg(test)]
mod tests;
