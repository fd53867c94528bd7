//! Policies, compiled, and what protects each port of each local workload.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    conditions::{joined_name, parse_method},
    join::{Join, members},
};
use crate::{
    diagnostic::Diagnostic,
    merge::Snapshot,
    name::{RegistryName, RuleName, ServiceKey, ServiceName},
    resource::{Action, Operation, Policy, PolicyRule, PolicyTarget},
    table::{Authorization, CompiledOperation, CompiledPolicy, CompiledRule, InboundPort, PathRule, View},
    workload::{Workload, WorkloadPort},
};

/// A policy with its compiled form.
#[derive(Debug)]
struct Ready {
    declared: Arc<Policy>,
    compiled: Arc<CompiledPolicy>,
    diagnostics: Vec<Diagnostic>,
}

/// All policies, compiled.
#[derive(Debug, Default)]
pub(super) struct Policies {
    ready: BTreeMap<(RegistryName, RuleName), Ready>,
}

impl Policies {
    /// Compiles what changed. Costs a comparison per policy that did not.
    pub(super) fn update(&mut self, snapshot: &Snapshot) {
        let mut old = std::mem::take(&mut self.ready);
        for (registry, partition) in &snapshot.partitions {
            for (name, policy) in &partition.policies {
                let key = (registry.clone(), name.clone());
                let ready = match old.remove(&key) {
                    Some(known) if Arc::ptr_eq(&known.declared, policy) => known,
                    _ => compile(registry, policy),
                };
                self.ready.insert(key, ready);
            }
        }
    }

    pub(super) fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.ready.values().flat_map(|ready| &ready.diagnostics)
    }

    /// What one workload serves. Ports whose protection did not change stay the very same as in `old`.
    pub(super) fn inbound(
        &self,
        workload: &Workload,
        owners: &dyn Fn(&ServiceName) -> Vec<RegistryName>,
        old: Option<&View>,
    ) -> std::collections::HashMap<(ServiceName, u16), Arc<InboundPort>, foldhash::fast::RandomState> {
        let ports = workload.ports.iter().map(|port| {
            let key = (port.service.clone(), port.address.port());
            let owners = owners(&port.service);
            let authorization = self.authorization(workload, port, &owners);
            let registry = owners.first();
            let before = old.and_then(|view| view.inbound.get(&key));
            let same = before.filter(|before| {
                before.port == *port
                    && before.registry.as_ref() == registry
                    && is_same(&before.authorization, &authorization)
            });
            let inbound = same.cloned().unwrap_or_else(|| {
                let (port, authorization) = (port.clone(), Arc::new(authorization));
                Arc::new(InboundPort { port, registry: registry.cloned(), authorization })
            });
            (key, inbound)
        });
        ports.collect()
    }

    /// Policies of every registry protect a workload by its identity or as part of the mesh. Those that name a service
    /// count when their registry owns the service's name; of others, only what they deny counts: to restrict is safe.
    fn authorization(
        &self,
        workload: &Workload,
        port: &WorkloadPort,
        owners: &[RegistryName],
    ) -> Authorization {
        let mut authorization = Authorization {
            trust_domain: workload.identity.trust_domain(),
            deny: Vec::new(),
            allow: Vec::new(),
        };
        for ((registry, _), ready) in &self.ready {
            let owned = owners.is_empty() || owners.contains(registry);
            let deny = ready.declared.action == Action::Deny;
            let selected = match &ready.declared.target {
                PolicyTarget::Mesh => true,
                PolicyTarget::Identity(identity) => *identity == workload.identity,
                PolicyTarget::Service(service) => *service == port.service && (owned || deny),
            };
            if selected {
                let list = if deny { &mut authorization.deny } else { &mut authorization.allow };
                list.push(ready.compiled.clone());
            }
        }
        authorization
    }
}

/// The registries whose word on a service name counts: the most authoritative one that declares it, and those that it
/// is joined with. None at all when nobody declares it.
pub(super) fn owners(
    snapshot: &Snapshot,
    precedence: &[RegistryName],
    joins: &[Join],
    name: &ServiceName,
) -> Vec<RegistryName> {
    let declares = |registry: &&RegistryName| {
        let partition = snapshot.partitions.get(*registry);
        partition.and_then(|p| p.services.get(name)).is_some_and(|entry| entry.service.is_some())
    };
    let mut all = precedence.iter().chain(snapshot.partitions.keys().filter(|r| !precedence.contains(r)));
    let Some(owner) = all.find(declares) else { return Vec::new() };
    let key = ServiceKey { registry: owner.clone(), service: name.clone() };
    members(joins, &key).into_iter().map(|key| key.registry).collect()
}

fn is_same(a: &Authorization, b: &Authorization) -> bool {
    let same = |a: &[Arc<CompiledPolicy>], b: &[Arc<CompiledPolicy>]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    a.trust_domain == b.trust_domain && same(&a.deny, &b.deny) && same(&a.allow, &b.allow)
}

fn compile(registry: &RegistryName, policy: &Arc<Policy>) -> Ready {
    let name = joined_name(registry.as_str(), policy.name.as_str());
    let mut diagnostics = Vec::new();
    let rules = policy.rules.iter().enumerate();
    let rules = rules.map(|(index, rule)| compile_rule(&name, index, rule, policy.action, &mut diagnostics));
    let rules = rules.flatten().collect();
    Ready { declared: policy.clone(), compiled: Arc::new(CompiledPolicy { name, rules }), diagnostics }
}

/// None when none of a rule's operations is valid and it would therefore seem to mean all of them.
fn compile_rule(
    policy: &RuleName,
    index: usize,
    rule: &PolicyRule,
    action: Action,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<CompiledRule> {
    let index = index.to_string();
    let name = joined_name(policy.as_str(), rule.name.as_ref().map_or(index.as_str(), RuleName::as_str));
    let operations = rule.to.iter().map(|to| compile_operation(&name, to, action, diagnostics));
    let to: Vec<_> = operations.flatten().collect();
    (to.is_empty() == rule.to.is_empty()).then(|| CompiledRule { name, from: rule.from.clone(), to })
}

/// A faulty method never widens what is allowed and never narrows what is denied.
fn compile_operation(
    rule: &RuleName,
    operation: &Operation,
    action: Action,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<CompiledOperation> {
    let mut methods = Vec::new();
    for text in &operation.methods {
        match parse_method(text) {
            Ok(method) => methods.push(method),
            Err(fault) => {
                let follows = match action {
                    Action::Allow => "it allows nothing",
                    Action::Deny => "the operation is denied for every method",
                };
                diagnostics.push(Diagnostic::error(rule, format!("{fault}: {follows}")));
                if action == Action::Deny {
                    methods.clear();
                    break;
                }
            }
        }
    }
    if methods.is_empty() && !operation.methods.is_empty() && action == Action::Allow {
        return None;
    }
    let paths = operation.paths.iter().map(|path| match path.strip_suffix('*') {
        Some(prefix) => PathRule::Prefix(prefix.to_owned()),
        None => PathRule::Exact(path.clone()),
    });
    Some(CompiledOperation { methods, paths: paths.collect(), ports: operation.ports.clone() })
}
