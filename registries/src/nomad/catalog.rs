//! What was read so far, and which services what is new concerns. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use super::{
    compact::{Copies, Instance},
    convert::{Instances, Joined, convert, origin},
    health::{Checks, Known},
    objects::{Allocation, Check, Node},
};
use crate::{
    names,
    shared::Text,
    told::{Listing, Words},
};

/// A service: namespace and name, as Nomad writes them.
pub(super) type Name = Arc<(String, String)>;

static NONE: BTreeSet<Text> = BTreeSet::new();

/// What was read so far.
#[derive(Default)]
pub(super) struct Catalog {
    services: BTreeMap<Name, Instances>,
    /// Services with a letter in upper case by their names in lower case, which is what they are called here.
    uppers: BTreeMap<Name, BTreeSet<Name>>,
    /// Of those that a service names.
    pub(super) allocations: BTreeMap<Text, Known>,
    /// Those that a service names and that there are none of any more.
    lost: BTreeSet<Text>,
    /// Of those that a service names.
    pub(super) nodes: BTreeMap<Text, Node>,
    /// Who names an allocation, or a node.
    naming: BTreeMap<Text, BTreeSet<Name>>,
    copies: Copies,
    changed: BTreeSet<Name>,
    /// What checks said before the stream began, of allocations that were not read yet.
    remembered: Verdicts,
}

/// What the checks of allocations said last, by their IDs.
pub(super) type Verdicts = BTreeMap<Text, Checks>;

impl Catalog {
    /// Knows nothing but what checks said: the stream that broke off takes no verdict with it.
    pub(super) fn remembering(remembered: Verdicts) -> Self {
        Self { remembered, ..Self::default() }
    }

    /// What checks said, for the next stream.
    pub(super) fn verdicts(&mut self) -> Verdicts {
        let mut verdicts = mem::take(&mut self.remembered);
        let known = self.allocations.iter().filter(|(_, known)| matches!(known.checks, Checks::Known(_)));
        verdicts.extend(known.map(|(id, known)| (id.clone(), known.checks.clone())));
        verdicts
    }

    /// Forgets what checks said of allocations that no service names: all are read.
    pub(super) fn forget_others(&mut self) {
        self.remembered.clear();
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    /// Allocations that services name, as far as their IDs are such.
    pub(super) fn named_allocations(&self) -> BTreeSet<Text> {
        self.instances().map(|instance| &instance.place.allocation).filter(|id| is_id(id)).cloned().collect()
    }

    /// Nodes that services name, as far as their IDs are such.
    pub(super) fn named_nodes(&self) -> BTreeSet<Text> {
        self.instances().map(|instance| &instance.place.node).filter(|id| is_id(id)).cloned().collect()
    }

    /// Whether a service names this allocation or node.
    pub(super) fn names_id(&self, id: &str) -> bool {
        self.naming.contains_key(id)
    }

    /// Takes in the instances of a service, as they were read; none that there are means that it is gone.
    pub(super) fn read_service(&mut self, name: &Name, answer: Vec<serde_json::Value>) {
        let instances = Instances::read(answer, &mut self.copies);
        self.set_service(name, instances);
    }

    /// Takes in that an answer made no sense: what its service said last stands.
    pub(super) fn garble_service(&mut self, name: &Name, why: &str) {
        // What it named before is still needed.
        let read = self.services.get(name).map(|before| before.read.clone()).unwrap_or_default();
        self.set_service(name, Instances { read, ..Instances::garbled(&name.1, why) });
    }

    fn set_service(&mut self, name: &Name, instances: Instances) {
        if instances.read.is_empty() && instances.faults.is_empty() {
            return self.remove_service(name);
        }
        if self.services.get(name) == Some(&instances) {
            return;
        }
        let new: BTreeSet<Text> = named_by(&instances).cloned().collect();
        let old = self.services.get(name).map(|old| named_by(old).cloned().collect());
        let old: BTreeSet<Text> = old.unwrap_or_default();
        self.unname(name, old.difference(&new));
        for id in new {
            self.naming.entry(id).or_default().insert(name.clone());
        }
        if self.services.insert(name.clone(), instances).is_none() {
            let lower = lower(name);
            if lower != *name {
                self.uppers.entry(lower).or_default().insert(name.clone());
            }
            self.touch_alike(name);
        }
        self.changed.insert(name.clone());
    }

    pub(super) fn remove_service(&mut self, name: &Name) {
        let Some(instances) = self.services.remove(name) else { return };
        self.unname(name, named_by(&instances));
        self.changed.insert(name.clone());
        let lower = lower(name);
        if let Some(uppers) = self.uppers.get_mut(&lower) {
            uppers.remove(name);
            if uppers.is_empty() {
                self.uppers.remove(&lower);
            }
        }
        self.touch_alike(name);
    }

    /// Takes in an allocation. Returns it with its node when it has just begun to run or is new, so that its checks should be
    /// asked for.
    pub(super) fn set_allocation(&mut self, read: &Allocation, is_first_list: bool) -> Option<(Text, Text)> {
        let (id, _) = self.naming.get_key_value(&*read.id)?;
        let (id, before) = (id.clone(), self.allocations.get(id));
        if before.is_some_and(|before| before.allocation.is(read)) {
            return None;
        }
        let ran = before.is_some_and(Known::runs);
        let changed_job = before.is_some_and(|before| before.allocation.job_version != read.job_version);
        let allocation = self.copies.allocation(read);
        let mut known = match before.cloned() {
            Some(before) => Known { allocation, ..before },
            None => Known::of(allocation),
        };
        if let Some(verdict) = self.remembered.remove(&id).filter(|_| known.checks == Checks::Unknown) {
            known.checks = verdict;
        }
        let begins = known.runs() && (!ran || changed_job);
        if begins && !is_first_list && known.checks == Checks::Unknown {
            known.checks = Checks::Awaited;
        }
        let node = known.allocation.node.clone();
        self.allocations.insert(id.clone(), known);
        self.lost.remove(&id);
        self.touch(&id);
        begins.then_some((id, node))
    }

    /// The server knows of no such allocation.
    pub(super) fn remove_allocation(&mut self, id: &str) {
        let is_new = self.names_id(id) && self.lost.insert(id.into());
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
            Some(node) if self.names_id(id) => drop(self.nodes.insert(id.into(), node)),
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
        // The one in lower case, where there is such.
        let first = self.alike(name).last();
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

    fn instances(&self) -> impl Iterator<Item = &Instance> {
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

    /// All services that are called here as this one would be.
    fn alike(&self, name: &Name) -> impl Iterator<Item = &Name> {
        let lower = lower(name);
        let uppers = self.uppers.get(&lower).into_iter().flatten();
        uppers.chain(self.services.get_key_value(&lower).map(|(name, _)| name))
    }

    fn touch_alike(&mut self, name: &Name) {
        let alike: Vec<Name> = self.alike(name).cloned().collect();
        self.changed.extend(alike);
    }

    fn unname<'i>(&mut self, name: &Name, ids: impl Iterator<Item = &'i Text>) {
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
    (name.0.to_ascii_lowercase(), name.1.to_ascii_lowercase()).into()
}

/// The allocations and nodes that instances name.
fn named_by(instances: &Instances) -> impl Iterator<Item = &Text> {
    instances.read.iter().flat_map(|instance| [&instance.place.allocation, &instance.place.node])
}

/// Whether it is an ID as Nomad makes them. Asked for anything else, it answers with an error of its own.
fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::nomad::health::CheckResult;

    const ID: &str = "8fa01a58-64d0-942d-a3fd-2793b923be52";

    /// What a stream knows that begins with these verdicts.
    fn begun(verdicts: Verdicts) -> Catalog {
        let mut catalog = Catalog::remembering(verdicts);
        let registration = json!({
            "ID": "one", "ServiceName": "web", "Namespace": "default", "Address": "10.0.0.1", "Port": 8080,
            "AllocID": ID, "NodeID": "node",
        });
        catalog.read_service(&Name::new(("default".into(), "web".into())), vec![registration]);
        let allocation = json!({
            "ID": ID, "ClientStatus": "running", "DesiredStatus": "run", "TaskStates": { "app": { "State": "running" } },
        });
        catalog.set_allocation(&serde_json::from_value(allocation).unwrap(), true);
        catalog
    }

    #[test]
    fn a_new_stream_begins_with_what_checks_said_before() {
        let failed = || Checks::Known([("web".into(), CheckResult::Failure)].into());
        let mut first = begun(Verdicts::default());
        assert_eq!(first.verdicts(), Verdicts::default(), "nobody asked yet");
        first.allocations.get_mut(ID).unwrap().checks = failed();
        let mut second = begun(first.verdicts());
        assert_eq!(second.allocations[ID].checks, failed());
        // A stream that breaks off before it has read an allocation passes on what it was told of it.
        let mut broken = Catalog::remembering(second.verdicts());
        assert_eq!(broken.verdicts(), [(ID.into(), failed())].into());
        let mut third = Catalog::remembering([(ID.into(), failed())].into());
        third.forget_others();
        assert_eq!(third.verdicts(), Verdicts::default());
    }

    #[test]
    fn of_services_that_are_called_alike_the_one_in_lower_case_stands() {
        let (mut catalog, rules) = (Catalog::default(), crate::speaking::Rules::default());
        let name = |text: &str| Name::new(("default".into(), text.into()));
        let instance = || vec![json!({ "ID": "one", "Address": "10.0.0.1", "Port": 8080 })];
        let standing = |catalog: &mut Catalog| -> Vec<String> {
            let joining = Joining { is_whole: true, region: "", rules: &rules, trust_domain: None };
            let changes = catalog.changes(&joining).0.into_iter();
            changes.map(|(origin, words)| format!("{origin} {}", words.faults.is_empty())).collect()
        };
        catalog.read_service(&name("WEB"), instance());
        assert_eq!(standing(&mut catalog), ["default/WEB true"]);
        catalog.read_service(&name("Web"), instance());
        assert_eq!(standing(&mut catalog), ["default/WEB false", "default/Web true"]);
        catalog.read_service(&name("web"), instance());
        assert_eq!(standing(&mut catalog), ["default/WEB false", "default/Web false", "default/web true"]);
        catalog.remove_service(&name("web"));
        assert_eq!(standing(&mut catalog), ["default/WEB false", "default/Web true"]);
        catalog.remove_service(&name("Web"));
        assert_eq!(standing(&mut catalog), ["default/WEB true"]);
        catalog.remove_service(&name("WEB"));
        assert!(standing(&mut catalog).is_empty() && catalog.uppers.is_empty());
    }
}
