//! The copy of Eureka's registry that lists and changes add up to. Pure.
//!
//! Eureka keeps its registry in memory: one that was restarted begins empty, and clients register again with their next
//! heartbeat. So an instance that a whole list lacks is gone only when the list shows that the server remembers: when it
//! holds at least one registration that was there before, of the same millisecond. A list of changes says by itself what
//! was deleted.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::name::{HostName, OriginName};

use super::{
    convert::{self, Context, Converted},
    objects::{Applications, Instance},
};
use crate::{
    names::{fault, origin_name, service_name},
    told::{Listing, Words},
};

/// How long clients may take to register again at a server that forgot them: a lease, and two caches of half a minute, in
/// milliseconds.
pub(super) const REGISTERED_AGAIN: u64 = 150_000;

/// All instances that the server has, by application and id.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalog {
    instances: BTreeMap<(String, String), Held>,
    unreadable: usize,
}

#[derive(Clone, Debug)]
struct Held {
    status: String,
    /// When the server took it in, by its clock: another time is another registration.
    registered: u64,
    converted: Converted,
}

/// What a whole list says of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// It knows what it knew before.
    Kept,
    /// Something is missing, and nothing in the list was there before.
    Lost,
    /// There was nothing before that could tell.
    Unknown {
        /// Whether everything in it was registered within [`REGISTERED_AGAIN`], so that the server may have started then.
        young: bool,
    },
}

/// What a list of changes changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Whether anything is there that was not, or is otherwise.
    pub(super) any: bool,
    /// The instances that are gone, by the server's own word.
    pub(super) deleted: Vec<OriginName>,
    /// The applications that have no instance left.
    applications: BTreeSet<String>,
}

fn of_application(app: &str) -> OriginName {
    origin_name(&["application", app])
}

fn of_instance(app: &str, id: &str) -> OriginName {
    origin_name(&["instance", app, id])
}

impl Changed {
    /// Whether nothing is different.
    pub(super) fn is_nothing(&self) -> bool {
        !self.any && self.deleted.is_empty()
    }

    /// All origins that are gone. While others of an application may still register again, the application is not.
    pub(super) fn gone(self, doubted: bool) -> Vec<OriginName> {
        let applications = self.applications.iter().filter(|_| !doubted).map(|app| of_application(app));
        let applications: Vec<_> = applications.collect();
        self.deleted.into_iter().chain(applications).collect()
    }
}

impl Catalog {
    /// The catalog of a whole list, told at `now` of the server's clock in milliseconds, and what the list says of the
    /// server's memory.
    pub(super) fn take(
        list: Applications,
        before: Option<&Self>,
        context: &Context,
        now: u64,
    ) -> (Self, Memory) {
        let mut catalog = Self { unreadable: list.unreadable, ..Self::default() };
        for object in list.instances {
            catalog.insert(object, context, now);
        }
        let memory = catalog.memory(before.filter(|before| !before.instances.is_empty()), now);
        (catalog, memory)
    }

    /// Adds changes.
    pub(super) fn change(&mut self, changes: Applications, context: &Context, now: u64) -> Changed {
        let mut changed = Changed::default();
        for object in changes.instances {
            let key = (object.app.clone(), object.id.clone());
            if object.action == "DELETED" {
                if self.instances.remove(&key).is_some() {
                    changed.deleted.push(of_instance(&key.0, &key.1));
                    changed.applications.insert(key.0);
                }
            } else {
                changed.any |= self.insert(object, context, now);
            }
        }
        changed.applications.retain(|app| self.instances.keys().all(|(other, _)| other != app));
        changed
    }

    /// Whether nothing is registered.
    pub(super) fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// How many instances there are of each status, as the server counts them to compare.
    pub(super) fn hash(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for held in self.instances.values() {
            *counts.entry(&held.status).or_default() += 1;
        }
        counts.into_iter().map(|(status, count)| format!("{status}_{count}_")).collect()
    }

    /// All of it, in words. An application is an origin, which declares the service; each of its instances is another one,
    /// so that those that are missing from a list are doubted one by one.
    pub(super) fn listing(&self, context: &Context) -> Listing {
        let claims = self.claims();
        let mut listing = Listing::new();
        let mut applications: BTreeMap<&str, Vec<&Held>> = BTreeMap::new();
        for ((app, id), held) in &self.instances {
            applications.entry(app).or_default().push(held);
            if !held.converted.words.resources.is_empty() || !held.converted.words.faults.is_empty() {
                listing.insert(of_instance(app, id), held.converted.words.clone());
            }
        }
        for (app, held) in applications {
            let is_ours = |host: &HostName| claims.decide(app, host);
            let parts = held.iter().map(|held| &held.converted.part);
            listing.insert(of_application(app), convert::application(app, parts, &context.rules, is_ours));
        }
        if self.unreadable > 0 {
            let message = format!("{} things in the list are no instances", self.unreadable);
            let words = Words::new(Vec::new(), vec![fault("applications", message)]);
            listing.insert(origin_name(&["applications"]), words);
        }
        listing
    }

    fn insert(&mut self, object: Instance, context: &Context, now: u64) -> bool {
        let converted = convert::instance(&object, context, now);
        let Instance { app, id, status, lease, .. } = object;
        let status = if status.is_empty() { "UNKNOWN".to_owned() } else { status };
        let held = Held { status, registered: lease.registered, converted };
        let old = self.instances.get(&(app.clone(), id.clone()));
        let differs = old.is_none_or(|old| {
            old.converted.words != held.converted.words
                || old.converted.part != held.converted.part
                || old.status != held.status
        });
        self.instances.insert((app, id), held);
        differs
    }

    fn memory(&self, before: Option<&Self>, now: u64) -> Memory {
        let Some(before) = before else {
            let oldest = self.instances.values().map(|held| held.registered).min().unwrap_or(now);
            return Memory::Unknown { young: oldest.saturating_add(REGISTERED_AGAIN) > now };
        };
        let stayed = |(key, held): (&(String, String), &Held)| {
            held.registered > 0
                && before.instances.get(key).is_some_and(|old| old.registered == held.registered)
        };
        let all_there = before.instances.keys().all(|key| self.instances.contains_key(key));
        if all_there || self.instances.iter().any(stayed) { Memory::Kept } else { Memory::Lost }
    }

    /// Which applications claim each virtual address.
    fn claims(&self) -> Claims<'_> {
        let mut claims = Claims::default();
        for ((app, _), held) in &self.instances {
            claims.applications.extend(service_name(app, weft_core::name::DEFAULT_NAMESPACE).ok().map(
                |name| {
                    // What the application is called itself.
                    name.label().to_owned()
                },
            ));
            for host in held.converted.part.names() {
                claims.hosts.entry(host).or_default().insert(app);
            }
        }
        claims
    }
}

#[derive(Default)]
struct Claims<'a> {
    applications: BTreeSet<String>,
    hosts: BTreeMap<&'a HostName, BTreeSet<&'a str>>,
}

impl Claims<'_> {
    /// Whoever may register an application must not take calls to another one.
    fn decide(&self, app: &str, host: &HostName) -> Result<(), String> {
        let text = host.as_str();
        let own = app.to_ascii_lowercase();
        if text == own {
            return Ok(());
        }
        if self.applications.contains(text) {
            return Err("it is the name of another application".into());
        }
        if text == "mesh" || text.ends_with(".mesh") {
            return Err("names that end in .mesh are given by the mesh".into());
        }
        // A service's own name, `label.namespace`, is never an alias of another one.
        let label = text.strip_suffix(&format!(".{}", weft_core::name::DEFAULT_NAMESPACE));
        if label.is_some_and(|label| label != own && self.applications.contains(label)) {
            return Err("it is the name of another application".into());
        }
        match self.hosts.get(host) {
            Some(claimants) if claimants.len() > 1 => {
                let mut others =
                    claimants.iter().filter(|other| **other != app).map(|it| crate::names::quoted(it));
                Err(format!("{} claims it too", others.next().unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }
}
