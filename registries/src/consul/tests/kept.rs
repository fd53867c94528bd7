//! What stays in force of configuration whatever becomes of the entries and instances that it was made of.

use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use weft_core::{
    identity::TrustDomain,
    merge::{Merge, Origin, SavedScope},
    name::RegistryName,
    registry::{Completeness, Scope},
    resource::Resource,
};

use super::super::{
    client::DefaultIntention,
    configuration::{HUB_FOLDERS, Part},
    configured::{Configured, Understood},
    known::Known,
};
use crate::told::{Listing, Told, Words};

fn tell(configured: &mut Configured) -> (Listing, Vec<String>) {
    let (listing, gone) = configured.tell(Some(&TrustDomain::new("test.mesh").unwrap()));
    configured.note_told();
    (listing, gone.iter().map(ToString::to_string).collect())
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

/// Of a service whose instances cannot be called.
fn nothing() -> Words {
    Words::new(Vec::new(), vec![crate::names::fault("orders", "it has no port")])
}

fn all_denied() -> Value {
    json!([{ "Name": "*", "Sources": [{ "Name": "*", "Action": "deny" }] }])
}

#[test]
fn a_service_that_left_the_catalog_stays_closed() {
    let understood = Understood::default();
    let mut configured = Configured::new(understood.clone(), None);
    configured.note("orders", Some(&nothing()));
    configured.note("consul", Some(&Words::new(Vec::new(), Vec::new())));
    hear(&mut configured, Part::Intentions, all_denied());
    let told = policies(&tell(&mut configured).0);
    assert_eq!(told, ["intentions/orders/allow"], "and none of what is no service here");
    configured.note("orders", None);
    let (listing, gone) = tell(&mut configured);
    assert_eq!((policies(&listing), gone), (vec!["intentions/orders/allow".to_owned()], Vec::new()));
    // So it does through the next stream, and until the intention goes.
    let mut configured = Configured::new(understood, None);
    hear(&mut configured, Part::Intentions, all_denied());
    assert_eq!(policies(&tell(&mut configured).0), ["intentions/orders/allow"]);
    hear(&mut configured, Part::Intentions, json!([]));
    let (listing, gone) = tell(&mut configured);
    assert_eq!((policies(&listing), gone), (Vec::new(), vec!["intentions/orders".to_owned()]));
}

/// Where the file says that the default is to deny, no intention is needed for that; where Consul alone says so, it is told.
#[test]
fn a_service_that_no_intention_is_for_is_closed_by_the_files_word_alone() {
    let mut consuls = Configured::new(Understood::default(), None);
    consuls.note("orders", Some(&nothing()));
    consuls.note("web", Some(&nothing()));
    let web = json!([{ "Name": "web", "Sources": [{ "Name": "orders", "Action": "allow" }] }]);
    hear(&mut consuls, Part::Intentions, web.clone());
    consuls.decide_by_default(DefaultIntention::Said(true));
    assert_eq!((policies(&tell(&mut consuls).0).len(), consuls.notice()), (1, None));
    consuls.decide_by_default(DefaultIntention::Said(false));
    assert_eq!(policies(&tell(&mut consuls).0), ["intentions/web/allow"]);
    let notice = consuls.notice().unwrap();
    assert!(notice.starts_with("no intention is for 1 services, such as \"orders\""), "{notice}");
    let both = json!([web[0], { "Name": "orders", "Sources": [{ "Name": "*", "Action": "allow" }] }]);
    hear(&mut consuls, Part::Intentions, both);
    assert_eq!(consuls.notice(), None);

    let understood = Understood::default();
    let mut ours = Configured::new(understood.clone(), None).closed(true);
    ours.note("orders", Some(&nothing()));
    ours.note("web", Some(&nothing()));
    hear(&mut ours, Part::Intentions, web);
    ours.decide_by_default(DefaultIntention::Said(false));
    let listing = tell(&mut ours).0;
    assert_eq!(policies(&listing), ["intentions/orders/allow", "intentions/web/allow"]);
    let Resource::Policy(policy) = &listing["intentions/orders"].resources[0] else { panic!("{listing:?}") };
    assert!(policy.rules.is_empty() && ours.notice().is_none(), "{policy:?}");
    // It may still run.
    ours.note("orders", None);
    assert_eq!(policies(&tell(&mut ours).0).len(), 2);
}

#[test]
fn what_was_not_told_after_all_is_said_again() {
    let trust_domain = TrustDomain::new("test.mesh").unwrap();
    let mut configured = Configured::new(Understood::default(), None);
    configured.note("orders", Some(&nothing()));
    hear(&mut configured, Part::Intentions, all_denied());
    tell(&mut configured);
    hear(&mut configured, Part::Intentions, json!([]));
    for _ in 0..2 {
        let (_, gone) = configured.tell(Some(&trust_domain));
        assert!(configured.is_changed() && gone.len() == 1, "{gone:?}");
    }
    configured.note_told();
    assert!(!configured.is_changed() && tell(&mut configured).1.is_empty());
}

#[test]
fn an_entry_that_makes_no_sense_any_more_stays_what_it_was() {
    let mut configured = Configured::new(Understood::default(), None);
    configured.note("orders", Some(&nothing()));
    hear(&mut configured, Part::Intentions, all_denied());
    let router = json!([{ "Name": "web", "Routes": [{ "Destination": { "NumRetries": 3 } }] }]);
    hear(&mut configured, Part::Routers, router);
    let before = tell(&mut configured).0;
    hear(&mut configured, Part::Intentions, json!([{ "Name": "*", "Sources": 1 }]));
    hear(&mut configured, Part::Routers, json!([{ "Name": "web", "Routes": 1 }]));
    hear(&mut configured, Part::Defaults, json!([{ "Name": "web", "Protocol": 1 }]));
    let (now, gone) = tell(&mut configured);
    assert_eq!(gone, Vec::<String>::new());
    for (origin, words) in &before {
        assert_eq!(now[origin].resources, words.resources, "{origin}");
    }
    let faulty: Vec<&str> =
        now.iter().filter(|(_, words)| !words.faults.is_empty()).map(|(origin, _)| origin.as_str()).collect();
    assert_eq!(faulty, ["defaults/web", "intentions/*", "route/web"]);
}

fn pair(key: &str, text: &str) -> Value {
    let value = data_encoding::BASE64.encode(text.as_bytes());
    json!([{ "Key": format!("weft/{key}"), "Value": value }])
}

#[test]
fn what_may_be_a_policy_and_never_made_sense_is_denied_and_nothing_else_waits_for_it() {
    let policy = "[[policy]]\nname = \"x\"\ntarget = { service = \"web\" }\naction = 1\n";
    for (part, broken, denial) in [
        (Part::Pairs, pair("deny.toml", policy), "not-understood/kv/deny.toml"),
        (Part::Pairs, json!([{ "Key": "weft/deny.toml", "Value": "-" }]), "not-understood/kv/deny.toml"),
        (Part::Intentions, json!([{ "Name": "web", "Sources": 1 }]), "not-understood/intentions/web"),
        (Part::Intentions, json!([{ "Name": "*", "Sources": 1 }]), "not-understood/intentions/*"),
    ] {
        let understood = Understood::default();
        let mut configured = Configured::new(understood.clone(), None);
        hear(&mut configured, part, broken.clone());
        let router = json!([{ "Name": "shop", "Routes": [{ "Destination": { "NumRetries": 3 } }] }]);
        hear(&mut configured, Part::Routers, router);
        let keeps = |listing: &Listing| {
            listing.values().flat_map(|it| &it.faults).filter(|fault| fault.keeps_last_good).count()
        };
        // Again and again, also through the next stream.
        for _ in 0..2 {
            let (listing, _) = tell(&mut configured);
            assert_eq!((policies(&listing), keeps(&listing)), (vec![denial.to_owned()], 1), "{listing:?}");
            assert!(!listing["route/shop"].resources.is_empty(), "{listing:?}");
            configured = Configured::new(understood.clone(), None);
            hear(&mut configured, part, broken.clone());
        }
        // Once it was gone, or made sense, it is as with whatever loses its sense.
        hear(&mut configured, part, json!([]));
        assert_eq!(policies(&tell(&mut configured).0), Vec::<String>::new());
        hear(&mut configured, part, broken);
        let (listing, _) = tell(&mut configured);
        let kept = usize::from(part == Part::Pairs);
        assert_eq!((policies(&listing), keeps(&listing)), (Vec::new(), kept), "{listing:?}");
    }
}

#[test]
fn what_is_no_text_may_be_a_policy() {
    let mut configured = Configured::new(Understood::default(), None);
    let letters = "\u{feff}[[policy]]\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let value = data_encoding::BASE64.encode(&letters);
    hear(&mut configured, Part::Pairs, json!([{ "Key": "weft/deny.toml", "Value": value }]));
    let (listing, _) = tell(&mut configured);
    assert_eq!(policies(&listing), ["not-understood/kv/deny.toml"]);
    let faults = &listing["kv/deny.toml"].faults;
    assert!(faults[0].message.contains("it is not UTF-8") && faults[0].message.contains("everything"));
}

#[test]
fn an_entry_that_makes_no_sense_takes_nothing_from_what_is_said_of_all() {
    let broken = || {
        let mut list = all_denied();
        list.as_array_mut().unwrap().push(json!({ "Name": "web", "Sources": 1 }));
        list
    };
    let (of_all, denial) = ("intentions/web/allow", "not-understood/intentions/web");
    let mut configured = Configured::new(Understood::default(), None);
    configured.note("web", Some(&nothing()));
    hear(&mut configured, Part::Intentions, broken());
    let (listing, _) = tell(&mut configured);
    assert_eq!(policies(&listing), [denial, of_all], "who starts with it knows nothing of it");
    // An agent that runs goes by what is said of all, as it is said now.
    let mut configured = Configured::new(Understood::default(), None);
    configured.note("web", Some(&nothing()));
    hear(&mut configured, Part::Intentions, all_denied());
    let before = tell(&mut configured).0;
    hear(&mut configured, Part::Intentions, broken());
    let (listing, gone) = tell(&mut configured);
    let words = &listing["intentions/web"];
    assert_eq!((&words.resources, gone), (&before["intentions/web"].resources, Vec::new()));
    assert!(words.faults.len() == 1 && !words.faults[0].keeps_last_good, "{:?}", words.faults);
    hear(&mut configured, Part::Intentions, json!([{ "Name": "web", "Sources": 1 }]));
    let words = &tell(&mut configured).0["intentions/web"];
    assert!(
        words.resources.is_empty() && !words.faults[0].keeps_last_good,
        "also that nothing is: {words:?}"
    );
    // So it is with the parts of a route.
    let splitter = json!([{ "Name": "shop", "Splits": [{ "Weight": 100, "Service": "shop-new" }] }]);
    hear(&mut configured, Part::Splitters, splitter);
    let before = tell(&mut configured).0;
    assert!(!before["route/shop"].resources.is_empty(), "{before:?}");
    hear(&mut configured, Part::Routers, json!([{ "Name": "shop", "Routes": 1 }]));
    let words = &tell(&mut configured).0["route/shop"];
    assert_eq!(words.resources, before["route/shop"].resources);
    assert!(words.faults.iter().any(|fault| fault.keeps_last_good), "{:?}", words.faults);
}

#[test]
fn what_made_sense_before_a_restart_stands_after_it() {
    let scope = Scope::whole(RegistryName::new("consul").unwrap());
    let now = SystemTime::now();
    // What an agent has in force that begins with these, and is told of a key with this text.
    let begin = |origins: Vec<Origin>, text: &str| {
        let mut merge = Merge::default();
        let completeness = Some(Completeness::Full);
        merge.restore(SavedScope { scope: scope.clone(), completeness, committed_at: now, origins }, now);
        let mut configured = Configured::new(Understood::default(), None);
        hear(&mut configured, Part::Pairs, pair("deny.toml", text));
        let listing = tell(&mut configured).0;
        for event in Told::new(scope.clone()).tell(listing, Completeness::Full, Instant::now()) {
            merge.apply(event, now);
        }
        let policies: Vec<String> =
            merge.snapshot().partitions[&scope.registry].policies.keys().map(ToString::to_string).collect();
        let origins = merge.snapshot().scopes[&scope].origins.values();
        (policies, origins.map(|origin| Origin::clone(origin)).collect::<Vec<_>>())
    };
    let good = "[[policy]]\nname = \"mine\"\ntarget = \"mesh\"\naction = \"allow\"\n";
    let bad = good.replace("\"mine\"", "1");
    let (policies, disk) = begin(Vec::new(), good);
    assert_eq!(policies, ["mine"]);
    let (policies, disk) = begin(disk, &bad);
    assert_eq!(policies, ["mine"], "its last good words stand");
    let (policies, _) = begin(disk, &bad);
    assert_eq!(policies, ["mine"], "and go on standing");
    let (policies, disk) = begin(Vec::new(), &bad);
    assert_eq!(policies, ["not-understood/kv/deny.toml"], "nothing is known of it");
    assert_eq!(begin(disk, good).0, ["mine"]);
}

#[test]
fn what_hubs_keep_is_no_configuration() {
    let told = |key: &str, text: &str| {
        let mut configured = Configured::new(Understood::default(), None);
        hear(&mut configured, Part::Pairs, pair(key, text));
        tell(&mut configured).0.len()
    };
    let record = "{\"identities\":[],\"bound\":null}";
    for folder in HUB_FOLDERS {
        let key = format!("other.mesh/{folder}/580b");
        assert_eq!(told(&key, record), 0, "{key}");
    }
    for (key, text) in [
        ("test.mesh/whatever", "[[policy]]"),
        ("other.mesh/tokens/580b", record),
        ("hubs/test.mesh/nodes/a", record),
        ("a/b/other.mesh/announced/web.default/http/a", record),
        ("other.mesh/present/hub-a/0", "[\"a\",\"b\"]"),
    ] {
        assert_eq!(told(key, text), 0, "{key}");
    }
    for (key, text) in [
        ("x.toml", "[[route]]\nname = \"x\"\nservice = \"web\"\n"),
        // Whoever calls his folder so has his policies read all the same.
        ("other.mesh/nodes/deny.toml", "[[policy]]"),
        ("other.mesh/mine/580b", record),
        ("nodes/580b", record),
    ] {
        assert_eq!(told(key, text), 1, "{key}");
    }
}
