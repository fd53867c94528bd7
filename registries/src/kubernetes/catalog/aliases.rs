//! Services that are another name of one of the same cluster: of type ExternalName, for `web.shop.svc.cluster.local`.
//!
//! An alias has no endpoints and no ports of its own: its names are the other's, as long as that one is there. Which of many
//! count is known before anybody asks: a tenant may write any number of them, and each is asked about.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use weft_core::resource::Resource;

use super::{Catalog, ServiceEntry, Source};
use crate::{
    kubernetes::{
        compact::{Key, namespace_of},
        convert::Words,
    },
    names::{fault, quoted},
};

/// How many aliases of one service count: of each namespace, and in all. A namespace may be one tenant's, and takes none of
/// another's away.
pub(super) const MAX_ALIASES: (usize, usize) = (8, 1024);

/// The aliases of a service that count, those of its own namespace first: whether another one's, and which.
pub(super) type Counted = BTreeSet<(bool, Key)>;

/// Those of a namespace, in order.
fn of_namespace<'a>(aliases: &'a BTreeSet<Key>, namespace: &str) -> impl Iterator<Item = &'a Key> {
    let prefix = format!("{namespace}/");
    let from = (Included(&*prefix), Unbounded);
    aliases.range::<str, _>(from).take_while(move |alias| alias.starts_with(&prefix))
}

/// Which aliases of `target` count. Takes no longer the more of one namespace there are.
fn counted(aliases: &BTreeSet<Key>, target: &Key, (of_each, in_all): (usize, usize)) -> Counted {
    let own = namespace_of(target);
    let mut counted: Counted =
        of_namespace(aliases, own).take(of_each.min(in_all)).map(|alias| (false, alias.clone())).collect();
    let mut next = aliases.first();
    while let Some(alias) = next.filter(|_| counted.len() < in_all) {
        let namespace = namespace_of(alias);
        if namespace != own {
            let most = of_each.min(in_all - counted.len());
            counted.extend(of_namespace(aliases, namespace).take(most).map(|alias| (true, alias.clone())));
        }
        // The last one that can be of this namespace; `0` comes after `/`.
        let last = format!("{namespace}0").max(alias.to_string());
        next = aliases.range::<str, _>((Excluded(&*last), Unbounded)).next();
    }
    counted
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
            && !self.counts(key, target)
        {
            let message =
                format!("left out: there are too many other names of the service {}", quoted(target));
            words.faults.push(fault(key, message));
        }
        let hosts = entry.counted.iter().flat_map(|(_, alias)| self.conversion.alias_hosts(alias));
        for resource in words.resources.iter_mut().filter(|_| !entry.counted.is_empty()) {
            if let Resource::Service(service) = resource {
                Arc::make_mut(service).hosts.extend(hosts.clone());
            }
        }
        words
    }

    /// Whether an alias is among those of its target that count.
    fn counts(&self, alias: &Key, target: &Key) -> bool {
        let is_foreign = namespace_of(alias) != namespace_of(target);
        self.services.get(target).is_some_and(|entry| entry.counted.contains(&(is_foreign, alias.clone())))
    }

    pub(super) fn is_taken_over(&self, key: &Key) -> bool {
        let view = self.services.get(key).and_then(|entry| entry.service.as_ref());
        view.is_some_and(|view| view.is_taken_over())
    }

    /// A service stands for another one, or for another one than before, or for none.
    pub(super) fn link_alias(&mut self, key: &Key, before: Option<Key>, now: Option<Key>) {
        if before == now {
            return;
        }
        if let Some(target) = before {
            let is_counted = self.counts(key, &target);
            let entry = self.services.entry(target.clone()).or_default();
            entry.aliases.remove(key);
            if is_counted {
                self.count_aliases(&target);
            }
            self.forget_if_empty(&target);
        }
        if let Some(target) = now {
            let entry = self.services.entry(target.clone()).or_default();
            entry.aliases.insert(key.clone());
            let may_count = {
                let mut first = of_namespace(&entry.aliases, namespace_of(key)).take(self.max_aliases.0);
                first.any(|alias| alias == key)
            };
            if may_count {
                self.count_aliases(&target);
            }
        }
    }

    /// Finds out anew which aliases of a service count. Where others do than before, it and they are due.
    fn count_aliases(&mut self, target: &Key) {
        let Some(entry) = self.services.get_mut(target) else { return };
        let counted = counted(&entry.aliases, target, self.max_aliases);
        let others = counted.symmetric_difference(&entry.counted).map(|(_, alias)| alias);
        let due: Vec<_> = others.chain([target]).cloned().map(Source::Service).collect();
        if counted != entry.counted {
            self.due.extend(due);
            entry.counted = counted;
        }
    }

    /// Whatever speaks of a service is due. Its aliases speak of no more than whether it is taken over.
    pub(super) fn service_is_due(&mut self, key: &Key, was_taken_over: bool) {
        let flips = self.is_taken_over(key) != was_taken_over;
        self.due.insert(Source::Service(key.clone()));
        if let Some(entry) = self.services.get(key) {
            self.due.extend(entry.slices.iter().cloned().map(Source::Slice));
            let aliases = entry.aliases.iter().filter(|_| flips);
            self.due.extend(aliases.cloned().map(Source::Service));
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
