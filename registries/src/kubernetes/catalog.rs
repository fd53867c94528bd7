//! What the API server has said, in few bytes, joined: a slice with its service, its pods and their nodes. Pure.
//!
//! A pod is known by its uid alone, which is never given twice: an address or a name that another pod took over borrows
//! nothing. What changes marks the origins that it is part of as due, and no others.

mod aliases;
mod awaiting;
mod judging;
mod named;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use weft_core::registry::OriginFault;

use aliases::{Counted, MAX_ALIASES};
use awaiting::Awaited;
use judging::Naming;

use super::{
    compact::{Id, Key, Node, Pod, Slice, SliceEndpoint, Texts, Uid, key},
    configured::{self, Ground, Meaning},
    convert::{Conversion, ServiceView, SliceView, Words},
    objects::{self, Condition, Configured, Kind, Meta, Object, Place, Unreadable},
};

/// Something that has words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    Service(Key),
    Slice(Key),
    /// A route or a policy.
    Configured(Kind, Key),
    /// An object that could not be read, or a right that is missing.
    Fault(Key),
}

#[derive(Debug, Default)]
struct ServiceEntry {
    service: Option<ServiceView>,
    /// Few.
    slices: Vec<Key>,
    /// The services that are other names of this one.
    aliases: BTreeSet<Key>,
    /// Those of them that count.
    counted: Counted,
}

#[derive(Debug, Default)]
struct PodEntry {
    pod: Option<Pod>,
    /// The slices that point to it, few.
    slices: Vec<Key>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Catalog {
    conversion: Arc<Conversion>,
    services: HashMap<Key, ServiceEntry>,
    slices: HashMap<Key, Slice>,
    pods: HashMap<Uid, PodEntry>,
    nodes: HashMap<Key, Node>,
    /// Pods that slices point to, and that may be heard of any moment.
    awaited: Awaited,
    configured: BTreeMap<(Kind, Key), Meaning>,
    /// Of the same: which object it is, and what was told of it.
    told: BTreeMap<(Kind, Key), (Meta, Vec<Condition>)>,
    faults: HashMap<Key, OriginFault>,
    texts: Texts,
    due: BTreeSet<Source>,
    /// Routes and policies of which it is to be told how they are understood.
    unjudged: BTreeSet<(Kind, Key)>,
    /// Which of them name a service.
    naming: Naming,
    /// Whether services came or went since it was looked which ones of those that the section names are there.
    unlooked: bool,
    /// How many aliases of one service count: of each namespace, and in all.
    max_aliases: (usize, usize),
}

impl Catalog {
    pub(super) fn new(conversion: Arc<Conversion>) -> Self {
        Self {
            conversion,
            services: HashMap::new(),
            slices: HashMap::new(),
            pods: HashMap::new(),
            nodes: HashMap::new(),
            awaited: Awaited::default(),
            configured: BTreeMap::new(),
            told: BTreeMap::new(),
            faults: HashMap::new(),
            texts: Texts::default(),
            due: BTreeSet::new(),
            unjudged: BTreeSet::new(),
            naming: Naming::default(),
            unlooked: true,
            max_aliases: MAX_ALIASES,
        }
    }

    /// What is known of nodes.
    pub(super) fn nodes(&self) -> &HashMap<Key, Node> {
        &self.nodes
    }

    /// Takes in what was known of nodes before there was anything else.
    pub(super) fn remember_nodes(&mut self, nodes: HashMap<Key, Node>) {
        self.nodes = nodes;
    }

    /// Takes an object in, new or changed. Returns what it is found by; none when it is not followed.
    pub(super) fn put(&mut self, object: Object) -> Option<Id> {
        match object {
            Object::Service(service) => self.put_service(&service),
            Object::Slice(slice) => self.put_slice(slice),
            Object::Pod(pod) => self.put_pod(pod),
            Object::Node(node) => Some(self.put_node(node)),
            Object::Configured(kind, object) => Some(self.put_configured(kind, &object)),
        }
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, object: &Object) {
        let meta = object.meta();
        match object {
            Object::Pod(_) => {
                if let Some(uid) = Uid::read(&meta.uid) {
                    self.change_pod(uid, None);
                }
            }
            _ => self.remove_named(object.kind(), &key(meta)),
        }
        self.readable_named(object.kind(), &key(meta));
    }

    /// An object that makes no sense is gone.
    pub(super) fn remove_unread(&mut self, kind: Kind, object: &Unreadable) {
        match &object.known_as {
            Some(Id::Pod(uid)) => self.change_pod(*uid, None),
            Some(Id::Named(key)) => self.remove_named(kind, key),
            None => {}
        }
        self.set_fault(&object.name.as_str().into(), None);
    }

    fn remove_named(&mut self, kind: Kind, key: &Key) {
        match kind {
            Kind::Services => self.remove_service(key),
            Kind::Slices => self.remove_slice(key),
            Kind::Nodes => self.change_node(key, None),
            Kind::Routes | Kind::Policies => self.change_configured(kind, key.clone(), None),
            // Known by their uids alone.
            Kind::Pods => {}
        }
    }

    /// Something could not be read: what was known of it stays.
    pub(super) fn unreadable(&mut self, object: Unreadable) -> Option<Id> {
        let fault = crate::names::fault(&object.name, object.why);
        self.set_fault(&object.name.as_str().into(), Some(fault));
        object.known_as
    }

    /// Sets or ends a fault that no object has.
    pub(super) fn set_fault(&mut self, name: &Key, fault: Option<OriginFault>) {
        let before = match &fault {
            Some(fault) => self.faults.insert(name.clone(), fault.clone()),
            None => self.faults.remove(name),
        };
        if before != fault {
            self.due.insert(Source::Fault(name.clone()));
        }
    }

    /// A list of what is at a place is over: whatever was not `seen` is gone.
    pub(super) fn sweep(&mut self, place: &Place, seen: &HashSet<Id>) {
        let gone = |key: &Key| place.includes(key) && !seen.contains(&Id::Named(key.clone()));
        let kind = place.kind;
        match kind {
            Kind::Services => {
                let known = self.services.iter().filter(|(_, entry)| entry.service.is_some());
                let keys: Vec<_> = known.map(|(key, _)| key).filter(|key| gone(key)).cloned().collect();
                keys.iter().for_each(|key| self.remove_service(key));
            }
            Kind::Slices => {
                let keys: Vec<_> = self.slices.keys().filter(|key| gone(key)).cloned().collect();
                keys.iter().for_each(|key| self.remove_slice(key));
            }
            Kind::Pods => {
                let known = |entry: &PodEntry| entry.pod.as_ref().is_some_and(|pod| place.includes(&pod.key));
                let known = self.pods.iter().filter(|(_, entry)| known(entry)).map(|(uid, _)| *uid);
                let uids: Vec<_> = known.filter(|uid| !seen.contains(&Id::Pod(*uid))).collect();
                uids.into_iter().for_each(|uid| self.change_pod(uid, None));
            }
            Kind::Nodes => {
                let keys: Vec<_> = self.nodes.keys().filter(|key| gone(key)).cloned().collect();
                keys.iter().for_each(|key| self.change_node(key, None));
            }
            Kind::Routes | Kind::Policies => {
                let of_kind = self.configured.keys().filter(|(other, _)| *other == kind);
                let keys: Vec<_> = of_kind.map(|(_, key)| key).filter(|key| gone(key)).cloned().collect();
                keys.into_iter().for_each(|key| self.change_configured(kind, key, None));
            }
        }
        self.tidy();
    }

    /// What changed since the last call.
    pub(super) fn take_due(&mut self) -> BTreeSet<Source> {
        std::mem::take(&mut self.due)
    }

    /// Everything that has words; nothing is due any more.
    pub(super) fn all(&mut self) -> Vec<Source> {
        self.due.clear();
        let services = self.services.iter().filter(|(_, entry)| entry.service.is_some());
        let services = services.map(|(key, _)| Source::Service(key.clone()));
        let slices = self.slices.keys().map(|key| Source::Slice(key.clone()));
        let configured = self.configured.keys().map(|(kind, key)| Source::Configured(*kind, key.clone()));
        services
            .chain(slices)
            .chain(configured)
            .chain(self.faults.keys().map(|key| Source::Fault(key.clone())))
            .collect()
    }

    /// What a source says now; nothing when it is gone.
    pub(super) fn words(&self, source: &Source) -> Words {
        match source {
            Source::Service(key) => self.service_words(key),
            Source::Slice(key) => {
                self.slices.get(key).map(|slice| self.slice_words(key, slice)).unwrap_or_default()
            }
            Source::Configured(kind, key) => {
                let meaning = self.configured.get(&(*kind, key.clone())).cloned().unwrap_or_default();
                Words { resources: meaning.resources, faults: meaning.faults }
            }
            Source::Fault(key) => {
                Words { resources: Vec::new(), faults: self.faults.get(key).cloned().into_iter().collect() }
            }
        }
    }

    fn slice_words(&self, key: &Key, slice: &Slice) -> Words {
        let entry = slice.service.as_ref().and_then(|service| self.services.get(service));
        let service = entry.and_then(|entry| entry.service.as_ref());
        let mut covered = HashSet::new();
        if let (Some(entry), Some(service)) = (entry, service)
            && *slice.address_type != *service.family
        {
            let others = entry.slices.iter().filter_map(|key| self.slices.get(key));
            let preferred = others.filter(|other| *other.address_type == *service.family);
            covered.extend(preferred.flat_map(|other| other.endpoints.iter()).filter_map(SliceEndpoint::uid));
        }
        let view = SliceView {
            key,
            slice,
            service,
            pod: &|uid| self.pods.get(&uid)?.pod.as_ref(),
            node: &|name| self.nodes.get(name),
            covered: &|uid| covered.contains(&uid),
            awaited: &|uid| self.awaited.is(uid),
        };
        self.conversion.slice(&view)
    }

    fn put_service(&mut self, service: &objects::Service) -> Option<Id> {
        let key = self.texts.text(&key(&service.metadata));
        if !self.conversion.follows(&key) {
            return None;
        }
        let was_taken_over = self.is_taken_over(&key);
        let entry = self.services.entry(key.clone()).or_default();
        let view = self.conversion.service(&key, service).after(entry.service.as_ref());
        if entry.service.as_ref() != Some(&view) {
            self.unlooked |= entry.service.is_none();
            if entry.service.is_none() || was_taken_over != view.is_taken_over() {
                self.unjudged.extend(self.naming.any(&key));
            }
            let alias = view.alias.clone();
            let before = entry.service.replace(view).and_then(|view| view.alias);
            self.link_alias(&key, before, alias);
            self.service_is_due(&key, was_taken_over);
        }
        self.readable_named(Kind::Services, &key);
        Some(Id::Named(key))
    }

    fn remove_service(&mut self, key: &Key) {
        let was_taken_over = self.is_taken_over(key);
        let Some(entry) = self.services.get_mut(key) else { return };
        if let Some(view) = entry.service.take() {
            self.unjudged.extend(self.naming.any(key));
            self.unlooked = true;
            self.link_alias(key, view.alias, None);
            self.service_is_due(key, was_taken_over);
        }
        self.forget_if_empty(key);
    }

    fn put_slice(&mut self, slice: objects::Slice) -> Option<Id> {
        let key = key(&slice.metadata);
        let slice = self.texts.slice(slice);
        if let Some(service) = &slice.service
            && !self.conversion.follows(service)
        {
            return None;
        }
        self.readable_named(Kind::Slices, &key);
        if self.slices.get(&key) != Some(&slice) {
            let before = self.slices.get(&key).into_iter().flat_map(|slice| &*slice.endpoints);
            let before: HashSet<Uid> = before.filter_map(SliceEndpoint::uid).collect();
            self.remove_slice(&key);
            self.link(&key, &slice);
            let new = slice.endpoints.iter().filter_map(SliceEndpoint::uid);
            let new = new.filter(|uid| !before.contains(uid));
            let is_unknown = |uid: &Uid| self.pods.get(uid).is_some_and(|entry| entry.pod.is_none());
            self.awaited.begin(new.filter(is_unknown));
            self.slices.insert(key.clone(), slice);
            self.slice_is_due(&key);
        }
        Some(Id::Named(key))
    }

    fn remove_slice(&mut self, key: &Key) {
        if !self.slices.contains_key(key) {
            return;
        }
        self.slice_is_due(key);
        let Some(slice) = self.slices.remove(key) else { return };
        if let Some(service) = &slice.service
            && let Some(entry) = self.services.get_mut(service)
        {
            entry.slices.retain(|other| other != key);
            self.forget_if_empty(service);
        }
        for uid in slice.endpoints.iter().filter_map(SliceEndpoint::uid) {
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.slices.retain(|other| other != key);
                if entry.pod.is_none() && entry.slices.is_empty() {
                    self.pods.remove(&uid);
                }
            }
        }
    }

    fn link(&mut self, key: &Key, slice: &Slice) {
        if let Some(service) = &slice.service {
            note(&mut self.services.entry(service.clone()).or_default().slices, key);
        }
        for uid in slice.endpoints.iter().filter_map(SliceEndpoint::uid) {
            note(&mut self.pods.entry(uid).or_default().slices, key);
        }
    }

    /// A slice is due, and with it those of its service that leave out what it has.
    fn slice_is_due(&mut self, key: &Key) {
        self.due.insert(Source::Slice(key.clone()));
        let Some(slice) = self.slices.get(key) else { return };
        let Some(entry) = slice.service.as_ref().and_then(|service| self.services.get(service)) else {
            return;
        };
        if entry.service.as_ref().is_some_and(|service| *service.family == *slice.address_type) {
            let others = entry.slices.iter().filter(|other| {
                self.slices.get(*other).is_some_and(|other| other.address_type != slice.address_type)
            });
            self.due.extend(others.cloned().map(Source::Slice));
        }
    }

    fn put_pod(&mut self, pod: objects::Pod) -> Option<Id> {
        let key = key(&pod.metadata);
        let Some(uid) = Uid::read(&pod.metadata.uid) else {
            let why = "its uid is no UUID".into();
            self.unreadable(Unreadable { name: format!("pods/{key}"), known_as: None, why });
            return None;
        };
        let pod = self.texts.pod(key, pod);
        self.readable_named(Kind::Pods, &pod.key);
        self.change_pod(uid, Some(pod));
        Some(Id::Pod(uid))
    }

    fn change_pod(&mut self, uid: Uid, pod: Option<Pod>) {
        let entry = self.pods.entry(uid).or_default();
        if entry.pod != pod {
            entry.pod = pod;
            // A slice goes on pointing to a pod that is gone for a moment.
            let is_missing = entry.pod.is_none() && !entry.slices.is_empty();
            self.awaited.begin(is_missing.then_some(uid));
            self.due.extend(entry.slices.iter().cloned().map(Source::Slice));
        }
        if entry.pod.is_none() && entry.slices.is_empty() {
            self.pods.remove(&uid);
        }
    }

    fn put_node(&mut self, node: objects::Node) -> Id {
        let key = self.texts.text(&key(&node.metadata));
        let node = self.texts.node(node);
        self.readable_named(Kind::Nodes, &key);
        self.change_node(&key, Some(node));
        Id::Named(key)
    }

    /// Nodes hardly ever move, so all slices are looked through when one does.
    fn change_node(&mut self, key: &Key, node: Option<Node>) {
        let before = match &node {
            Some(node) => self.nodes.insert(key.clone(), node.clone()),
            None => self.nodes.remove(key),
        };
        if before.unwrap_or_default() != node.unwrap_or_default() {
            let on_it = |slice: &Slice| slice.endpoints.iter().any(|it| it.site.node.as_ref() == Some(key));
            let slices = self.slices.iter().filter(|(_, slice)| on_it(slice));
            self.due.extend(slices.map(|(key, _)| Source::Slice(key.clone())));
        }
    }

    fn put_configured(&mut self, kind: Kind, object: &Configured) -> Id {
        let key = key(&object.metadata);
        self.readable_named(kind, &key);
        let ground = Ground {
            root_namespace: &self.conversion.root_namespace,
            trust_domain: &self.conversion.trust_domain,
        };
        let meaning = configured::convert(kind, &key, object, &ground);
        let said = object.status.conditions.clone().unwrap_or_default();
        self.told.insert((kind, key.clone()), (object.metadata.clone(), said));
        self.unjudged.insert((kind, key.clone()));
        self.change_configured(kind, key.clone(), Some(meaning));
        Id::Named(key)
    }

    fn change_configured(&mut self, kind: Kind, key: Key, meaning: Option<Meaning>) {
        let entry = (kind, key);
        let before = match &meaning {
            Some(meaning) => self.configured.insert(entry.clone(), meaning.clone()),
            None => {
                self.told.remove(&entry);
                self.configured.remove(&entry)
            }
        };
        if before != meaning {
            if let Some(before) = &before {
                self.naming.forget(&entry, before);
            }
            if let Some(meaning) = &meaning {
                self.naming.take_in(&entry, meaning);
            }
            // What it takes from others for the same service, or no more.
            for route in [&before, &meaning].into_iter().flatten().filter_map(Meaning::route) {
                self.unjudged.extend(self.naming.routes(&route.service));
            }
            self.due.insert(Source::Configured(entry.0, entry.1));
        }
    }

    /// What was unreadable is not so any more, or gone.
    fn readable_named(&mut self, kind: Kind, key: &Key) {
        if !self.faults.is_empty() {
            let name = if key.contains('/') {
                format!("{}/{key}", kind.plural())
            } else {
                format!("{}//{key}", kind.plural())
            };
            self.set_fault(&name.into(), None);
        }
    }

    /// Lets go of texts that nothing uses any more: due now and then.
    pub(super) fn tidy(&mut self) {
        self.texts.retain(self.pods.values().filter_map(|entry| entry.pod.as_ref()));
    }
}

fn note(slices: &mut Vec<Key>, key: &Key) {
    if !slices.contains(key) {
        slices.reserve_exact(1);
        slices.push(key.clone());
    }
}

#[cfg(test)]
mod tests;
