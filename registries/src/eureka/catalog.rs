//! The copy of Eureka's registry that lists and changes add up to. Pure.
//!
//! Eureka keeps its registry in memory: one that was restarted begins empty, and clients register again with their next
//! heartbeat. So an instance that a whole list lacks is gone only when the list shows that the server remembers: when it
//! holds at least one registration that was there before, of the same millisecond. A list of changes says by itself what
//! was deleted.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_core::name::{HostName, OriginName};

use super::{
    convert::{self, Context, Converted, Part},
    list::Head,
    objects::{Instance, STATUSES, status_counts},
};
use crate::{
    names::{fault, origin_name, service_name},
    told::{Listing, Words, share},
};

/// How long clients may take to register again at a server that forgot them: a lease, and two caches of half a minute, in
/// milliseconds.
pub(super) const REGISTERED_AGAIN: u64 = 150_000;

/// An instance's application, in upper case, and its id.
type Key = (Box<str>, Box<str>);

/// All instances that the server has, by application and id: what tells whether they change, and what they add to their
/// applications. What they say themselves is kept by who was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalog {
    applications: BTreeMap<Box<str>, BTreeMap<Box<str>, Held>>,
    unreadable: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    status: Cow<'static, str>,
    /// When the server took it in, by its clock: another time is another registration.
    registered: u64,
    /// A digest of the words of its own origin.
    said: u64,
    /// Shared by instances of an application that add the same.
    part: Arc<Part>,
}

/// A whole list.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) catalog: Catalog,
    /// All that it says.
    pub(super) listing: Listing,
}

/// A list of changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// How many instances of each status there are after them, by the server's count.
    pub(super) hash: String,
    /// What is otherwise than the catalog has it; of an instance that is gone, nothing.
    instances: BTreeMap<Key, Option<(Held, Words)>>,
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
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// What is there that was not, or may be otherwise.
    pub(super) listing: Listing,
    /// The instances that are gone, by the server's own word.
    deleted: Vec<OriginName>,
    /// The applications that have no instance left.
    applications: BTreeSet<Box<str>>,
}

fn of_application(app: &str) -> OriginName {
    origin_name(&["application", app])
}

fn of_instance(app: &str, id: &str) -> OriginName {
    origin_name(&["instance", app, id])
}

impl Changed {
    /// What is told anew, and all origins that are gone. While others of an application may still register again, the
    /// application is not.
    pub(super) fn told(self, doubted: bool) -> (Listing, Vec<OriginName>) {
        let applications = self.applications.iter().filter(|_| !doubted).map(|app| of_application(app));
        let applications: Vec<_> = applications.collect();
        (self.listing, self.deleted.into_iter().chain(applications).collect())
    }
}

impl Held {
    /// What is held of an instance, and what it says.
    fn of(object: &Instance, context: &Context, now: u64) -> (Self, Words) {
        let Converted { words, part } = convert::instance(object, context, now);
        let status = if object.status.is_empty() { "UNKNOWN" } else { &object.status };
        let known = STATUSES.into_iter().find(|known| *known == status);
        let status = known.map_or_else(|| Cow::Owned(status.to_owned()), Cow::Borrowed);
        let registered = object.lease.registered;
        (Self { status, registered, said: words.digest(), part: part.into() }, words)
    }
}

fn key(object: &Instance) -> Key {
    (object.app.as_str().into(), object.id.as_str().into())
}

impl Whole {
    /// Takes a list in, told at `now` of the server's clock in milliseconds. `read` hands over its instances.
    ///
    /// # Errors
    /// That of `read`.
    pub(super) fn take<E>(
        context: &Context,
        now: u64,
        read: impl FnOnce(&mut dyn FnMut(Instance)) -> Result<Head, E>,
    ) -> Result<Self, E> {
        let (mut whole, mut last) = (Self::default(), None);
        let head = read(&mut |object| {
            let (held, mut words) = Held::of(&object, context, now);
            // Most are of the same application as the one before.
            share(&mut words.resources, &mut last);
            let (app, id) = key(&object);
            // An instance that is listed twice is the last of the two.
            let origin = of_instance(&app, &id);
            whole.listing.remove(&origin);
            if is_said(&words) {
                whole.listing.insert(origin, words);
            }
            whole.catalog.insert((app, id), held);
        })?;
        whole.catalog.unreadable = head.unreadable;
        whole.listing.extend(whole.catalog.summary(context, |_| true));
        Ok(whole)
    }
}

/// An instance that says nothing is no origin.
fn is_said(words: &Words) -> bool {
    !words.resources.is_empty() || !words.faults.is_empty()
}

impl Changes {
    /// Takes a list of changes in, of which what `known` has already is passed over.
    ///
    /// # Errors
    /// That of `read`.
    pub(super) fn take<E>(
        known: &Catalog,
        context: &Context,
        now: u64,
        read: impl FnOnce(&mut dyn FnMut(Instance)) -> Result<Head, E>,
    ) -> Result<Self, E> {
        let mut instances = BTreeMap::new();
        let head = read(&mut |object| {
            let key = key(&object);
            let spoken = (object.action != "DELETED").then(|| Held::of(&object, context, now));
            // The last word on an instance counts.
            if spoken.as_ref().map(|(held, _)| held) == known.get(&key) {
                instances.remove(&key);
            } else {
                instances.insert(key, spoken);
            }
        })?;
        Ok(Self { hash: head.hash, instances })
    }

    /// Whether the catalog has them all.
    pub(super) fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }
}

impl Catalog {
    /// What this catalog of a whole list, told at `now` of the server's clock in milliseconds, says of the server's memory.
    pub(super) fn memory(&self, before: Option<&Self>, now: u64) -> Memory {
        let Some(before) = before.filter(|before| !before.is_empty()) else {
            let oldest = self.all().map(|(_, _, held)| held.registered).min().unwrap_or(now);
            return Memory::Unknown { young: oldest.saturating_add(REGISTERED_AGAIN) > now };
        };
        let old = |app: &str, id: &str| before.applications.get(app)?.get(id);
        let is_there =
            |app: &str, id: &str| self.applications.get(app).is_some_and(|all| all.contains_key(id));
        let mut stayed = self.all().filter(|(app, id, held)| {
            held.registered > 0 && old(app, id).is_some_and(|old| old.registered == held.registered)
        });
        let all_there = before.all().all(|(app, id, _)| is_there(app, id));
        if all_there || stayed.next().is_some() { Memory::Kept } else { Memory::Lost }
    }

    /// Whether nothing is registered.
    pub(super) fn is_empty(&self) -> bool {
        self.applications.is_empty()
    }

    /// How many instances there would be of each status after changes, as the server counts them to compare.
    pub(super) fn hash_after(&self, changes: &Changes) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, _, held) in self.all() {
            *counts.entry(&held.status).or_default() += 1;
        }
        for (key, spoken) in &changes.instances {
            if let Some(count) = self.get(key).and_then(|old| counts.get_mut(&*old.status)) {
                *count -= 1;
            }
            if let Some((held, _)) = spoken {
                *counts.entry(&held.status).or_default() += 1;
            }
        }
        status_counts(counts)
    }

    /// Adds changes.
    pub(super) fn change(&mut self, changes: Changes, context: &Context) -> Changed {
        let mut changed = Changed::default();
        let mut touched = BTreeSet::new();
        // Whose an address is depends on who else claims it.
        let mut is_claimed_anew = false;
        for ((app, id), spoken) in changes.instances {
            let origin = of_instance(&app, &id);
            let names = |held: &Held| held.part.names().to_vec();
            let before = self.get(&(app.clone(), id.clone())).map(names);
            let after = match spoken {
                Some((held, words)) => {
                    match is_said(&words) {
                        true => drop(changed.listing.insert(origin, words)),
                        false => changed.deleted.push(origin),
                    }
                    let names = names(&held);
                    self.insert((app.clone(), id), held);
                    Some(names)
                }
                None => {
                    self.remove(&app, &id);
                    changed.deleted.push(origin);
                    None
                }
            };
            is_claimed_anew |= before != after;
            touched.insert(app);
        }
        changed.listing.extend(self.summary(context, |app| is_claimed_anew || touched.contains(app)));
        touched.retain(|app| !self.applications.contains_key(app));
        changed.applications = touched;
        changed
    }

    /// What applications say, and how many things are none. An application is an origin, which declares the service; each of
    /// its instances is another one, so that those that are missing from a list are doubted one by one.
    fn summary(&self, context: &Context, wanted: impl Fn(&str) -> bool) -> Listing {
        let claims = self.claims();
        let mut listing = Listing::new();
        for (app, instances) in self.applications.iter().filter(|(app, _)| wanted(app)) {
            let is_ours = |host: &HostName| claims.decide(app, host);
            let parts = instances.values().map(|held| &*held.part);
            listing.insert(of_application(app), convert::application(app, parts, &context.rules, is_ours));
        }
        if self.unreadable > 0 {
            let message = format!("{} things in the list are no instances", self.unreadable);
            let words = Words::new(Vec::new(), vec![fault("applications", message)]);
            listing.insert(origin_name(&["applications"]), words);
        }
        listing
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str, &Held)> {
        let applications = self.applications.iter();
        applications.flat_map(|(app, all)| all.iter().map(move |(id, held)| (&**app, &**id, held)))
    }

    fn get(&self, (app, id): &Key) -> Option<&Held> {
        self.applications.get(app)?.get(id)
    }

    fn insert(&mut self, (app, id): Key, mut held: Held) {
        let others = self.applications.entry(app).or_default();
        // Most instances of an application differ in nothing that it adds up.
        if let Some(other) = others.values().next().filter(|other| other.part == held.part) {
            held.part = other.part.clone();
        }
        others.insert(id, held);
    }

    fn remove(&mut self, app: &str, id: &str) {
        let Some(others) = self.applications.get_mut(app) else { return };
        others.remove(id);
        if others.is_empty() {
            self.applications.remove(app);
        }
    }

    /// Which applications claim each virtual address.
    fn claims(&self) -> Claims<'_> {
        let mut claims = Claims::default();
        for (app, instances) in &self.applications {
            let name = service_name(app, weft_core::name::DEFAULT_NAMESPACE);
            // What the application is called itself.
            claims.applications.extend(name.ok().map(|name| name.label().to_owned()));
            for host in instances.values().flat_map(|held| held.part.names()) {
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
        if let Some(platform) = crate::names::platform_of(text) {
            return Err(format!("names in that domain are given by {platform}"));
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
