//! What is known of a catalog, and which of its services may have changed since they were read. Pure.
//!
//! Three things are told by the lists that are waited for: which services there are (with their tags), which nodes there
//! are, and which checks do not pass. From what is different in them follow services that changed. That an instance was
//! written without any of this showing (its address, its meta, one instance of several) only moves the lists' indexes;
//! then the smaller of two sets is asked for the index of each of its members: nodes (of one that moved, what runs there
//! is read), or services.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use super::objects::{Check, Entry, Instance, Node};

/// A service's or a node's name; of a service in lower case, as Consul knows no difference.
pub type Name = Arc<str>;

/// One check that does not pass: its node, its id, and its service unless it is about the whole node.
type Failing = (String, String, Option<Name>);

/// Which of the two sets is asked for indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// Nodes.
    Nodes,
    /// Services.
    Services,
}

/// A state of checks that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Neither good nor bad.
    Warning,
    /// Bad.
    Critical,
}

/// The catalog as far as it is known.
#[derive(Debug, Default)]
pub struct Known {
    /// Every service with a digest of its tags.
    services: BTreeMap<Name, ServiceKnown>,
    nodes: BTreeMap<Name, NodeKnown>,
    warning: BTreeSet<Failing>,
    critical: BTreeSet<Failing>,
    /// Services that may have changed since they were read, or are gone.
    dirty: BTreeSet<Name>,
}

#[derive(Debug, Default)]
struct ServiceKnown {
    tags: u64,
    /// The index when it was last asked for.
    index: Option<u64>,
    /// How many instances it had when it was read.
    instances: usize,
    /// Where those are: the very names by which nodes are known.
    nodes: Box<[Name]>,
}

#[derive(Debug, Default)]
struct NodeKnown {
    /// When it was made and last written.
    written: (u64, u64),
    /// A digest of what tells it from another one of its name; none while no list has shown it.
    made: Option<u64>,
    /// The index when it was last asked for.
    index: Option<u64>,
    /// A digest of the instances of each service.
    services: BTreeMap<Name, u64>,
}

/// A name in the form in which services are known.
#[must_use]
pub fn service_name(name: &str) -> Name {
    name.to_ascii_lowercase().into()
}

impl Known {
    /// Takes a list of all services with their tags.
    pub fn services(&mut self, list: &BTreeMap<String, Vec<String>>) {
        let mut digests: BTreeMap<Name, u64> = BTreeMap::new();
        for (name, tags) in list {
            // The order of tags means nothing, and two names may be one.
            let digest = digests.entry(service_name(name)).or_default();
            *digest = tags.iter().fold(*digest ^ 1, |sum, tag| sum.wrapping_add(digest_of(tag)));
        }
        let gone: Vec<Name> =
            self.services.keys().filter(|name| !digests.contains_key(*name)).cloned().collect();
        for name in &gone {
            self.forget_places(name);
            self.services.remove(name);
            self.dirty.insert(name.clone());
        }
        for (name, tags) in digests {
            match self.services.get_mut(&name) {
                Some(known) if known.tags == tags => {}
                Some(known) => {
                    known.tags = tags;
                    self.dirty.insert(name);
                }
                None => {
                    self.dirty.insert(name.clone());
                    self.services.insert(name, ServiceKnown { tags, ..ServiceKnown::default() });
                }
            }
        }
    }

    /// Whether a list of all nodes is of another catalog than the one that is known, though it may bear the same name and
    /// have come as far: a server that was rebuilt counts its writes anew, so that indexes say nothing. Nodes that stay are
    /// its mark. A server keeps none over that, and itself least of all; who lost one otherwise is thought so too.
    #[must_use]
    pub fn is_another(&self, list: &[Node]) -> bool {
        let listed: BTreeMap<&str, u64> = list.iter().map(|node| (node.name.as_str(), made(node))).collect();
        let seen = self.nodes.iter().filter_map(|(name, known)| Some((name, known.made?)));
        seen.into_iter().any(|(name, made)| listed.get(&**name) != Some(&made))
    }

    /// Whether a list of all nodes is of a catalog that was begun anew: of the nodes that are known, each is gone or was made
    /// anew. One alone may have been, in a catalog that is the same; and who is shown no node at all may not see any.
    #[must_use]
    pub fn is_begun_anew(&self, list: &[Node]) -> bool {
        let listed: BTreeMap<&str, u64> = list.iter().map(|node| (node.name.as_str(), made(node))).collect();
        let mut seen = self.nodes.iter().filter_map(|(name, known)| Some((name, known.made?))).peekable();
        !list.is_empty()
            && seen.peek().is_some()
            && seen.all(|(name, made)| listed.get(&**name) != Some(&made))
    }

    /// Takes a list of all nodes.
    pub fn nodes(&mut self, list: &[Node]) {
        let listed: BTreeMap<&str, &Node> = list.iter().map(|node| (node.name.as_str(), node)).collect();
        let dirty = &mut self.dirty;
        self.nodes.retain(|name, known| {
            let stays = listed.contains_key(&**name);
            if !stays {
                dirty.extend(known.services.keys().cloned());
            }
            stays
        });
        for (name, node) in listed {
            let written = (node.create_index, node.modify_index);
            if !self.nodes.contains_key(name) {
                self.nodes.insert(name.into(), NodeKnown { written, ..NodeKnown::default() });
            }
            let Some(known) = self.nodes.get_mut(name) else { continue };
            known.made = Some(made(node));
            if known.written != written {
                // What is known of a node belongs to its instances' addresses and localities.
                let first_seen = known.written == (0, 0);
                known.written = written;
                if !first_seen {
                    dirty.extend(known.services.keys().cloned());
                }
            }
        }
    }

    /// Takes a list of all checks in a state.
    pub fn checks(&mut self, state: State, list: Vec<Check>) {
        let failing: BTreeSet<Failing> = list
            .into_iter()
            .map(|check| {
                let service = (!check.service_name.is_empty()).then(|| service_name(&check.service_name));
                (check.node, check.id, service)
            })
            .collect();
        let before = match state {
            State::Warning => std::mem::replace(&mut self.warning, failing.clone()),
            State::Critical => std::mem::replace(&mut self.critical, failing.clone()),
        };
        for (node, _, service) in before.symmetric_difference(&failing) {
            match service {
                Some(service) => {
                    self.dirty.insert(service.clone());
                }
                None => {
                    let node = self.nodes.get(node.as_str());
                    self.dirty.extend(node.into_iter().flat_map(|node| node.services.keys().cloned()));
                }
            }
        }
    }

    /// Which set is asked for indexes: the smaller one, unless a node cannot be asked for. `now` stays until the other is
    /// half as large: whoever changes over asks for everything once more.
    #[must_use]
    pub fn sweep(&self, now: Sweep) -> Sweep {
        let (nodes, services) = (self.nodes.len(), self.services.len());
        let fewer_nodes = if now == Sweep::Nodes { nodes <= services * 2 } else { nodes * 2 < services };
        let askable = || self.nodes.keys().all(|name| is_askable(name));
        if fewer_nodes && askable() { Sweep::Nodes } else { Sweep::Services }
    }

    /// The members of a set.
    #[must_use]
    pub fn members(&self, sweep: Sweep) -> Vec<Name> {
        match sweep {
            Sweep::Nodes => self.nodes.keys().cloned().collect(),
            Sweep::Services => self.services.keys().cloned().collect(),
        }
    }

    /// Whether the index of a member of a set is another one than before.
    #[must_use]
    pub fn is_moved(&self, sweep: Sweep, name: &str, index: Option<u64>) -> bool {
        let known = self.index_of(sweep, name);
        // Without an index nothing can be known to be as it was.
        known.is_some_and(|known| index.is_none() || known != index)
    }

    /// Whether the index of a member of a set is lower than it was: the server's state went back.
    #[must_use]
    pub fn went_back(&self, sweep: Sweep, name: &str, index: Option<u64>) -> bool {
        let known = self.index_of(sweep, name).flatten();
        // What is gone has no index, which is written as the first one.
        known.zip(index).is_some_and(|(known, now)| now > 1 && now < known)
    }

    /// Takes the index of a member of a set. Returns whether it is another one than before; of a service, this makes it
    /// one that may have changed.
    pub fn index(&mut self, sweep: Sweep, name: &str, index: Option<u64>) -> bool {
        let moved = self.is_moved(sweep, name, index);
        let known = match sweep {
            Sweep::Nodes => self.nodes.get_mut(name).map(|node| &mut node.index),
            Sweep::Services => self.services.get_mut(name).map(|service| &mut service.index),
        };
        let Some(known) = known else { return false };
        *known = index;
        if moved && sweep == Sweep::Services {
            self.dirty.insert(name.into());
        }
        moved
    }

    /// Takes what runs on a node.
    pub fn on_node(&mut self, name: &str, list: &[Instance]) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let mut now: BTreeMap<Name, u64> = BTreeMap::new();
        for instance in list {
            let digest = now.entry(service_name(&instance.name)).or_default();
            *digest = digest.wrapping_add(digest_of_instance(instance));
        }
        let differs = |name: &&Name| now.get(*name) != node.services.get(*name);
        self.dirty.extend(now.keys().chain(node.services.keys()).filter(differs).cloned());
    }

    /// How many instances a service had when it was read, and on which nodes.
    pub fn instances(&self, name: &str) -> (usize, impl Iterator<Item = &Name>) {
        let service = self.services.get(name);
        (service.map_or(0, |it| it.instances), service.into_iter().flat_map(|it| &it.nodes))
    }

    /// Takes all instances of a service, as they were read.
    pub fn read(&mut self, name: &str, entries: &[Entry]) {
        self.forget_places(name);
        let Some((name, _)) = self.services.get_key_value(name) else { return };
        // There are many instances of few services on few nodes: their names exist once.
        let name = name.clone();
        let mut nodes: BTreeSet<Name> = BTreeSet::new();
        for entry in entries {
            let of_node = entry.node.name.as_str();
            if !self.nodes.contains_key(of_node) {
                // A node that no list has shown yet is told by the next one; it must not look as if it were gone.
                self.nodes.insert(of_node.into(), NodeKnown::default());
            }
            if let Some((known, _)) = self.nodes.get_key_value(of_node) {
                nodes.insert(known.clone());
            }
            let Some(node) = self.nodes.get_mut(of_node) else { continue };
            let digest = node.services.entry(name.clone()).or_default();
            *digest = digest.wrapping_add(digest_of_instance(&entry.service));
        }
        if let Some(service) = self.services.get_mut(&name) {
            service.instances = entries.len();
            service.nodes = nodes.into_iter().collect();
        }
    }

    /// Takes services that may have changed for another reason than the catalog's.
    pub fn mark(&mut self, changed: impl Fn(&str) -> bool) {
        self.dirty.extend(self.services.keys().filter(|name| changed(name)).cloned());
    }

    /// Takes services back that were taken as changed and not told after all.
    pub fn doubt(&mut self, services: BTreeSet<Name>) {
        self.dirty.extend(services);
    }

    /// The services that may have changed or are gone, which thereby are read.
    pub fn take_dirty(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.dirty)
    }

    /// Whether any service may have changed or is gone.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The services of the catalog, and those that left it and are not taken yet.
    pub fn all(&self) -> impl Iterator<Item = &Name> {
        self.services.keys().chain(&self.dirty)
    }

    /// Whether the catalog has a service.
    #[must_use]
    pub fn has(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// How many nodes there are.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    fn index_of(&self, sweep: Sweep, name: &str) -> Option<Option<u64>> {
        match sweep {
            Sweep::Nodes => self.nodes.get(name).map(|node| node.index),
            Sweep::Services => self.services.get(name).map(|service| service.index),
        }
    }

    fn forget_places(&mut self, service: &str) {
        let before = self.services.get_mut(service).map(|known| std::mem::take(&mut known.nodes));
        for node in before.unwrap_or_default() {
            self.nodes.get_mut(&node).and_then(|node| node.services.remove(service));
        }
    }
}

/// Whether Consul can be asked for something of this name: it refuses every path with what cannot be printed.
fn is_askable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

fn made(node: &Node) -> u64 {
    digest_of((&node.id, node.create_index))
}

pub(super) fn digest_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn digest_of_instance(instance: &Instance) -> u64 {
    digest_of((&instance.id, instance.create_index, instance.modify_index))
}
