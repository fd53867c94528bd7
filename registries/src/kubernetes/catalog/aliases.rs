//! Services that are another name of one of the same cluster: of type ExternalName, for `web.shop.svc.cluster.local`.
//!
//! An alias has no endpoints and no ports of its own: its names are the other's, as long as that one is there.

use std::{collections::HashMap, sync::Arc};

use weft_core::resource::Resource;

use super::{Catalog, ServiceEntry, Source};
use crate::{
    kubernetes::{compact::Key, convert::Words},
    names::{fault, quoted},
};

/// How many aliases of one service count: of each namespace, and in all. A namespace may be one tenant's, and takes none of
/// another's away.
const MAX_ALIASES: (usize, usize) = (8, 1024);

fn namespace_of(key: &str) -> &str {
    key.split_once('/').map_or("", |(namespace, _)| namespace)
}

impl Catalog {
    /// What a service says now, in its own name and in those that stand for it.
    pub(super) fn service_words(&self, key: &Key) -> Words {
        let Some(entry) = self.services.get(key) else { return Words::default() };
        let Some(view) = &entry.service else { return Words::default() };
        let mut words = view.words();
        if let Some(target) = view.alias.as_ref().filter(|target| !self.is_taken_over(target)) {
            let message = format!("skipped: it is an ExternalName for the service {}, ", quoted(target));
            words
                .faults
                .push(fault(key, message + "which is not there, not followed or another name itself"));
        }
        if let Some(target) = view.alias.as_ref().filter(|target| self.is_taken_over(target))
            && !self.aliases_of(target).contains(&key)
        {
            let message =
                format!("left out: there are too many other names of the service {}", quoted(target));
            words.faults.push(fault(key, message));
        }
        let aliases = self.aliases_of(key);
        let hosts = aliases.iter().flat_map(|alias| self.conversion.alias_hosts(alias));
        for resource in words.resources.iter_mut().filter(|_| !entry.aliases.is_empty()) {
            if let Resource::Service(service) = resource {
                Arc::make_mut(service).hosts.extend(hosts.clone());
            }
        }
        words
    }

    /// The services that are other names of one, those of its own namespace first.
    fn aliases_of(&self, target: &Key) -> Vec<&Key> {
        let Some(entry) = self.services.get(target) else { return Vec::new() };
        let mut aliases: Vec<&Key> = entry.aliases.iter().collect();
        aliases.sort_by_key(|alias| namespace_of(alias) != namespace_of(target));
        let mut counts: HashMap<&str, usize> = HashMap::new();
        aliases.retain(|alias| {
            let count = counts.entry(namespace_of(alias)).or_default();
            *count += 1;
            *count <= MAX_ALIASES.0
        });
        aliases.truncate(MAX_ALIASES.1);
        aliases
    }

    fn is_taken_over(&self, key: &Key) -> bool {
        let view = self.services.get(key).and_then(|entry| entry.service.as_ref());
        view.is_some_and(|view| view.is_taken_over())
    }

    /// A service stands for another one, or for another one than before, or for none.
    pub(super) fn link_alias(&mut self, key: &Key, before: Option<Key>, now: Option<Key>) {
        if before == now {
            return;
        }
        if let Some(target) = before {
            if let Some(entry) = self.services.get_mut(&target) {
                entry.aliases.remove(key);
            }
            self.forget_if_empty(&target);
            self.due.insert(Source::Service(target));
        }
        if let Some(target) = now {
            self.services.entry(target.clone()).or_default().aliases.insert(key.clone());
            self.due.insert(Source::Service(target));
        }
    }

    /// Whatever speaks of a service is due.
    pub(super) fn service_is_due(&mut self, key: &Key) {
        self.due.insert(Source::Service(key.clone()));
        if let Some(entry) = self.services.get(key) {
            self.due.extend(entry.slices.iter().cloned().map(Source::Slice));
            self.due.extend(entry.aliases.iter().cloned().map(Source::Service));
        }
    }

    pub(super) fn forget_if_empty(&mut self, key: &Key) {
        let is_empty =
            |it: &ServiceEntry| it.service.is_none() && it.slices.is_empty() && it.aliases.is_empty();
        if self.services.get(key).is_some_and(is_empty) {
            self.services.remove(key);
        }
    }
}
