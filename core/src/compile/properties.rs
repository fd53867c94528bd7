//! Whatever happens in whatever order: compiling change by change equals compiling at once.

use std::{collections::BTreeMap, time::SystemTime};

use proptest::prelude::*;

use super::*;
use crate::{
    merge::{
        Merge,
        testing::{commit, endpoint, replace, scope, service},
    },
    resource::{
        Action, Backend, Endpoint, Health, Policy, PolicyRule, PolicyTarget, Resource, Retries, Route,
        RouteRule,
    },
};

const REGISTRIES: [&str; 2] = ["kubernetes", "consul"];
const SERVICES: [&str; 4] = ["a", "b", "a.prod", "c.prod"];

/// One origin's new words.
#[derive(Clone, Debug)]
struct Step {
    registry: usize,
    service: usize,
    declared: bool,
    host: Option<u8>,
    endpoints: Vec<(u8, u16, bool)>,
    backends: Vec<(usize, u32)>,
    policy: bool,
    commits: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let endpoints = prop::collection::vec((1..4_u8, 0..3_u16, any::<bool>()), 0..4);
    let backends = prop::collection::vec((0..SERVICES.len(), 0..3_u32), 0..3);
    let resources = (any::<bool>(), prop::option::of(0..2_u8), endpoints, backends, any::<bool>());
    let step = (0..REGISTRIES.len(), 0..SERVICES.len(), resources, any::<bool>());
    let step =
        step.prop_map(|(registry, service, (declared, host, endpoints, backends, policy), commits)| Step {
            registry,
            service,
            declared,
            host,
            endpoints,
            backends,
            policy,
            commits,
        });
    prop::collection::vec(step, 1..25)
}

impl Step {
    fn resources(&self) -> Vec<Resource> {
        let name = SERVICES[self.service];
        let mut all = Vec::new();
        if self.declared {
            let hosts = self.host.iter().map(|n| format!("alias-{n}.example").parse().unwrap()).collect();
            all.push(Resource::Service(Arc::new(crate::resource::Service { hosts, ..service(name) })));
        }
        for (number, weight, healthy) in &self.endpoints {
            let health = if *healthy { Health::Healthy } else { Health::Draining };
            let endpoint = Endpoint { weight: *weight, health, ..endpoint(name, *number) };
            all.push(Resource::Endpoint(Arc::new(endpoint)));
        }
        if !self.backends.is_empty() {
            all.push(self.route(name));
        }
        if self.policy {
            let target = PolicyTarget::Service(name.parse().unwrap());
            let rules = vec![PolicyRule::default()];
            let policy = Policy { name: name.parse().unwrap(), target, action: Action::Allow, rules };
            all.push(Resource::Policy(Arc::new(policy)));
        }
        all
    }

    fn route(&self, name: &str) -> Resource {
        let backends = self.backends.iter().map(|(service, weight)| Backend {
            service: Some(SERVICES[*service].parse().unwrap()),
            subset: BTreeMap::new(),
            weight: *weight,
        });
        let rule = RouteRule {
            name: "rule".parse().unwrap(),
            matches: Vec::new(),
            backends: backends.collect(),
            request_timeout: std::time::Duration::ZERO,
            connect_timeout: std::time::Duration::from_secs(1),
            retries: Retries::default(),
        };
        let route = Route { name: name.parse().unwrap(), service: name.parse().unwrap(), rules: vec![rule] };
        Resource::Route(Arc::new(route))
    }
}

fn config(joined: bool) -> CompileConfig {
    let registries = || REGISTRIES.iter().map(|name| RegistryName::new(name).unwrap()).collect::<Vec<_>>();
    let join = Join { registries: registries(), services: vec!["b".parse().unwrap()] };
    let workload = |namespace: &str, serves: &str| {
        Arc::new(Workload {
            name: namespace.parse().unwrap(),
            identity: crate::identity::SpiffeId::parse(&format!("spiffe://demo.mesh/ns/{namespace}/sa/x"))
                .unwrap(),
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
    CompileConfig {
        precedence: registries(),
        joins: if joined { vec![join] } else { Vec::new() },
        workloads: vec![workload("default", "a"), workload("prod", "a.prod")],
    }
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
                    let all =
                        target.endpoints.all.iter().map(|u| format!("{:?}", u.endpoint)).collect::<Vec<_>>();
                    let set = &target.endpoints;
                    let (healthy, weights) = (set.healthy, &set.cumulative_weights);
                    format!("{} {} {healthy} {weights:?} {all:?}", target.service, target.cumulative_weight)
                });
                format!("{} {:?}", rule.name, targets.collect::<Vec<_>>())
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
    #[test]
    fn change_by_change_equals_at_once(steps in steps(), joined in any::<bool>()) {
        let now = SystemTime::UNIX_EPOCH;
        let mut merge = Merge::default();
        let mut compiler = Compiler::new(config(joined));
        let mut table = compiler.compile(merge.snapshot(), &merge_changes(&mut Merge::default()));
        for step in &steps {
            let scope = scope(REGISTRIES[step.registry]);
            let origin = format!("{}-{}", SERVICES[step.service], step.endpoints.len() % 2);
            merge.apply(replace(&scope, &origin, "1", step.resources()), now);
            if step.commits {
                merge.apply(commit(&scope), now);
                let changes = merge.take_changes();
                table = compiler.compile(merge.snapshot(), &changes);
            }
        }
        let mut at_once = Compiler::new(config(joined));
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

fn merge_changes(merge: &mut Merge) -> Changes {
    merge.take_changes()
}
