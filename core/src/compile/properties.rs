//! Whatever happens in whatever order: compiling change by change equals compiling at once.

use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::{
    identity::SpiffeId,
    merge::{
        KEPT, Merge,
        testing::{commit, endpoint, replace, scope, service},
    },
    resource::{
        Action, Backend, Endpoint, Health, PathMatch, Policy, PolicyRule, PolicyTarget, Resource, Retries,
        Route, RouteMatch, RouteRule, TlsMode,
    },
};

const REGISTRIES: [&str; 3] = ["kubernetes", "consul", "nomad"];
const SERVICES: [&str; 4] = ["a", "b", "a.prod", "c.prod"];

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Say(Words),
    /// The words of a registry become visible.
    Commit(usize),
    /// What was committed is compiled, all commits since the last time together.
    Compile,
    /// Another configuration, by the numbers of its order, joins, workloads and held registries.
    Configure(usize, usize, usize, usize),
    /// So much time passes that departed services keep their names no longer.
    Pass,
}

/// One origin's new words.
#[derive(Clone, Debug)]
struct Words {
    registry: usize,
    service: usize,
    told: Told,
    host: Option<u8>,
    endpoints: Vec<(u8, u16, Kind)>,
    backends: Vec<(usize, u32, bool)>,
    path: Option<u8>,
    policy: Option<(u8, bool)>,
}

/// How a service is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Not,
    Declared,
    /// By its instances alone.
    Implied,
}

/// How an endpoint is told.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Healthy,
    Draining,
    /// In plaintext.
    Plain,
    /// Of another identity than its service's others.
    Other,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![4 => Just(Kind::Healthy), 1 => Just(Kind::Draining), 1 => Just(Kind::Plain), 1 => Just(Kind::Other)];
    let endpoints = prop::collection::vec((1..4_u8, 0..3_u16, kind), 0..4);
    let backends = prop::collection::vec((0..SERVICES.len(), 0..3_u32, any::<bool>()), 0..3);
    let rules = (backends, prop::option::of(0..2_u8), prop::option::of((0..3_u8, any::<bool>())));
    let of = (0..REGISTRIES.len(), 0..SERVICES.len());
    let told = prop_oneof![Just(Told::Not), Just(Told::Declared), Just(Told::Implied)];
    let words = (of, told, prop::option::of(0..2_u8), endpoints, rules);
    let words = words.prop_map(|((registry, service), told, host, endpoints, (backends, path, policy))| {
        Words { registry, service, told, host, endpoints, backends, path, policy }
    });
    let step = prop_oneof![
        6 => words.prop_map(Step::Say),
        4 => (0..REGISTRIES.len()).prop_map(Step::Commit),
        3 => Just(Step::Compile),
        1 => (0..3_usize, 0..3_usize, 0..2_usize, 0..3_usize)
            .prop_map(|(order, join, who, held)| Step::Configure(order, join, who, held)),
        1 => Just(Step::Pass),
    ];
    prop::collection::vec(step, 1..40)
}

impl Words {
    fn resources(&self) -> Vec<Resource> {
        let name = SERVICES[self.service];
        let mut all = Vec::new();
        // Nobody implies a service without an instance.
        if self.told == Told::Declared || (self.told == Told::Implied && !self.endpoints.is_empty()) {
            let hosts = self.host.iter().map(|n| format!("alias-{n}.example").parse().unwrap()).collect();
            let declared = self.told == Told::Declared;
            all.push(Resource::Service(Arc::new(crate::resource::Service {
                hosts,
                declared,
                ..service(name)
            })));
        }
        all.extend(self.endpoints.iter().map(|told| Resource::Endpoint(Arc::new(of_kind(name, *told)))));
        if !self.backends.is_empty() {
            all.push(self.route(name));
        }
        all.extend(self.policy.map(|told| policy(name, told)));
        all
    }

    fn route(&self, name: &str) -> Resource {
        let backends = self.backends.iter().map(|(service, weight, subset)| Backend {
            service: Some(SERVICES[*service].parse().unwrap()),
            subset: subset.then(|| ("version".to_owned(), "v1".to_owned())).into_iter().collect(),
            // Of a weight of nothing at all no registry may speak.
            weight: *weight + 1,
        });
        let path = self.path.map(|number| PathMatch::Prefix(format!("/{number}")));
        let rule = RouteRule {
            name: "rule".parse().unwrap(),
            matches: path
                .map(|path| RouteMatch { path: Some(path), ..RouteMatch::default() })
                .into_iter()
                .collect(),
            backends: backends.collect(),
            request_timeout: std::time::Duration::from_secs(self.backends.len() as u64),
            connect_timeout: std::time::Duration::from_secs(1),
            retries: Retries::default(),
        };
        let route = Route { name: name.parse().unwrap(), service: name.parse().unwrap(), rules: vec![rule] };
        Resource::Route(Arc::new(route))
    }
}

fn of_kind(service: &str, (number, weight, kind): (u8, u16, Kind)) -> Endpoint {
    let labels = (number == 1).then_some(("version", "v1")).into_iter().collect();
    let locality = Locality::new(["eu/a", "eu/b", "us/a"][usize::from(number % 3)]).unwrap();
    let told = Endpoint { weight, labels, locality, ..endpoint(service, number) };
    match kind {
        Kind::Healthy => told,
        Kind::Draining => Endpoint { health: Health::Draining, ..told },
        Kind::Plain => Endpoint { tls: TlsMode::Off, identity: None, mesh_address: None, ..told },
        Kind::Other => Endpoint { identity: Some(identity("default", "other")), ..told },
    }
}

fn policy(service: &str, (target, deny): (u8, bool)) -> Resource {
    let target = match target {
        0 => PolicyTarget::Service(service.parse().unwrap()),
        1 => PolicyTarget::Identity(identity("default", "x")),
        _ => PolicyTarget::Mesh,
    };
    let action = if deny { Action::Deny } else { Action::Allow };
    let rules = vec![PolicyRule::default()];
    Resource::Policy(Arc::new(Policy { name: service.parse().unwrap(), target, action, rules }))
}

fn identity(namespace: &str, account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://demo.mesh/ns/{namespace}/sa/{account}")).unwrap()
}

fn config(order: usize, joins: usize, workloads: usize, held: usize) -> CompileConfig {
    let registries = |names: &[&str]| names.iter().map(|name| RegistryName::new(name).unwrap()).collect();
    let mut precedence: Vec<_> = registries(&REGISTRIES);
    precedence.rotate_left(order);
    // The last one's place is not declared.
    precedence.truncate(if order == 2 { 2 } else { 3 });
    let some = Join {
        registries: registries(&["kubernetes", "consul"]),
        services: vec!["b".parse().unwrap()],
        prefer: Prefer::Registries(registries(&["consul"])),
    };
    let all = Join {
        registries: registries(&["nomad", "kubernetes"]),
        services: Vec::new(),
        prefer: Prefer::Nearest,
    };
    let workload = |namespace: &str, serves: &str| {
        Arc::new(Workload {
            name: namespace.parse().unwrap(),
            identity: identity(namespace, "x"),
            labels: Default::default(),
            locality: Default::default(),
            ports: vec![crate::workload::WorkloadPort {
                service: serves.parse().unwrap(),
                name: "http".parse().unwrap(),
                address: ([127, 0, 0, 1], 8080).into(),
                protocol: Default::default(),
            }],
        })
    };
    let mut workloads_of = vec![workload("default", "a"), workload("prod", "a.prod")];
    workloads_of.truncate(2 - workloads);
    let joins = match joins {
        0 => Vec::new(),
        1 => vec![some],
        _ => vec![all],
    };
    let authority = precedence.first().cloned();
    let locality = Locality::new(if workloads == 0 { "eu/a" } else { "" }).unwrap();
    let held = registries(&REGISTRIES[3 - held..]);
    CompileConfig { precedence, authority, joins, workloads: workloads_of, locality, held }
}

/// Everything a table says, in one order, without what only pointers tell.
fn shown(table: &Table) -> Vec<String> {
    let mut lines = Vec::new();
    for (host, destination) in table.hosts.iter() {
        lines.push(format!("host {host} -> {}", destination.key));
    }
    for destination in table.destinations() {
        for port in &destination.ports {
            let rules = port.rules.iter().map(|rule| {
                let targets = rule.targets.iter().map(|target| {
                    let all = target
                        .endpoints
                        .all
                        .iter()
                        .map(|u| format!("{} {:?}", u.tier, u.endpoint))
                        .collect::<Vec<_>>();
                    let set = &target.endpoints;
                    let (healthy, weights) = (set.first_choice, &set.cumulative_weights);
                    format!("{} {} {healthy} {weights:?} {all:?}", target.service, target.cumulative_weight)
                });
                let times = (rule.request_timeout, rule.connect_timeout, rule.retries);
                let targets = targets.collect::<Vec<_>>();
                format!("{} {:?} {times:?} {targets:?}", rule.name, rule.matches)
            });
            lines.push(format!("{} {} {:?}", destination.key, port.name, rules.collect::<Vec<_>>()));
        }
    }
    for view in &*table.views {
        for name in view.hosts.keys() {
            let destination =
                table.destination_for(view, name.as_str()).expect("a bare name leads somewhere");
            lines.push(format!("{} {name} -> {}", view.workload.name, destination.key));
        }
        for ((service, port), inbound) in &view.inbound {
            lines.push(format!("{} {service} {port} {:?}", view.workload.name, inbound.authorization));
        }
    }
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn change_by_change_equals_at_once(steps in steps()) {
        let now = SystemTime::UNIX_EPOCH;
        let mut merge = Merge::default();
        let mut configured = config(0, 0, 0, 0);
        let mut compiler = Compiler::new(configured.clone());
        compiler.compile(merge.snapshot(), &Changes::default());
        for step in &steps {
            match step {
                Step::Say(words) => {
                    let scope = scope(REGISTRIES[words.registry]);
                    let origin = format!("{}-{}", SERVICES[words.service], words.endpoints.len() % 2);
                    merge.apply(replace(&scope, &origin, "1", words.resources()), now);
                }
                Step::Commit(registry) => drop(merge.apply(commit(&scope(REGISTRIES[*registry])), now)),
                Step::Compile => {
                    let changes = merge.take_changes();
                    compiler.compile(merge.snapshot(), &changes);
                }
                Step::Pass => drop(merge.free_names(now + KEPT)),
                Step::Configure(order, joins, workloads, held) => {
                    configured = config(*order, *joins, *workloads, *held);
                    compiler.configure(configured.clone());
                }
            }
        }
        let changes = merge.take_changes();
        let table = compiler.compile(merge.snapshot(), &changes);
        let mut at_once = Compiler::new(configured);
        let expected = at_once.compile(merge.snapshot(), &Changes::default());
        prop_assert_eq!(shown(&table), shown(&expected));
        let sorted = |compiler: &Compiler| {
            let mut all = compiler.diagnostics();
            all.sort();
            all
        };
        prop_assert_eq!(sorted(&compiler), sorted(&at_once));
    }
}
