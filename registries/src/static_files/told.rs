//! What was told of each file, so that only what is new is told again. Pure: listings in, events out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft_core::{
    config::{Fault, Located, Severity},
    name::OriginName,
    registry::{Completeness, Event, OriginFault, Scope, Version},
    resource::{Resource, ResourceKey, TlsMode},
};

use super::{
    conflict::conflicts,
    folder::{File, Listing},
};
use crate::address::endpoint_address;

/// The state of one watch.
pub(super) struct Told {
    scope: Scope,
    allow_loopback: bool,
    /// What was said last of each origin.
    origins: BTreeMap<OriginName, Said>,
    /// Whether the end of the list was told.
    ready: bool,
    /// Whether the list is of another folder than the one before.
    elsewhere: bool,
}

#[derive(Clone, PartialEq, Eq)]
struct Said {
    version: Version,
    faults: Vec<OriginFault>,
}

impl Told {
    pub(super) fn new(scope: Scope, allow_loopback: bool) -> Self {
        Self { scope, allow_loopback, origins: BTreeMap::new(), ready: false, elsewhere: false }
    }

    /// The events of the first look: a list, which is full when every file makes sense. Before that nobody knows what
    /// the others say, policies perhaps: a process that starts with nothing must not take the rest for all there is.
    ///
    /// `elsewhere`: it is another folder under the same name, such as that under a mount that went. What was in the first
    /// one is hidden then, and not gone; nor is it where a folder is empty that was not seen to be emptied.
    pub(super) fn full(&mut self, listing: &Listing, elsewhere: bool) -> Vec<Event> {
        self.origins.clear();
        self.ready = false;
        self.elsewhere = elsewhere;
        let mut events = vec![Event::Reset { scope: self.scope.clone() }];
        events.extend(self.replaced(listing));
        events.extend(self.end(listing));
        events
    }

    /// The events of a later look: what changed, what is gone, and a commit in any case ("still true").
    pub(super) fn changes(&mut self, listing: &Listing) -> Vec<Event> {
        let gone = self.origins.keys().filter(|origin| !listing.files.contains_key(*origin));
        let gone: Vec<OriginName> = gone.cloned().collect();
        let mut events: Vec<Event> = gone.into_iter().map(|origin| self.gone(origin)).collect();
        events.extend(self.replaced(listing));
        events.extend(self.end(listing));
        events
    }

    /// A commit, after the end of the list where that is not told yet and every file made sense at least once.
    fn end(&mut self, listing: &Listing) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.ready && listing.files.values().all(|file| file.in_force().is_some()) {
            self.ready = true;
            let hides = self.elsewhere || listing.files.is_empty();
            let completeness = if hides { Completeness::Filtered } else { Completeness::Full };
            events.push(Event::Ready { scope: self.scope.clone(), completeness });
        }
        events.push(Event::Commit { scope: self.scope.clone(), resume: None, age: Duration::ZERO });
        events
    }

    fn gone(&mut self, origin: OriginName) -> Event {
        self.origins.remove(&origin);
        let version = Version("gone".into());
        Event::Replace {
            scope: self.scope.clone(),
            origin,
            version,
            resources: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// One event per file whose content, or whose conflicts with other files, are new.
    fn replaced(&mut self, listing: &Listing) -> Vec<Event> {
        let in_force = listing.files.iter().filter_map(|(origin, file)| Some((origin, file.in_force()?)));
        let mut conflicts = conflicts(in_force);
        let mut events = Vec::new();
        for (origin, file) in &listing.files {
            let conflicts = conflicts.remove(&origin).unwrap_or_default();
            let (resources, faults) = self.speak(file, &conflicts);
            let said = Said { version: file.version.clone(), faults: faults.clone() };
            if self.origins.get(origin) == Some(&said) {
                continue;
            }
            self.origins.insert(origin.clone(), said);
            let (scope, version) = (self.scope.clone(), file.version.clone());
            events.push(Event::Replace { scope, origin: origin.clone(), version, resources, faults });
        }
        events
    }

    fn speak(&self, file: &File, conflicts: &[(ResourceKey, Fault)]) -> (Vec<Resource>, Vec<OriginFault>) {
        let Some(mesh) = &file.outcome.value else {
            return (Vec::new(), file.outcome.faults.iter().map(|fault| origin_fault(fault, true)).collect());
        };
        let left_out: BTreeSet<&ResourceKey> = conflicts.iter().map(|(key, _)| key).collect();
        let kept = mesh.resources.iter().filter(|located| !left_out.contains(&located.value.key()));
        let faults = file.outcome.faults.iter().chain(conflicts.iter().map(|(_, fault)| fault)).cloned();
        let (mut resources, mut faults) = (Vec::new(), faults.collect::<Vec<_>>());
        for located in kept {
            let fault = self.misled(located);
            if fault.as_ref().is_none_or(|fault| fault.severity != Severity::Error) {
                resources.push(located.value.clone());
            }
            faults.extend(fault);
        }
        (resources, faults.iter().map(|fault| origin_fault(fault, false)).collect())
    }

    /// What is wrong with where callers of an endpoint are led. A loopback address leads every host to itself; it is right
    /// only where all is on one host. What means something else on every host is right nowhere.
    fn misled(&self, located: &Located<Resource>) -> Option<Fault> {
        let Resource::Endpoint(endpoint) = &located.value else { return None };
        let (what, address) = match (&endpoint.mesh_address, endpoint.tls) {
            (Some(address), _) => ("mesh address", address.socket()),
            (None, TlsMode::Off) => ("address", endpoint.address.socket()),
            (None, TlsMode::Required) => return None,
        };
        if let Err(reason) = endpoint_address(address.ip(), address.port().into(), true) {
            let message = format!("the {what} {address} cannot be called: {reason}");
            return Some(Fault::error(located.place.clone(), message));
        }
        if !address.ip().to_canonical().is_loopback() || self.allow_loopback {
            return None;
        }
        let message = format!("the {what} {address} leads every other host to itself");
        let fault = Fault::warning(located.place.clone(), message);
        Some(fault.help("where all is on one host, say `allow_loopback = true` in `[[registry]]`"))
    }
}

/// A fault of a file of resources as a fault of the origin that it is.
pub(crate) fn origin_fault(fault: &Fault, keeps_last_good: bool) -> OriginFault {
    let mut message = format!("{}: {}", fault.severity.word(), fault.message);
    for part in [&fault.expected, &fault.help].into_iter().filter(|part| !part.is_empty()) {
        message.push_str("; ");
        message.push_str(part);
    }
    for related in &fault.related {
        message.push_str(&format!("; {} at {}", related.message, related.place));
    }
    OriginFault { message, place: fault.place.to_string(), keeps_last_good }
}
