//! Who a name of an intention is, where instances may say anything of themselves.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_core::{
    identity::{SpiffeId, TrustDomain},
    resource::{Action, PrincipalMatch, Resource},
};

use super::super::{
    bearers::Bearers,
    convert::{self, Surroundings},
    entries::Intentions,
    intentions::{self, Callers},
    objects::Entry,
};
use super::conversion::around;
use crate::told::Words;

fn mesh() -> TrustDomain {
    TrustDomain::new("test.mesh").unwrap()
}

fn id(account: &str) -> SpiffeId {
    format!("spiffe://test.mesh/ns/default/sa/{account}").parse().unwrap()
}

/// A service whose instances say these identities of themselves.
fn saying(service: &str, identities: &[&str], around: &Surroundings) -> Words {
    let entries = identities.iter().enumerate().map(|(index, identity)| {
        let mut meta = json!({ "weft-mesh-port": "15008" });
        if !identity.is_empty() {
            meta["weft-identity"] = json!(identity);
        }
        json!({
            "Node": { "Node": "n", "Address": "10.0.0.1" },
            "Service": { "ID": format!("{service}-{index}"), "Service": service, "Port": 80, "Meta": meta },
        })
    });
    let entries: Vec<Entry> = serde_json::from_value(Value::from(entries.collect::<Vec<_>>())).unwrap();
    convert::service(&format!("{service}.default").parse().unwrap(), &entries, None, around)
}

/// Whom an intention of `source` at `orders` lets in, and whom it denies; nobody named means everybody.
fn policies(
    bearers: &Bearers,
    source: &str,
    action: &str,
) -> (Vec<PrincipalMatch>, Option<Vec<PrincipalMatch>>, Vec<String>) {
    let entry = json!({ "Name": "orders", "Sources": [{ "Name": source, "Action": action }] });
    let entry: Intentions = serde_json::from_value(entry).unwrap();
    let all = BTreeMap::from([("orders".to_owned(), entry)]);
    let sources = intentions::of("orders", &all).unwrap();
    let domain = mesh();
    let callers = Callers { bearers, trust_domain: Some(&domain), allowed_by_default: action == "deny" };
    let (policies, faults) = intentions::policies("orders", &sources, false, callers);
    let from = |wanted: Action, name: &str| {
        let rules = policies.iter().filter_map(|resource| match resource {
            Resource::Policy(policy) if policy.action == wanted => Some(policy.rules.clone()),
            _ => None,
        });
        rules
            .flatten()
            .find(|rule| rule.name.as_ref().is_some_and(|it| it.as_str() == name))
            .map(|it| it.from)
    };
    let told = faults.into_iter().map(|fault| fault.message).collect();
    (from(Action::Allow, source).unwrap_or_default(), from(Action::Deny, source), told)
}

fn named(accounts: &[&str]) -> Vec<PrincipalMatch> {
    accounts.iter().map(|account| PrincipalMatch::Identity(id(account))).collect()
}

#[test]
fn nobody_is_let_in_whom_the_registry_may_not_name() {
    let consul = PrincipalMatch::Namespace(mesh(), "consul".into());
    let mut bearers = Bearers::new(Some(vec![consul]));
    let own = "spiffe://test.mesh/ns/consul/sa/frontend";
    let words = saying("frontend", &["spiffe://test.mesh/ns/default/sa/evil", own], &around());
    bearers.note("frontend", Some(&words));
    let (allowed, _, _) = policies(&bearers, "frontend", "allow");
    assert_eq!(allowed, [PrincipalMatch::Identity(own.parse().unwrap())]);
    // With nothing left, nobody is: a rule without callers would be for everybody.
    bearers
        .note("frontend", Some(&saying("frontend", &["spiffe://test.mesh/ns/default/sa/evil"], &around())));
    let (allowed, _, told) = policies(&bearers, "frontend", "allow");
    assert_eq!(allowed, []);
    assert!(told.iter().any(|it| it.contains("nobody is allowed")), "{told:?}");
}

#[test]
fn a_part_of_a_service_takes_no_caller_away() {
    let mut bearers = Bearers::default();
    let [one, other] = ["jobs", "mail"].map(|account| format!("spiffe://test.mesh/ns/default/sa/{account}"));
    bearers.note("batch", Some(&saying("batch", &[&one], &around())));
    assert!(bearers.note_part("batch", &saying("batch", &[&other], &around())));
    assert_eq!(policies(&bearers, "batch", "allow").0, named(&["jobs", "mail"]));
    assert!(!bearers.note_part("batch", &saying("batch", &[], &around())), "nothing is new");
    assert_eq!(policies(&bearers, "batch", "allow").0, named(&["jobs", "mail"]));
    bearers.note("batch", Some(&saying("batch", &[&other], &around())));
    assert_eq!(policies(&bearers, "batch", "allow").0, named(&["mail"]));
}

#[test]
fn a_denial_is_not_turned_on_another_service() {
    let ruled = "identity = \"ns/prod/sa/shop-{service}\"\n";
    let source = weft_core::config::SourceFile::new("weft.toml", ruled.to_owned());
    let rules = weft_core::config::read(&source, |it| crate::speaking::Rules::read(it, &[])).value.unwrap();
    let by_rule = Surroundings { rules, ..around() };
    let mut bearers = Bearers::default();
    bearers.note(
        "frontend",
        Some(&saying("frontend", &["spiffe://test.mesh/ns/default/sa/frontend"], &around())),
    );
    bearers.note("stock", Some(&saying("stock", &[""], &by_rule)));
    let lies = ["spiffe://test.mesh/ns/default/sa/frontend", "spiffe://test.mesh/ns/prod/sa/shop-stock"];
    for lie in lies {
        bearers.note("batch", Some(&saying("batch", &[lie], &around())));
        let (_, denied, told) = policies(&bearers, "batch", "deny");
        assert_eq!(denied, Some(named(&["batch"])), "{lie}");
        assert!(told.iter().any(|it| it.contains("another's")), "{told:?}");
    }
    // What is nobody else's is denied beside the name that all workloads of this name bear.
    bearers.note("batch", Some(&saying("batch", &["spiffe://test.mesh/ns/default/sa/jobs"], &around())));
    let (_, denied, told) = policies(&bearers, "batch", "deny");
    assert_eq!((denied, told), (Some(named(&["batch", "jobs"])), Vec::new()));
    // By the file's rule it is known for sure.
    let (_, denied, _) = policies(&bearers, "stock", "deny");
    let stock = PrincipalMatch::Identity("spiffe://test.mesh/ns/prod/sa/shop-stock".parse().unwrap());
    assert_eq!(denied, Some(vec![stock]));
    assert!(!bearers.note("stock", Some(&saying("stock", &[""], &by_rule))), "nothing is new");
    bearers.note("stock", None);
    bearers.note("batch", Some(&saying("batch", &["spiffe://test.mesh/ns/prod/sa/shop-stock"], &around())));
    let (_, denied, _) = policies(&bearers, "batch", "deny");
    assert_eq!(denied.unwrap().len(), 2, "it is nobody's any more");
}

#[test]
fn who_cannot_be_told_apart_is_denied_with_everybody() {
    let many = "identity = \"ns/prod/sa/{node}\"\n";
    let source = weft_core::config::SourceFile::new("weft.toml", many.to_owned());
    let rules =
        weft_core::config::read(&source, |it| crate::speaking::Rules::read(it, &["node"])).value.unwrap();
    let around = Surroundings { rules, ..around() };
    let entries = (0..300).map(|index| {
        json!({
            "Node": { "Node": format!("n{index}"), "Address": "10.0.0.1" },
            "Service": { "ID": "a", "Service": "jobs", "Port": 80 },
        })
    });
    let entries = entries.map(|it| serde_json::from_value(it).unwrap()).collect::<Vec<_>>();
    let words = convert::service(&"jobs.default".parse().unwrap(), &entries, None, &around);
    let mut bearers = Bearers::default();
    bearers.note("jobs", Some(&words));
    let (_, denied, told) = policies(&bearers, "jobs", "deny");
    assert_eq!(denied, Some(Vec::new()), "a rule without callers is for everybody");
    assert!(told.iter().any(|it| it.contains("more than 256")), "{told:?}");
}
