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
    configured::{Judgement, Meaning, Verdict},
    objects::Kind,
};

/// Which routes are about a service: a cluster may have thousands of either, and what concerns one says nothing of most.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Those for it.
    of: HashMap<ServiceName, BTreeSet<Key>>,
    /// Those that send calls to it as a backend, by its key.
    sending_to: HashMap<Key, BTreeSet<Key>>,
}

impl Routes {
    pub(super) fn take_in(&mut self, route: &Key, meaning: &Meaning) {
        if let Some(known) = meaning.route() {
            self.of.entry(known.service.clone()).or_default().insert(route.clone());
        }
        for backend in meaning.backends().filter_map(service_key) {
            self.sending_to.entry(backend).or_default().insert(route.clone());
        }
    }

    pub(super) fn forget(&mut self, route: &Key, meaning: &Meaning) {
        if let Some(known) = meaning.route() {
            without(&mut self.of, &known.service, route);
        }
        for backend in meaning.backends().filter_map(service_key) {
            without(&mut self.sending_to, &backend, route);
        }
    }

    pub(super) fn of(&self, service: &ServiceName) -> impl Iterator<Item = (Kind, Key)> {
        subjects(self.of.get(service))
    }

    pub(super) fn sending_to(&self, service: &Key) -> impl Iterator<Item = (Kind, Key)> {
        subjects(self.sending_to.get(service))
    }
}

fn subjects(routes: Option<&BTreeSet<Key>>) -> impl Iterator<Item = (Kind, Key)> {
    routes.into_iter().flatten().map(|key| (Kind::Routes, key.clone()))
}

fn without<K: Eq + Hash>(routes: &mut HashMap<K, BTreeSet<Key>>, service: &K, route: &Key) {
    if let Some(known) = routes.get_mut(service) {
        known.remove(route);
        if known.is_empty() {
            routes.remove(service);
        }
    }
}

/// What a service is known by in the catalog.
fn service_key(service: &ServiceName) -> Option<Key> {
    let (name, namespace) = service.as_str().split_once('.')?;
    Some(format!("{namespace}/{name}").into())
}

impl Catalog {
    /// What is to be written into objects of ours since the last call. Only while all is listed: which services a route
    /// lacks is not known before.
    pub(in crate::kubernetes) fn take_verdicts(&mut self) -> Vec<Verdict> {
        let unjudged = std::mem::take(&mut self.unjudged);
        unjudged.iter().filter_map(|subject| self.verdict(subject)).collect()
    }

    fn verdict(&self, subject: &(Kind, Key)) -> Option<Verdict> {
        let ((meta, said), meaning) = (self.told.get(subject)?, self.configured.get(subject)?);
        let looks = subject.0 == Kind::Routes && meaning.refusal.is_none();
        let missing = looks.then(|| self.missing_backends(meaning));
        Verdict::new(subject.0, meta, said, &self.judge(meaning), missing.as_deref())
    }

    fn judge<'a>(&self, meaning: &'a Meaning) -> Judgement<'a> {
        if let Some(why) = &meaning.refusal {
            return Judgement::Invalid(why);
        }
        let hidden = meaning.route().and_then(|route| {
            let others = self.routes.of(&route.service);
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

    /// The services of a route's backends that are not there. What is not followed may be.
    fn missing_backends(&self, meaning: &Meaning) -> Vec<String> {
        let is_missing = |service: &&ServiceName| {
            let Some(key) = service_key(service) else { return false };
            let is_there = self.services.get(&key).is_some_and(|entry| entry.service.is_some());
            !is_there && self.conversion.follows(&key)
        };
        let missing: BTreeSet<_> = meaning.backends().filter(is_missing).collect();
        missing.into_iter().map(ToString::to_string).collect()
    }
}
