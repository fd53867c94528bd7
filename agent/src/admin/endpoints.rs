//! Every endpoint that any registry tells of, whether calls go to it or not, and why not.
//!
//! What is told comes from the snapshot, what is done with it from the table: an endpoint that the compiler leaves out is
//! in the first alone, and that is exactly the one that somebody asks about.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ptr,
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use weft_core::{
    flow,
    merge::{STAYS_IN_TLS, ServiceEntry, Snapshot},
    name::{InstanceName, PortName, RegistryName, ServiceKey},
    registry::Scope,
    resource::{Address, Endpoint, FOR_ZONES, Health, Resource, Sayer, TlsMode},
    table::{EndpointSet, Table, Upstream},
    tls::Credentials,
};
use weft_registries::checked::Findings;

use super::pages::{endpoints_of, sorted};
use crate::view;

/// What an endpoint is found by in the table.
type Key<'a> = (&'a RegistryName, &'a str, &'a PortName, &'a InstanceName);

/// Endpoints in force by their services and addresses: two registries may tell of one workload.
type Workloads<'a> = HashMap<(&'a str, &'a Address), Used<'a>>;

/// When each scope was last confirmed.
type Confirmed = BTreeMap<Scope, SystemTime>;

/// What is asked about: what registries say, what was made of it, and who is trusted.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    /// What the registries say.
    pub snapshot: &'a Snapshot,
    /// What is done with it.
    pub table: &'a Table,
    /// How the registries are.
    pub status: &'a flow::Status,
    /// Whose certificates can be checked here.
    pub credentials: &'a Credentials,
    /// What checks of endpoints find.
    pub findings: &'a Findings,
}

/// Every endpoint, by registry, service, port and instance. `clock` is the time on the clock of
/// [`EndpointState::ejected_until`], in milliseconds.
///
/// [`EndpointState::ejected_until`]: weft_core::table::EndpointState::ejected_until
#[must_use]
pub fn endpoints(told: Told<'_>, clock: u64, now: SystemTime) -> Vec<view::Endpoint> {
    let in_force = sorted(told.table).flat_map(|destination| endpoints_of(destination));
    let (used, same) = used(in_force, clock);
    let scopes = told.status.registries.iter().flat_map(|registry| &registry.scopes);
    let confirmed: Confirmed = scopes.filter_map(|it| Some((it.scope.clone(), it.committed_at?))).collect();
    let mut rows = Vec::new();
    for (registry, partition) in &told.snapshot.partitions {
        let mut services: Vec<_> = partition.services.iter().collect();
        services.sort_by_key(|(name, _)| *name);
        for (name, entry) in services {
            let key = ServiceKey { registry: registry.clone(), service: name.clone() };
            let age_s = age_s(&key, entry, &confirmed, now);
            let unconfirmed = told.snapshot.unconfirmed_since(registry, entry);
            let unconfirmed_s =
                unconfirmed.map(|since| now.duration_since(since).unwrap_or_default().as_secs());
            let staying = staying_in_tls(told.snapshot, &key, entry);
            for endpoint in &entry.endpoints {
                let upstream = used.get(&(registry, name.as_str(), &endpoint.port_name, &endpoint.instance));
                let is_unconfirmed = endpoint.health == Health::Unconfirmed;
                let age_s = unconfirmed_s.filter(|_| is_unconfirmed).or(age_s);
                let mut row = row(told, &key, entry, endpoint, upstream, age_s, clock);
                row.tls_stays = !staying.is_empty() && staying.contains(&*place(endpoint));
                let twin = same.get(&(name.as_str(), &endpoint.address)).filter(|_| upstream.is_none());
                if let Some(twin) = twin.filter(|twin| twin.upstream.endpoint.identity == endpoint.identity) {
                    let Upstream { registry, endpoint, .. } = &**twin.upstream;
                    let stands = if twin.is_called { "is called" } else { "stands for both" };
                    row.reason =
                        Some(format!("the same as {registry}'s {}, which {stands}", endpoint.instance));
                }
                check(&mut row, &key, endpoint, told.findings, now);
                rows.push(row);
            }
        }
    }
    rows
}

/// What registries say and what is not taken over, by registry and origin: an endpoint that its registry may not name, or
/// whose address nobody but its own host can mean, is among it and in no list of endpoints.
#[must_use]
pub fn left_out_by_origin(snapshot: &Snapshot) -> Vec<view::LeftOut> {
    let faulty = snapshot.scopes.iter().flat_map(|(scope, state)| {
        let origins = state.faulty.iter().filter_map(|name| state.origins.get(name));
        origins.map(move |origin| (scope, origin))
    });
    let rows = faulty.flat_map(|(scope, origin)| {
        origin.faults.iter().map(move |fault| view::LeftOut {
            registry: scope.registry.to_string(),
            origin: origin.name.to_string(),
            place: fault.place.clone(),
            eligible: false,
            reason: fault.message.clone(),
        })
    });
    rows.collect()
}

/// An endpoint that is in force.
#[derive(Clone, Copy)]
struct Used<'a> {
    upstream: &'a Arc<Upstream>,
    /// One of those that take the calls in its place, while one of them can.
    better: Option<&'a Arc<Upstream>>,
    /// Whether none of those that it stands among is better, nor a first choice.
    last_resort: bool,
    /// Whether calls go to it now.
    is_called: bool,
}

/// `all`, which are in force with the sets that they stand in, by their names and by their addresses.
fn used<'a>(
    all: impl Iterator<Item = (&'a Arc<Upstream>, &'a EndpointSet)>,
    clock: u64,
) -> (HashMap<Key<'a>, Used<'a>>, Workloads<'a>) {
    let (mut used, mut same, mut choices) = (HashMap::new(), HashMap::new(), HashMap::new());
    for (upstream, set) in all {
        let endpoint = &upstream.endpoint;
        let choice = choices.entry(ptr::from_ref(set)).or_insert_with(|| Choice::of(set, clock));
        let better = choice.taker.filter(|taker| taker.rank() != upstream.rank());
        let is_best = choice.taker.is_some_and(|taker| taker.rank() == upstream.rank());
        let is_first = choice.first.contains(&Arc::as_ptr(upstream));
        let last_resort = is_best && !(is_first && endpoint.weight > 0);
        let is_called = is_best && ejected_until(upstream) <= clock;
        let key = (&upstream.registry, endpoint.service.as_str(), &endpoint.port_name, &endpoint.instance);
        let it = Used { upstream, better, last_resort, is_called };
        used.insert(key, it);
        same.insert((endpoint.service.as_str(), &endpoint.address), it);
    }
    (used, same)
}

/// How a fault names an endpoint.
fn place(endpoint: &Arc<Endpoint>) -> String {
    Resource::Endpoint(endpoint.clone()).key().describe()
}

/// Which endpoints of a set come first.
struct Choice<'a> {
    first: HashSet<*const Upstream>,
    /// One of the best that are not taken out, whether these are the first or those that come when all of them are.
    taker: Option<&'a Arc<Upstream>>,
}

impl<'a> Choice<'a> {
    fn of(set: &'a EndpointSet, clock: u64) -> Self {
        let takes_calls = |it: &&Arc<Upstream>| ejected_until(it) <= clock;
        let first = set.all.get(..set.first_choice).unwrap_or_default();
        Self {
            first: first.iter().map(Arc::as_ptr).collect(),
            taker: set.all.iter().filter(takes_calls).min_by_key(|it| it.rank()),
        }
    }
}

/// Until when calls to it fail too often, on the clock of milliseconds; 0 for never.
fn ejected_until(upstream: &Upstream) -> u64 {
    upstream.state.peek().map_or(0, |state| state.ejected_until.load(Ordering::Relaxed))
}

/// Seconds since the registry last said that this is so: of the oldest part that speaks of the service.
fn age_s(key: &ServiceKey, entry: &ServiceEntry, confirmed: &Confirmed, now: SystemTime) -> Option<u64> {
    let scopes = entry.origins.iter();
    let scopes = scopes.map(|origin| Scope { registry: key.registry.clone(), part: origin.part.clone() });
    let oldest = scopes.filter_map(|scope| confirmed.get(&scope)).min()?;
    Some(now.duration_since(*oldest).unwrap_or_default().as_secs())
}

fn row(
    told: Told<'_>,
    key: &ServiceKey,
    entry: &ServiceEntry,
    endpoint: &Endpoint,
    used: Option<&Used<'_>>,
    age_s: Option<u64>,
    clock: u64,
) -> view::Endpoint {
    let state = used.and_then(|used| used.upstream.state.peek());
    let ejected_until = used.map_or(0, |used| ejected_until(used.upstream));
    let ejected_for_s = (ejected_until > clock).then(|| (ejected_until - clock) as f64 / 1e3);
    let reason = match used {
        None => Some(left_out(entry, endpoint)),
        Some(used) => untrusted(endpoint, told.credentials).or_else(|| {
            spared(&used.upstream.endpoint, ejected_for_s, || another(told, key, endpoint, used))
        }),
    };
    let outranked =
        used.filter(|_| reason.is_none()).and_then(|used| Some(outranked(used.upstream, used.better?)));
    let (stands_by, reason) = (outranked.is_some(), reason.or(outranked));
    view::Endpoint {
        registry: key.registry.to_string(),
        service: key.service.to_string(),
        port: endpoint.port_name.to_string(),
        instance: endpoint.instance.to_string(),
        address: endpoint.address.socket(),
        mesh_address: endpoint.mesh_address.as_ref().map(|address| address.socket()),
        identity: endpoint.identity.as_ref().map(ToString::to_string),
        identity_from: endpoint.identity.as_ref().map(|_| sayer_text(endpoint.said_by.identity).to_owned()),
        mesh_address_from: endpoint
            .mesh_address
            .as_ref()
            .map(|_| sayer_text(endpoint.said_by.mesh_address).to_owned()),
        tls: format!("{:?}", endpoint.tls).to_lowercase(),
        tls_from: sayer_text(endpoint.said_by.tls).to_owned(),
        tls_stays: false,
        labels: endpoint.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        weight: endpoint.weight,
        locality: endpoint.locality.to_string(),
        health: format!("{:?}", endpoint.health).to_lowercase(),
        in_flight: state.map_or(0, |state| state.in_flight.load(Ordering::Relaxed)),
        ejected_for_s,
        eligible: reason.is_none(),
        stands_by,
        reason,
        last_resort: ejected_for_s.is_none() && used.is_some_and(|used| used.last_resort),
        age_s,
    }
}

/// What its check found is a better reason than what the check made of its registry's words.
fn check(
    row: &mut view::Endpoint,
    key: &ServiceKey,
    endpoint: &Endpoint,
    findings: &Findings,
    now: SystemTime,
) {
    let Endpoint { service, port_name, instance, .. } = endpoint;
    let found = (key.registry.clone(), service.clone(), port_name.clone(), instance.clone());
    let Some(finding) = findings.of(&found).filter(|_| endpoint.health == Health::Unhealthy) else { return };
    let since = now.duration_since(finding.since).unwrap_or_default().as_secs();
    row.reason = Some(format!("its check fails for {since} s: {}: {}", finding.question, finding.reason));
}

/// Why the compiler has no use for an endpoint.
fn left_out(entry: &ServiceEntry, endpoint: &Endpoint) -> String {
    if let Some(reason) = endpoint.unusable() {
        return reason.into();
    }
    match &entry.service {
        None => "nothing declares its service and the service's ports".into(),
        Some(service) if !service.ports.iter().any(|port| port.name == endpoint.port_name) => {
            format!("its service has no port `{}`", endpoint.port_name)
        }
        Some(_) => "a join leaves it out: `weft status` says why".into(),
    }
}

/// Why calls go elsewhere while they can. `whose` says which registry says so.
fn spared(endpoint: &Endpoint, ejected_for_s: Option<f64>, whose: impl FnOnce() -> String) -> Option<String> {
    if let Some(seconds) = ejected_for_s {
        return Some(format!("calls to it failed: taken out for {seconds:.0} s more"));
    }
    match endpoint.health {
        Health::Healthy if endpoint.weight == 0 => Some("a stand-by, as its weight is 0".into()),
        Health::Healthy => None,
        Health::Draining => Some(format!("{} says that it is finishing", whose())),
        Health::Unhealthy => Some(format!("{} says that it is unhealthy", whose())),
        Health::Unconfirmed => {
            Some(format!("{} no longer mentions it, and may have been unable to", whose()))
        }
    }
}

/// Which registry says of an endpoint what its health is: its own, or one that tells of the same workload.
fn another(told: Told<'_>, key: &ServiceKey, endpoint: &Endpoint, used: &Used<'_>) -> String {
    let own = || "its registry".to_owned();
    let health = used.upstream.endpoint.health;
    if endpoint.health == health {
        return own();
    }
    let is_twin = |it: &Endpoint| {
        it.address == endpoint.address && it.identity == endpoint.identity && it.health == health
    };
    let others = told.snapshot.partitions.iter().filter(|(registry, _)| **registry != key.registry);
    let twins = others.filter_map(|(registry, partition)| {
        let entry = partition.services.get(&key.service)?;
        Some((registry, entry.endpoints.iter().find(|it| is_twin(it))?))
    });
    let named = |(registry, twin): (&RegistryName, &Arc<Endpoint>)| {
        format!("{registry}, which tells of it as {},", twin.instance)
    };
    twins.map(named).next().unwrap_or_else(own)
}

/// Why no call to it can come to anything: nobody here can tell whether who answers is who must.
fn untrusted(endpoint: &Endpoint, credentials: &Credentials) -> Option<String> {
    let identity = endpoint.identity.as_ref().filter(|_| endpoint.tls == TlsMode::Required)?;
    let domain = identity.trust_domain();
    let reason = format!("no root of the trust domain {domain} is trusted here");
    credentials.bundle(&domain).is_none().then_some(reason)
}

/// Why others come first.
fn outranked(upstream: &Upstream, better: &Upstream) -> String {
    let Upstream { registry, endpoint, .. } = better;
    match better.is_preferred_to(upstream) {
        true => format!("those of {registry}, which its join prefers, take the calls: {}", endpoint.instance),
        false => {
            let meant = endpoint.labels.get(FOR_ZONES).map(|zones| format!(", meant for {zones}"));
            let Endpoint { instance, locality, .. } = &**endpoint;
            format!("nearer ones take the calls: {instance} in {locality}{}", meant.unwrap_or_default())
        }
    }
}

/// The endpoints of a service of which their registry allows plaintext now, which does not count any more: as faults name them.
fn staying_in_tls<'a>(snapshot: &'a Snapshot, key: &ServiceKey, entry: &ServiceEntry) -> HashSet<&'a str> {
    let scope = |part: &Arc<str>| Scope { registry: key.registry.clone(), part: part.clone() };
    let faulty = entry.origins.iter().filter_map(|origin| {
        let state = snapshot.scopes.get(&scope(&origin.part))?;
        state.faulty.contains(&origin.name).then(|| state.origins.get(&origin.name))?
    });
    let faults = faulty.flat_map(|origin| &origin.faults).filter(|fault| fault.message == STAYS_IN_TLS);
    faults.map(|fault| &*fault.place).collect()
}

fn sayer_text(sayer: Sayer) -> &'static str {
    match sayer {
        Sayer::Declared => "declared in a file",
        Sayer::Platform => "the platform's account",
        Sayer::Metadata => "the instance's record",
        Sayer::ServiceRule => "a rule for the service",
        Sayer::RegistryRule => "the rule of the registry",
        Sayer::Default => "the default",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::admin) fn upstream(number: u8, tier: u8, zones: Option<&str>) -> Upstream {
        Upstream {
            registry: "kubernetes".parse().unwrap(),
            endpoint: Arc::new(Endpoint {
                service: "web.shop".parse().unwrap(),
                port_name: "http".parse().unwrap(),
                instance: format!("web-{number}").parse().unwrap(),
                address: (std::net::IpAddr::from([10, 0, 0, number]), 80).into(),
                mesh_address: None,
                identity: None,
                said_by: Default::default(),
                tls: TlsMode::Off,
                labels: zones.map(|zones| (FOR_ZONES, zones)).into_iter().collect(),
                weight: 1,
                locality: weft_core::locality::Locality::new("eu/a").unwrap(),
                health: Health::Healthy,
            }),
            tier,
            state: weft_core::table::LazyState::default(),
        }
    }

    #[test]
    fn where_all_first_choices_are_taken_out_the_next_tier_takes_the_calls_and_no_other() {
        let all: Vec<_> =
            [(1, 0), (2, 1), (3, 2)].map(|(number, tier)| Arc::new(upstream(number, tier, None))).into();
        let set = EndpointSet { all, first_choice: 1, cumulative_weights: Vec::new() };
        let seen = |clock| {
            let used = used(set.all.iter().map(|upstream| (upstream, &set)), clock).0;
            let seen = set.all.iter().map(|it| {
                let endpoint = &it.endpoint;
                let key = (&it.registry, endpoint.service.as_str(), &endpoint.port_name, &endpoint.instance);
                let better = used[&key].better.map(|it| it.endpoint.instance.to_string());
                (used[&key].is_called, used[&key].last_resort, better)
            });
            seen.collect::<Vec<_>>()
        };
        let passed_by = |by: &str| (false, false, Some(by.to_owned()));
        assert_eq!(seen(5), [(true, false, None), passed_by("web-1"), passed_by("web-1")]);
        set.all[0].state.ejected_until.store(10, Ordering::Relaxed);
        assert_eq!(seen(5), [passed_by("web-2"), (true, true, None), passed_by("web-2")]);
        assert_eq!(seen(10)[0], (true, false, None), "its time is up");
        set.all[1].state.ejected_until.store(30, Ordering::Relaxed);
        set.all[2].state.ejected_until.store(30, Ordering::Relaxed);
        set.all[0].state.ejected_until.store(30, Ordering::Relaxed);
        assert!(seen(20).iter().all(|it| *it == (false, false, None)), "nobody is better than another");
    }

    #[test]
    fn it_is_told_for_which_zones_those_are_meant_that_take_the_calls() {
        let other = upstream(2, 1, Some("a"));
        let told = outranked(&other, &upstream(1, 0, Some("b,c")));
        assert_eq!(told, "nearer ones take the calls: web-1 in eu/a, meant for b,c");
        assert_eq!(outranked(&other, &upstream(1, 0, None)), "nearer ones take the calls: web-1 in eu/a");
    }
}
