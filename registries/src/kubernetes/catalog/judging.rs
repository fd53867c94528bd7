//! What is to be written into objects of ours: whether what they say counts, and what it lacks.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use weft_core::{
    name::ServiceName,
    resource::{Route, hidden},
};

use super::Catalog;
use crate::kubernetes::{
    compact::Key,
    configured::{Judgement, Meaning, Missing, Verdict},
    objects::Kind,
};

/// An object of ours.
type Subject = (Kind, Key);

/// Which objects of ours name a service: a cluster may have thousands of either, and what concerns one says nothing of most.
#[derive(Debug, Default)]
pub(super) struct Naming {
    /// The routes for it.
    routes: HashMap<ServiceName, BTreeSet<Subject>>,
    /// Those that are for it or send calls to it, by its key.
    any: HashMap<Key, BTreeSet<Subject>>,
}

impl Naming {
    pub(super) fn take_in(&mut self, subject: &Subject, meaning: &Meaning) {
        if let Some(known) = meaning.route() {
            self.routes.entry(known.service.clone()).or_default().insert(subject.clone());
        }
        for service in named(meaning) {
            self.any.entry(service).or_default().insert(subject.clone());
        }
    }

    pub(super) fn forget(&mut self, subject: &Subject, meaning: &Meaning) {
        if let Some(known) = meaning.route() {
            without(&mut self.routes, &known.service, subject);
        }
        for service in named(meaning) {
            without(&mut self.any, &service, subject);
        }
    }

    pub(super) fn routes(&self, service: &ServiceName) -> impl Iterator<Item = Subject> {
        self.routes.get(service).into_iter().flatten().cloned()
    }

    pub(super) fn any(&self, service: &Key) -> impl Iterator<Item = Subject> {
        self.any.get(service).into_iter().flatten().cloned()
    }
}

/// The services that an object names, by their keys.
fn named(meaning: &Meaning) -> impl Iterator<Item = Key> {
    meaning.target().into_iter().chain(meaning.backends()).filter_map(service_key)
}

fn without<K: Eq + Hash>(naming: &mut HashMap<K, BTreeSet<Subject>>, service: &K, subject: &Subject) {
    if let Some(known) = naming.get_mut(service) {
        known.remove(subject);
        if known.is_empty() {
            naming.remove(service);
        }
    }
}

/// What a service is known by in the catalog.
fn service_key(service: &ServiceName) -> Option<Key> {
    let (name, namespace) = service.as_str().split_once('.')?;
    Some(format!("{namespace}/{name}").into())
}

impl Catalog {
    /// What is to be written into objects of ours since the last call. Only while all is listed: which services are not
    /// there is not known before.
    pub(in crate::kubernetes) fn take_verdicts(&mut self) -> Vec<Verdict> {
        let unjudged = std::mem::take(&mut self.unjudged);
        unjudged.iter().filter_map(|subject| self.verdict(subject)).collect()
    }

    fn verdict(&self, subject: &Subject) -> Option<Verdict> {
        let ((meta, said), meaning) = (self.told.get(subject)?, self.configured.get(subject)?);
        let missing = meaning.refusal.is_none().then(|| self.missing(meaning));
        Verdict::new(subject.0, meta, said, &self.judge(meaning), missing)
    }

    fn judge<'a>(&self, meaning: &'a Meaning) -> Judgement<'a> {
        if let Some(why) = &meaning.refusal {
            return Judgement::Invalid(why);
        }
        let hidden = meaning.route().and_then(|route| {
            let others = self.naming.routes(&route.service);
            let others = others.filter_map(|subject| self.configured.get(&subject)?.route());
            let mut routes: Vec<&Route> = others.filter(|other| other.name < route.name).collect();
            routes.sort_by_key(|other| &other.name);
            routes.push(route);
            hidden(&routes).pop().flatten()
        });
        match hidden {
            Some(hidden) if hidden.is_whole => Judgement::Conflicted(hidden.message),
            hidden => Judgement::Accepted { but: hidden.map(|hidden| hidden.message).unwrap_or_default() },
        }
    }

    /// The services that it names and that are not there, or none for the mesh. What is not followed may be.
    fn missing(&self, meaning: &Meaning) -> Missing {
        let missing = |service: &ServiceName| {
            let key = service_key(service).filter(|key| self.conversion.follows(key))?;
            let view = self.services.get(&key).and_then(|entry| entry.service.as_ref());
            match view {
                None => Some(service.to_string()),
                Some(view) if view.is_taken_over() => None,
                Some(view) => Some(match &view.alias {
                    Some(other) => format!("{service} (an ExternalName for {other})"),
                    None => format!("{service} (it is none that can be called: `weft status` says why)"),
                }),
            }
        };
        let backends: BTreeSet<_> = meaning.backends().filter_map(missing).collect();
        Missing { target: meaning.target().and_then(missing), backends: backends.into_iter().collect() }
    }
}
