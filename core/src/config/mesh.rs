//! Files of resources: `[[service]]`, `[[route]]` and `[[policy]]` tables, read into [`crate::resource`] types.
//!
//! Such a file is an origin: it speaks as a whole, so one error in it leaves none of its resources. What can be judged
//! within the file is judged here; what needs the whole mesh (a route to a service of another file) is the compiler's.

mod common;
mod endpoint;
mod policy;
mod route;
mod service;

use std::collections::BTreeMap;

use super::{Fault, Located, Outcome, Place, Section, SourceFile, Value, read};
use crate::resource::{PrincipalMatch, Resource, ResourceKey};

/// The resources of a file, each with the place where it is defined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeshFile {
    /// In the order of services with their endpoints, routes, policies.
    pub resources: Vec<Located<Resource>>,
}

/// Reads a file of resources.
#[must_use]
pub fn read_mesh(source: &SourceFile) -> Outcome<MeshFile> {
    let outcome = read(source, |root| Some(read_root(root)));
    let faults = match &outcome.value {
        Some(file) => check(file),
        None => Vec::new(),
    };
    outcome.with(faults)
}

/// Reads a condition on an identity: `{ identity = "…" }`, `{ trust_domain = "…" }` or `{ namespace = "…", trust_domain =
/// "…" }`.
#[must_use]
pub fn read_principal(value: &Value<'_>) -> Option<PrincipalMatch> {
    policy::principal(&Section::open(value, "a caller, such as { identity = \"spiffe://…\" }")?)
}

/// Every table is read even when one before it is faulty; the faults then keep the file from being used.
fn read_root(root: &Section<'_>) -> MeshFile {
    let mut resources = Vec::new();
    let services = root.sections("service");
    let routes = root.sections("route");
    let policies = root.sections("policy");
    for section in &services {
        resources.extend(service::read(section));
    }
    for section in &routes {
        resources.extend(route::read(section));
    }
    for section in &policies {
        resources.extend(policy::read(section));
    }
    MeshFile { resources }
}

/// What is judged over all resources of a file: names given twice, and subsets that no endpoint belongs to.
fn check(file: &MeshFile) -> Vec<Fault> {
    let mut first: BTreeMap<ResourceKey, &Place> = BTreeMap::new();
    let mut faults = Vec::new();
    for Located { value, place } in &file.resources {
        let key = value.key();
        match first.get(&key) {
            Some(before) => faults.push(
                Fault::error(place.clone(), format!("{} is defined twice", key.describe()))
                    .related((*before).clone(), "first defined here"),
            ),
            None => drop(first.insert(key, place)),
        }
    }
    faults.extend(route::unknown_subsets(file));
    faults
}
