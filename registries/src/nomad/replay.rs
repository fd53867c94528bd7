//! What Nomad said, read without a server: for recorded answers and for fuzzing.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use weft_core::identity::TrustDomain;

use super::{
    catalog::{Catalog, Joining},
    objects::{Allocation, Check, EventLine, Node, Variable},
    variables,
};
use crate::{speaking::Rules, told::Listing};

/// A line of what was said, each the answer to one question.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// `/v1/service/:name`, of a namespace.
    Service(String, String, Vec<Value>),
    /// `/v1/allocations?task_states=true`.
    Allocations(Vec<Allocation>),
    /// `/v1/client/allocation/:id/checks`.
    Checks(String, BTreeMap<String, Check>),
    /// `/v1/node/:id`.
    Node(String, Box<Node>),
    /// `/v1/var/:path`.
    Variable(String, Variable),
    /// A line of `/v1/event/stream`.
    Events(EventLine),
}

/// Reads lines such as `{"service":["default","web",[…]]}`, the answer to `/v1/service/web` of the namespace `default`.
/// Lines that cannot be read are passed over.
#[must_use]
pub fn replay(text: &str, trust_domain: &TrustDomain) -> Listing {
    let (mut catalog, mut items) = (Catalog::default(), Vec::new());
    for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
        match line {
            Line::Service(namespace, name, answer) => {
                catalog.read_service(&(namespace, name).into(), answer);
            }
            Line::Allocations(list) => {
                for allocation in list {
                    catalog.set_allocation(&allocation, true);
                }
            }
            Line::Checks(id, checks) => catalog.take_checks(&id, Some(&checks)),
            Line::Node(id, node) => catalog.set_node(&id, Some(*node)),
            Line::Variable(path, variable) => {
                items.extend(variable.items.into_iter().map(|(item, text)| (path.clone(), item, text)));
            }
            Line::Events(line) => {
                for allocation in line.events.into_iter().filter_map(|event| event.payload.allocation) {
                    catalog.set_allocation(&allocation, false);
                }
            }
        }
    }
    let (rules, trust_domain) = (Rules::default(), Some(trust_domain));
    let mut listing =
        catalog.whole(&Joining { is_whole: true, region: "global", rules: &rules, trust_domain });
    let texts = items.iter().map(|(path, item, text)| (path.as_str(), item.as_str(), text.as_str()));
    listing.extend(variables::words(texts, &mut variables::Files::default()));
    listing
}

#[cfg(test)]
mod tests {
    use weft_core::resource::{Health, Resource};

    use super::*;

    #[test]
    fn what_a_server_answered_is_understood() {
        let recorded = include_str!("../../fuzz/corpus/nomad/web");
        assert!(recorded.lines().all(|line| serde_json::from_str::<Line>(line).is_ok()));
        let listing = replay(recorded, &TrustDomain::new("test.mesh").unwrap());
        let resources: Vec<&Resource> = listing.values().flat_map(|words| &words.resources).collect();
        let endpoint = resources.iter().find_map(|resource| match resource {
            Resource::Endpoint(endpoint) if endpoint.service.as_str() == "web.default" => Some(endpoint),
            _ => None,
        });
        let endpoint = endpoint.expect("the recorded job's endpoint");
        assert_eq!(endpoint.health, Health::Healthy);
        assert!(endpoint.identity.is_some() && endpoint.mesh_address.is_some(), "{endpoint:?}");
        assert!(resources.iter().any(|resource| matches!(resource, Resource::Route(_))), "{listing:?}");
    }
}
