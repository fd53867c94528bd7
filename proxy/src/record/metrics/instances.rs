//! Which instances of a service have series of their own.
//!
//! Instances come and go, and a service may have thousands: each with its own series would take the place of all other
//! services'. So a service has a few at a time, first come first served; the rest are one, `other`.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use foldhash::fast::RandomState;
use weft_core::{
    context::{Outcome, Reached},
    name::{InstanceName, ServiceKey},
};

/// How many instances of a service have series of their own on one worker.
pub(super) const MAX_INSTANCES: usize = 64;

/// What all further ones are called.
static OTHER: LazyLock<InstanceName> =
    LazyLock::new(|| InstanceName::new("other").expect("five letters are a name"));

/// Names of instances: of those without series of their own one is looked up with every request.
type Names = HashSet<Box<str>, RandomState>;

/// The instances that have series of one kind on one worker.
#[derive(Debug, Default)]
pub(super) struct Instances(HashMap<ServiceKey, Names, RandomState>);

impl Instances {
    /// The outcome as it is counted when there is no series for it yet: itself, or that of one among many.
    pub(super) fn admit<'a>(&mut self, outcome: &Outcome<'a>) -> Outcome<'a> {
        let Some(destination @ Reached { workload: None, instance: Some(instance), .. }) =
            outcome.destination
        else {
            return *outcome;
        };
        if self.has_room(destination.service, instance.as_str()) {
            return *outcome;
        }
        let destination = Reached { instance: Some(&OTHER), ..destination };
        Outcome { destination: Some(destination), ..*outcome }
    }

    /// Whether the instance has or may have series; if it may, it does from now on.
    fn has_room(&mut self, service: &ServiceKey, instance: &str) -> bool {
        let Some(known) = self.0.get_mut(service) else {
            self.0.insert(service.clone(), Names::from_iter([instance.into()]));
            return true;
        };
        known.contains(instance) || known.len() < MAX_INSTANCES && known.insert(instance.into())
    }

    /// Begins anew with the instances that still have series.
    pub(super) fn renew<'a>(&mut self, left: impl Iterator<Item = (&'a ServiceKey, &'a str)>) {
        self.0.clear();
        for (service, instance) in left.filter(|(_, instance)| *instance != OTHER.as_str()) {
            self.has_room(service, instance);
        }
    }
}
