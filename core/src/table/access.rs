//! Compiled authorization: one decision per request, with the name of the rule that made it.

use std::sync::Arc;

use http::Method;

use crate::{
    context::PolicyInput, identity::TrustDomain, name::RuleName, path::without_parameters,
    resource::PrincipalMatch,
};

/// Everything that protects one inbound port: DENY first, then ALLOW, then the default.
#[derive(Debug)]
pub struct Authorization {
    /// The destination's own trust domain: its callers are allowed where no ALLOW policy selects the port.
    pub trust_domain: TrustDomain,
    /// DENY policies, by registry and name.
    pub deny: Vec<Arc<CompiledPolicy>>,
    /// ALLOW policies, by registry and name.
    pub allow: Vec<Arc<CompiledPolicy>>,
}

/// One policy.
#[derive(Debug)]
pub struct CompiledPolicy {
    /// `registry/policy`: what a denial names.
    pub name: RuleName,
    /// Alternatives.
    pub rules: Vec<CompiledRule>,
}

/// One rule of a policy.
#[derive(Debug)]
pub struct CompiledRule {
    /// `registry/policy/rule`: what a denial names.
    pub name: RuleName,
    /// Alternatives; none at all matches every caller.
    pub from: Vec<PrincipalMatch>,
    /// Alternatives; none at all matches every operation.
    pub to: Vec<CompiledOperation>,
}

/// A condition on what is asked.
#[derive(Debug, Default)]
pub struct CompiledOperation {
    /// None at all matches every method.
    pub methods: Vec<Method>,
    /// None at all matches every path.
    pub paths: Vec<PathRule>,
    /// None at all matches every port.
    pub ports: Vec<u16>,
}

/// A condition on a normalised path.
#[derive(Debug)]
pub enum PathRule {
    /// The whole path.
    Exact(String),
    /// How the path begins, byte by byte.
    Prefix(String),
}

/// What was decided, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Passes: by this rule, or by the default.
    Allowed(Option<RuleName>),
    /// Refused by this DENY rule.
    Denied(RuleName),
    /// Refused because none of the ALLOW rules matched; names the first policy that would have had to. Without ALLOW
    /// policies that is [`OWN_TRUST_DOMAIN`].
    NotAllowed(RuleName),
}

impl Decision {
    /// Whether the request may pass.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

/// What a denial names where no policy selects the port and the caller is of another trust domain.
pub const OWN_TRUST_DOMAIN: &str = "default/own-trust-domain";

fn own_trust_domain() -> RuleName {
    RuleName::new(OWN_TRUST_DOMAIN).expect("the constant is visible ASCII")
}

/// How a rule's layer-7 conditions count on opaque bytes.
#[derive(Clone, Copy)]
enum OnBytes {
    Matches,
    Fails,
}

impl Authorization {
    /// Decides one request, or one opaque connection.
    #[must_use]
    pub fn decide(&self, input: &PolicyInput<'_>) -> Decision {
        let bare = input.request.as_ref().and_then(|request| without_parameters(request.path));
        let asked = Asked { input, bare: bare.as_deref() };
        if let Some(rule) = first_match(&self.deny, &asked, OnBytes::Matches) {
            return Decision::Denied(rule.name.clone());
        }
        let Some(first) = self.allow.first() else {
            let own = input.identity.trust_domain_str() == self.trust_domain.as_str();
            return if own { Decision::Allowed(None) } else { Decision::NotAllowed(own_trust_domain()) };
        };
        match first_match(&self.allow, &asked, OnBytes::Fails) {
            Some(rule) => Decision::Allowed(Some(rule.name.clone())),
            None => Decision::NotAllowed(first.name.clone()),
        }
    }

    /// Whether any rule needs requests to be told apart: such a port refuses opaque framing.
    #[must_use]
    pub fn is_layer_7(&self) -> bool {
        let mut rules = self.deny.iter().chain(&self.allow).flat_map(|policy| &policy.rules);
        rules.any(|rule| rule.to.iter().any(CompiledOperation::is_layer_7))
    }
}

/// What is decided, with what all rules would work out of it.
struct Asked<'a> {
    input: &'a PolicyInput<'a>,
    /// The path without its parameters, if it has any.
    bare: Option<&'a str>,
}

fn first_match<'a>(
    policies: &'a [Arc<CompiledPolicy>],
    asked: &Asked<'_>,
    on_bytes: OnBytes,
) -> Option<&'a CompiledRule> {
    policies.iter().flat_map(|policy| &policy.rules).find(|rule| rule.matches(asked, on_bytes))
}

impl CompiledRule {
    fn matches(&self, asked: &Asked<'_>, on_bytes: OnBytes) -> bool {
        let identity = asked.input.identity;
        let from = self.from.is_empty() || self.from.iter().any(|principal| principal.matches(identity));
        from && (self.to.is_empty() || self.to.iter().any(|to| to.matches(asked, on_bytes)))
    }
}

impl CompiledOperation {
    fn is_layer_7(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }

    fn matches(&self, asked: &Asked<'_>, on_bytes: OnBytes) -> bool {
        let input = asked.input;
        if !self.ports.is_empty() && !self.ports.contains(&input.port) {
            return false;
        }
        let Some(request) = &input.request else {
            return !self.is_layer_7() || matches!(on_bytes, OnBytes::Matches);
        };
        (self.methods.is_empty() || self.methods.contains(request.method))
            && (self.paths.is_empty() || self.holds(request.path, asked.bare, on_bytes))
    }

    /// Applications differ in whether `/admin;x` is `/admin`, so both readings count: a rule that denies needs one of them,
    /// one that allows needs both.
    fn holds(&self, path: &str, bare: Option<&str>, on_bytes: OnBytes) -> bool {
        let holds = |path: &str| self.paths.iter().any(|rule| rule.holds(path));
        match on_bytes {
            OnBytes::Matches => holds(path) || bare.is_some_and(holds),
            OnBytes::Fails => holds(path) && bare.is_none_or(holds),
        }
    }
}

impl PathRule {
    fn holds(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == path,
            // `*`, which asks for the server as a whole, lies under no path but all.
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()) || (path == "*" && prefix == "/"),
        }
    }
}
