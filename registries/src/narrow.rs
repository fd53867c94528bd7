//! A part of what a registry has: some namespaces, some services of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use weft_core::{
    config::{Readable, Section},
    name::{Namespace, ServiceName},
};

/// Namespaces, each as a whole (none) or just some services of it, by the part of their names before the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Narrow(BTreeMap<String, Option<BTreeSet<String>>>);

impl Narrow {
    /// All services of these namespaces, and these services. None where neither is named: then nothing is left out.
    #[must_use]
    pub fn new(namespaces: &[Namespace], services: &[ServiceName]) -> Option<Self> {
        let mut narrow = Self(BTreeMap::new());
        for namespace in namespaces {
            narrow.0.insert(namespace.to_string(), None);
        }
        (!namespaces.is_empty() || !services.is_empty()).then(|| narrow.including(services))
    }

    /// Reads `namespaces` and `services` of a section. The outer none stands for a fault that was reported.
    #[must_use]
    pub fn read(section: &Section<'_>) -> Option<Option<Self>> {
        let namespaces = section.list("namespaces", Namespace::read);
        let services = section.list("services", ServiceName::read);
        Some(Self::new(&namespaces?, &services?))
    }

    /// The same, with these services.
    #[must_use]
    pub fn including(mut self, services: &[ServiceName]) -> Self {
        for service in services {
            let name = first_part(service);
            let part = self.0.entry(service.namespace().to_owned()).or_insert_with(|| Some(BTreeSet::new()));
            if let Some(names) = part {
                names.insert(name.to_owned());
            }
        }
        self
    }

    /// Each namespace, with the services in it that are followed, or none for all of them.
    pub fn parts(&self) -> impl Iterator<Item = (&str, Option<&BTreeSet<String>>)> {
        self.0.iter().map(|(namespace, services)| (namespace.as_str(), services.as_ref()))
    }

    /// Whether the service of this name in this namespace is a part.
    #[must_use]
    pub fn includes(&self, namespace: &str, name: &str) -> bool {
        let part = self.0.get(namespace);
        part.is_some_and(|services| services.as_ref().is_none_or(|services| services.contains(name)))
    }

    /// Whether the service is a part.
    #[must_use]
    pub fn includes_service(&self, service: &ServiceName) -> bool {
        self.includes(service.namespace(), first_part(service))
    }

    /// The namespaces that are followed as a whole, and the other services, as they are named in configuration.
    #[must_use]
    pub fn named(&self) -> (Vec<String>, Vec<String>) {
        let mut named = (Vec::new(), Vec::new());
        for (namespace, services) in self.parts() {
            match services {
                None => named.0.push(namespace.to_owned()),
                Some(services) => named.1.extend(services.iter().map(|name| format!("{name}.{namespace}"))),
            }
        }
        named
    }

    /// Tells this part from others.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

fn first_part(service: &ServiceName) -> &str {
    service.as_str().split_once('.').map_or(service.as_str(), |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_namespace_takes_its_services_in() {
        let service = |name: &str| ServiceName::new(name).unwrap();
        assert_eq!(Narrow::new(&[], &[]), None);
        let shop = Namespace::new("shop").unwrap();
        let narrow = Narrow::new(&[shop], &[service("web.shop"), service("ledger.bank")]).unwrap();
        let is_in = |name: &str| narrow.includes_service(&service(name));
        assert!(is_in("web.shop") && is_in("cart.shop") && is_in("ledger.bank"));
        assert!(!is_in("vault.bank") && !is_in("web.default"));
        assert_eq!(narrow.named(), (vec!["shop".to_owned()], vec!["ledger.bank".to_owned()]));
        let more = narrow.clone().including(&[service("vault.bank"), service("web.shop")]);
        assert!(more.includes_service(&service("vault.bank")) && more.digest() != narrow.digest());
        assert!(more.includes_service(&service("cart.shop")));
    }
}
