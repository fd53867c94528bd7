//! Names of services that none of the files checked together declares: probably slips, but another registry may have
//! them, so they are warnings. A policy that protects a misspelt service protects nothing.

use std::collections::BTreeSet;

use weft_core::{
    config::{Fault, Located, MeshFile, nearest},
    name::ServiceName,
    resource::{PolicyTarget, Resource, ResourceKey},
};

/// What is said of each file, by its number. Files that declare no service at all are meant for those of others.
pub(super) fn strays(files: &[(usize, MeshFile)]) -> Vec<(usize, Fault)> {
    let resources = || files.iter().flat_map(|(file, mesh)| mesh.resources.iter().map(move |r| (*file, r)));
    let declared: BTreeSet<String> = resources()
        .filter_map(|(_, Located { value, .. })| match (value, value.key()) {
            (Resource::Service(_), ResourceKey::Service(name)) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    if declared.is_empty() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (file, Located { value, place }) in resources() {
        for (role, service) in named(value) {
            let written = service.to_string();
            if declared.contains(&written) {
                continue;
            }
            let message = format!("{role} `{written}`, which no file checked here declares");
            let help = match nearest(&written, declared.iter().map(String::as_str)) {
                Some(word) => format!("did you mean `{word}`?"),
                None => "right if another registry has it".to_owned(),
            };
            faults.push((file, Fault::warning(place.clone(), message).help(help)));
        }
    }
    faults
}

/// The services that a resource is about, each once, and in what role.
fn named(resource: &Resource) -> Vec<(&'static str, &ServiceName)> {
    match resource {
        Resource::Route(route) => {
            let backends = route.rules.iter().flat_map(|rule| &rule.backends);
            let others: BTreeSet<&ServiceName> =
                backends.filter_map(|backend| backend.service.as_ref()).collect();
            let others = others.into_iter().filter(|service| **service != route.service);
            let mut named = vec![("routes calls of", &route.service)];
            named.extend(others.map(|service| ("routes to", service)));
            named
        }
        Resource::Policy(policy) => match &policy.target {
            PolicyTarget::Service(service) => vec![("protects", service)],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}
