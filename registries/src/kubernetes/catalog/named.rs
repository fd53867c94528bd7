//! What the section names, by its `namespaces` and `services`, and the cluster has not: nothing is followed by a misspelt
//! name, and the API server's answer for a namespace that it does not know is an empty list.

use std::collections::HashSet;

use super::Catalog;
use crate::names::fault;

impl Catalog {
    /// Tells what of it is not there. Only while all is listed.
    pub(in crate::kubernetes) fn look_for_named(&mut self) {
        if !std::mem::take(&mut self.unlooked) {
            return;
        }
        let conversion = self.conversion.clone();
        let Some(narrow) = &conversion.narrow else { return };
        let there = self.services.iter().filter(|(_, entry)| entry.service.is_some());
        let namespaces: HashSet<&str> =
            there.filter_map(|(key, _)| key.split_once('/')).map(|(namespace, _)| namespace).collect();
        let mut looked_for = Vec::new();
        for (namespace, services) in narrow.parts() {
            let Some(services) = services else {
                let lacks = !namespaces.contains(namespace);
                let why =
                    "it is one of `namespaces`, and the cluster has no such namespace, or no service in it";
                looked_for.push((namespace.to_owned(), lacks.then_some(why)));
                continue;
            };
            for name in services {
                let entry = self.services.get(&*format!("{namespace}/{name}"));
                let lacks = entry.is_none_or(|entry| entry.service.is_none());
                let why = "it is one of `services`, and the cluster has no such service";
                looked_for.push((format!("{name}.{namespace}"), lacks.then_some(why)));
            }
        }
        for (name, why) in looked_for {
            let fault = why.map(|why| fault(&name, why));
            self.set_fault(&format!("named/{name}").into(), fault);
        }
    }
}
