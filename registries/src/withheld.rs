//! What a text that makes no sense may have been there to deny. Pure.
//!
//! Whoever has never known such a text to make sense cannot leave it out: a service might stand open because of a slip. Nor
//! can everything else wait for it, or one note among the keys would stop a catalog. So the text alone is without effect,
//! but for what it may have denied, which is denied until it makes sense or is gone: calls of the services and identities
//! that its policies are for, as far as these can be read and are few, else all calls. What can hold no policy denies nothing:
//! routes, and a text in which the word "policy" does not even stand.
//!
//! Whoever may write a text decides how long it is: what is made of one is bounded.

use toml::Value;
use weft_core::{
    identity::SpiffeId,
    name::{OriginName, RuleName, ServiceName},
    registry::OriginFault,
    resource::{Action, Policy, PolicyRule, PolicyTarget, Resource},
};

use crate::{
    names,
    told::{Words, bounded},
};

/// What the rule is called that denies all.
const NOT_UNDERSTOOD: &str = "not-understood";
/// The table of policies, and the word that no text with a policy lacks.
const POLICY: &str = "policy";
/// The other tables of a file of resources.
const OTHERS: [&str; 2] = ["route", "service"];
/// For how many targets the policies of one text may be before all calls are denied instead.
const MAX_TARGETS: usize = 64;
/// How many targets are named to a person.
const MAX_NAMED: usize = 8;

/// What an origin says whose text makes no sense, for these reasons: what it said before stands. Where it never said
/// anything (`is_doubted`), nor did to whoever is told, what it may have been there to deny is denied.
#[must_use]
pub fn words(origin: &OriginName, text: &str, faults: Vec<OriginFault>, is_doubted: bool) -> Words {
    denying(origin, is_doubted.then(|| targets(text)), faults)
}

/// The same of something of which no text is there, or none that can be read: what it may have been there to deny, where
/// nobody has ever known it to make sense.
#[must_use]
pub fn denying(origin: &OriginName, doubted: Option<Vec<PolicyTarget>>, faults: Vec<OriginFault>) -> Words {
    let mut faults = bounded(faults);
    let Some(targets) = doubted else { return Words::new(Vec::new(), faults) };
    let denials: Vec<Policy> = targets.into_iter().enumerate().map(|it| named(origin, it)).collect();
    if let Some(fault) = faults.first_mut() {
        fault.message.push_str(&effect(&denials));
    }
    Words::new(denials.into_iter().map(Into::into).map(Resource::Policy).collect(), faults)
}

fn named(origin: &OriginName, (index, target): (usize, PolicyTarget)) -> Policy {
    let word = if index == 0 { NOT_UNDERSTOOD.to_owned() } else { format!("{NOT_UNDERSTOOD}-{index}") };
    let name = names::origin_name(&[&word, origin.as_str()]);
    denial(RuleName::new(name.as_str()).expect("what names an origin names a rule"), target)
}

/// Denies all calls of whom a policy is for that makes no sense.
#[must_use]
pub fn denial(name: RuleName, target: PolicyTarget) -> Policy {
    let rule = PolicyRule { name: RuleName::new(NOT_UNDERSTOOD).ok(), ..PolicyRule::default() };
    Policy { name, target, action: Action::Deny, rules: vec![rule] }
}

/// What becomes of calls, for a person, as the end of a sentence that says why.
fn effect(denials: &[Policy]) -> String {
    let of = |denial: &Policy| match &denial.target {
        PolicyTarget::Service(service) => service.to_string(),
        PolicyTarget::Identity(identity) => identity.to_string(),
        PolicyTarget::Mesh => "everything".to_owned(),
    };
    let named: Vec<String> = denials.iter().take(MAX_NAMED).map(of).collect();
    let more = match denials.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match named.is_empty() {
        true => "; what it said before stands, if anything; mend it or delete it".to_owned(),
        false => format!(
            "; what it said before stands; where nothing is known of that, it may be a policy, and calls of {}{more} are \
             denied until it is mended or deleted",
            named.join(", ")
        ),
    }
}

/// What the policies of a text may be for.
fn targets(text: &str) -> Vec<PolicyTarget> {
    let Ok(tables) = text.parse::<toml::Table>() else {
        // Letters of two bytes each have a NUL in every other one.
        let may_be = text.replace('\0', "").to_ascii_lowercase().contains(POLICY);
        return if may_be { vec![PolicyTarget::Mesh] } else { Vec::new() };
    };
    let mut targets = Vec::new();
    for found in tables.iter().flat_map(|(key, value)| targets_of(key, value)) {
        if found == PolicyTarget::Mesh || targets.len() == MAX_TARGETS && !targets.contains(&found) {
            return vec![PolicyTarget::Mesh];
        }
        if !targets.contains(&found) {
            targets.push(found);
        }
    }
    targets
}

/// The same of one table of the text.
fn targets_of<'a>(key: &str, value: &'a Value) -> Box<dyn Iterator<Item = PolicyTarget> + 'a> {
    match value {
        Value::Array(policies) if key == POLICY => Box::new(policies.iter().map(target)),
        Value::Table(_) if key == POLICY => Box::new(std::iter::once(target(value))),
        // Another word may be this one, misspelt.
        Value::Array(_) | Value::Table(_) if OTHERS.contains(&key) => Box::new(std::iter::empty()),
        Value::Array(_) | Value::Table(_) => Box::new(std::iter::once(PolicyTarget::Mesh)),
        _ if key == POLICY => Box::new(std::iter::once(PolicyTarget::Mesh)),
        _ => Box::new(std::iter::empty()),
    }
}

fn target(policy: &Value) -> PolicyTarget {
    let said = |key: &str| policy.get("target")?.get(key)?.as_str();
    let service = said("service").and_then(|name| ServiceName::new(name).ok());
    let identity = said("identity").and_then(|identity| SpiffeId::parse(identity).ok());
    match (service, identity) {
        (Some(service), None) => PolicyTarget::Service(service),
        (None, Some(identity)) => PolicyTarget::Identity(identity),
        _ => PolicyTarget::Mesh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(text: &str) -> Vec<String> {
        let fault = OriginFault { message: "no sense".into(), place: "kv x".into(), keeps_last_good: true };
        let words = words(&"kv/x".parse().unwrap(), text, vec![fault], true);
        let policies = words.resources.iter().map(|resource| match resource {
            Resource::Policy(policy) => {
                assert!(policy.action == Action::Deny && policy.rules.len() == 1, "{policy:?}");
                assert!(policy.rules[0].from.is_empty() && policy.rules[0].to.is_empty(), "{policy:?}");
                (policy.name.to_string(), policy.target.clone())
            }
            other => panic!("{other:?}"),
        });
        let (names, targets): (Vec<_>, Vec<_>) = policies.unzip();
        let mut distinct = names.clone();
        distinct.dedup();
        assert!(distinct == names && names.iter().all(|name| name.ends_with("kv/x")), "{names:?}");
        let told = targets.iter().map(|target| match target {
            PolicyTarget::Service(service) => service.to_string(),
            PolicyTarget::Identity(identity) => identity.to_string(),
            PolicyTarget::Mesh => "everything".to_owned(),
        });
        let told: Vec<String> = told.collect();
        assert!(told.iter().all(|it| words.faults[0].message.contains(it)), "{:?}", words.faults);
        told
    }

    #[test]
    fn what_may_be_a_policy_denies_what_that_is_for() {
        let of = |target: &str| format!("[[policy]]\nname = 1\ntarget = {target}\naction = \"deny\"\n");
        let (web, db) = (of("{ service = \"web\" }"), of("{ service = \"db.shop\" }"));
        assert_eq!(denied(&web), ["web.default"]);
        assert_eq!(denied(&format!("{web}{db}{web}")), ["web.default", "db.shop"]);
        let identity = "spiffe://a.mesh/ns/default/sa/web";
        assert_eq!(denied(&of(&format!("{{ identity = \"{identity}\" }}"))), [identity]);
        for text in [
            format!("{web}{}", of("\"mesh\"")),
            of("\"mash\""),
            of("{ service = \"a b\" }"),
            of("{ service = \"web\", identity = \"spiffe://a.mesh/ns/default/sa/web\" }"),
            web.replace("[[policy]]", "[[polcy]]"),
            "policy = 1\n".into(),
            "[[Policy]\n".into(),
            format!("{web}[[route]\n"),
        ] {
            assert_eq!(denied(&text), ["everything"], "{text}");
        }
        assert_eq!(denied(&web.replace("[[policy]]", "[policy]")), ["web.default"]);
    }

    #[test]
    fn what_is_made_of_a_long_text_is_bounded() {
        let text = |policies: usize| -> String {
            let policy = |number| format!("[[policy]]\ntarget = {{ service = \"s{number}\" }}\n");
            (0..policies).map(policy).collect()
        };
        let of = |policies: usize, faults: usize| {
            let fault =
                OriginFault { message: "no sense".into(), place: "kv x".into(), keeps_last_good: true };
            words(&"kv/x".parse().unwrap(), &text(policies), vec![fault; faults], true)
        };
        for (policies, denials, said) in [
            (1, 1, "calls of s0.default are denied"),
            (MAX_TARGETS, MAX_TARGETS, "s7.default and 56 more are denied"),
            (MAX_TARGETS + 1, 1, "calls of everything are denied"),
        ] {
            let words = of(policies, 1);
            assert_eq!(words.resources.len(), denials, "{policies}");
            assert!(words.faults[0].message.contains(said), "{policies}: {:?}", words.faults);
        }
        let words = of(17_000, 34_000);
        let said: usize = words.faults.iter().map(|fault| fault.message.len()).sum();
        assert!(said < 1_000 && words.faults.len() < 30, "{said} bytes in {}", words.faults.len());
        let effects = words.faults.iter().filter(|fault| fault.message.contains("are denied")).count();
        assert_eq!(effects, 1, "{:?}", words.faults);
    }

    #[test]
    fn a_policy_in_letters_of_two_bytes_may_be_one() {
        let text: String = "[[policy]]\n".chars().flat_map(|letter| [letter, '\0']).collect();
        assert_eq!(denied(&text), ["everything"]);
    }

    #[test]
    fn what_can_be_no_policy_denies_nothing() {
        for text in
            ["hello, this is a note", "", "{\"a\": [1]}", "title = \"notes\"\n", "[[route]]\nname = 1\n"]
        {
            assert_eq!(denied(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn who_knew_it_to_make_sense_is_told_no_more_than_that() {
        let fault = OriginFault { message: "no sense".into(), place: "kv x".into(), keeps_last_good: true };
        let words = words(&"kv/x".parse().unwrap(), "[[policy]\n", vec![fault.clone()], false);
        assert_eq!((words.resources.len(), &words.faults[..]), (0, &[fault][..]));
    }
}
