//! The wrapped registry's words with what the checks found in them.
//!
//! The endpoints are asked on when a stream has ended, until the next one has committed something: who dies while the
//! registry is away is noticed, and so is who comes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::{sync::Notify, time::Instant};
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
    rounds: Rounds,
    /// Whether it has committed anything.
    has_committed: bool,
}

/// What a stream told, and who is looked after.
pub(super) struct Rounds {
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
        let rounds = Rounds { looking, scopes: BTreeMap::new(), places: BTreeMap::new() };
        Self { checked, inner, rounds, has_committed: false }
    }

    /// The next words; none when the wrapped stream has ended.
    pub(super) async fn next(&mut self) -> Option<Words> {
        tokio::select! {
            word = self.inner.next() => match word? {
                Ok(event) => {
                    self.has_committed |= matches!(event, Event::Commit { .. });
                    self.checked.left.succeed(self.has_committed);
                    Some(self.rounds.pass_on(self.checked, event))
                }
                Err(error) => Some(vec![Err(error)]),
            },
            (key, healthy) = poll_fn(|context| self.rounds.looking.poll_next(context)) => {
                let words = self.rounds.judged(self.checked, &key, healthy, true);
                Some(words.into_iter().map(Ok).collect())
            }
        }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        let empty = Looking::new(None, self.checked.findings.clone());
        let empty = Rounds { looking: empty, scopes: BTreeMap::new(), places: BTreeMap::new() };
        let mut rounds = std::mem::replace(&mut self.rounds, empty);
        rounds.forget_uncommitted();
        self.checked.left.leave(self.has_committed.then_some(rounds));
    }
}

/// The rounds that a stream left behind when it ended, which are walked on meanwhile.
#[derive(Default)]
pub(super) struct Left {
    rounds: Mutex<(Option<Rounds>, bool)>,
    changed: Notify,
}

impl Left {
    /// A stream has ended; it leaves its rounds where it has committed anything.
    fn leave(&self, rounds: Option<Rounds>) {
        let mut left = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        *left = (rounds.or_else(|| left.0.take()), true);
        self.changed.notify_one();
    }

    /// A stream has said something: from its first word on nobody else speaks, and from its first commit on nobody else is
    /// needed.
    fn succeed(&self, has_committed: bool) {
        let mut left = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        left.1 = false;
        if has_committed {
            left.0 = None;
        }
    }

    /// What an origin said to the stream before.
    fn resources(&self, scope: &Scope, origin: &OriginName) -> Option<Vec<Resource>> {
        let left = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let told = left.0.as_ref()?.scopes.get(scope)?;
        told.origins.get(origin).map(|origin| origin.resources.clone())
    }

    /// What is found while no stream speaks.
    pub(super) async fn next(&self, checked: &Checked) -> Vec<Event> {
        let found = |context: &mut Context<'_>| {
            let mut left = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
            let (Some(rounds), true) = &mut *left else { return Poll::Pending };
            let (key, healthy) = std::task::ready!(rounds.looking.poll_next(context));
            Poll::Ready(rounds.judged(checked, &key, healthy, false))
        };
        loop {
            tokio::select! {
                words = poll_fn(found) => if !words.is_empty() {
                    return words;
                },
                () = self.changed.notified() => {}
            }
        }
    }
}

impl Rounds {
    /// Words that no commit followed never count.
    fn forget_uncommitted(&mut self) {
        for told in self.scopes.values_mut() {
            let uncommitted = std::mem::take(&mut told.unseen);
            told.origins.retain(|name, _| !uncommitted.contains(name));
            (told.is_open, told.unlisted) = (false, None);
        }
    }

    fn pass_on(&mut self, checked: &Checked, event: Event) -> Words {
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
                let verdicts = checked.verdicts();
                let (before, looked_after) = match told.origins.remove(&origin) {
                    Some(before) => (Some(before.resources), before.looked_after),
                    None => (checked.left.resources(&scope, &origin), BTreeSet::new()),
                };
                let stands = resources.iter().any(|resource| resource.check().is_err())
                    || faults.iter().any(|fault| fault.keeps_last_good);
                let resources = match before.filter(|_| stands) {
                    Some(before) => standing(before, resources),
                    None => resources,
                };
                let words = Origin { version, resources, faults, looked_after };
                told.note(&words.resources);
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
                let mut words = self.retell(checked, &scope);
                self.look_after(checked, &scope);
                let told = self.scopes.entry(scope.clone()).or_default();
                (told.is_open, told.committed) = (false, Some((Instant::now(), age)));
                words.push(Event::Commit { scope, resume: None, age });
                return words.into_iter().map(Ok).collect();
            }
        }
        vec![Ok(event)]
    }

    /// A check has come to another judgement, while the registry is there or is not.
    fn judged(&mut self, checked: &Checked, key: &EndpointKey, healthy: bool, is_there: bool) -> Vec<Event> {
        let before = checked.verdicts().insert(key.clone(), healthy);
        // Who was not asked before was taken for well.
        if before.unwrap_or(true) == healthy {
            return Vec::new();
        }
        let (registry, service, port, instance) = key;
        let Some((scope, origin)) = self.places.get(key).cloned() else { return Vec::new() };
        if healthy {
            tracing::info!(%registry, %service, %port, %instance, "answers its check");
        } else {
            let finding = checked.findings.of(key);
            let reason = finding.map(|it| format!("{}: {}", it.question, it.reason)).unwrap_or_default();
            tracing::warn!(%registry, %service, %port, %instance, reason, "fails its check");
        }
        let Some(told) = self.scopes.get_mut(&scope) else { return Vec::new() };
        told.changed.insert(origin);
        let Some((at, age)) = told.committed.filter(|_| !told.is_open) else { return Vec::new() };
        // What the registry itself does not say now is as old as it was.
        let is_told = is_there && !checked.inner.capabilities().relay;
        let age = if is_told { Duration::ZERO } else { age + at.elapsed() };
        let mut words = self.retell(checked, &scope);
        if !words.is_empty() {
            words.push(Event::Commit { scope, resume: None, age });
        }
        words
    }

    /// The words of origins whose endpoints were judged otherwise.
    fn retell(&mut self, checked: &Checked, scope: &Scope) -> Vec<Event> {
        let verdicts = checked.verdicts();
        let Some(told) = self.scopes.get_mut(scope) else { return Vec::new() };
        let changed = std::mem::take(&mut told.changed);
        let again = |name: OriginName| {
            let origin = told.origins.get(&name).filter(|origin| !origin.resources.is_empty())?;
            Some(origin.replace(scope, &name, &verdicts))
        };
        changed.into_iter().filter_map(again).collect()
    }

    /// Looks after the endpoints of what was told since the last commit, and no more after what is gone. What one origin
    /// lacks now and another one has is the same endpoint: what was found of it stands.
    fn look_after(&mut self, checked: &Checked, scope: &Scope) {
        let Some(told) = self.scopes.get_mut(scope) else { return };
        let mut verdicts = checked.verdicts();
        let mut left = Vec::new();
        for name in std::mem::take(&mut told.unseen) {
            let Some(origin) = told.origins.get(&name) else { continue };
            let targets: BTreeMap<_, _> = origin
                .endpoints()
                .filter_map(|endpoint| Some((key(scope, endpoint), told.target(checked, endpoint)?)))
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
            checked.findings.set(&key, None);
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
    /// Those that nobody refuses to call.
    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.resources.iter().filter_map(|resource| match resource {
            Resource::Endpoint(endpoint) if resource.check().is_ok() => Some(&**endpoint),
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

/// What an origin said before, which stands because of a fault in its newer words. It is looked after, and said along with the
/// fault, so that what is found of it is heard; what will be refused of the newer words is among it, as that is the fault.
fn standing(mut before: Vec<Resource>, mut newer: Vec<Resource>) -> Vec<Resource> {
    before.retain(|resource| resource.check().is_ok());
    newer.retain(|resource| resource.check().is_err());
    before.append(&mut newer);
    before
}

fn key(scope: &Scope, endpoint: &Endpoint) -> EndpointKey {
    let Endpoint { service, port_name, instance, .. } = endpoint;
    (scope.registry.clone(), service.clone(), port_name.clone(), instance.clone())
}
