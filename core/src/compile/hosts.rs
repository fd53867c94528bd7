//! Which service answers to which host name, and who else would like to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::unit::Unit;
use crate::{
    diagnostic::Diagnostic,
    name::{DEFAULT_NAMESPACE, HostName, NameError, Namespace, RegistryName, ServiceKey},
    resource::Service,
    table::{Place, Places, SharedMap},
};

/// Declarations of one service, most authoritative first.
type Declarations = [(RegistryName, Arc<Service>)];

/// What decides between claims on a name: a service's own name before an alias that whoever registers an instance may
/// choose; then the registry's declared precedence, then what kind of name it is, then the key. Lower wins. So no registry
/// takes the name of another's service by a list of host names, which nobody proves; and a host name that an operator
/// declares is not another's because somebody called a service so. A mesh host name is nobody's alias.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    is_alias: bool,
    precedence: usize,
    kind: Kind,
    key: ServiceKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// `reviews.default.mesh`, `reviews.default`.
    Own,
    /// Declared by the platform.
    Platform,
    /// `reviews`.
    Bare,
}

/// Host names, and the claims of those that more than one service wants.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    pub(super) map: SharedMap<HostName, Place>,
    contested: BTreeMap<HostName, BTreeSet<Claim>>,
    /// Registries, most authoritative first; others come after, by name.
    precedence: Vec<RegistryName>,
    /// Names that lead elsewhere than before, since this was last emptied.
    pub(super) changed: Vec<HostName>,
}

type Units = HashMap<ServiceKey, Unit, RandomState>;

impl Hosts {
    pub(super) fn new(precedence: Vec<RegistryName>) -> Self {
        Self { precedence, ..Self::default() }
    }

    /// Brings the names of one service up to date after its unit changed. `before` are its declarations and its place
    /// until now. Places still hold those that are about to go.
    pub(super) fn update(&mut self, key: &ServiceKey, before: &Before, units: &Units, places: &Places) {
        let unit = units.get(key).filter(|unit| unit.place.is_some());
        let now = unit.map(|unit| &unit.services[..]).unwrap_or_default();
        let place = unit.and_then(|unit| unit.place);
        let mut pairs = before.services.iter().zip(now);
        if before.services.len() == now.len() && place == before.place && pairs.all(|(a, b)| a == b) {
            return;
        }
        let names = self.claims(key, now);
        if let Some(place) = before.place {
            for (name, _) in self.claims(key, &before.services) {
                if !names.iter().any(|(kept, _)| *kept == name) {
                    self.release(name, key, place, units);
                }
            }
        }
        let Some(place) = place else { return };
        for (name, claim) in names {
            self.claim(name, claim, place, units, places);
        }
    }

    /// The names of a service with how strong its claim on each is; each name once.
    fn claims(&self, key: &ServiceKey, declared: &Declarations) -> Vec<(HostName, Claim)> {
        let mut names: Vec<(HostName, Claim)> = Vec::new();
        let Some((first, _)) = declared.first() else { return names };
        let precedence = self.precedence_of(first);
        let is_alias = |name: &HostName, kind: Kind, is_declared: bool| match kind {
            Kind::Own => false,
            Kind::Platform => {
                !is_declared || !name.as_str().contains('.') || name.as_str().ends_with(".mesh")
            }
            Kind::Bare => true,
        };
        let mut add = |name: Result<HostName, NameError>, kind, is_declared, precedence| {
            if let Ok(name) = name
                && !names.iter().any(|(known, _)| *known == name)
            {
                let is_alias = is_alias(&name, kind, is_declared);
                names.push((name, Claim { is_alias, precedence, kind, key: key.clone() }));
            }
        };
        add(HostName::new(&key.service.mesh_host()), Kind::Own, true, precedence);
        add(Ok(key.service.host()), Kind::Own, true, precedence);
        for (registry, service) in declared {
            // Who lists a name lends it no more weight than its own names have.
            let precedence = self.precedence_of(registry);
            for host in &service.hosts {
                add(Ok(host.clone()), Kind::Platform, service.declared, precedence);
            }
        }
        if key.service.namespace() == DEFAULT_NAMESPACE {
            add(HostName::new(key.service.label()), Kind::Bare, true, precedence);
        }
        names
    }

    fn precedence_of(&self, registry: &RegistryName) -> usize {
        self.precedence.iter().position(|known| known == registry).unwrap_or(self.precedence.len())
    }

    fn claim(&mut self, name: HostName, claim: Claim, place: Place, units: &Units, places: &Places) {
        if let Some(claims) = self.contested.get_mut(&name) {
            claims.retain(|other| other.key != claim.key);
            claims.insert(claim);
            self.settle(name, units);
            return;
        }
        let holder = self.map.get(&name).copied().filter(|holder| *holder != place);
        let Some(holder) = holder.and_then(|holder| places.get(holder)) else {
            self.lead(name, Some(place));
            return;
        };
        let declared = units.get(&holder.key).map(|unit| &unit.services[..]).unwrap_or_default();
        let claims = self.claims(&holder.key, declared);
        let other = claims.into_iter().find(|(held, _)| *held == name).map(|(_, claim)| claim);
        self.contested.insert(name.clone(), other.into_iter().chain([claim]).collect());
        self.settle(name, units);
    }

    fn release(&mut self, name: HostName, key: &ServiceKey, place: Place, units: &Units) {
        if let Some(claims) = self.contested.get_mut(&name) {
            claims.retain(|claim| claim.key != *key);
            self.settle(name, units);
        } else if self.map.get(&name) == Some(&place) {
            self.lead(name, None);
        }
    }

    /// Gives a contested name to the strongest claim; with one claim left it is contested no more.
    fn settle(&mut self, name: HostName, units: &Units) {
        let Some(claims) = self.contested.get(&name) else { return };
        let winner = claims.first().and_then(|claim| units.get(&claim.key)?.place);
        if claims.len() < 2 {
            self.contested.remove(&name);
        }
        self.lead(name, winner);
    }

    fn lead(&mut self, name: HostName, place: Option<Place>) {
        let before = match place {
            Some(place) => self.map.insert(name.clone(), place),
            None => self.map.remove(&name),
        };
        if before != place {
            self.changed.push(name);
        }
    }

    /// Who lost which names to whom: one diagnostic per pair of services.
    pub(super) fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut pairs = BTreeMap::<(&Claim, Loser<'_>), Vec<&HostName>>::new();
        for (name, claims) in &self.contested {
            let Some(winner) = claims.first() else { continue };
            for loser in claims.iter().skip(1) {
                let Claim { key, is_alias, .. } = loser;
                let loser = Loser { key, is_alias: *is_alias, is_alike: loser.kind == winner.kind };
                pairs.entry((winner, loser)).or_default().push(name);
            }
        }
        let mut found: Vec<_> =
            pairs.into_iter().map(|((winner, loser), names)| conflict(winner, &loser, &names)).collect();
        found.sort();
        found.dedup();
        found
    }
}

/// Who lost a name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Loser<'a> {
    key: &'a ServiceKey,
    is_alias: bool,
    /// Whether the claims are of one kind.
    is_alike: bool,
}

fn conflict(winner: &Claim, loser: &Loser<'_>, names: &[&HostName]) -> Diagnostic {
    let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
    let is_of_one = winner.key.registry == loser.key.registry;
    let way = if is_of_one && loser.is_alike && winner.is_alias == loser.is_alias {
        "as the first of the two by name"
    } else if is_of_one || (!winner.is_alias && loser.is_alias) {
        match winner.kind {
            Kind::Platform => "as it declares that host",
            Kind::Own | Kind::Bare => "by its own name",
        }
    } else {
        "by the order of registries; a [[join]] would make them one"
    };
    let (winner, loser) = (&winner.key, loser.key);
    let message = format!("{winner} and {loser} both claim {}: {winner} has it, {way}", names.join(", "));
    Diagnostic::warning(loser, message).and_at(winner)
}

/// What a service was before its unit changed.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) services: Box<[(RegistryName, Arc<Service>)]>,
    pub(super) place: Option<Place>,
}

/// Bare names within one namespace, for the workloads of that namespace.
#[derive(Debug, Default)]
pub(super) struct BareNames {
    pub(super) by_namespace: BTreeMap<Namespace, SharedMap<HostName, Place>>,
}

impl BareNames {
    /// Takes over where `label.namespace` leads to as where `label` leads to.
    pub(super) fn update(&mut self, name: &HostName, hosts: &SharedMap<HostName, Place>) {
        let Some((label, namespace)) = name.as_str().split_once('.') else { return };
        let Some(names) = self.by_namespace.get_mut(namespace) else { return };
        let Ok(bare) = HostName::new(label) else { return };
        match hosts.get(name) {
            Some(place) => drop(names.insert(bare, *place)),
            None => drop(names.remove(&bare)),
        }
    }
}
