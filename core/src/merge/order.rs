//! The order of resources within an origin: all of one service stand together, so that they are found by bisection.

use std::cmp::Ordering;

use crate::{name::ServiceName, resource::Resource};

/// Services with their endpoints by service, then routes, then policies.
pub(super) fn compare(a: &Resource, b: &Resource) -> Ordering {
    use Resource::{Endpoint, Policy, Route, Service};
    rank(a).cmp(&rank(b)).then_with(|| service(a).cmp(&service(b))).then_with(|| match (a, b) {
        (Endpoint(a), Endpoint(b)) => (&a.port_name, &a.instance).cmp(&(&b.port_name, &b.instance)),
        (Service(_), Endpoint(_)) => Ordering::Less,
        (Endpoint(_), Service(_)) => Ordering::Greater,
        (Route(a), Route(b)) => a.name.cmp(&b.name),
        (Policy(a), Policy(b)) => a.name.cmp(&b.name),
        _ => Ordering::Equal,
    })
}

/// The service or endpoint's service; none for routes and policies, which stand behind.
pub(super) fn service(resource: &Resource) -> Option<&ServiceName> {
    match resource {
        Resource::Service(service) => Some(&service.name),
        Resource::Endpoint(endpoint) => Some(&endpoint.service),
        Resource::Route(_) | Resource::Policy(_) => None,
    }
}

/// The part of `sorted` that speaks of one service and its endpoints.
pub(super) fn of_service<'a>(sorted: &'a [Resource], name: &ServiceName) -> &'a [Resource] {
    let before = |resource: &Resource| service(resource).is_some_and(|service| service < name);
    let start = sorted.partition_point(before);
    let length = sorted[start..].partition_point(|resource| service(resource) == Some(name));
    &sorted[start..start + length]
}

/// Pairs of what stands under one key before and after, for every key where they differ.
pub(super) fn differences<'a>(
    old: &'a [Resource],
    new: &'a [Resource],
) -> impl Iterator<Item = (Option<&'a Resource>, Option<&'a Resource>)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let step = match (old.peek(), new.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => compare(a, b),
            };
            let pair = match step {
                Ordering::Less => (old.next(), None),
                Ordering::Greater => (None, new.next()),
                Ordering::Equal => (old.next(), new.next()),
            };
            if pair.0 != pair.1 {
                return Some(pair);
            }
        }
    })
}

fn rank(resource: &Resource) -> u8 {
    match resource {
        Resource::Service(_) | Resource::Endpoint(_) => 0,
        Resource::Route(_) => 1,
        Resource::Policy(_) => 2,
    }
}
