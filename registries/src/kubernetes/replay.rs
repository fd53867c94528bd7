//! Lines of watches without a server: what was recorded of real ones, and what a fuzzer makes of it.

use std::sync::Arc;

use weft_core::{identity::TrustDomain, name::OriginName};

use super::{
    catalog::Catalog,
    convert::{Conversion, Words as Said},
    objects::{Kind, Line},
    watch::origin,
};
use crate::{speaking::Rules, told::Words};

/// What would be told after `lines`, each the plural name of a kind, a space, and a line of a watch of it, such as
/// `pods {"type":"ADDED","object":{…}}`. Lines that are none are passed over.
#[must_use]
pub fn replay(lines: &str, trust_domain: &TrustDomain) -> Vec<(OriginName, Words)> {
    let mut catalog = Catalog::new(Arc::new(Conversion {
        rules: Rules::default(),
        trust_domain: trust_domain.clone(),
        cluster_domain: "cluster.local".into(),
        narrow: None,
        root_namespace: "weft-system".into(),
    }));
    for line in lines.lines() {
        let Some((plural, line)) = line.split_once(' ') else { continue };
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.plural() == plural) else { continue };
        let Ok(line) = serde_json::from_str::<Line<'_>>(line) else { continue };
        if line.word == "BOOKMARK" {
            continue;
        }
        match kind.read(line.object) {
            Ok(object) if line.word == "DELETED" => catalog.remove(&object),
            Ok(object) => drop(catalog.put(object)),
            Err(unreadable) => drop(catalog.unreadable(unreadable)),
        }
    }
    let said = catalog.all().into_iter().map(|source| {
        let Said { resources, faults } = catalog.words(&source);
        (origin(&source), Words::new(resources, faults))
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use weft_core::resource::Resource;

    use super::*;

    #[test]
    fn what_a_real_server_said_is_read() {
        let recorded = include_str!("../../fuzz/corpus/kubernetes/web");
        let told = replay(recorded, &TrustDomain::new("test.mesh").unwrap());
        let told: Vec<(String, Vec<String>)> = told
            .iter()
            .map(|(origin, words)| {
                assert!(words.faults.is_empty(), "{origin}: {:?}", words.faults);
                let shown = words.resources.iter().map(|resource| match resource {
                    Resource::Service(service) => {
                        format!(
                            "{} {:?}",
                            service.name,
                            service.ports.iter().map(|it| it.protocol).collect::<Vec<_>>()
                        )
                    }
                    Resource::Endpoint(it) => {
                        let identity = it.identity.as_ref().map_or("nobody", |identity| identity.as_str());
                        format!("{} {} {} {identity}", it.instance, it.address, it.locality)
                    }
                    _ => String::new(),
                });
                (origin.to_string(), shown.collect())
            })
            .collect();
        for (origin, shown) in [
            ("service/default/kubernetes", "kubernetes.default [Tcp]"),
            ("service/default/orders", "orders.default [Http]"),
            ("service/default/web", "web.default [Http]"),
            ("endpointslice/default/orders-1", "10.50.2.7:8080 10.50.2.7:8080 /east-2 nobody"),
            (
                "endpointslice/default/web-",
                "web-1 10.50.1.7:8080 east/east-1 spiffe://test.mesh/ns/default/sa/default",
            ),
        ] {
            let found = told.iter().find(|(name, _)| name.starts_with(origin));
            assert_eq!(found.unwrap().1, [shown], "{origin}");
        }
        assert_eq!(told.len(), 5);
    }
}
