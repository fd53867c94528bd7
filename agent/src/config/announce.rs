//! `[announce]` and `[workload.port.announce]`: which local services are announced, where, and as what.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use weft_core::{
    config::{Fault, Located, OneOrMany, Port, Readable, Section, nearest},
    name::{InstanceName, RegistryName},
    resource::Labels,
    workload::{Workload, WorkloadPort},
};
use weft_registries::{Plan, check::CheckSettings};

/// How often an application is looked after when the file does not say: its death is known after the second look.
const INTERVAL: Duration = Duration::from_secs(2);

/// `[announce]`: how others reach this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Its address; none for the one that its traffic leaves from.
    pub address: Option<IpAddr>,
    /// What its instances are called by; none for the node's name, or else the host's.
    pub instance: Option<InstanceName>,
}

/// One port of a local workload that is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncementConfig {
    /// Whose port it is.
    pub workload: Arc<Workload>,
    /// The port.
    pub port: WorkloadPort,
    /// How it is announced.
    pub terms: AnnounceTerms,
}

/// `[workload.port.announce]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceTerms {
    /// Where, at least one.
    pub registries: Vec<RegistryName>,
    /// The number that callers use, 1 to 65535.
    pub number: u16,
    /// What the workload's labels lack or say otherwise.
    pub labels: Labels,
    /// Its share of requests, 0 to 65535.
    pub weight: u16,
    /// How the application is looked after; none when it is not.
    pub check: Option<CheckSettings>,
}

/// What is written, with the places of the registries that it names.
pub(super) struct RawTerms {
    pub(super) registries: Vec<Located<RegistryName>>,
    pub(super) terms: AnnounceTerms,
}

pub(super) fn read_host(root: &Section<'_>) -> HostConfig {
    let Some(section) = root.section("announce") else { return HostConfig::default() };
    let address: Option<Located<IpAddr>> = section.get("address").and_then(|value| {
        let address = value.parse("an IP address, such as \"10.0.0.5\"", str::parse)?;
        Some(Located { value: address, place: value.place() })
    });
    if let Some(address) = address.as_ref().filter(|it| it.value.is_unspecified() || it.value.is_multicast())
    {
        let fault = Fault::error(address.place.clone(), format!("{} is no address of a host", address.value));
        section.report(fault.expected("expected the address by which others reach this host"));
    }
    HostConfig { address: address.map(|address| address.value), instance: section.read("instance") }
}

/// Reads how a port whose application listens on `application` is announced.
pub(super) fn read_terms(section: &Section<'_>, application: u16) -> Option<RawTerms> {
    let example = "where it is announced, such as registries = \"hub\"";
    let registries: Option<OneOrMany<Located<RegistryName>>> = section.require("registries", example);
    let number =
        section.get("number").map_or(Some(application), |value| Port::read(&value).map(|Port(it)| it));
    let labels = section.read_or("labels", BTreeMap::new());
    let weight = section.get("weight").map_or(Some(1), |value| value.integer(0..=u64::from(u16::MAX)));
    let usual = CheckSettings { interval: INTERVAL, ..CheckSettings::default() };
    let check = match section.section("check") {
        Some(check) => CheckSettings::read(&check, &usual),
        None => Some(Some(usual)),
    };
    let OneOrMany(registries) = registries?;
    if registries.is_empty() {
        let fault = Fault::error(section.key_place("registries"), "it is announced in no registry");
        section.report(fault.expected("expected at least one, or no `announce`"));
    }
    let terms = AnnounceTerms {
        registries: registries.iter().map(|registry| registry.value.clone()).collect(),
        number: number?,
        labels: labels.into(),
        weight: u16::try_from(weight?).ok()?,
        check: check?,
    };
    Some(RawTerms { registries, terms })
}

/// The registries that are named must be there, once each, and take announcements.
pub(super) fn check_registries(named: &[Located<RegistryName>], plans: &[Plan]) -> Vec<Fault> {
    let check = |(index, registry): (usize, &Located<RegistryName>)| {
        let fault = |message: String| Fault::error(registry.place.clone(), message);
        let name = &registry.value;
        if named[..index].iter().any(|before| before.value == *name) {
            return Some(fault(format!("registry `{name}` is named twice")));
        }
        let Some(plan) = plans.iter().find(|plan| plan.name.value == *name) else {
            let names = plans.iter().map(|plan| plan.name.value.as_str());
            let unknown = fault(format!("there is no registry `{name}`"));
            return Some(unknown.did_you_mean(nearest(name.as_str(), names)));
        };
        if plan.settings.takes_announcements() {
            return None;
        }
        let message = format!("registry `{name}` is of kind `{}`, which takes no announcements", plan.kind);
        Some(fault(message).related(plan.name.place.clone(), "the registry"))
    };
    named.iter().enumerate().filter_map(check).collect()
}
