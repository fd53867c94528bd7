//! No write goes unnoticed: a catalog that is written to at random, and what is thought to have changed in it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::super::{
    known::{Known, State, Sweep},
    objects::{Check, Entry, Instance, Node},
};

/// One write. Numbers are of few nodes, services and instances.
#[derive(Clone, Debug)]
enum Write {
    Instance(u8, u8, u8),
    Remove(u8, u8, u8),
    Node(u8),
    RemoveNode(u8),
    Check(u8, Option<u8>, bool),
}

fn write() -> impl Strategy<Value = Write> {
    let (node, service, id) = (0..3_u8, 0..4_u8, 0..2_u8);
    prop_oneof![
        4 => (node.clone(), service.clone(), id.clone()).prop_map(|(node, service, id)| Write::Instance(node, service, id)),
        2 => (node.clone(), service.clone(), id).prop_map(|(node, service, id)| Write::Remove(node, service, id)),
        1 => node.clone().prop_map(Write::Node),
        1 => node.clone().prop_map(Write::RemoveNode),
        2 => (node, prop::option::of(service), any::<bool>()).prop_map(|(node, service, fails)| Write::Check(node, service, fails)),
    ]
}

/// A catalog as Consul keeps it, as far as indexes go.
#[derive(Default)]
struct Catalog {
    index: u64,
    nodes: BTreeMap<u8, u64>,
    instances: BTreeMap<(u8, u8, u8), u64>,
    failing: BTreeSet<(u8, Option<u8>)>,
    moved: BTreeMap<String, u64>,
}

impl Catalog {
    fn apply(&mut self, write: &Write) {
        self.index += 1;
        let index = self.index;
        let mut touched: Vec<(u8, u8)> = Vec::new();
        match *write {
            Write::Instance(node, service, id) => {
                self.nodes.entry(node).or_insert(index);
                self.instances.insert((node, service, id), index);
                touched.push((node, service));
            }
            Write::Remove(node, service, id) => {
                if self.instances.remove(&(node, service, id)).is_some() {
                    touched.push((node, service));
                }
            }
            Write::Node(node) => {
                self.nodes.insert(node, index);
                touched.extend(self.instances.keys().filter(|key| key.0 == node).map(|key| (key.0, key.1)));
                self.moved.insert(format!("n{node}"), index);
            }
            Write::RemoveNode(node) => {
                self.nodes.remove(&node);
                touched.extend(self.instances.keys().filter(|key| key.0 == node).map(|key| (key.0, key.1)));
                self.instances.retain(|key, _| key.0 != node);
                self.failing.retain(|(failing, _)| *failing != node);
            }
            Write::Check(node, service, fails) => {
                let changed = if fails {
                    self.failing.insert((node, service))
                } else {
                    self.failing.remove(&(node, service))
                };
                if !changed {
                    return;
                }
                // The index of a service moves with its checks, a node's does not.
                let on_node =
                    |key: &&(u8, u8, u8)| key.0 == node && service.is_none_or(|service| key.1 == service);
                for key in self.instances.keys().filter(on_node) {
                    self.moved.insert(format!("s{}", key.1), index);
                }
            }
        }
        for (node, service) in touched {
            self.moved.insert(format!("n{node}"), index);
            self.moved.insert(format!("s{service}"), index);
        }
    }

    fn entries(&self, service: u8) -> Vec<Entry> {
        let of = self.instances.iter().filter(|(key, _)| key.1 == service);
        let entry = |((node, _, id), index): (&(u8, u8, u8), &u64)| {
            let (name, id) = (format!("s{service}"), format!("s{service}-{id}"));
            let fails = |service| self.failing.contains(&(*node, service));
            let status = if fails(None) || fails(Some(service)) { "critical" } else { "passing" };
            serde_json::from_value(json!({
                "Node": { "Node": format!("n{node}"), "ModifyIndex": self.nodes.get(node) },
                "Service": { "ID": id, "Service": name, "ModifyIndex": index },
                "Checks": [{ "Status": status }],
            }))
            .unwrap()
        };
        of.map(entry).collect()
    }

    /// What a follower hears, and then asks for.
    fn tell(&self, known: &mut Known, sweep: Sweep) {
        let nodes: Vec<Node> = self
            .nodes
            .iter()
            .map(|(node, index)| {
                serde_json::from_value(json!({ "Node": format!("n{node}"), "ModifyIndex": index })).unwrap()
            })
            .collect();
        known.nodes(&nodes);
        let services: BTreeSet<u8> = self.instances.keys().map(|key| key.1).collect();
        known.services(&services.iter().map(|service| (format!("S{service}"), Vec::new())).collect());
        let check = |(node, service): &(u8, Option<u8>)| Check {
            node: format!("n{node}"),
            id: format!("{service:?}"),
            status: "critical".into(),
            service_name: service.map(|service| format!("s{service}")).unwrap_or_default(),
        };
        known.checks(State::Critical, self.failing.iter().map(check).collect());
        for name in known.members(sweep) {
            let index = self.moved.get(&*name).copied().or(Some(1));
            if known.index(sweep, &name, index) && sweep == Sweep::Nodes {
                let on_node = self.instances.iter().filter(|(key, _)| format!("n{}", key.0) == *name);
                let list: Vec<Instance> = on_node
                    .map(|((_, service, id), index)| {
                        let (id, name) = (format!("s{service}-{id}"), format!("s{service}"));
                        serde_json::from_value(json!({ "ID": id, "Service": name, "ModifyIndex": index }))
                            .unwrap()
                    })
                    .collect();
                known.on_node(&name, &list);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_service_that_changed_is_read_again(
        rounds in prop::collection::vec((prop::collection::vec(write(), 1..4), prop::option::of(0..3_usize)), 1..20),
        by_nodes in any::<bool>(),
    ) {
        let sweep = if by_nodes { Sweep::Nodes } else { Sweep::Services };
        let (mut catalog, mut known) = (Catalog::default(), Known::default());
        let mut held: BTreeMap<u8, String> = BTreeMap::new();
        for (writes, fails_after) in rounds {
            writes.iter().for_each(|write| catalog.apply(write));
            catalog.tell(&mut known, sweep);
            let dirty = known.take_dirty();
            if let Some(read) = fails_after {
                // The server is lost in the middle of it: nothing of this is told.
                for name in dirty.iter().take(read).filter(|name| known.has(name)).cloned().collect::<Vec<_>>() {
                    known.read(&name, &catalog.entries(name[1..].parse().unwrap()));
                }
                known.doubt(dirty);
                continue;
            }
            for name in dirty {
                let service: u8 = name[1..].parse().unwrap();
                if known.has(&name) {
                    let entries = catalog.entries(service);
                    known.read(&name, &entries);
                    held.insert(service, format!("{entries:?}"));
                } else {
                    held.remove(&service);
                }
            }
            for service in 0..4 {
                let now = catalog.entries(service);
                let now = (!now.is_empty()).then(|| format!("{now:?}"));
                prop_assert_eq!(held.get(&service), now.as_ref(), "service {} after {:?}", service, writes);
            }
        }
    }
}

/// A server that begins again counts from the beginning, and may have come as far as the one that is known.
#[test]
fn nodes_tell_one_catalog_from_another() {
    let node = |name: &str, id: &str, made: u64, written: u64| -> Node {
        let fields = json!({ "Node": name, "ID": id, "CreateIndex": made, "ModifyIndex": written });
        serde_json::from_value(fields).unwrap()
    };
    let mut known = Known::default();
    let entry = json!({ "Node": { "Node": "n3" }, "Service": { "ID": "web-1", "Service": "web" } });
    known.services(&BTreeMap::from([("web".to_owned(), Vec::new())]));
    known.read("web", &[serde_json::from_value(entry).unwrap()]);
    known.nodes(&[node("server", "a", 5, 5), node("n2", "", 9, 9)]);
    let is_another = |list: &[Node]| known.is_another(list);
    let grown = [node("server", "a", 5, 70), node("n2", "", 9, 80), node("n4", "d", 90, 90)];
    assert!(!is_another(&grown));
    assert!(is_another(&grown[..1]), "a node is gone");
    assert!(is_another(&[node("server", "b", 5, 5), node("n2", "", 9, 9)]), "a server was made anew");
    assert!(is_another(&[node("server", "a", 5, 5), node("n2", "", 12, 12)]));
    // One that goes or is made anew is no sign that what was known is forgotten.
    let is_begun_anew = |list: &[Node]| known.is_begun_anew(list);
    assert!(!is_begun_anew(&grown) && !is_begun_anew(&grown[..1]) && !Known::default().is_begun_anew(&grown));
    assert!(is_begun_anew(&[node("server", "b", 5, 5)]) && is_begun_anew(&[node("other", "c", 5, 5)]));
    assert!(!is_begun_anew(&[node("server", "a", 5, 5), node("n2", "", 12, 12)]));
    assert!(!is_begun_anew(&[]), "none may be seen any more");
}

#[test]
fn an_index_that_is_lower_than_it_was_is_told_from_one_that_is_not_known() {
    let mut known = Known::default();
    known.services(&BTreeMap::from([("web".to_owned(), Vec::new())]));
    let went_back = |known: &Known, index| known.went_back(Sweep::Services, "web", index);
    assert!(!went_back(&known, Some(1)) && !known.went_back(Sweep::Nodes, "n1", Some(1)));
    known.index(Sweep::Services, "web", Some(7));
    assert_eq!(
        [Some(6), Some(7), Some(8), None].map(|index| went_back(&known, index)),
        [true, false, false, false]
    );
}
