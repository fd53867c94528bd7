//! From what registries announce to what the data path chooses from.
//!
//! An endpoint that did not change keeps its very [`Upstream`]; one that changed but is still the same instance at the
//! same address gets a new one with the old one's state, so that requests in flight and ejections outlive the change.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::{
    candidates::{self, Candidate, Tiers},
    join::Proved,
    unit::{Group, PortSets},
};
use crate::{
    diagnostic::Diagnostic,
    name::{InstanceName, PortName, RegistryName, ServiceKey},
    resource::{Endpoint, Health, TlsMode},
    table::{EndpointKey, EndpointSet, LazyState, Rank, Upstream},
};

/// Upstreams of the table in force, by what makes an endpoint the same one; its address is compared where it is used.
pub(super) type Previous<'a> =
    HashMap<(&'a RegistryName, &'a PortName, &'a InstanceName), &'a Arc<Upstream>, RandomState>;

/// Lists the upstreams of a service's sets.
pub(super) fn previous(sets: &[(PortName, Arc<EndpointSet>)]) -> Previous<'_> {
    let upstreams = sets.iter().flat_map(|(_, set)| &set.all);
    upstreams.map(|u| ((&u.registry, &u.endpoint.port_name, &u.endpoint.instance), u)).collect()
}

/// Why endpoints are not used, with how many and an example each.
#[derive(Default)]
struct Withheld {
    reasons: Vec<(&'static str, usize, InstanceName)>,
}

impl Withheld {
    fn note(&mut self, reason: &'static str, endpoint: &Endpoint) {
        match self.reasons.iter_mut().find(|(known, ..)| *known == reason) {
            Some((_, count, _)) => *count += 1,
            None => self.reasons.push((reason, 1, endpoint.instance.clone())),
        }
    }

    fn into_diagnostics(self, key: &ServiceKey) -> impl Iterator<Item = Diagnostic> {
        self.reasons.into_iter().map(move |(reason, count, example)| {
            let noun = if count == 1 { "endpoint is" } else { "endpoints are" };
            Diagnostic::warning(key, format!("{count} {noun} not used ({example}): {reason}"))
        })
    }
}

/// The endpoint sets of a service, one per port, and what was left out. `measure` is [`measure()`] of the group.
pub(super) fn sets(
    group: &Group,
    measure: Option<&(&RegistryName, Proved<'_>)>,
    tiers: Tiers<'_>,
    old: &[(PortName, Arc<EndpointSet>)],
    previous: &Previous,
) -> (PortSets, Vec<Diagnostic>) {
    let mut withheld = Withheld::default();
    let mut diagnostics = Vec::new();
    let mut found = Vec::with_capacity(group.entries().map(|(_, entry)| entry.endpoints.len()).sum());
    for (rank, (registry, entry)) in group.entries().enumerate() {
        let others = measure.filter(|(first, _)| *first != registry);
        let is_joined = |endpoint: &Endpoint| others.is_none_or(|(_, proved)| proved.admits(endpoint));
        let foreign = entry.endpoints.iter().find(|endpoint| !is_joined(endpoint));
        diagnostics
            .extend(others.zip(foreign).map(|(by, foreign)| refused_join(group, by, registry, foreign)));
        let joined = entry.endpoints.iter().filter(|endpoint| is_joined(endpoint));
        let usable = joined.filter(|endpoint| match endpoint.unusable() {
            Some(reason) => {
                withheld.note(reason, endpoint);
                false
            }
            None => true,
        });
        candidates::of_registry(group, (rank, registry), usable.cloned(), tiers, &mut found);
    }
    diagnostics.extend(withheld.into_diagnostics(&group.key));
    if group.entries().nth(1).is_some() {
        found = candidates::once(found);
        diagnostics.extend(candidates::contradictions(group));
    }
    found.sort_by(|a, b| {
        let by = |it: &Candidate| Rank::of(&it.endpoint, it.tier);
        (&a.port, by(a), &a.endpoint.instance, a.rank).cmp(&(&b.port, by(b), &b.endpoint.instance, b.rank))
    });
    let ports = found.chunk_by(|a, b| a.port == b.port);
    let sets = ports.filter_map(|port| {
        let name = &port.first()?.port;
        let all = port.iter().map(|candidate| upstream(candidate, previous)).collect();
        Some((name.clone(), keep_if_same(old, name, all)))
    });
    (sets.collect(), diagnostics)
}

/// The endpoints of a set that carry all of `labels`.
pub(super) fn subset(
    set: &Arc<EndpointSet>,
    labels: &std::collections::BTreeMap<String, String>,
) -> Arc<EndpointSet> {
    if labels.is_empty() {
        return set.clone();
    }
    let carries = |upstream: &&Arc<Upstream>| upstream.endpoint.labels.carry(labels);
    Arc::new(endpoint_set(set.all.iter().filter(carries).cloned().collect()))
}

fn keep_if_same(
    old: &[(PortName, Arc<EndpointSet>)],
    port: &PortName,
    all: Vec<Arc<Upstream>>,
) -> Arc<EndpointSet> {
    let same = |set: &EndpointSet| {
        set.all.len() == all.len() && set.all.iter().zip(&all).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    match old.iter().find(|(name, _)| name == port) {
        Some((_, set)) if same(set) => set.clone(),
        _ => Arc::new(endpoint_set(all)),
    }
}

/// `all` is sorted by rank.
fn endpoint_set(all: Vec<Arc<Upstream>>) -> EndpointSet {
    let best = all.first().map(|upstream| upstream.rank());
    let is_first = |upstream: &Arc<Upstream>| {
        upstream.endpoint.health == Health::Healthy && Some(upstream.rank()) == best
    };
    let first_choice = all.partition_point(is_first);
    let weights = || all[..first_choice].iter().map(|upstream| upstream.endpoint.weight);
    let equal = weights().zip(weights().skip(1)).all(|(a, b)| a == b);
    let mut sum = 0_u32;
    let mut add = |weight: u16| {
        sum = sum.saturating_add(weight.into());
        sum
    };
    let cumulative_weights = if equal { Vec::new() } else { weights().map(&mut add).collect() };
    EndpointSet { all, first_choice, cumulative_weights }
}

fn upstream(candidate: &Candidate, previous: &Previous) -> Arc<Upstream> {
    let Candidate { registry, endpoint, tier, .. } = candidate;
    let before = previous.get(&(registry, &endpoint.port_name, &endpoint.instance));
    let same =
        before.filter(|u| u.endpoint.address == endpoint.address && u.endpoint.service == endpoint.service);
    let unchanged = |upstream: &Upstream| {
        let equal = Arc::ptr_eq(&upstream.endpoint, endpoint) || upstream.endpoint == *endpoint;
        equal && upstream.tier == *tier
    };
    match same {
        Some(upstream) if unchanged(upstream) => Arc::clone(upstream),
        changed => Arc::new(Upstream {
            registry: registry.clone(),
            endpoint: endpoint.clone(),
            tier: *tier,
            state: changed.map_or_else(LazyState::default, |upstream| upstream.state.carried_over()),
        }),
    }
}

/// The measure of a joined service. None where nothing is joined, and nothing need be equal.
pub(super) fn measure(group: &Group) -> Option<(&RegistryName, Proved<'_>)> {
    group.entries().nth(1)?;
    Proved::measure(
        group.entries().map(|(registry, entry)| (registry, &*entry.endpoints, group.departed(registry))),
    )
}

fn refused_join(
    group: &Group,
    (first, proved): &(&RegistryName, Proved<'_>),
    registry: &RegistryName,
    endpoint: &Endpoint,
) -> Diagnostic {
    let named = match &endpoint.identity {
        _ if endpoint.tls == TlsMode::Off => "is reached in plaintext and proves nothing".to_owned(),
        None => "names no identity".to_owned(),
        Some(identity) => format!("names {identity}"),
    };
    let known = proved.describe();
    let by = match group.departed(first) {
        None => format!("the endpoints of {first} prove {known}"),
        Some(_) => format!(
            "the last ones of {first}, which cannot be called now, proved {known} (`weft registry forget {first}` drops that)"
        ),
    };
    let message = format!(
        "not joined with {}: its endpoint {} {named}, and {by}; joined services need equal identities",
        group.key, endpoint.instance
    );
    Diagnostic::error(format_args!("{registry}/{}", group.key.service), message).and_at(&group.key)
}

/// The key of an upstream's state.
pub(super) fn key(upstream: &Upstream) -> EndpointKey {
    EndpointKey {
        service: ServiceKey {
            registry: upstream.registry.clone(),
            service: upstream.endpoint.service.clone(),
        },
        port_name: upstream.endpoint.port_name.clone(),
        instance: upstream.endpoint.instance.clone(),
        address: upstream.endpoint.address.clone(),
    }
}
