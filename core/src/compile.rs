//! Turns a [`Snapshot`] into a [`Table`], incrementally and purely.
//!
//! Invariants:
//! - compiling change by change yields the same table as compiling everything at once, but for last good forms of what
//!   is faulty now;
//! - a change of one endpoint compiles its service and those whose routes lead there, and copies the path to them in
//!   the shared maps; nothing else;
//! - an endpoint keeps its [`EndpointState`](crate::table::EndpointState) as long as its
//!   [`EndpointKey`](crate::table::EndpointKey) is in force;
//! - what cannot be compiled is a diagnostic; a route's last good form stays in force.

mod access;
mod candidates;
mod conditions;
mod endpoints;
mod hosts;
mod join;
mod shares;
mod unit;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use foldhash::fast::RandomState;

pub use conditions::checked_pattern;
pub use join::{Join, Prefer, Proved};
pub use unit::hidden_routes;

use access::Policies;
use candidates::Tiers;
use conditions::ParsedRoutes;
use endpoints::previous;
use hosts::{BareNames, Before, Hosts};
use join::canonical;
use unit::{Group, Linker, Noted, Routes, Unit};

use crate::{
    diagnostic::Diagnostic,
    locality::Locality,
    merge::{Changes, Snapshot},
    name::{DEFAULT_NAMESPACE, Namespace, RegistryName, RuleName, ServiceKey, ServiceName},
    table::{Directory, EndpointKey, Place, Places, SharedMap, Table, Upstream, View},
    workload::Workload,
};

/// What the compiler is told beside the snapshot.
#[derive(Clone, Debug, Default)]
pub struct CompileConfig {
    /// Registries, most authoritative first, for names that several of them claim. Others come after, by name.
    pub precedence: Vec<RegistryName>,
    /// The most authoritative registry that may carry configuration, whether or not it says anything: what it allows for
    /// the whole mesh or an identity counts everywhere, and what others allow so counts only at their own services.
    pub authority: Option<RegistryName>,
    /// Which services of different registries are one.
    pub joins: Vec<Join>,
    /// The local workloads, each of which gets a view.
    pub workloads: Vec<Arc<Workload>>,
    /// Where this process runs: the nearest endpoints are those of the same zone. Unknown, nothing is near.
    pub locality: Locality,
    /// Registries whose services nobody may call yet: one that ranks before them has yet to say what it has for the first
    /// time, and may have the name. Their names are nobody else's meanwhile, and their policies count.
    pub held: Vec<RegistryName>,
}

/// Compiles one snapshot after another.
#[derive(Debug)]
pub struct Compiler {
    config: CompileConfig,
    table: Table,
    units: HashMap<ServiceKey, Unit, RandomState>,
    /// Services whose routes lead to services of the name that is the key.
    dependants: HashMap<ServiceName, BTreeSet<ServiceKey>, RandomState>,
    /// All registries, most authoritative first.
    ranked: Vec<RegistryName>,
    /// Destinations, shared with the table.
    places: Places,
    /// Places where no destination stands any more.
    free: Vec<Place>,
    hosts: Hosts,
    bare_names: BareNames,
    policies: Policies,
    /// Endpoints and routes that are not used.
    withheld: Noted,
    /// What is wrong with routes and ports.
    noted: Noted,
    default_name: RuleName,
    everything: bool,
    workloads_changed: bool,
}

impl Compiler {
    /// Starts with an empty table.
    #[must_use]
    pub fn new(config: CompileConfig) -> Self {
        let mut compiler = Self {
            config: CompileConfig::default(),
            table: Table::default(),
            units: HashMap::default(),
            dependants: HashMap::default(),
            ranked: Vec::new(),
            places: Places::default(),
            free: Vec::new(),
            hosts: Hosts::default(),
            bare_names: BareNames::default(),
            policies: Policies::default(),
            withheld: Noted::default(),
            noted: Noted::default(),
            default_name: RuleName::new("default").expect("a plain word is a rule name"),
            everything: true,
            workloads_changed: true,
        };
        compiler.configure(config);
        compiler
    }

    /// Takes a new configuration, which the next [`Compiler::compile`] puts in force. Endpoints keep their state.
    pub fn configure(&mut self, config: CompileConfig) {
        self.everything |= config.precedence != self.config.precedence
            || config.authority != self.config.authority
            || config.joins != self.config.joins
            || config.held != self.config.held
            || config.locality != self.config.locality;
        self.workloads_changed |= config.workloads != self.config.workloads;
        self.config = config;
    }

    /// The configuration in force, or about to be.
    #[must_use]
    pub fn config(&self) -> &CompileConfig {
        &self.config
    }

    /// Brings the table up to date with `snapshot`, of which `changes` are what changed since the last call. The table
    /// is a cheap copy; its generation tells whether anything changed.
    pub fn compile(&mut self, snapshot: &Snapshot, changes: &Changes) -> Table {
        let everything = std::mem::take(&mut self.everything);
        let workloads_changed = std::mem::take(&mut self.workloads_changed);
        if !everything && !workloads_changed && changes.is_empty() {
            return self.table.clone();
        }
        let callable = &*snapshot.holding_back(&self.config.held);
        if !access::ranked(snapshot, &self.config.precedence).eq(&self.ranked) {
            self.ranked = access::ranked(snapshot, &self.config.precedence).cloned().collect();
        }
        let bare_names_anew = everything || (workloads_changed && self.choose_namespaces());
        if everything {
            self.compile_everything(callable);
        } else {
            let changed = changes.services.iter();
            let keys: BTreeSet<_> = changed.flat_map(|key| self.concerned(callable, key)).collect();
            let routes = keys.iter().filter_map(|key| self.units.get(key)).flat_map(|unit| &unit.routes);
            let routes = routes.map(|route| (route.key(), route.clone())).collect();
            self.compile_services(callable, &keys, &Kept { states: None, routes });
        }
        if bare_names_anew {
            self.fill_bare_names();
        }
        let policies_changed = everything || changes.policies;
        if policies_changed {
            self.policies.update(snapshot, self.config.authority.as_ref());
        }
        let standing = |name: &ServiceName| access::standing(snapshot, &self.config, name);
        if policies_changed || workloads_changed {
            self.policies.look_for_all(standing);
        } else {
            self.policies.look_for(changes.services.iter().map(|key| &key.service), standing);
        }
        self.compile_views(snapshot, changes, policies_changed || workloads_changed);
        self.table.hosts = Directory { names: self.hosts.map.clone(), places: self.places.clone() };
        self.table.generation += 1;
        self.table.clone()
    }

    /// All that an operator should know about what was compiled, in a fixed order.
    #[must_use]
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let noted = self.withheld.values().chain(self.noted.values());
        let mut all: Vec<_> = noted.flatten().cloned().collect();
        all.extend(self.hosts.diagnostics());
        all.extend(self.policies.diagnostics());
        // A route that counts for services of several registries is faulty once.
        let mut seen = BTreeSet::new();
        all.retain(|diagnostic| seen.insert(diagnostic.clone()));
        all
    }

    fn compile_everything(&mut self, snapshot: &Snapshot) {
        let old = self.units.values().flat_map(|unit| &unit.sets).flat_map(|(_, set)| &set.all);
        let states: States = old.map(|upstream| (endpoints::key(upstream), upstream.clone())).collect();
        let routes = self.units.values().flat_map(|unit| &unit.routes);
        let routes = routes.map(|route| (route.key(), route.clone())).collect();
        let mut keys = BTreeSet::new();
        for (registry, partition) in &snapshot.partitions {
            let services = partition.services.keys().chain(partition.departed.keys());
            let services = services.map(|s| ServiceKey { registry: registry.clone(), service: s.clone() });
            keys.extend(services.map(|key| canonical(&self.config.joins, &key)));
        }
        self.units.clear();
        self.units.reserve(keys.len());
        self.dependants.clear();
        self.withheld.clear();
        self.noted.clear();
        self.hosts = Hosts::new(self.config.precedence.clone());
        self.places = Places::default();
        self.free.clear();
        self.choose_namespaces();
        self.compile_services(snapshot, &keys, &Kept { states: Some(states), routes });
    }

    /// The services that what one registry says of a name is about: its own, and those of the same name of others, for
    /// which its routes may count.
    fn concerned(&self, snapshot: &Snapshot, key: &ServiceKey) -> impl Iterator<Item = ServiceKey> {
        let others = self.ranked.iter().filter(|registry| **registry != key.registry);
        let others = others.map(|registry| ServiceKey { registry: registry.clone(), ..key.clone() });
        let is_known = |key: &ServiceKey| snapshot.service(key).is_some() || snapshot.departed(key).is_some();
        let others = others.filter(is_known);
        let all = std::iter::once(key.clone()).chain(others);
        all.map(|key| canonical(&self.config.joins, &key))
    }

    /// Compiles the given services and those whose routes lead to them.
    fn compile_services(&mut self, snapshot: &Snapshot, keys: &BTreeSet<ServiceKey>, kept: &Kept) {
        let mut before = Vec::with_capacity(keys.len());
        for key in keys {
            before.push((key, self.gather(snapshot, key, kept)));
        }
        let mut link = keys.clone();
        for key in keys {
            link.extend(self.dependants.get(&key.service).into_iter().flatten().cloned());
        }
        for key in &link {
            self.link(key);
        }
        for (key, before) in &before {
            self.hosts.update(key, before, &self.units, &self.places);
            for name in self.hosts.changed.drain(..) {
                self.bare_names.update(&name, &self.hosts.map);
            }
        }
        for (key, before) in before {
            self.vacate(key, before.place);
        }
    }

    /// Frees the place of a service that has no destination any more.
    fn vacate(&mut self, key: &ServiceKey, before: Option<Place>) {
        let now = self.units.get(key).and_then(|unit| unit.place);
        if let Some(place) = before.filter(|_| now.is_none()) {
            self.places.set(place, None);
            self.free.push(place);
        }
    }

    /// Takes over what registries say about one service: endpoints and parsed routes. Returns what it was until now.
    fn gather(&mut self, snapshot: &Snapshot, key: &ServiceKey, kept: &Kept) -> Before {
        let group = Group::new(snapshot, &self.config.joins, &self.ranked, key);
        let mut old = self.units.remove(key).unwrap_or_default();
        let before = Before { services: std::mem::take(&mut old.services), place: old.place };
        for backend in unit::backends(key, &old.routes) {
            if let Some(list) = self.dependants.get_mut(backend) {
                list.remove(key);
                if list.is_empty() {
                    self.dependants.remove(backend);
                }
            }
        }
        if group.entries().next().is_none() {
            self.withheld.remove(key);
            return before;
        }
        let mut known = previous(&old.sets);
        if let Some(states) = &kept.states {
            known.extend(known_endpoints(&group, states));
        }
        let join = join::of(&self.config.joins, key);
        let tiers = Tiers {
            prefer: join.map_or(&Prefer::Any, |join| &join.prefer),
            here: &self.config.locality,
            nearest: group.entries().any(|(_, entry)| entry.service.as_ref().is_some_and(|it| it.nearest)),
        };
        let measure = endpoints::measure(&group);
        let (sets, mut diagnostics) = endpoints::sets(&group, measure.as_ref(), tiers, &old.sets, &known);
        let owner = measure.map(|(registry, _)| registry);
        let Routes { routes, overruled, hidden } = group.routes(owner, &kept.routes, &old);
        diagnostics.extend(overruled.into_iter().chain(hidden.iter().cloned()));
        let unit = Unit { services: group.services(), sets, routes, hidden, place: before.place };
        for backend in unit::backends(key, &unit.routes) {
            self.dependants.entry(backend.clone()).or_default().insert(key.clone());
        }
        note(&mut self.withheld, key, diagnostics);
        self.units.insert(key.clone(), unit);
        before
    }

    /// Builds the destination of one service out of its unit and those that its routes lead to.
    fn link(&mut self, key: &ServiceKey) {
        let linker = Linker {
            joins: &self.config.joins,
            ranked: &self.ranked,
            held: &self.config.held,
            unit: &|key| self.units.get(key),
            default_name: &self.default_name,
        };
        let unit = self.units.get(key);
        let (destination, mut diagnostics) =
            unit.map(|unit| linker.destination(key, unit)).unwrap_or_default();
        if let (Some(unit), Some(destination)) = (unit, &destination) {
            let is_declared = |key: &ServiceKey| linker.declared(key).is_some();
            diagnostics.extend(shares::failing(unit, destination, is_declared));
        }
        note(&mut self.noted, key, diagnostics);
        let Some(unit) = self.units.get_mut(key) else { return };
        match destination {
            None => unit.place = None,
            Some(destination) => {
                let place =
                    *unit.place.get_or_insert_with(|| self.free.pop().unwrap_or_else(|| self.places.next()));
                self.places.set(place, Some(destination));
            }
        }
    }

    /// Keeps bare names for the namespaces of local workloads. Returns whether these are others than before.
    fn choose_namespaces(&mut self) -> bool {
        let workloads = self.config.workloads.iter();
        let namespaces = workloads.filter_map(|workload| Namespace::new(workload.identity.namespace()).ok());
        let wanted: BTreeSet<_> = namespaces.filter(|name| name.as_str() != DEFAULT_NAMESPACE).collect();
        let same = wanted.iter().eq(self.bare_names.by_namespace.keys());
        if !same {
            self.bare_names.by_namespace =
                wanted.into_iter().map(|name| (name, SharedMap::default())).collect();
        }
        !same
    }

    fn fill_bare_names(&mut self) {
        for names in self.bare_names.by_namespace.values_mut() {
            *names = SharedMap::default();
        }
        for name in self.hosts.map.keys() {
            self.bare_names.update(name, &self.hosts.map);
        }
    }

    /// Brings the views up to date. A view, and a port in it, that did not change stays the very same: whoever holds a
    /// connection can tell by the pointer whether to decide again.
    fn compile_views(&mut self, snapshot: &Snapshot, changes: &Changes, all: bool) {
        let changed: BTreeSet<_> = changes.services.iter().map(|key| &key.service).collect();
        let owners =
            |name: &ServiceName| access::owners(snapshot, &self.config.precedence, &self.config.joins, name);
        let views = self.config.workloads.iter().map(|workload| {
            let old = self.table.views.iter().find(|view| view.workload.name == workload.name);
            let old = old.filter(|view| view.workload == *workload);
            let hosts = self.bare_names.by_namespace.get(workload.identity.namespace());
            let hosts = hosts.cloned().unwrap_or_default();
            let serves_changed = workload.ports.iter().any(|port| changed.contains(&port.service));
            if let Some(old) = old.filter(|_| !all && !serves_changed) {
                return if old.hosts.ptr_eq(&hosts) {
                    old.clone()
                } else {
                    Arc::new(View { hosts, ..View::clone(old) })
                };
            }
            let inbound = self.policies.inbound(workload, &owners, old.map(|view| &**view));
            Arc::new(View { workload: workload.clone(), hosts, inbound })
        });
        self.table.views = views.collect();
    }
}

fn note(noted: &mut Noted, key: &ServiceKey, diagnostics: Vec<Diagnostic>) {
    if diagnostics.is_empty() {
        noted.remove(key);
    } else {
        noted.insert(key.clone(), diagnostics);
    }
}

/// The upstreams until now of a group's endpoints.
fn known_endpoints<'a>(group: &Group, states: &'a States) -> endpoints::Previous<'a> {
    let endpoints =
        group.entries().flat_map(|(registry, entry)| entry.endpoints.iter().map(move |e| (registry, e)));
    let known = endpoints.filter_map(|(registry, endpoint)| {
        let service = ServiceKey { registry: registry.clone(), service: endpoint.service.clone() };
        let upstream = states.get(&EndpointKey {
            service,
            port_name: endpoint.port_name.clone(),
            instance: endpoint.instance.clone(),
            address: endpoint.address.clone(),
        })?;
        let endpoint = &upstream.endpoint;
        Some(((&upstream.registry, &endpoint.port_name, &endpoint.instance), upstream))
    });
    known.collect()
}

type States = HashMap<EndpointKey, Arc<Upstream>, RandomState>;

/// What was in force of services that are compiled anew.
struct Kept {
    /// Every endpoint, where all services are compiled anew; none where each still has its own.
    states: Option<States>,
    /// Parsed routes: one that moves to another service keeps its last good form, too.
    routes: ParsedRoutes,
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
