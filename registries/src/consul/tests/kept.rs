//! What stays in force of configuration whatever becomes of the entries and instances that it was made of.

use serde_json::{Value, json};
use weft_core::{identity::TrustDomain, registry::RegistryError, resource::Resource};

use super::super::{
    configuration::Part,
    configured::{Configured, Understood},
    known::Known,
};
use crate::told::{Listing, Words};

fn tell(configured: &mut Configured) -> Result<(Listing, Vec<String>), RegistryError> {
    let (listing, gone) = configured.tell(Some(&TrustDomain::new("test.mesh").unwrap()))?;
    configured.note_told();
    Ok((listing, gone.iter().map(ToString::to_string).collect()))
}

fn hear(configured: &mut Configured, part: Part, list: Value) {
    let Value::Array(list) = list else { panic!("{list}") };
    configured.hear(part, list, false, &mut Known::default());
}

fn policies(listing: &Listing) -> Vec<String> {
    let resources = listing.values().flat_map(|words| &words.resources);
    let names = resources.filter_map(|resource| match resource {
        Resource::Policy(policy) => Some(policy.name.to_string()),
        _ => None,
    });
    names.collect()
}

fn nothing() -> Words {
    Words::new(Vec::new(), Vec::new())
}

fn all_denied() -> Value {
    json!([{ "Name": "*", "Sources": [{ "Name": "*", "Action": "deny" }] }])
}

#[test]
fn a_service_that_left_the_catalog_stays_closed() {
    let understood = Understood::default();
    let mut configured = Configured::new(understood.clone(), None);
    configured.note("orders", Some(&nothing()));
    hear(&mut configured, Part::Intentions, all_denied());
    assert_eq!(policies(&tell(&mut configured).unwrap().0), ["intentions/orders/allow"]);
    configured.note("orders", None);
    let (listing, gone) = tell(&mut configured).unwrap();
    assert_eq!((policies(&listing), gone), (vec!["intentions/orders/allow".to_owned()], Vec::new()));
    // So it does through the next stream, and until the intention goes.
    let mut configured = Configured::new(understood, None);
    hear(&mut configured, Part::Intentions, all_denied());
    assert_eq!(policies(&tell(&mut configured).unwrap().0), ["intentions/orders/allow"]);
    hear(&mut configured, Part::Intentions, json!([]));
    let (listing, gone) = tell(&mut configured).unwrap();
    assert_eq!((policies(&listing), gone), (Vec::new(), vec!["intentions/orders".to_owned()]));
}

#[test]
fn what_was_not_told_after_all_is_said_again() {
    let trust_domain = TrustDomain::new("test.mesh").unwrap();
    let mut configured = Configured::new(Understood::default(), None);
    configured.note("orders", Some(&nothing()));
    hear(&mut configured, Part::Intentions, all_denied());
    tell(&mut configured).unwrap();
    hear(&mut configured, Part::Intentions, json!([]));
    for _ in 0..2 {
        let (_, gone) = configured.tell(Some(&trust_domain)).unwrap();
        assert!(configured.is_changed() && gone.len() == 1, "{gone:?}");
    }
    configured.note_told();
    assert!(!configured.is_changed() && tell(&mut configured).unwrap().1.is_empty());
}

#[test]
fn an_entry_that_makes_no_sense_any_more_stays_what_it_was() {
    let mut configured = Configured::new(Understood::default(), None);
    configured.note("orders", Some(&nothing()));
    hear(&mut configured, Part::Intentions, all_denied());
    let router = json!([{ "Name": "web", "Routes": [{ "Destination": { "NumRetries": 3 } }] }]);
    hear(&mut configured, Part::Routers, router);
    let before = tell(&mut configured).unwrap().0;
    hear(&mut configured, Part::Intentions, json!([{ "Name": "*", "Sources": 1 }]));
    hear(&mut configured, Part::Routers, json!([{ "Name": "web", "Routes": 1 }]));
    hear(&mut configured, Part::Defaults, json!([{ "Name": "web", "Protocol": 1 }]));
    let (now, gone) = tell(&mut configured).unwrap();
    assert_eq!(gone, Vec::<String>::new());
    for (origin, words) in &before {
        assert_eq!(now[origin].resources, words.resources, "{origin}");
    }
    let faulty: Vec<&str> =
        now.iter().filter(|(_, words)| !words.faults.is_empty()).map(|(origin, _)| origin.as_str()).collect();
    assert_eq!(faulty, ["defaults/web", "intentions/*", "route/web"]);
}

#[test]
fn without_a_policy_that_makes_no_sense_nothing_is_told_until_all_did() {
    let bad = "W1twb2xpY3ldXQpuYW1lID0gMQo="; // [[policy]] name = 1
    let good = "W1tyb3V0ZV1dCm5hbWUgPSAieCIKc2VydmljZSA9ICJ3ZWIiCg=="; // a route
    let pair = |key: &str, value: &str| json!([{ "Key": format!("weft/{key}"), "Value": value }]);
    for (part, broken) in [
        (Part::Pairs, pair("deny.toml", bad)),
        (Part::Pairs, json!([{ "Key": "weft/deny.toml", "Value": "-" }])),
        (Part::Intentions, json!([{ "Name": "web", "Sources": 1 }])),
        (Part::Intentions, json!([{ "Name": "*", "Sources": 1 }])),
    ] {
        let understood = Understood::default();
        let mut configured = Configured::new(understood.clone(), None);
        hear(&mut configured, part, broken.clone());
        let error = tell(&mut configured).unwrap_err();
        let place = if part == Part::Pairs { "weft/deny.toml" } else { "service-intentions" };
        let named = match &error {
            RegistryError::Malformed(why) => why.contains(place) || why.contains("deny.toml"),
            _ => false,
        };
        assert!(named && !configured.is_understood(), "{error}");
        // Who understood all of it once leaves out what makes no sense, and only that.
        hear(&mut configured, part, json!([]));
        assert!(tell(&mut configured).is_ok());
        hear(&mut configured, part, broken);
        let (listing, _) = tell(&mut configured).unwrap();
        assert!(listing.values().flat_map(|words| &words.faults).all(|fault| fault.keeps_last_good));
        assert_eq!(listing.len(), 1);
    }
    // What hubs of this mesh keep there is not ours to read.
    let mut configured = Configured::new(Understood::default(), None);
    hear(&mut configured, Part::Pairs, pair("test.mesh/nodes/a", bad));
    assert!(tell(&mut configured).unwrap().0.is_empty());
    hear(&mut configured, Part::Pairs, pair("x.toml", good));
    assert_eq!(tell(&mut configured).unwrap().0.len(), 1);
}
