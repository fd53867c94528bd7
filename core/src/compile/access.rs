//! Policies, compiled, and what protects each port of each local workload.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    CompileConfig,
    conditions::{joined_name, parse_method},
    join::{Join, members},
};
use crate::{
    diagnostic::Diagnostic,
    merge::{Partition, Snapshot},
    name::{RegistryName, RuleName, ServiceKey, ServiceName, ServicePattern},
    path::{EncodedSlash, PathFault, normalise},
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
    /// See [`super::CompileConfig::authority`].
    authority: Option<RegistryName>,
    /// The services that policies protect by name.
    targets: BTreeMap<ServiceName, Standing>,
}

/// Who knows a service.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Whose word on it counts.
    pub(super) owners: Owners,
    /// Whether any registry declares it or a local workload serves it.
    pub(super) exists: bool,
}

impl Policies {
    /// Compiles what changed. Costs a comparison per policy that did not.
    pub(super) fn update(&mut self, snapshot: &Snapshot, authority: Option<&RegistryName>) {
        self.authority = authority.cloned();
        self.targets.clear();
        let mut old = std::mem::take(&mut self.ready);
        for (registry, partition) in &snapshot.partitions {
            for (name, policy) in &partition.policies {
                let key = (registry.clone(), name.clone());
                let ready = match old.remove(&key) {
                    Some(known) if Arc::ptr_eq(&known.declared, policy) => known,
                    _ => compile(registry, policy),
                };
                if let PolicyTarget::Service(service) = &policy.target {
                    self.targets.insert(service.clone(), Standing::default());
                }
                self.ready.insert(key, ready);
            }
        }
    }

    /// Looks for all services that policies protect, by `standing`.
    pub(super) fn look_for_all(&mut self, standing: impl Fn(&ServiceName) -> Standing) {
        for (service, known) in &mut self.targets {
            *known = standing(service);
        }
    }

    /// The same when only these services may have come or gone.
    pub(super) fn look_for<'a>(
        &mut self,
        services: impl Iterator<Item = &'a ServiceName>,
        standing: impl Fn(&ServiceName) -> Standing,
    ) {
        for service in services {
            if let Some(known) = self.targets.get_mut(service) {
                *known = standing(service);
            }
        }
    }

    pub(super) fn diagnostics(&self) -> impl Iterator<Item = Diagnostic> {
        let faulty = self.ready.values().flat_map(|ready| &ready.diagnostics).cloned();
        let overruled =
            self.ready.iter().filter_map(|((registry, _), ready)| self.overruled(registry, ready));
        faulty.chain(overruled).chain(self.ready.values().filter_map(|ready| self.strayed(ready)))
    }

    /// What protects a service that nobody declares, most likely by a slip of the name.
    fn strayed(&self, ready: &Ready) -> Option<Diagnostic> {
        let PolicyTarget::Service(service) = &ready.declared.target else { return None };
        let is_astray = self.targets.get(service).is_some_and(|standing| !standing.exists);
        is_astray.then(|| {
            let message = format!("protects {service}, which no registry declares: it protects nothing");
            Diagnostic::warning(&ready.compiled.name, message)
        })
    }

    /// What a lesser registry allows where it has no say.
    fn overruled(&self, registry: &RegistryName, ready: &Ready) -> Option<Diagnostic> {
        if ready.declared.action != Action::Allow {
            return None;
        }
        let message = match &ready.declared.target {
            PolicyTarget::Mesh | PolicyTarget::Identity(_) => {
                let authority = self.authority.as_ref().filter(|authority| *authority != registry)?;
                format!(
                    "allows something only at services of its own registry: {authority} ranks before {registry}"
                )
            }
            PolicyTarget::Service(service) => {
                let standing = self.targets.get(service).filter(|standing| standing.exists)?;
                let owner = standing.owners.known.first().or(self.authority.as_ref())?;
                if owner == registry || standing.owners.have_say(registry) {
                    return None;
                }
                format!(
                    "allows nothing: what is allowed at {service} is the word of {owner}, which ranks before {registry}"
                )
            }
        };
        Some(Diagnostic::warning(&ready.compiled.name, message))
    }

    /// What one workload serves. Ports whose protection did not change stay the very same as in `old`.
    pub(super) fn inbound(
        &self,
        workload: &Workload,
        owners: &dyn Fn(&ServiceName) -> Owners,
        old: Option<&View>,
    ) -> std::collections::HashMap<(ServiceName, u16), Arc<InboundPort>, foldhash::fast::RandomState> {
        let ports = workload.ports.iter().map(|port| {
            let key = (port.service.clone(), port.address.port());
            let owners = owners(&port.service);
            let authorization = self.authorization(workload, port, &owners);
            let registry = owners.known.first();
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

    /// What any registry denies counts. What a registry allows counts at services whose names it owns; at a service by name
    /// also where it ranks before who owns that; for the whole mesh or an identity, also what the most authoritative registry
    /// of configuration allows. So no lesser registry lets anybody in, or shuts others out by allowing somebody, where it has
    /// no say; not even while the other says nothing.
    fn authorization(&self, workload: &Workload, port: &WorkloadPort, owners: &Owners) -> Authorization {
        let mut authorization = Authorization {
            trust_domain: workload.identity.trust_domain(),
            deny: Vec::new(),
            allow: Vec::new(),
        };
        for ((registry, _), ready) in &self.ready {
            let deny = ready.declared.action == Action::Deny;
            let owned = owners.known.contains(registry);
            let (selected, counts) = match &ready.declared.target {
                PolicyTarget::Mesh => (true, owned || self.authority.as_ref() == Some(registry)),
                PolicyTarget::Identity(identity) => {
                    (*identity == workload.identity, owned || self.authority.as_ref() == Some(registry))
                }
                PolicyTarget::Service(service) => {
                    let of_nobody = owners.known.is_empty() && self.authority.as_ref() == Some(registry);
                    (*service == port.service, owners.have_say(registry) || of_nobody)
                }
            };
            if selected && (deny || counts) {
                let list = if deny { &mut authorization.deny } else { &mut authorization.allow };
                list.push(ready.compiled.clone());
            }
        }
        authorization
    }
}

/// The registries whose word on a service name counts.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// The most authoritative one that declares it, and those that it is joined with. None at all when nobody declares it.
    known: Vec<RegistryName>,
    /// Those that rank before it and may own the name: each could declare the service itself.
    before: Vec<RegistryName>,
}

impl Owners {
    /// Whether what a registry allows at the service counts.
    fn have_say(&self, registry: &RegistryName) -> bool {
        self.known.contains(registry) || self.before.contains(registry)
    }
}

/// Whose word on a service name counts.
pub(super) fn owners(
    snapshot: &Snapshot,
    precedence: &[RegistryName],
    joins: &[Join],
    name: &ServiceName,
) -> Owners {
    let declares = |registry: &&RegistryName| {
        snapshot.partitions.get(*registry).is_some_and(|partition| declares(partition, name))
    };
    let mut before = Vec::new();
    for registry in ranked(snapshot, precedence) {
        if declares(&registry) {
            let key = ServiceKey { registry: registry.clone(), service: name.clone() };
            return Owners {
                known: members(joins, &key).into_iter().map(|key| key.registry).collect(),
                before,
            };
        }
        let partition = snapshot.partitions.get(registry);
        let may_own = partition.and_then(|partition| partition.may_own.as_deref());
        if ServicePattern::admits(may_own, name) {
            before.push(registry.clone());
        }
    }
    Owners::default()
}

/// Whether a registry declares the service, or its name is still kept for it.
fn declares(partition: &Partition, name: &ServiceName) -> bool {
    partition.departed.get(name).is_some_and(|gone| !gone.is_withdrawn)
        || partition.services.get(name).is_some_and(|entry| entry.service.is_some())
}

/// Who knows the service.
pub(super) fn standing(snapshot: &Snapshot, config: &CompileConfig, name: &ServiceName) -> Standing {
    let owners = owners(snapshot, &config.precedence, &config.joins, name);
    let mut ports = config.workloads.iter().flat_map(|workload| &workload.ports);
    let exists = !owners.known.is_empty() || ports.any(|port| port.service == *name);
    Standing { owners, exists }
}

/// All registries, most authoritative first.
pub(super) fn ranked<'a>(
    snapshot: &'a Snapshot,
    precedence: &'a [RegistryName],
) -> impl Iterator<Item = &'a RegistryName> {
    precedence.iter().chain(snapshot.partitions.keys().filter(|registry| !precedence.contains(registry)))
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

/// A faulty condition never widens what is allowed and never narrows what is denied.
fn compile_operation(
    rule: &RuleName,
    operation: &Operation,
    action: Action,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<CompiledOperation> {
    let mut parts = Parts { rule, action, diagnostics };
    let methods = parts.valid(&operation.methods, "method", |_, text| parse_method(text))?;
    let paths = parts.valid(&operation.paths, "path", Parts::path)?;
    Some(CompiledOperation { methods, paths, ports: operation.ports.clone() })
}

/// What conditions of an operation are read for.
struct Parts<'a> {
    rule: &'a RuleName,
    action: Action,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Parts<'_> {
    /// The conditions that hold a meaning; none at all to leave the operation out. An empty list matches everything.
    fn valid<T>(
        &mut self,
        texts: &[String],
        what: &str,
        mut parse: impl FnMut(&mut Self, &str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let mut valid = Vec::with_capacity(texts.len());
        for text in texts {
            match (parse(self, text), self.action) {
                (Ok(condition), _) => valid.push(condition),
                (Err(fault), Action::Deny) => {
                    let message = format!("{fault}: the operation is denied for every {what}");
                    self.diagnostics.push(Diagnostic::error(self.rule, message));
                    return Some(Vec::new());
                }
                (Err(fault), Action::Allow) => {
                    let message = format!("{fault}: nothing is allowed by it");
                    self.diagnostics.push(Diagnostic::error(self.rule, message));
                }
            }
        }
        (valid.is_empty() == texts.is_empty()).then_some(valid)
    }

    /// A path in the form in which requests are compared with it. What a relay passes on was not read by our reader of
    /// files, which refuses others.
    fn path(&mut self, text: &str) -> Result<PathRule, String> {
        let canonical = match normalise(text, EncodedSlash::Refuse) {
            Ok(canonical) => canonical,
            Err(PathFault::EncodedSlash) => return Err(format!("no request has the path \"{text}\"")),
            Err(PathFault::Malformed) => return Err(format!("\"{text}\" is not a path")),
        };
        if canonical != text {
            let message = format!("\"{text}\" is not in canonical form: it is taken as \"{canonical}\"");
            self.diagnostics.push(Diagnostic::warning(self.rule, message));
        }
        Ok(match canonical.strip_suffix('*') {
            Some(prefix) => PathRule::Prefix(prefix.to_owned()),
            None => PathRule::Exact(canonical.into_owned()),
        })
    }
}
