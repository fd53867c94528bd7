//! Policies.

use crate::{
    control::{
        ControlError,
        error::{named, narrow},
        message,
    },
    identity::{SpiffeId, TrustDomain},
    name::{RuleName, ServiceName},
    resource::{Action, Operation, Policy, PolicyRule, PolicyTarget, PrincipalMatch},
};

pub(in crate::control) fn write_policy(policy: &Policy) -> message::Policy {
    let (kind, name) = match &policy.target {
        PolicyTarget::Mesh => (1, String::new()),
        PolicyTarget::Service(service) => (2, service.to_string()),
        PolicyTarget::Identity(identity) => (3, identity.to_string()),
    };
    message::Policy {
        name: policy.name.to_string(),
        target: Some(message::PolicyTarget { kind, name }),
        action: match policy.action {
            Action::Allow => 1,
            Action::Deny => 2,
        },
        rules: policy.rules.iter().map(write_rule).collect(),
    }
}

fn write_rule(rule: &PolicyRule) -> message::PolicyRule {
    message::PolicyRule {
        name: rule.name.as_ref().map_or(String::new(), ToString::to_string),
        from: rule.from.iter().map(write_principal).collect(),
        to: rule.to.iter().map(write_operation).collect(),
    }
}

fn write_principal(principal: &PrincipalMatch) -> message::PrincipalMatch {
    let mut written = message::PrincipalMatch::default();
    match principal {
        PrincipalMatch::Identity(identity) => written.identity = identity.to_string(),
        PrincipalMatch::TrustDomain(domain) => written.trust_domain = domain.to_string(),
        PrincipalMatch::Namespace(domain, namespace) => {
            written.trust_domain = domain.to_string();
            written.namespace.clone_from(namespace);
        }
    }
    written
}

fn write_operation(operation: &Operation) -> message::Operation {
    message::Operation {
        methods: operation.methods.clone(),
        paths: operation.paths.clone(),
        ports: operation.ports.iter().copied().map(u32::from).collect(),
    }
}

pub(in crate::control) fn read_policy(policy: message::Policy) -> Result<Policy, ControlError> {
    let target = policy.target.ok_or(ControlError::Missing("the policy's target"))?;
    Ok(Policy {
        name: named("policy", RuleName::new(&policy.name))?,
        target: match target.kind {
            1 => PolicyTarget::Mesh,
            2 => PolicyTarget::Service(named("policy target", ServiceName::new(&target.name))?),
            3 => PolicyTarget::Identity(named("policy target", SpiffeId::parse(&target.name))?),
            other => return Err(ControlError::Value { field: "policy target", value: other.into() }),
        },
        action: match policy.action {
            1 => Action::Allow,
            2 => Action::Deny,
            other => return Err(ControlError::Value { field: "policy action", value: other.into() }),
        },
        rules: policy.rules.into_iter().map(read_rule).collect::<Result<_, _>>()?,
    })
}

fn read_rule(rule: message::PolicyRule) -> Result<PolicyRule, ControlError> {
    let name = Some(rule.name).filter(|name| !name.is_empty());
    Ok(PolicyRule {
        name: name.map(|name| named("policy rule", RuleName::new(&name))).transpose()?,
        from: rule.from.into_iter().map(read_principal).collect::<Result<_, _>>()?,
        to: rule.to.into_iter().map(read_operation).collect::<Result<_, _>>()?,
    })
}

fn read_principal(principal: message::PrincipalMatch) -> Result<PrincipalMatch, ControlError> {
    let domain = |text: &str| named("principal's trust domain", TrustDomain::new(text));
    let message::PrincipalMatch { identity, trust_domain, namespace } = principal;
    match (identity.is_empty(), trust_domain.is_empty(), namespace.is_empty()) {
        (false, true, true) => Ok(PrincipalMatch::Identity(named("principal", SpiffeId::parse(&identity))?)),
        (true, false, true) => Ok(PrincipalMatch::TrustDomain(domain(&trust_domain)?)),
        (true, false, false) => Ok(PrincipalMatch::Namespace(domain(&trust_domain)?, namespace)),
        _ => Err(ControlError::Missing("the principal's condition")),
    }
}

fn read_operation(operation: message::Operation) -> Result<Operation, ControlError> {
    let port = |port| narrow("operation's port", port);
    Ok(Operation {
        methods: operation.methods,
        paths: operation.paths,
        ports: operation.ports.into_iter().map(port).collect::<Result<_, _>>()?,
    })
}
