//! Policies: who may call what, by identity, method and normalised path.

use serde::{Deserialize, Serialize};

use crate::{
    identity::{SpiffeId, TrustDomain},
    name::{RuleName, ServiceName},
};

/// An authorization policy. DENY is asked first; where any ALLOW policy selects a destination, a request needs one
/// whose rule matches; where none does, callers of the destination's own trust domain are allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Unique within its registry; denials name it.
    pub name: RuleName,
    /// Which destinations it protects.
    pub target: PolicyTarget,
    /// What a matching rule means.
    pub action: Action,
    /// Alternatives. An ALLOW policy without rules allows nobody; a DENY policy without rules denies nobody.
    pub rules: Vec<PolicyRule>,
}

/// The destinations of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyTarget {
    /// Every workload. What is allowed so counts at services of the policy's own registry, and everywhere when the
    /// registry is the most authoritative one that has policies.
    Mesh,
    /// Instances of a service. What is allowed so counts when the policy's registry owns the service's name.
    Service(ServiceName),
    /// Workloads with this identity, as far as for the whole mesh.
    Identity(SpiffeId),
}

/// What a matching rule means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The request may pass.
    Allow,
    /// The request is refused, whatever allows it.
    Deny,
}

/// One rule: a source and an operation, both of which must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// For denials; the rule's index when not named.
    pub name: Option<RuleName>,
    /// Alternatives; none at all matches every caller.
    pub from: Vec<PrincipalMatch>,
    /// Alternatives; none at all matches every operation.
    pub to: Vec<Operation>,
}

/// A condition on the caller's certified identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalMatch {
    /// This identity.
    Identity(SpiffeId),
    /// Any account of this namespace of this trust domain.
    Namespace(TrustDomain, String),
    /// Any identity of this trust domain.
    TrustDomain(TrustDomain),
}

impl PrincipalMatch {
    /// Whether one of the conditions holds for an identity; where none are declared, any identity is admitted.
    #[must_use]
    pub fn admits(declared: Option<&[Self]>, identity: &SpiffeId) -> bool {
        declared.is_none_or(|conditions| conditions.iter().any(|condition| condition.matches(identity)))
    }

    /// Whether the condition holds for an identity.
    #[must_use]
    pub fn matches(&self, identity: &SpiffeId) -> bool {
        match self {
            Self::Identity(wanted) => wanted == identity,
            Self::Namespace(domain, namespace) => {
                identity.trust_domain_str() == domain.as_str() && identity.namespace() == namespace
            }
            Self::TrustDomain(domain) => identity.trust_domain_str() == domain.as_str(),
        }
    }
}

/// A condition on what is asked. On opaque bytes, an ALLOW rule with methods or paths never matches and a DENY rule
/// with them always does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Upper-case methods; none at all matches every method.
    pub methods: Vec<String>,
    /// Normalised paths: exact, or a prefix when they end in `*`; none at all matches every path.
    pub paths: Vec<String>,
    /// Ports of the application; none at all matches every port.
    pub ports: Vec<u16>,
}
