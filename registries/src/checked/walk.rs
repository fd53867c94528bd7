//! The wrapped registry's words with what the checks found in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::time::Instant;
use weft_core::{
    name::{OriginName, PortName, ServiceName},
    registry::{Event, OriginFault, RegistryError, Scope, Version},
    resource::{AppProtocol, Endpoint, Health, Resource, TlsMode},
};

use super::{
    Checked,
    findings::EndpointKey,
    looking::{Looking, Place, Target, Verdicts},
};
use crate::check::mesh::MeshTarget;

type Words = Vec<Result<Event, RegistryError>>;

/// One stream of the wrapped registry.
pub(super) struct Walk<'a> {
    checked: &'a Checked,
    inner: BoxStream<'a, Result<Event, RegistryError>>,
    looking: Looking,
    scopes: BTreeMap<Scope, Told>,
    /// Where each endpoint that is looked after was told.
    places: BTreeMap<EndpointKey, (Scope, OriginName)>,
}

/// What was told of a scope.
#[derive(Default)]
struct Told {
    origins: BTreeMap<OriginName, Origin>,
    protocols: BTreeMap<(ServiceName, PortName), AppProtocol>,
    /// Origins that a list that is under way has not named yet.
    unlisted: Option<BTreeSet<OriginName>>,
    /// Words since the last commit.
    is_open: bool,
    /// Origins to be told again because of what a check found.
    changed: BTreeSet<OriginName>,
    /// Origins of which the endpoints to look after are not known yet.
    unseen: BTreeSet<OriginName>,
    /// When its last commit came, with that one's age.
    committed: Option<(Instant, Duration)>,
}

struct Origin {
    version: Version,
    resources: Vec<Resource>,
    faults: Vec<OriginFault>,
    /// Those of its endpoints that are looked after.
    looked_after: BTreeSet<EndpointKey>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(checked: &'a Checked, inner: BoxStream<'a, Result<Event, RegistryError>>) -> Self {
        let looking = Looking::new(checked.tls.clone(), checked.findings.clone());
        Self { checked, inner, looking, scopes: BTreeMap::new(), places: BTreeMap::new() }
    }

    /// The next words; none when the wrapped stream has ended.
    pub(super) async fn next(&mut self) -> Option<Words> {
        tokio::select! {
            word = self.inner.next() => match word? {
                Ok(event) => Some(self.pass_on(event)),
                Err(error) => Some(vec![Err(error)]),
            },
            (key, healthy) = self.looking.next() => Some(self.judged(&key, healthy)),
        }
    }

    fn verdicts(&self) -> MutexGuard<'a, Verdicts> {
        self.checked.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(&mut self, event: Event) -> Words {
        let scope = event.scope().clone();
        let told = self.scopes.entry(scope.clone()).or_default();
        told.is_open = true;
        match event {
            Event::Reset { .. } => told.unlisted = Some(told.origins.keys().cloned().collect()),
            Event::Replace { origin, version, resources, faults, .. } => {
                if let Some(unlisted) = &mut told.unlisted {
                    unlisted.remove(&origin);
                }
                told.changed.remove(&origin);
                told.unseen.insert(origin.clone());
                told.note(&resources);
                let verdicts = self.checked.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
                let looked_after = told.origins.remove(&origin).map(|before| before.looked_after);
                let looked_after = looked_after.unwrap_or_default();
                let words = Origin { version, resources, faults, looked_after };
                let replace = words.replace(&scope, &origin, &verdicts);
                drop(verdicts);
                // What is gone is kept until its endpoints are looked after no more.
                told.origins.insert(origin, words);
                return vec![Ok(replace)];
            }
            Event::Ready { .. } => {
                for origin in told.unlisted.take().unwrap_or_default() {
                    // Others may keep it for a while as unconfirmed: here it has no more words to be told again.
                    told.changed.remove(&origin);
                    told.unseen.insert(origin.clone());
                    if let Some(origin) = told.origins.get_mut(&origin) {
                        origin.resources.clear();
                    }
                }
            }
            Event::Commit { age, .. } => {
                let mut words = self.retell(&scope);
                self.look_after(&scope);
                let told = self.scopes.entry(scope.clone()).or_default();
                (told.is_open, told.committed) = (false, Some((Instant::now(), age)));
                words.push(Ok(Event::Commit { scope, resume: None, age }));
                return words;
            }
        }
        vec![Ok(event)]
    }

    /// A check has come to another judgement.
    fn judged(&mut self, key: &EndpointKey, healthy: bool) -> Words {
        let before = self.verdicts().insert(key.clone(), healthy);
        // Who was not asked before was taken for well.
        if before.unwrap_or(true) == healthy {
            return Vec::new();
        }
        let (registry, service, port, instance) = key;
        let Some((scope, origin)) = self.places.get(key).cloned() else { return Vec::new() };
        if healthy {
            tracing::info!(%registry, %service, %port, %instance, "answers its check");
        } else {
            let finding = self.checked.findings.of(key);
            let reason = finding.map(|it| format!("{}: {}", it.question, it.reason)).unwrap_or_default();
            tracing::warn!(%registry, %service, %port, %instance, reason, "fails its check");
        }
        let Some(told) = self.scopes.get_mut(&scope) else { return Vec::new() };
        told.changed.insert(origin);
        let Some((at, age)) = told.committed.filter(|_| !told.is_open) else { return Vec::new() };
        let is_relay = self.checked.inner.capabilities().relay;
        let age = if is_relay { age + at.elapsed() } else { Duration::ZERO };
        let mut words = self.retell(&scope);
        if !words.is_empty() {
            words.push(Ok(Event::Commit { scope, resume: None, age }));
        }
        words
    }

    /// The words of origins whose endpoints were judged otherwise.
    fn retell(&mut self, scope: &Scope) -> Words {
        let verdicts = self.checked.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = self.scopes.get_mut(scope) else { return Vec::new() };
        let changed = std::mem::take(&mut told.changed);
        let again = |name: OriginName| {
            let origin = told.origins.get(&name).filter(|origin| !origin.resources.is_empty())?;
            Some(Ok(origin.replace(scope, &name, &verdicts)))
        };
        changed.into_iter().filter_map(again).collect()
    }

    /// Looks after the endpoints of what was told since the last commit, and no more after what is gone. What one origin
    /// lacks now and another one has is the same endpoint: what was found of it stands.
    fn look_after(&mut self, scope: &Scope) {
        let Some(told) = self.scopes.get_mut(scope) else { return };
        let mut verdicts = self.checked.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = Vec::new();
        for name in std::mem::take(&mut told.unseen) {
            let Some(origin) = told.origins.get(&name) else { continue };
            let targets: BTreeMap<_, _> = origin
                .endpoints()
                .filter_map(|endpoint| Some((key(scope, endpoint), told.target(self.checked, endpoint)?)))
                .collect();
            let is_gone = origin.resources.is_empty();
            let here = (scope.clone(), name);
            let wanted: BTreeSet<_> = targets.keys().cloned().collect();
            let before = told.origins.get_mut(&here.1).map(|origin| &mut origin.looked_after);
            let before = before.map(|before| std::mem::replace(before, wanted.clone())).unwrap_or_default();
            left.extend(
                before.into_iter().filter(|key| !wanted.contains(key)).map(|key| (key, here.clone())),
            );
            for (key, target) in targets {
                self.looking.look_after(&key, target, verdicts.get(&key).copied());
                self.places.insert(key, here.clone());
            }
            if is_gone {
                told.origins.remove(&here.1);
            }
        }
        for (key, there) in left {
            if self.places.get(&key) != Some(&there) {
                continue;
            }
            self.looking.leave(&key);
            self.places.remove(&key);
            verdicts.remove(&key);
            self.checked.findings.set(&key, None);
        }
    }
}

impl Told {
    fn note(&mut self, resources: &[Resource]) {
        for resource in resources {
            let Resource::Service(service) = resource else { continue };
            for port in &service.ports {
                self.protocols.insert((service.name.clone(), port.name.clone()), port.protocol);
            }
        }
    }

    /// What an endpoint is asked, if anything: what cannot be called is not asked either.
    fn target(&self, checked: &Checked, endpoint: &Endpoint) -> Option<Target> {
        let settings = checked.rules.of(&endpoint.service)?.clone();
        if endpoint.health == Health::Unhealthy {
            return None;
        }
        let place = match (endpoint.tls, &endpoint.identity, &endpoint.mesh_address) {
            (TlsMode::Required, Some(identity), Some(mesh)) => {
                let port = (endpoint.service.clone(), endpoint.port_name.clone());
                Place::Mesh(Box::new(MeshTarget {
                    mesh: mesh.socket(),
                    identity: identity.clone(),
                    service: endpoint.service.clone(),
                    port: endpoint.address.socket().port(),
                    protocol: self.protocols.get(&port).copied().unwrap_or_default(),
                }))
            }
            (TlsMode::Required, ..) => return None,
            (TlsMode::Off, ..) => Place::Plain(endpoint.address.socket()),
        };
        Some(Target { settings, place })
    }
}

impl Origin {
    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.resources.iter().filter_map(|resource| match resource {
            Resource::Endpoint(endpoint) => Some(&**endpoint),
            _ => None,
        })
    }

    /// The origin's words with the verdicts in them. Their version tells them apart from those without.
    fn replace(&self, scope: &Scope, name: &OriginName, verdicts: &Verdicts) -> Event {
        let mut ill = DefaultHasher::new();
        let mut any = false;
        let judged = |resource: &Resource| {
            let Resource::Endpoint(endpoint) = resource else { return resource.clone() };
            let key = key(scope, endpoint);
            if verdicts.get(&key) != Some(&false) || endpoint.health == Health::Unhealthy {
                return resource.clone();
            }
            any = true;
            key.hash(&mut ill);
            Resource::Endpoint(Endpoint { health: Health::Unhealthy, ..Endpoint::clone(endpoint) }.into())
        };
        let resources = self.resources.iter().map(judged).collect();
        let version = if any {
            Version(format!("{}+{:016x}", self.version.0, ill.finish()).into())
        } else {
            self.version.clone()
        };
        let (scope, origin, faults) = (scope.clone(), name.clone(), self.faults.clone());
        Event::Replace { scope, origin, version, resources, faults }
    }
}

fn key(scope: &Scope, endpoint: &Endpoint) -> EndpointKey {
    let Endpoint { service, port_name, instance, .. } = endpoint;
    (scope.registry.clone(), service.clone(), port_name.clone(), instance.clone())
}
