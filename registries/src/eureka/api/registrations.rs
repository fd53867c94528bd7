//! Applications that register here: kept in memory under their leases. After a restart they register again, as with Eureka:
//! the answer to their next heartbeat says that nobody knows them.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{Moment, Question, codec, xml};
use crate::eureka::objects::{Instance, Lease, STATUSES};

/// The most instances that may register here.
const MAX_INSTANCES: usize = 10_000;
/// The most memory that an instance may take, in bytes: ten times what they do.
pub(super) const MAX_INSTANCE: usize = 32 << 10;
/// The most memory that all may take, in bytes.
const MAX_MEMORY: usize = 64 << 20;
/// From how many on it is doubted that most of them have gone at once.
const DOUBTED_FROM: usize = 8;
/// The most that left and are remembered.
const MAX_LEFT: usize = 10_000;
/// The longest name, in bytes.
const MAX_NAME: usize = 253;

/// An instance's application, in upper case, and its id.
pub(super) type Key = (String, String);

/// Who is registered.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    instances: BTreeMap<Key, Registered>,
    /// What they weigh together.
    weight: usize,
    /// Who left, and until when it was known to be there, in milliseconds since 1970.
    left: BTreeMap<Key, u64>,
    /// When most of them were silent together last, by the clock that nobody sets.
    hushed: u64,
    generation: u64,
}

#[derive(Debug)]
struct Registered {
    instance: Instance,
    /// When it was renewed last, by the clock that nobody sets.
    renewed: u64,
}

/// Why something was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody of that name is registered.
    Unknown,
    /// It is not what Eureka takes either.
    Wrong(String),
    /// The body has another form.
    Form,
    /// It takes too much memory.
    TooLarge,
    /// No more are kept.
    Full,
    /// Nothing of that kind can be asked here.
    NoSuchMethod,
}

impl Registrations {
    /// Counts changes.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().map(|registered| &registered.instance)
    }

    /// Who left, and until when it was known to be there, in milliseconds since 1970.
    pub(super) fn left(&self) -> &BTreeMap<Key, u64> {
        &self.left
    }

    /// Forgets who left before a moment, in milliseconds since 1970, but for some.
    pub(super) fn forget_left(&mut self, before: u64, but: &BTreeSet<Key>) {
        self.left.retain(|key, until| *until >= before || but.contains(key));
    }

    /// Lets go of those whose lease ran out. While most are silent it is not they who are gone: nobody goes then, and
    /// afterwards each has a whole lease to be heard again.
    pub(super) fn expire(&mut self, now: Moment) {
        let silent = self.instances.values().filter(|it| it.is_silent(now)).count();
        if self.instances.len() >= DOUBTED_FROM && silent * 2 > self.instances.len() {
            self.hushed = self.hushed.max(now.steady);
            return;
        }
        let hushed = self.hushed;
        let ends = |it: &Registered| it.renewed.max(hushed).saturating_add(it.instance.lease.duration * 1000);
        let gone: Vec<_> = self.instances.extract_if(.., |_, it| ends(it) < now.steady).collect();
        for (key, Registered { instance, .. }) in gone {
            self.weight -= instance.weight();
            // What was heard of it elsewhere since then counts.
            self.leave(key, instance.lease.renewed);
        }
    }

    fn leave(&mut self, key: Key, until: u64) {
        self.generation += 1;
        if self.left.len() >= MAX_LEFT
            && let Some(oldest) =
                self.left.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone())
        {
            self.left.remove(&oldest);
        }
        self.left.insert(key, until);
    }

    /// Takes a request that changes something.
    pub(super) fn write(
        &mut self,
        question: &Question<'_>,
        segments: &[&str],
        now: Moment,
    ) -> Result<StatusCode, Refusal> {
        self.expire(now);
        let (method, query) = (question.method, question.query);
        match segments {
            ["apps", app] if *method == Method::POST => self.register(question, app, now),
            ["apps", app, id] if *method == Method::PUT => {
                self.renew(self.key(app, id)?, parameter(query, "lastDirtyTimestamp").as_deref(), now)
            }
            ["apps", app, id] if *method == Method::DELETE => {
                let key = (app.to_uppercase(), (*id).to_owned());
                let known =
                    self.instances.remove(&key).map(|it| self.weight -= it.instance.weight()).is_some();
                // One that registered with Eureka alone says here that it goes when Eureka is gone.
                if known || key.0.len().max(key.1.len()) <= MAX_NAME {
                    self.leave(key, now.wall);
                }
                if known { Ok(StatusCode::OK) } else { Err(Refusal::Unknown) }
            }
            ["apps", app, id, "status"] if *method == Method::PUT => {
                let value = parameter(query, "value").filter(|it| STATUSES.contains(&it.as_str()));
                let value = value.ok_or_else(|| Refusal::Wrong("no such status".into()))?;
                self.change(self.key(app, id)?, |instance| {
                    instance.status.clone_from(&value);
                    instance.overridden = value;
                })
            }
            ["apps", app, id, "status"] if *method == Method::DELETE => {
                let value = parameter(query, "value").filter(|it| STATUSES.contains(&it.as_str()));
                self.change(self.key(app, id)?, |instance| {
                    instance.status = value.unwrap_or_else(|| "UNKNOWN".into());
                    instance.overridden = "UNKNOWN".into();
                })
            }
            ["apps", app, id, "metadata"] if *method == Method::PUT => {
                let pairs: Vec<_> = parameters(query).take(64).collect();
                self.change(self.key(app, id)?, |instance| instance.metadata.extend(pairs))
            }
            ["apps", ..] => Err(Refusal::NoSuchMethod),
            _ => Err(Refusal::Unknown),
        }
    }

    fn register(&mut self, question: &Question<'_>, app: &str, now: Moment) -> Result<StatusCode, Refusal> {
        let document = document(question)?;
        let fields = document.get("instance").unwrap_or(&document).as_object();
        let fields = fields.ok_or_else(|| wrong("the instance is no object"))?;
        let mut instance =
            Instance::read(fields, "").ok_or_else(|| wrong("Missing instanceId or appName"))?;
        instance.keep_rest(fields);
        if instance.host.is_empty() {
            return Err(wrong("Missing hostname"));
        }
        if instance.app != app.to_uppercase() {
            let (own, expected) = (instance.app, app.to_uppercase());
            return Err(Refusal::Wrong(format!("Mismatched appName, expecting {expected} but was {own}")));
        }
        codec::readable(&mut instance).map_err(Refusal::Wrong)?;
        let named = [&instance.app, &instance.id, &instance.host];
        if named.iter().any(|name| name.len() > MAX_NAME || name.chars().any(char::is_control)) {
            return Err(wrong("a name is too long or holds control characters"));
        }
        if !STATUSES.contains(&instance.status.as_str()) {
            instance.status = "UP".into();
        }
        if !STATUSES.contains(&instance.overridden.as_str()) {
            instance.overridden = "UNKNOWN".into();
        }
        let key = (instance.app.clone(), instance.id.clone());
        let old = self.instances.get(&key).map(|registered| &registered.instance);
        if old.is_none() && self.instances.len() >= MAX_INSTANCES {
            return Err(Refusal::Full);
        }
        let before = old.map_or(0, Instance::weight);
        if instance.dirty == 0 {
            // As Eureka takes it: what is shown of it here is what heartbeats are compared with.
            instance.dirty = now.wall.max(old.map_or(0, |old| old.dirty));
        }
        // An operator's override outlives what the instance says of itself.
        if let Some(old) = old.filter(|old| old.overridden != "UNKNOWN") {
            instance.overridden.clone_from(&old.overridden);
            if instance.status == "UP" {
                instance.status.clone_from(&old.overridden);
            }
        }
        // Eureka keeps the younger word of the two, and renews the lease all the same.
        let younger = old.filter(|old| old.dirty > instance.dirty).cloned();
        let registered = old.map_or(now.wall, |old| old.lease.registered);
        let mut instance = younger.unwrap_or(instance);
        instance.lease.registered = registered;
        instance.lease.renewed = now.wall;
        if instance.lease.up_since == 0 {
            instance.lease.up_since = now.wall;
        }
        self.weight = self.weight_with(before, &instance)?;
        self.left.remove(&key);
        self.instances.insert(key, Registered { instance, renewed: now.steady });
        self.generation += 1;
        Ok(StatusCode::NO_CONTENT)
    }

    /// A heartbeat. Who knows something younger than we do must register again.
    fn renew(&mut self, key: Key, dirty: Option<&str>, now: Moment) -> Result<StatusCode, Refusal> {
        let Registered { instance, renewed } = self.instances.get_mut(&key).ok_or(Refusal::Unknown)?;
        let younger =
            dirty.and_then(|text| text.parse::<u64>().ok()).is_some_and(|dirty| dirty > instance.dirty);
        if younger || instance.status == "UNKNOWN" {
            return Err(Refusal::Unknown);
        }
        (instance.lease.renewed, *renewed) = (now.wall, now.steady);
        Ok(StatusCode::OK)
    }

    fn change(&mut self, key: Key, change: impl FnOnce(&mut Instance)) -> Result<StatusCode, Refusal> {
        let known = &self.instances.get(&key).ok_or(Refusal::Unknown)?.instance;
        let mut changed = known.clone();
        change(&mut changed);
        self.weight = self.weight_with(known.weight(), &changed)?;
        self.instances.get_mut(&key).ok_or(Refusal::Unknown)?.instance = changed;
        self.generation += 1;
        Ok(StatusCode::OK)
    }

    /// What all weigh when an instance takes the place of one that weighs `before`.
    fn weight_with(&self, before: usize, instance: &Instance) -> Result<usize, Refusal> {
        let own = instance.weight();
        let all = self.weight - before + own;
        match (own > MAX_INSTANCE, own > before && all > MAX_MEMORY) {
            (true, _) => Err(Refusal::TooLarge),
            (false, true) => Err(Refusal::Full),
            (false, false) => Ok(all),
        }
    }

    fn key(&self, app: &str, id: &str) -> Result<Key, Refusal> {
        let key = (app.to_uppercase(), id.to_owned());
        if self.instances.contains_key(&key) { Ok(key) } else { Err(Refusal::Unknown) }
    }
}

impl Registered {
    /// Whether a heartbeat of it is overdue.
    fn is_silent(&self, now: Moment) -> bool {
        let Lease { renewal, duration, .. } = self.instance.lease;
        let overdue = (renewal * 1500).min(duration * 500);
        self.renewed.saturating_add(overdue) < now.steady
    }
}

fn wrong(reason: &str) -> Refusal {
    Refusal::Wrong(reason.to_owned())
}

/// A page of the web may send other forms from any browser, with whatever parameters; these two it may not.
fn document(question: &Question<'_>) -> Result<Value, Refusal> {
    let form = question.content_type.unwrap_or_default();
    let essence = form.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let of_application = essence.strip_prefix("application/");
    let is = |name: &str| of_application.is_some_and(|it| it == name || it.ends_with(&format!("+{name}")));
    let read = if is("json") {
        serde_json::from_slice(question.body).ok()
    } else if is("xml") || essence == "text/xml" {
        xml::read(question.body)
    } else {
        return Err(Refusal::Form);
    };
    read.ok_or_else(|| wrong("cannot parse request body"))
}

fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    let decode = |text: &str| {
        percent_decode_str(&text.replace('+', " ")).decode_utf8().ok().map(|text| text.into_owned())
    };
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=')?;
        Some((decode(key)?, decode(value)?))
    })
}

fn parameter(query: &str, key: &str) -> Option<String> {
    parameters(query).find(|(known, _)| known == key).map(|(_, value)| value)
}
