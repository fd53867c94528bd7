//! `[[join]]`: services of several registries that are one.

use weft_core::{
    compile::{Join, Prefer},
    config::{Fault, Located, Readable, Section, Value, nearest},
    name::{RegistryName, ServiceName},
};
use weft_registries::Plan;

/// Registries that joins name and nobody follows, each with what to do about it: of `known`, some are configured here, and the
/// others are all that the hub relays. Until it has said so, nobody can know.
#[must_use]
pub fn strangers(joins: &[Join], known: &[RegistryName]) -> Vec<String> {
    let mut strangers: Vec<&RegistryName> = joins.iter().flat_map(|join| &join.registries).collect();
    strangers.retain(|named| !known.contains(named));
    strangers.sort();
    strangers.dedup();
    let say = |stranger: &RegistryName| {
        let meant = nearest(stranger.as_str(), known.iter().map(RegistryName::as_str));
        let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        format!(
            "joins nothing of registry `{stranger}`: neither this file nor the hub has one of that name{meant}"
        )
    };
    strangers.into_iter().map(say).collect()
}

pub(super) fn read(root: &Section<'_>, plans: &[Plan]) -> Vec<Join> {
    let sections = root.sections("join");
    let joins: Vec<_> =
        sections.iter().filter_map(|section| Some((section, join(section, plans)?))).collect();
    for (index, (section, later)) in joins.iter().enumerate() {
        for (first, before) in &joins[..index] {
            check_overlap((first, before), (section, later));
        }
    }
    joins.into_iter().map(|(_, join)| join).collect()
}

/// A service of a registry is part of one join at most: of two, one would have no effect.
fn check_overlap((first, before): (&Section<'_>, &Join), (section, later): (&Section<'_>, &Join)) {
    let shared = later.registries.iter().find(|registry| before.registries.contains(registry));
    let all = before.services.is_empty() || later.services.is_empty();
    let service = later.services.iter().find(|service| before.services.contains(service));
    let Some(registry) = shared.filter(|_| all || service.is_some()) else { return };
    let what = service.map_or_else(|| "services".to_owned(), |service| format!("`{service}`"));
    let message = format!("{what} of registry `{registry}` are in two joins");
    let fault = Fault::error(section.key_place("registries"), message);
    section.report(fault.related(first.key_place("registries"), "the other join"));
}

fn join(section: &Section<'_>, plans: &[Plan]) -> Option<Join> {
    let expected = "at least two registries, most authoritative first";
    let value = section.require_value("registries", expected);
    let services: Option<Vec<ServiceName>> = section.list("services", ServiceName::read);
    let prefer = section.get("prefer").map(|value| prefer(&value));
    let value = value?;
    let registries: Vec<Located<RegistryName>> = Readable::read(&value)?;
    if registries.len() < 2 {
        value.reject("a join is of several registries", format!("expected {expected}"));
    }
    for (index, registry) in registries.iter().enumerate() {
        let fault = |message: String| Fault::error(registry.place.clone(), message);
        if let Some(before) = registries[..index].iter().find(|before| before.value == registry.value) {
            let twice = fault(format!("registry `{}` is named twice", registry.value));
            section.report(twice.related(before.place.clone(), "first named here"));
        }
        // What a hub relays bears names that only the hub's file knows.
        let relayed = plans.iter().any(|plan| plan.kind == "hub");
        if !relayed && !plans.iter().any(|plan| plan.name.value == registry.value) {
            let names = plans.iter().map(|plan| plan.name.value.as_str());
            let unknown = fault(format!("there is no registry `{}`", registry.value));
            section.report(unknown.did_you_mean(nearest(registry.value.as_str(), names)));
        }
    }
    let registries: Vec<_> = registries.into_iter().map(|registry| registry.value).collect();
    let prefer = prefer.unwrap_or_else(|| Some(Preferred { prefer: Prefer::Any, places: Vec::new() }))?;
    check_preferred(section, &registries, &prefer);
    Some(Join { registries, services: services?, prefer: prefer.prefer })
}

/// What is preferred, with where each registry is named.
struct Preferred {
    prefer: Prefer,
    places: Vec<Located<RegistryName>>,
}

/// `"nearest"`, or registries in the order in which they are preferred.
fn prefer(value: &Value<'_>) -> Option<Preferred> {
    if value.as_text().is_some() {
        let prefer = value.word(&[("nearest", Prefer::Nearest), ("any", Prefer::Any)])?;
        return Some(Preferred { prefer, places: Vec::new() });
    }
    let places: Vec<Located<RegistryName>> = Readable::read(value)?;
    let order = places.iter().map(|registry| registry.value.clone()).collect();
    Some(Preferred { prefer: Prefer::Registries(order), places })
}

fn check_preferred(section: &Section<'_>, registries: &[RegistryName], preferred: &Preferred) {
    for (index, named) in preferred.places.iter().enumerate() {
        let twice = preferred.places[..index].iter().any(|before| before.value == named.value);
        if twice {
            section.report(Fault::error(
                named.place.clone(),
                format!("registry `{}` is named twice", named.value),
            ));
        } else if !registries.contains(&named.value) {
            let names = registries.iter().map(|registry| registry.as_str());
            let fault =
                Fault::error(named.place.clone(), format!("registry `{}` is not of this join", named.value));
            section.report(fault.did_you_mean(nearest(named.value.as_str(), names)));
        }
    }
}
