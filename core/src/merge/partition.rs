//! Keeps each registry's partition equal to what its origins say, touching only what a commit touches.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use super::{
    Merge,
    order::{differences, of_service, service},
    snapshot::{Origin, OriginKey, Partition, ServiceEntry},
};
use crate::{
    diagnostic::Diagnostic,
    name::{InstanceName, OriginName, PortName, RegistryName, ServiceKey, ServiceName},
    registry::Scope,
    resource::{Endpoint, Resource, ResourceKey, Route, Service, TlsMode},
};

/// What a commit touches, collected origin by origin.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Services, and which origins now speak of them (`true`) or no longer do.
    services: BTreeMap<ServiceName, Vec<(OriginKey, bool)>>,
    /// New words about routes and policies; none where an origin no longer has any.
    rules: Vec<(ResourceKey, OriginKey, Option<Resource>)>,
}

impl Touched {
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.rules.is_empty()
    }

    /// Every service of an origin that itself did not change.
    pub(super) fn services_of(&mut self, origin: &Origin) {
        for name in origin.resources.iter().filter_map(service) {
            if !self.services.contains_key(name) {
                self.services.insert(name.clone(), Vec::new());
            }
        }
    }

    /// An origin that changed.
    pub(super) fn origin(
        &mut self,
        scope: &Scope,
        name: &OriginName,
        old: Option<&Origin>,
        new: Option<&Origin>,
    ) {
        let key = OriginKey { part: scope.part.clone(), name: name.clone() };
        let [old, new] = [old, new].map(|origin| origin.map_or(&[][..], |origin| &origin.resources));
        for (before, after) in differences(old, new) {
            let Some(resource) = after.or(before) else { continue };
            match service(resource) {
                Some(name) => {
                    let origins = self.services.entry(name.clone()).or_default();
                    if origins.last().is_none_or(|(last, _)| *last != key) {
                        origins.push((key.clone(), !of_service(new, name).is_empty()));
                    }
                }
                None => self.rules.push((resource.key(), key.clone(), after.cloned())),
            }
        }
    }
}

/// An endpoint, and the origin that says it.
struct Said<'a> {
    endpoint: &'a Arc<Endpoint>,
    origin: &'a Origin,
}

impl Said<'_> {
    fn key(&self) -> (&PortName, &InstanceName) {
        (&self.endpoint.port_name, &self.endpoint.instance)
    }

    fn is_unconfirmed(&self) -> bool {
        self.origin.unconfirmed_since.is_some()
    }
}

/// Endpoints that are not in force because another origin means something else by their key.
#[derive(Default)]
struct Collisions {
    count: usize,
    example: String,
}

impl Collisions {
    /// What moves from one origin to another is said by both for a moment, and its health by one of them later.
    fn note(&mut self, first: &Said<'_>, later: &Said<'_>) {
        let same = Endpoint { health: first.endpoint.health, ..Endpoint::clone(later.endpoint) };
        if later.is_unconfirmed() || same == **first.endpoint {
            return;
        }
        self.count += 1;
        if self.count == 1 {
            let (port, instance) = first.key();
            let other = match first.endpoint.address == later.endpoint.address {
                true => "the same with other words".to_owned(),
                false => format!("another, {}", later.endpoint.address),
            };
            self.example = format!(
                "port \"{port}\" of instance {instance} is {} by the origin \"{}\" and {other}, by \"{}\"",
                first.endpoint.address, first.origin.name, later.origin.name
            );
        }
    }

    fn message(self) -> Option<String> {
        let Self { count, example } = self;
        let more = if count > 1 { format!(" (and {} more such)", count - 1) } else { String::new() };
        (count > 0).then(|| format!("{example}: the first one stands{more}"))
    }
}

impl Merge {
    /// Brings one registry's partition up to date.
    pub(super) fn derive(&mut self, registry: &RegistryName, touched: Touched, now: Option<SystemTime>) {
        let mut partition = self.snapshot.partitions.get(registry).cloned().unwrap_or_default();
        self.note_limits(registry, &mut partition);
        for (name, origins) in touched.services {
            self.derive_service(&mut partition, registry, (name, origins), now);
        }
        for (key, origin, resource) in touched.rules {
            self.derive_rule(&mut partition, registry, key, origin, resource);
        }
        self.snapshot.partitions.insert(registry.clone(), partition);
    }

    /// Notes of which services a registry may speak as its own. Returns whether that is another matter than before: where its
    /// policies count is, then.
    pub(super) fn note_limits(&mut self, registry: &RegistryName, partition: &mut Partition) -> bool {
        let may_own = self.intake.limits_of(registry).and_then(|limits| limits.may_own.as_deref());
        let is_other = partition.may_own.as_deref() != may_own;
        if is_other {
            partition.may_own = may_own.map(Into::into);
            self.changes.policies = true;
        }
        is_other
    }

    fn derive_service(
        &mut self,
        partition: &mut Partition,
        registry: &RegistryName,
        (name, changes): (ServiceName, Vec<(OriginKey, bool)>),
        now: Option<SystemTime>,
    ) {
        let old = partition.services.get(&name).cloned();
        let old = old.as_deref();
        let mut origins = old.map_or_else(Vec::new, |entry| entry.origins.to_vec());
        for (origin, speaks) in changes {
            match (origins.binary_search(&origin), speaks) {
                (Err(at), true) => origins.insert(at, origin),
                (Ok(at), false) => drop(origins.remove(at)),
                _ => {}
            }
        }
        let routes = old.map_or_else(Box::default, |entry| entry.routes.clone());
        let declaring = self.declaring(registry, &name, &origins);
        let service = declaring.first().map(|(_, service)| (*service).clone());
        let losers: Vec<_> = declaring.iter().skip(1).map(|(key, _)| (*key).clone()).collect();
        let contradiction = declaring.first().and_then(|(winner, _)| {
            let lost = losers.first()?;
            let message = format!(
                "declared by the origins \"{}\" and \"{}\": the first one stands, with its endpoints alone",
                winner.name, lost.name
            );
            Some(Diagnostic::warning(format_args!("{registry}/{name}"), message))
        });
        let (all, collision) = self.endpoints_of(registry, &name, &origins, &losers, false);
        let collision =
            collision.map(|message| Diagnostic::warning(format_args!("{registry}/{name}"), message));
        let key = ServiceKey { registry: registry.clone(), service: name };
        let conflict = contradiction.or(collision);
        self.note_conflict(registry, ResourceKey::Service(key.service.clone()), conflict);
        // What is not in force counts too: a port with plaintext beside TLS is none that is all TLS.
        // But where plaintext was withheld for its age, an unconfirmed origin has lost it, and that proves nothing.
        let is_cut = old.is_some_and(|entry| entry.filtered) && self.any_unconfirmed(registry, &origins);
        if !is_cut {
            let known = old.filter(|entry| !entry.filtered);
            self.note_required_tls(&key, known.map_or(&[], |entry| &entry.endpoints), &all);
        }
        let said = all.len();
        let endpoints = match self.snapshot.scopes.values().any(|state| state.stale) {
            true => self.endpoints_of(registry, &key.service, &origins, &losers, true).0,
            false => all,
        };
        let filtered = endpoints.len() < said;
        let entry = ServiceEntry { service, endpoints, filtered, routes, origins: origins.into() };
        // What it may not own goes by the operator's word.
        let now = now.filter(|_| self.intake.may_own(registry, &key.service));
        partition.note_departure(&key, old, &entry, now);
        if old.is_none_or(|old| *old != entry) {
            self.set_entry(partition, key, entry);
        }
    }

    /// The origins that declare a service, the one that stands first: a confirmed one before an unconfirmed one, else the
    /// first by name.
    fn declaring<'a>(
        &'a self,
        registry: &RegistryName,
        name: &ServiceName,
        origins: &'a [OriginKey],
    ) -> Vec<(&'a OriginKey, &'a Arc<Service>)> {
        let found = origins.iter().filter_map(|key| {
            let origin = self.origin(registry, key)?;
            let Some(Resource::Service(service)) = of_service(&origin.resources, name).first() else {
                return None;
            };
            Some((origin.unconfirmed_since.is_some(), key, service))
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|(unconfirmed, _, _)| *unconfirmed);
        found.into_iter().map(|(_, key, service)| (key, service)).collect()
    }

    /// One endpoint per key: of a confirmed origin before an unconfirmed one, else of the first one; and what there is to
    /// say where two origins mean different things by one key. Origins that would declare the service too (`losers`) add
    /// nothing to another's. `in_force` leaves out what proves nothing and is stale.
    fn endpoints_of(
        &self,
        registry: &RegistryName,
        name: &ServiceName,
        origins: &[OriginKey],
        losers: &[OriginKey],
        in_force: bool,
    ) -> (Box<[Arc<Endpoint>]>, Option<String>) {
        let mut found = Vec::new();
        for key in origins.iter().filter(|key| !losers.contains(key)) {
            let scope = Scope { registry: registry.clone(), part: key.part.clone() };
            let Some(state) = self.snapshot.scopes.get(&scope) else { continue };
            let Some(origin) = state.origins.get(&key.name) else { continue };
            for resource in of_service(&origin.resources, name) {
                let Resource::Endpoint(endpoint) = resource else { continue };
                if !(in_force && state.stale) || endpoint.is_mutual() {
                    found.push(Said { endpoint, origin });
                }
            }
        }
        let mut collisions = Collisions::default();
        if origins.len() > 1 {
            found.sort_by(|a, b| {
                a.key().cmp(&b.key()).then_with(|| a.is_unconfirmed().cmp(&b.is_unconfirmed()))
            });
            found.dedup_by(|later, first| {
                let same = later.key() == first.key();
                if same {
                    collisions.note(first, later);
                }
                same
            });
        }
        (found.into_iter().map(|said| said.endpoint.clone()).collect(), collisions.message())
    }

    fn any_unconfirmed(&self, registry: &RegistryName, origins: &[OriginKey]) -> bool {
        let mut origins = origins.iter().filter_map(|key| self.origin(registry, key));
        origins.any(|origin| origin.unconfirmed_since.is_some())
    }

    fn origin(&self, registry: &RegistryName, key: &OriginKey) -> Option<&Arc<Origin>> {
        let scope = Scope { registry: registry.clone(), part: key.part.clone() };
        self.snapshot.scopes.get(&scope)?.origins.get(&key.name)
    }

    /// Remembers ports that are all TLS: from here on, plaintext needs the operator's word. Where all of `old` were TLS,
    /// that was remembered then, and the operator's word since stands. Where none is known to speak TLS, it is only what
    /// nobody said otherwise.
    fn note_required_tls(&mut self, service: &ServiceKey, old: &[Arc<Endpoint>], new: &[Arc<Endpoint>]) {
        let are_tls = |endpoints: &[Arc<Endpoint>]| {
            endpoints.iter().all(|endpoint| endpoint.tls == TlsMode::Required)
                && endpoints.iter().any(|endpoint| endpoint.is_mutual())
        };
        for port in new.chunk_by(|a, b| a.port_name == b.port_name).filter(|port| are_tls(port)) {
            let Some(name) = port.first().map(|endpoint| &endpoint.port_name) else { continue };
            let start = old.partition_point(|endpoint| endpoint.port_name < *name);
            let length = old[start..].partition_point(|endpoint| endpoint.port_name == *name);
            if !are_tls(&old[start..start + length]) {
                self.intake.required_tls.insert((service.clone(), name.clone()));
            }
        }
    }

    fn derive_rule(
        &mut self,
        partition: &mut Partition,
        registry: &RegistryName,
        key: ResourceKey,
        origin: OriginKey,
        resource: Option<Resource>,
    ) {
        let claims = self.claims.entry((registry.clone(), key.clone())).or_default();
        match resource {
            Some(resource) => drop(claims.insert(origin, resource)),
            None => drop(claims.remove(&origin)),
        }
        let stands = claims.values().next().cloned();
        let contradicts = claims.values().any(|claim| Some(claim) != stands.as_ref());
        let origins: Vec<_> = claims.keys().map(|origin| format!("\"{}\"", origin.name)).collect();
        if claims.is_empty() {
            self.claims.remove(&(registry.clone(), key.clone()));
        }
        let (ResourceKey::Route(name) | ResourceKey::Policy(name)) = &key else { return };
        let contradiction = contradicts.then(|| {
            let message =
                format!("declared differently by the origins {}: the first one stands", origins.join(", "));
            Diagnostic::warning(format_args!("{registry}/{name}"), message)
        });
        match (stands, &key) {
            (Some(Resource::Route(route)), _) => {
                let old = partition.routes.insert(name.clone(), route.clone());
                self.relink(partition, registry, old, Some(route));
            }
            (Some(Resource::Policy(policy)), _) => {
                let old = partition.policies.insert(name.clone(), policy.clone());
                self.note_policy(registry, &key, old != Some(policy));
            }
            (_, ResourceKey::Route(_)) => {
                let old = partition.routes.remove(name);
                self.relink(partition, registry, old, None);
            }
            _ => {
                let was_there = partition.policies.remove(name).is_some();
                self.note_policy(registry, &key, was_there);
            }
        }
        self.note_conflict(registry, key, contradiction);
    }

    fn note_policy(&mut self, registry: &RegistryName, key: &ResourceKey, changed: bool) {
        if changed {
            self.changes.policies = true;
            self.snapshot.journal.note(self.snapshot.generation, registry, key.clone());
        }
    }

    /// Moves a route from the service it was for to the one it is for.
    fn relink(
        &mut self,
        partition: &mut Partition,
        registry: &RegistryName,
        old: Option<Arc<Route>>,
        new: Option<Arc<Route>>,
    ) {
        if old == new {
            return;
        }
        if let Some(route) = old.as_ref().or(new.as_ref()) {
            let key = ResourceKey::Route(route.name.clone());
            self.snapshot.journal.note(self.snapshot.generation, registry, key);
        }
        let names: Vec<_> = [&old, &new].into_iter().flatten().map(|route| route.service.clone()).collect();
        for name in names {
            let mut entry =
                partition.services.get(&name).map_or_else(ServiceEntry::default, |e| (**e).clone());
            let mut routes = entry.routes.into_vec();
            routes.retain(|route| old.as_ref().is_none_or(|old| route.name != old.name));
            if let Some(new) = new.as_ref().filter(|new| new.service == name) {
                routes.retain(|route| route.name != new.name);
                let at = routes.partition_point(|route| route.name < new.name);
                routes.insert(at, new.clone());
            }
            entry.routes = routes.into();
            self.set_entry(partition, ServiceKey { registry: registry.clone(), service: name }, entry);
        }
    }

    fn set_entry(&mut self, partition: &mut Partition, key: ServiceKey, entry: ServiceEntry) {
        if entry == ServiceEntry::default() {
            partition.services.remove(&key.service);
        } else {
            partition.services.insert(key.service.clone(), Arc::new(entry));
        }
        let changed = ResourceKey::Service(key.service.clone());
        self.snapshot.journal.note(self.snapshot.generation, &key.registry, changed);
        self.changes.services.insert(key);
    }

    fn note_conflict(&mut self, registry: &RegistryName, key: ResourceKey, found: Option<Diagnostic>) {
        match found {
            Some(diagnostic) => drop(self.conflicts.insert((registry.clone(), key), diagnostic)),
            None if self.conflicts.is_empty() => {}
            None => drop(self.conflicts.remove(&(registry.clone(), key))),
        }
    }
}
