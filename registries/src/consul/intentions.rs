//! Intentions, read as policies. Pure.
//!
//! Consul decides by the intention of the highest precedence that fits caller and destination: both named, destination
//! named, caller named, neither; without any by its default, which is that of access control. Ours asks DENY policies
//! first, then wants an ALLOW rule where there is any ALLOW policy. So for every destination that an intention selects, its
//! list of callers is made first, in order of precedence; a caller that is denied becomes a DENY rule, one that is allowed
//! an ALLOW rule, and "all others are denied" becomes that there is an ALLOW policy, though it may have no rules.
//!
//! What cannot be said is told, and left to the safe side: a permission to call is left out, a denial made broader. A
//! service that no intention selects has a policy where the file itself says that the default is to deny: one without rules.
//! Otherwise it has none, whatever Consul's default, and that is told: Consul's default is meant for its own mesh, and would
//! close services that were never in that one.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::{
    identity::{SpiffeId, TrustDomain},
    name::{DEFAULT_NAMESPACE, RuleName, ServiceName},
    registry::OriginFault,
    resource::{Action, Operation, Policy, PolicyRule, PolicyTarget, PrincipalMatch, Resource},
};

use super::{
    bearers::Bearers,
    entries::{HttpMatch, Intentions, Permission, Source},
};
use crate::names;

/// What policies depend on beside intentions.
#[derive(Clone, Copy, Debug)]
pub struct Callers<'a> {
    /// The identities of each service's instances.
    pub bearers: &'a Bearers,
    /// The mesh's own, whose callers `*` means.
    pub trust_domain: Option<&'a TrustDomain>,
    /// Whether who is not mentioned may call.
    pub allowed_by_default: bool,
}

/// Who a source is.
#[derive(Clone, Debug)]
struct Who {
    /// Whom a permission lets in; none for nobody.
    allowed: Option<Vec<PrincipalMatch>>,
    /// Whom a denial is for; empty for everybody.
    denied: Vec<PrincipalMatch>,
}

/// The policies of one destination.
#[derive(Default)]
struct Made {
    allow: Vec<PolicyRule>,
    deny: Vec<PolicyRule>,
    faults: Vec<OriginFault>,
}

/// The callers of a destination in order of precedence; none when no intention selects it. `all` are intentions by
/// destination, `*` among them.
#[must_use]
pub fn of<'a>(destination: &str, all: &'a BTreeMap<String, Intentions>) -> Option<Vec<&'a Source>> {
    let (own, others) = (all.get(destination), all.get("*"));
    if own.is_none() && others.is_none() {
        return None;
    }
    let mut sources: Vec<&Source> = Vec::new();
    for intentions in [own, others].into_iter().flatten() {
        let named = intentions.sources.iter().filter(|source| source.name != "*");
        let rest = intentions.sources.iter().filter(|source| source.name == "*");
        for source in named.chain(rest) {
            let is_known = |known: &&Source| known.name == source.name && known.peer == source.peer;
            if !sources.iter().any(is_known) {
                sources.push(source);
            }
            if source.name == "*" && source.peer.is_empty() {
                return Some(sources);
            }
        }
    }
    Some(sources)
}

/// The policies of a destination, and what of its intentions cannot be said.
#[must_use]
pub fn policies(
    destination: &str,
    sources: &[&Source],
    jwt: bool,
    callers: Callers<'_>,
) -> (Vec<Resource>, Vec<OriginFault>) {
    let mut made = Made::default();
    let name = match names::service_name(destination, DEFAULT_NAMESPACE) {
        Ok(name) => name,
        Err(fault) => return (Vec::new(), vec![fault]),
    };
    let place = |source: &Source| format!("service-intentions {destination}, source {}", source.name);
    if jwt {
        let message = "JWT cannot be checked: nobody is allowed by these intentions";
        made.faults.push(names::fault(&format!("service-intentions {destination}"), message));
    }
    let rest = sources.iter().find(|source| source.name == "*" && source.peer.is_empty());
    // Whoever may do anything at all as one of all others: rules for them fit the named ones as well.
    let allows = |permission: &Permission| permission.action == "allow";
    let rest_allowed = rest.map_or(callers.allowed_by_default, |source| {
        source.action == "allow" || source.permissions.iter().any(allows) || callers.allowed_by_default
    });
    let denies = |source: &&&Source| !source.permissions.iter().all(allows);
    if let Some(rest) = rest.filter(denies)
        && sources.len() > 1
    {
        let message = "what all others are denied is denied to the callers that are named, too";
        made.faults.push(names::fault(&place(rest), message));
    }
    for source in sources {
        let place = place(source);
        let who = match principals(source, callers, &place, &mut made.faults) {
            Ok(who) => who,
            Err(why) => {
                made.faults.push(names::fault(&place, why));
                continue;
            }
        };
        made.add(source, who, rest_allowed && source.name != "*", jwt, callers.allowed_by_default, &place);
    }
    if rest.is_none() && callers.allowed_by_default && !jwt {
        made.allow.push(rule("default", everyone(callers.trust_domain), Vec::new()));
    }
    (made.resources(&name), made.faults)
}

impl Made {
    /// `others` says whether everybody else may call: a caller that may do just some things must then be kept from the
    /// rest by denials.
    fn add(&mut self, source: &Source, who: Who, others: bool, jwt: bool, by_default: bool, place: &str) {
        let name = if source.name == "*" { "any" } else { source.name.as_str() };
        let who_is_denied = || who.denied.clone();
        let let_in = |to: Vec<Operation>| who.allowed.clone().map(|allowed| rule(name, allowed, to));
        if source.permissions.is_empty() {
            match source.action.as_str() {
                "allow" if jwt => {}
                "allow" => self.allow.extend(let_in(Vec::new())),
                _ if source.name == "*" => {}
                _ => self.deny.push(rule(name, who_is_denied(), Vec::new())),
            }
            return;
        }
        let mut permissions = &source.permissions[..];
        let allows = |permission: &Permission| permission.action == "allow";
        if !by_default {
            // What comes after the last permission is denied in any case.
            let last = permissions.iter().rposition(allows).map_or(0, |last| last + 1);
            permissions = &permissions[..last];
        }
        let first_allow = permissions.iter().position(allows);
        let last_deny = permissions.iter().rposition(|permission| !allows(permission));
        if matches!((first_allow, last_deny), (Some(allow), Some(deny)) if allow < deny) {
            let message = "a permission stands before a denial: here the denial wins where both fit";
            self.faults.push(names::fault(place, message));
        }
        if others && !by_default {
            let message = "it may do only some things where all others may do all: it may do nothing";
            self.faults.push(names::fault(place, message));
            self.deny.push(rule(name, who_is_denied(), Vec::new()));
            return;
        }
        let (mut allowed, mut denied) = (Vec::new(), Vec::new());
        for permission in permissions {
            let (operation, whole) = operation(permission);
            match (allows(permission), whole) {
                (true, Ok(())) if !jwt => allowed.push(operation),
                (true, Ok(())) => {}
                (true, Err(why)) => self.faults.push(names::fault(place, format!("left out: {why}"))),
                (false, Ok(())) => denied.push(operation),
                (false, Err(why)) => {
                    self.faults.push(names::fault(place, format!("a denial is broader than written: {why}")));
                    denied.push(operation);
                }
            }
        }
        if !denied.is_empty() {
            self.deny.push(rule(name, who_is_denied(), denied));
        }
        if by_default && !jwt {
            self.allow.extend(let_in(Vec::new()));
        } else if !allowed.is_empty() {
            self.allow.extend(let_in(allowed));
        }
    }

    fn resources(&mut self, destination: &ServiceName) -> Vec<Resource> {
        let policy = |action, word: &str, rules: Vec<PolicyRule>| {
            let name = RuleName::new(&format!("intentions/{}/{word}", destination.label())).ok()?;
            let target = PolicyTarget::Service(destination.clone());
            Some(Resource::Policy(Policy { name, target, action, rules }.into()))
        };
        let deny = std::mem::take(&mut self.deny);
        let deny = if deny.is_empty() { None } else { policy(Action::Deny, "deny", deny) };
        let allow = policy(Action::Allow, "allow", std::mem::take(&mut self.allow));
        deny.into_iter().chain(allow).collect()
    }
}

/// Who a source is.
///
/// # Errors
/// Says that it cannot be named; nobody here is it then.
fn principals(
    source: &Source,
    callers: Callers<'_>,
    place: &str,
    faults: &mut Vec<OriginFault>,
) -> Result<Who, String> {
    if !source.peer.is_empty() || !source.sameness_group.is_empty() {
        return Err("callers of another cluster cannot be named: nobody is allowed by it".into());
    }
    if source.name == "*" {
        let all = everyone(callers.trust_domain);
        return Ok(Who { allowed: Some(all.clone()), denied: all });
    }
    let caller = callers.bearers.caller(&source.name.to_ascii_lowercase(), callers.trust_domain);
    faults.extend(caller.told.into_iter().map(|it| names::fault(place, it)));
    let named = |identities: BTreeSet<SpiffeId>| -> Vec<PrincipalMatch> {
        identities.into_iter().map(PrincipalMatch::Identity).collect()
    };
    let denies = source.action == "deny" || source.permissions.iter().any(|it| it.action != "allow");
    let allows = source.action == "allow" || source.permissions.iter().any(|it| it.action == "allow");
    if caller.denied.is_none() && denies {
        faults.push(names::fault(place, "who it is cannot be said: everybody is denied what it is denied"));
    }
    if caller.allowed.is_empty() && allows {
        faults.push(names::fault(place, "nobody may be named who it is: nobody is allowed by it"));
    }
    let allowed = Some(named(caller.allowed)).filter(|it| !it.is_empty());
    Ok(Who { allowed, denied: caller.denied.map(named).unwrap_or_default() })
}

fn everyone(trust_domain: Option<&TrustDomain>) -> Vec<PrincipalMatch> {
    trust_domain.cloned().map(PrincipalMatch::TrustDomain).into_iter().collect()
}

fn rule(name: &str, from: Vec<PrincipalMatch>, to: Vec<Operation>) -> PolicyRule {
    PolicyRule { name: RuleName::new(name).ok(), from, to }
}

/// What a permission is about, and whether that is all that it says.
fn operation(permission: &Permission) -> (Operation, Result<(), String>) {
    let default = HttpMatch::default();
    let http = permission.http.as_ref().unwrap_or(&default);
    let mut operation = Operation {
        methods: http.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
        ..Operation::default()
    };
    let mut whole = Ok(());
    let starred = |path: &str| path.contains('*');
    if !http.path_exact.is_empty() && !starred(&http.path_exact) {
        operation.paths.push(http.path_exact.clone());
    } else if !http.path_prefix.is_empty() && !starred(&http.path_prefix) {
        operation.paths.push(format!("{}*", http.path_prefix));
    } else if !http.path_regex.is_empty() || !http.path_exact.is_empty() || !http.path_prefix.is_empty() {
        whole = Err("an expression over the path, or a star in it, cannot be said".into());
    }
    if http.case_insensitive && !operation.paths.is_empty() {
        operation.paths.clear();
        whole = Err("a path whose case does not count cannot be said".into());
    }
    if !http.header.is_empty() {
        whole = Err("a condition on a header cannot be said".into());
    }
    if permission.jwt.is_some() {
        whole = Err("JWT cannot be checked".into());
    }
    (operation, whole)
}
