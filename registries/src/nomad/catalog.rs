//! What was read so far, and which services what is new concerns. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use super::{
    convert::{Instances, Joined, convert, origin},
    health::{Checks, Known},
    objects::{Allocation, Check, Node},
};
use crate::{
    names,
    told::{Listing, Words},
};

/// A service: namespace and name, as Nomad writes them.
pub(super) type Name = (String, String);

static NONE: BTreeSet<String> = BTreeSet::new();

/// What was read so far.
#[derive(Default)]
pub(super) struct Catalog {
    services: BTreeMap<Name, Instances>,
    /// Services that would have one name here, as they differ in upper and lower case only.
    alike: BTreeMap<Name, BTreeSet<Name>>,
    /// Of those that a service names.
    pub(super) allocations: BTreeMap<String, Known>,
    /// Those that a service names and that there are none of any more.
    lost: BTreeSet<String>,
    /// Of those that a service names.
    pub(super) nodes: BTreeMap<String, Node>,
    /// Who names an allocation, or a node.
    naming: BTreeMap<String, BTreeSet<Name>>,
    changed: BTreeSet<Name>,
}

impl Catalog {
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    /// Allocations that services name, as far as their IDs are such.
    pub(super) fn named_allocations(&self) -> BTreeSet<String> {
        self.instances().map(|instance| &instance.alloc_id).filter(|id| is_id(id)).cloned().collect()
    }

    /// Nodes that services name, as far as their IDs are such.
    pub(super) fn named_nodes(&self) -> BTreeSet<String> {
        self.instances().map(|instance| &instance.node_id).filter(|id| is_id(id)).cloned().collect()
    }

    /// Whether a service names this allocation or node.
    pub(super) fn names_id(&self, id: &str) -> bool {
        self.naming.contains_key(id)
    }

    /// Takes in the instances of a service; none that there are means that it is gone.
    pub(super) fn set_service(&mut self, name: &Name, mut instances: Instances) {
        if instances.is_garbled {
            // What it named before is still needed.
            instances.read = self.services.get(name).map(|before| before.read.clone()).unwrap_or_default();
        }
        if instances.read.is_empty() && instances.faults.is_empty() {
            return self.remove_service(name);
        }
        if self.services.get(name) == Some(&instances) {
            return;
        }
        let ids = |instances: &Instances| -> BTreeSet<String> {
            let ids = instances.read.iter().flat_map(|instance| [&instance.alloc_id, &instance.node_id]);
            ids.cloned().collect()
        };
        let new = ids(&instances);
        let old = self.services.get(name).map(ids).unwrap_or_default();
        self.unname(name, old.difference(&new));
        for id in new {
            self.naming.entry(id).or_default().insert(name.clone());
        }
        if self.services.insert(name.clone(), instances).is_none() {
            let alike = self.alike.entry(lower(name)).or_default();
            alike.insert(name.clone());
            self.changed.extend(alike.iter().cloned());
        }
        self.changed.insert(name.clone());
    }

    pub(super) fn remove_service(&mut self, name: &Name) {
        let Some(instances) = self.services.remove(name) else { return };
        let ids = instances.read.iter().flat_map(|instance| [&instance.alloc_id, &instance.node_id]);
        self.unname(name, ids);
        self.changed.insert(name.clone());
        if let Some(alike) = self.alike.get_mut(&lower(name)) {
            alike.remove(name);
            self.changed.extend(alike.iter().cloned());
            if alike.is_empty() {
                self.alike.remove(&lower(name));
            }
        }
    }

    /// Takes in an allocation; true when it has just begun to run or is new, so that its checks should be asked for.
    pub(super) fn set_allocation(&mut self, allocation: Allocation, is_first_list: bool) -> bool {
        if !self.names_id(&allocation.id) {
            return false;
        }
        let id = allocation.id.clone();
        let before = self.allocations.get(&id);
        if before.is_some_and(|before| before.allocation == allocation) {
            return false;
        }
        let ran = before.is_some_and(Known::runs);
        let changed_job =
            before.is_some_and(|before| before.allocation.job_version != allocation.job_version);
        let mut known = before.cloned().unwrap_or_default();
        known.allocation = allocation;
        let begins = known.runs() && (!ran || changed_job);
        if begins && !is_first_list && known.checks == Checks::Unknown {
            known.checks = Checks::Awaited;
        }
        self.allocations.insert(id.clone(), known);
        self.lost.remove(&id);
        self.touch(&id);
        begins
    }

    /// The server knows of no such allocation.
    pub(super) fn remove_allocation(&mut self, id: &str) {
        let is_new = self.names_id(id) && self.lost.insert(id.to_owned());
        if self.allocations.remove(id).is_some() || is_new {
            self.touch(id);
        }
    }

    pub(super) fn set_helpers(&mut self, id: &str, helpers: BTreeSet<String>) {
        self.change(id, |known| known.helpers = Some(helpers));
    }

    pub(super) fn take_checks(&mut self, id: &str, answer: Option<&BTreeMap<String, Check>>) {
        self.change(id, |known| match answer {
            Some(answer) => known.checks.take(answer),
            // Nobody can tell. What was known stands; what was awaited is waited for no longer.
            None if known.checks == Checks::Awaited => known.checks = Checks::Unknown,
            None => {}
        });
    }

    pub(super) fn set_node(&mut self, id: &str, node: Option<Node>) {
        let is_new = self.nodes.get(id) != node.as_ref();
        match node {
            Some(node) if self.names_id(id) => drop(self.nodes.insert(id.to_owned(), node)),
            _ => drop(self.nodes.remove(id)),
        }
        if is_new {
            self.touch(id);
        }
    }

    /// Forgets allocations and nodes that no service names any more.
    pub(super) fn tidy(&mut self) {
        let naming = &self.naming;
        self.allocations.retain(|id, _| naming.contains_key(id));
        self.lost.retain(|id| naming.contains_key(id));
        self.nodes.retain(|id, _| naming.contains_key(id));
    }

    /// Whether anything is different since the last telling.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// All services.
    pub(super) fn whole(&mut self, joined: &Joining<'_>) -> Listing {
        self.changed.clear();
        self.services.keys().map(|name| (origin(&name.0, &name.1), self.words(name, joined))).collect()
    }

    /// What is different since the last call, and what is gone.
    pub(super) fn changes(&mut self, joined: &Joining<'_>) -> (Listing, Vec<weft_core::name::OriginName>) {
        let (mut listing, mut gone) = (Listing::new(), Vec::new());
        for name in mem::take(&mut self.changed) {
            let origin = origin(&name.0, &name.1);
            if self.services.contains_key(&name) {
                listing.insert(origin, self.words(&name, joined));
            } else {
                gone.push(origin);
            }
        }
        (listing, gone)
    }

    fn words(&self, name: &Name, joining: &Joining<'_>) -> Words {
        // The last in order is the one in lower case, where there is such.
        let first = self.alike.get(&lower(name)).and_then(|alike| alike.last());
        if let Some(first) = first
            && first != name
        {
            let message = format!("it is called like {}, which stands", names::quoted(&first.1));
            return Words::new(Vec::new(), vec![names::fault(&name.1, message)]);
        }
        let joined = Joined {
            allocations: &self.allocations,
            lost: if joining.is_whole { &self.lost } else { &NONE },
            nodes: &self.nodes,
            region: joining.region,
            rules: joining.rules,
            trust_domain: joining.trust_domain,
        };
        let none = Instances::default();
        convert(&name.0, &name.1, self.services.get(name).unwrap_or(&none), &joined)
    }

    fn instances(&self) -> impl Iterator<Item = &super::objects::Registration> {
        self.services.values().flat_map(|instances| &instances.read)
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut Known)) {
        let Some(known) = self.allocations.get_mut(id) else { return };
        let before = known.clone();
        change(known);
        if *known != before {
            self.touch(id);
        }
    }

    fn touch(&mut self, id: &str) {
        self.changed.extend(self.naming.get(id).into_iter().flatten().cloned());
    }

    fn unname<'i>(&mut self, name: &Name, ids: impl Iterator<Item = &'i String>) {
        for id in ids {
            if let Some(names) = self.naming.get_mut(id) {
                names.remove(name);
                if names.is_empty() {
                    self.naming.remove(id);
                }
            }
        }
    }
}

/// What services are joined with beside the catalog.
pub(super) struct Joining<'a> {
    /// Whether nothing is hidden: what is hidden looks as if it were not there.
    pub(super) is_whole: bool,
    pub(super) region: &'a str,
    pub(super) rules: &'a crate::speaking::Rules,
    pub(super) trust_domain: Option<&'a weft_core::identity::TrustDomain>,
}

/// As the mesh writes it.
fn lower(name: &Name) -> Name {
    (name.0.to_ascii_lowercase(), name.1.to_ascii_lowercase())
}

/// Whether it is an ID as Nomad makes them. Asked for anything else, it answers with an error of its own.
fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
