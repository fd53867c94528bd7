//! What the table and the credentials say, as the views that the operator's verbs show.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use weft_core::{
    flow,
    merge::{BELIEVED_AFTER, Partition, Snapshot},
    name::{HostName, RegistryName, ServiceKey},
    registry::Completeness,
    table::{
        CompiledHeader, CompiledMatch, CompiledPath, CompiledRouteRule, CompiledValue, Destination,
        DestinationPort, EndpointSet, Table, Target, Upstream,
    },
    tls::Credentials,
};

use crate::view;

/// Every service, by registry and name, as of `now`; `snapshot` is what the table was made of, or later.
#[must_use]
pub fn services(table: &Table, snapshot: &Snapshot, now: SystemTime) -> Vec<view::Service> {
    let mut hosts: BTreeMap<&ServiceKey, Vec<&HostName>> = BTreeMap::new();
    for (host, destination) in table.hosts.iter() {
        hosts.entry(&destination.key).or_default().push(host);
    }
    sorted(table)
        .map(|destination| {
            let endpoints = endpoints_of(destination);
            let mut hosts: Vec<String> =
                hosts.get(&destination.key).into_iter().flatten().map(ToString::to_string).collect();
            hosts.sort();
            // Of a join the others may go on.
            let departed = snapshot.departed(&destination.key);
            let departed = departed.filter(|it| endpoints.is_empty() && !it.service.declared);
            let gone_s = departed.map(|it| now.duration_since(it.since).unwrap_or_default().as_secs());
            view::Service {
                registry: destination.key.registry.to_string(),
                name: destination.key.service.to_string(),
                hosts,
                ports: destination.ports.iter().map(|port| service_port(port)).collect(),
                endpoints: endpoints.len(),
                healthy: endpoints
                    .iter()
                    .filter(|(upstream, _)| upstream.endpoint.health == weft_core::resource::Health::Healthy)
                    .count(),
                gone_s,
                held: destination.is_held,
            }
        })
        .collect()
}

/// Every routing rule, in the order in which rules are tried.
#[must_use]
pub fn routes(table: &Table) -> Vec<view::Route> {
    sorted(table)
        .flat_map(|destination| destination.ports.iter())
        .flat_map(|port| port.rules.iter().map(|rule| route(port, rule)))
        .collect()
}

/// Every certificate that we hold.
#[must_use]
pub fn certificates(credentials: &Credentials, now: SystemTime) -> Vec<view::Certificate> {
    let mut rows: Vec<view::Certificate> = credentials
        .identities()
        .map(|certificate| {
            let leaf = certificate.leaf();
            view::Certificate {
                identity: leaf.identity.to_string(),
                serial: leaf.serial.clone(),
                not_before_s: seconds(leaf.validity.not_before),
                not_after_s: seconds(leaf.validity.not_after),
                ends_in_s: seconds_until(leaf.validity.not_after, now),
                trust_domain: leaf.identity.trust_domain_str().into(),
            }
        })
        .collect();
    rows.sort_by(|a, b| a.identity.cmp(&b.identity));
    rows
}

/// How many services and endpoints there are, by registry.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<RegistryName, (usize, usize)>);

impl Counts {
    /// The counts of one registry, by what is counted.
    #[must_use]
    pub fn of(&self, registry: &RegistryName) -> BTreeMap<String, usize> {
        let (services, endpoints) = self.0.get(registry).copied().unwrap_or_default();
        BTreeMap::from([("services".into(), services), ("endpoints".into(), endpoints)])
    }
}

/// Counts what each registry says itself, also where a join has it go by another one's name: the services that it declares
/// and all endpoints.
#[must_use]
pub fn counts(snapshot: &Snapshot) -> Counts {
    let of = |partition: &Partition| {
        let entries = || partition.services.values();
        let services = entries().filter(|entry| entry.service.is_some()).count();
        (services, entries().map(|entry| entry.endpoints.len()).sum())
    };
    Counts(snapshot.partitions.iter().map(|(name, partition)| (name.clone(), of(partition))).collect())
}

/// The registries, scope by scope.
#[must_use]
pub fn registries(status: &flow::Status, counts: &Counts) -> Vec<view::Registry> {
    let now = SystemTime::now();
    status.registries.iter().flat_map(|registry| registry_rows(registry, counts, now)).collect()
}

/// Seconds since 1970.
#[must_use]
pub fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whole seconds from `now` until `at`, negative when it is past.
#[must_use]
pub fn seconds_until(at: SystemTime, now: SystemTime) -> i64 {
    let whole = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    at.duration_since(now).map_or_else(|past| -whole(past.duration()), whole)
}

pub(super) fn sorted(table: &Table) -> impl Iterator<Item = &Arc<Destination>> {
    let mut destinations: Vec<&Arc<Destination>> = table.destinations().collect();
    destinations.sort_by(|a, b| a.key.cmp(&b.key));
    destinations.into_iter()
}

/// A service's own endpoints: those of the rule that every port ends with, and of all others that lead to the service.
pub(crate) fn endpoints_of(destination: &Destination) -> Vec<(&Arc<Upstream>, &EndpointSet)> {
    let targets = destination.ports.iter().flat_map(|port| port.rules.iter()).flat_map(|rule| &rule.targets);
    targets
        .filter(|target| target.service == destination.key)
        .flat_map(|target| target.endpoints.all.iter().map(|upstream| (upstream, &*target.endpoints)))
        .map(|found| {
            let Upstream { registry, endpoint, .. } = &**found.0;
            ((&endpoint.port_name, &endpoint.instance, registry), found)
        })
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .collect()
}

fn service_port(port: &DestinationPort) -> view::ServicePort {
    let protocol = format!("{:?}", port.protocol).to_lowercase();
    view::ServicePort { name: port.name.to_string(), port: port.number, protocol }
}

fn route(port: &DestinationPort, rule: &CompiledRouteRule) -> view::Route {
    let total = rule.targets.last().map_or(0, |target| target.cumulative_weight);
    let mut before = 0;
    let targets = rule.targets.iter().map(|target| {
        let weight = target.cumulative_weight - before;
        before = target.cumulative_weight;
        target_view(target, 100.0 * f64::from(weight) / f64::from(total.max(1)))
    });
    view::Route {
        registry: port.service.registry.to_string(),
        service: port.service.service.to_string(),
        port: port.name.to_string(),
        rule: rule.name.to_string(),
        targets: targets.collect(),
        matches: rule.matches.iter().map(match_text).collect(),
        request_timeout_ms: rule.request_timeout.map(milliseconds),
        connect_timeout_ms: milliseconds(rule.connect_timeout),
        retries: rule.retries.attempts,
    }
}

fn target_view(target: &Target, percent: f64) -> view::Target {
    let instances = target.endpoints.all.iter().map(|upstream| upstream.endpoint.instance.to_string());
    view::Target { service: target.service.service.to_string(), percent, instances: instances.collect() }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn match_text(conditions: &CompiledMatch) -> String {
    let path = conditions.path.as_ref().map(|path| match path {
        CompiledPath::Exact(exact) => format!("path = {exact}"),
        CompiledPath::Prefix(prefix) => format!("path under {prefix}/"),
        CompiledPath::Regex(regex) => format!("path ~ {regex}"),
    });
    let method = conditions.method.as_ref().map(|method| format!("method = {method}"));
    let parts: Vec<String> =
        path.into_iter().chain(method).chain(conditions.headers.iter().map(header_text)).collect();
    if parts.is_empty() { "always".into() } else { parts.join(" and ") }
}

fn header_text(condition: &CompiledHeader) -> String {
    let name = &condition.name;
    match &condition.value {
        CompiledValue::Exact(exact) => format!("{name} = {exact}"),
        CompiledValue::Prefix(prefix) => format!("{name} = {prefix}*"),
        CompiledValue::Regex(regex) => format!("{name} ~ {regex}"),
        CompiledValue::Present(true) => format!("{name} is there"),
        CompiledValue::Present(false) => format!("{name} is not there"),
    }
}

/// A registry's scopes; one row without a scope while it has said nothing.
fn registry_rows(registry: &flow::RegistryStatus, counts: &Counts, now: SystemTime) -> Vec<view::Registry> {
    let error = registry.last_error.clone().or_else(|| registry.state_error.clone());
    if registry.scopes.is_empty() {
        return vec![view::Registry {
            scope: registry.name.to_string(),
            state: "waiting".into(),
            age_s: None,
            error,
            counts: Counts::default().of(&registry.name),
            faults: Vec::new(),
            unconfirmed: Vec::new(),
            unconfirmed_why: None,
        }];
    }
    let rows = registry.scopes.iter().map(|scope| view::Registry {
        scope: scope.scope.to_string(),
        state: match (registry.connected, scope.stale) {
            (true, _) => "connected",
            (false, false) if registry.counters.commits == 0 => "restored",
            (false, false) => "away",
            (false, true) => "stale",
        }
        .into(),
        age_s: scope.age(now).map(|age| age.as_secs()),
        error: error.clone(),
        counts: counts.of(&scope.scope.registry),
        faults: scope
            .faults
            .iter()
            .flat_map(|(_, faults)| faults)
            .map(|fault| format!("{}: {}", fault.place, fault.message))
            .collect(),
        unconfirmed: scope.unconfirmed.iter().map(|(origin, _)| origin.to_string()).collect(),
        unconfirmed_why: unconfirmed_why(scope, now),
    });
    rows.collect()
}

/// Why something is kept that a list lacks, until when, and what ends it at once.
fn unconfirmed_why(scope: &flow::ScopeStatus, now: SystemTime) -> Option<String> {
    let last = scope.unconfirmed.iter().map(|(_, since)| *since).max()?;
    let why = match scope.completeness {
        Some(Completeness::Full) => "the list lacks, or lacked at once, more than half of what was known",
        _ => "the list may hide something",
    };
    let believed_at = last.checked_add(BELIEVED_AFTER).unwrap_or(now);
    let left = believed_at.duration_since(now).unwrap_or_default().as_secs();
    let registry = &scope.scope.registry;
    Some(format!(
        "{why}: these {} stay, routes and policies in force, until a full list lacks them {left} s from now, or later; \
         are they gone: `weft registry forget {registry}`",
        scope.unconfirmed.len()
    ))
}

#[cfg(test)]
mod tests {
    use weft_core::{
        merge::Merge,
        registry::{Event, Scope, Version},
        resource::{AppProtocol, Resource, Service, ServicePort},
    };

    use super::*;
    use crate::admin::endpoints::tests::upstream;

    #[test]
    fn what_is_kept_unconfirmed_says_why_until_when_and_what_ends_it() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let mut scope = flow::ScopeStatus {
            scope: Scope::whole(RegistryName::new("consul").unwrap()),
            committed_at: None,
            completeness: Some(Completeness::Full),
            stale: false,
            origins: 9,
            faults: Vec::new(),
            unconfirmed: vec![("kv/a".parse().unwrap(), since), ("kv/b".parse().unwrap(), since)],
        };
        let why = |scope: &flow::ScopeStatus, after: u64| {
            unconfirmed_why(scope, since + Duration::from_secs(after))
        };
        let told = why(&scope, 100).unwrap();
        for words in ["more than half", "these 2 stay", "500 s from now", "`weft registry forget consul`"] {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert!(why(&scope, 9000).unwrap().contains("lacks them 0 s from now, or later"));
        scope.completeness = Some(Completeness::Filtered);
        assert!(why(&scope, 100).unwrap().starts_with("the list may hide something"));
        scope.unconfirmed.clear();
        assert_eq!(why(&scope, 100), None);
    }

    #[test]
    fn each_registry_holds_what_it_says_itself_whoever_else_has_the_service() {
        let mut merge = Merge::default();
        let mut say = |registry: &RegistryName, endpoints: &[u8]| {
            let scope = Scope::whole(registry.clone());
            let port = ServicePort { name: "http".parse().unwrap(), number: 80, protocol: AppProtocol::Http };
            let service = Service {
                name: "web.shop".parse().unwrap(),
                ports: vec![port],
                hosts: Vec::new(),
                nearest: false,
                declared: true,
            };
            let endpoints = endpoints.iter().map(|number| upstream(*number, 0, None).endpoint);
            let resources = [Resource::Service(service.into())].into_iter();
            let words = Event::Replace {
                scope: scope.clone(),
                origin: "web".parse().unwrap(),
                version: Version("1".into()),
                resources: resources.chain(endpoints.map(Resource::Endpoint)).collect(),
                faults: Vec::new(),
            };
            merge.apply(words, SystemTime::UNIX_EPOCH);
            merge.apply(Event::Commit { scope, resume: None, age: Duration::ZERO }, SystemTime::UNIX_EPOCH);
        };
        let [first, second] = ["kubernetes", "consul"].map(|name| RegistryName::new(name).unwrap());
        say(&first, &[]);
        say(&second, &[1, 2]);
        let counts = counts(merge.snapshot());
        let held = |registry| ["services", "endpoints"].map(|what| counts.of(registry)[what]);
        assert_eq!((held(&first), held(&second)), ([1, 0], [1, 2]));
    }
}
