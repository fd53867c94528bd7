//! `[[join]]`: services of several registries that are one.

use weft_core::{
    compile::Join,
    config::{Fault, Located, Readable, Section, nearest},
    name::{RegistryName, ServiceName},
};
use weft_registries::Plan;

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
    let registries = registries.into_iter().map(|registry| registry.value).collect();
    Some(Join { registries, services: services? })
}
