//! What several files of a folder define.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::{
    config::{Fault, Located, MeshFile, Place},
    resource::{Resource, ResourceKey},
};

/// What each file loses to another, with a fault that names both places. The first file has it. A service's endpoints
/// go with it, so that no file adds endpoints to another's service.
pub fn conflicts<'m, K: Ord + Copy>(
    files: impl IntoIterator<Item = (K, &'m MeshFile)>,
) -> BTreeMap<K, Vec<(ResourceKey, Fault)>> {
    let mut first: BTreeMap<ResourceKey, &Place> = BTreeMap::new();
    let mut conflicts: BTreeMap<K, Vec<(ResourceKey, Fault)>> = BTreeMap::new();
    for (name, file) in files {
        let mut lost = BTreeSet::new();
        for Located { value, place } in &file.resources {
            let key = value.key();
            let fault = match (value, first.get(&key)) {
                (Resource::Endpoint(endpoint), _) if lost.contains(&endpoint.service) => {
                    Fault::error(place.clone(), format!("{} goes with its service", key.describe()))
                }
                (_, Some(before)) => {
                    let fault =
                        Fault::error(place.clone(), format!("{} is defined by two files", key.describe()));
                    fault.related((*before).clone(), "first defined here, and this one counts,")
                }
                (_, None) => {
                    first.insert(key, place);
                    continue;
                }
            };
            if let ResourceKey::Service(service) = &key {
                lost.insert(service.clone());
            }
            conflicts.entry(name).or_default().push((key, fault));
        }
    }
    conflicts
}
