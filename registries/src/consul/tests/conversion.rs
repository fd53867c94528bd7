//! Whatever an instance says, only what means something is told, and always the same.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use weft_core::{
    identity::TrustDomain,
    name::HostName,
    resource::{Endpoint, Health, Resource, TlsMode},
};

use super::super::{
    convert::{self, Surroundings},
    objects::Entry,
    replay,
};
use crate::{speaking::Rules, told::Words};

pub(super) fn around() -> Surroundings {
    Surroundings {
        rules: Rules::default(),
        trust_domain: Some(TrustDomain::new("test.mesh").unwrap()),
        may_name: None,
        domain: HostName::new("consul").unwrap(),
        datacenter: None,
        peer: None,
    }
}

fn told(entries: &[Entry]) -> Words {
    convert::service(&"web.default".parse().unwrap(), entries, None, &around())
}

fn endpoints(words: &Words) -> Vec<Arc<Endpoint>> {
    let endpoint = |resource: &Resource| match resource {
        Resource::Endpoint(endpoint) => Some(endpoint.clone()),
        _ => None,
    };
    words.resources.iter().filter_map(endpoint).collect()
}

#[test]
fn only_instances_of_the_name_in_lower_case_stand_for_it() {
    let of = |spellings: &[&str]| {
        let entry = |(index, name): (usize, &&str)| {
            json!({
                "Node": { "Node": "n", "Address": "10.0.0.1" },
                "Service": { "ID": format!("{index}"), "Service": name, "Port": 80, "CreateIndex": index },
            })
        };
        let entries: Vec<Value> = spellings.iter().enumerate().map(entry).collect();
        let words = told(&serde_json::from_value::<Vec<Entry>>(Value::from(entries)).unwrap());
        let taken: Vec<_> = endpoints(&words).iter().map(|it| it.instance.to_string()).collect();
        (taken, words.faults.into_iter().map(|it| (it.place, it.message)).collect::<Vec<_>>())
    };
    let left_out = |name: &str, of: &str| {
        (format!("{name:?}"), format!("an instance of it is listed as one of \"{of}\", and is left out"))
    };
    assert_eq!(
        of(&["WEB", "web", "legacy"]),
        (vec!["n/1".into()], vec![left_out("WEB", "web"), left_out("legacy", "web")],)
    );
    assert_eq!(of(&["WEB", "Web"]), (vec!["n/1".into()], vec![left_out("WEB", "Web")]));
    assert_eq!(of(&["WEB"]), (vec!["n/0".into()], Vec::new()));
    assert_eq!(of(&["zzz"]), (Vec::new(), vec![left_out("zzz", "web")]));
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}",
        Just(String::new()),
        Just("10.0.0.1".to_owned()),
        Just("127.0.0.1".to_owned()),
        Just("169.254.169.254".to_owned()),
        Just("[fe80::1]".to_owned()),
        Just("fd00::7".to_owned()),
        Just("spiffe://test.mesh/ns/default/sa/web".to_owned()),
        Just("15008".to_owned()),
        "\\PC{0,12}",
        Just("line\nbreak".to_owned()),
        Just("x".repeat(300)),
    ]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), Just(80), Just(-1), Just(70_000), Just(i64::MAX), 1..65_536_i64]
}

prop_compose! {
    fn entry()(
        (node, id, address, node_address) in (text(), text(), text(), text()),
        (port, weight, kind) in (number(), number(), prop_oneof![4 => Just(""), 1 => Just("connect-proxy")]),
        meta in prop::collection::btree_map(prop_oneof![
            Just("weft-mesh-port".to_owned()), Just("weft-identity".to_owned()), Just("weft-protocol".to_owned()),
            Just("weft-weight".to_owned()), Just("weft-locality".to_owned()), text(),
        ], text(), 0..6),
        tags in prop::collection::vec(text(), 0..90),
        ports in prop::collection::vec((text(), number()), 0..3),
        checks in prop::collection::vec((text(), prop_oneof![Just("passing"), Just("warning"), Just("critical"), Just("?")]), 0..3),
        created in 0..4_u64,
    ) -> Value {
        let ports: Vec<Value> = ports.iter().map(|(name, port)| json!({ "Name": name, "Port": port })).collect();
        let checks: Vec<Value> = checks.iter().map(|(id, status)| json!({ "CheckID": id, "Status": status })).collect();
        json!({
            "Node": { "Node": node, "Address": node_address, "Datacenter": "dc1", "Meta": null },
            "Service": {
                "Kind": kind, "ID": id, "Service": "web", "Address": address, "Port": port, "Ports": ports, "Meta": meta,
                "Tags": tags, "Weights": { "Passing": weight, "Warning": 1 }, "CreateIndex": created,
            },
            "Checks": checks,
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_told_means_something_and_does_not_depend_on_order(
        values in prop::collection::vec(entry(), 0..6),
        turn in 0..6_usize,
    ) {
        let mut entries: Vec<Entry> = serde_json::from_value(Value::from(values)).unwrap();
        let words = told(&entries);
        for resource in &words.resources {
            prop_assert_eq!(resource.check(), Ok(()));
        }
        for endpoint in endpoints(&words) {
            let ip = endpoint.address.socket().ip();
            prop_assert!(!ip.is_loopback() && !ip.to_string().starts_with("169.254") && !ip.to_string().starts_with("fe80"));
            prop_assert!(endpoint.labels.len() <= 64 && endpoint.labels.iter().all(|(key, value)| key.len() <= 256 && value.len() <= 256));
        }
        prop_assert!(words.faults.len() <= 21);
        prop_assert!(words.faults.iter().all(|it| !it.place.contains('\n') && !it.message.contains('\n')));
        // Instances that are told apart by nothing may take each other's place.
        let mut keys: Vec<_> = entries.iter().map(|it| (it.node.name.clone(), it.service.id.clone())).collect();
        keys.sort();
        let distinct = keys.windows(2).all(|pair| pair[0] != pair[1]);
        let turn = if entries.is_empty() { 0 } else { turn % entries.len() };
        entries.rotate_left(turn);
        prop_assert!(!distinct || told(&entries).version == words.version);
    }

    #[test]
    fn any_json_is_survived(text in "\\PC{0,60}", value in entry()) {
        let domain = TrustDomain::new("test.mesh").unwrap();
        let lines = format!("{text}\n{}\n{{\"service\":[{value}]}}", json!({ "service": [text, [value]] }));
        let listing = replay(&lines, &domain);
        prop_assert!(listing.len() <= 1);
    }
}

#[test]
fn the_number_of_a_service_is_what_most_of_its_instances_have() {
    let entry = |id: &str, port: u16| {
        json!({
            "Node": { "Node": "n", "Address": "10.0.0.1" }, "Service": { "ID": id, "Service": "web", "Port": port },
        })
    };
    let number = |ports: &[u16]| {
        let entries =
            ports.iter().enumerate().map(|(index, port)| entry(&index.to_string(), *port)).collect();
        let words = told(&serde_json::from_value::<Vec<Entry>>(Value::Array(entries)).unwrap());
        match &words.resources[0] {
            Resource::Service(service) => service.ports[0].number,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([number(&[8080]), number(&[9, 8, 8]), number(&[30, 20, 10])], [8080, 8, 10]);
}

#[test]
fn maintenance_drains_unless_something_fails_beside_it() {
    let health = |checks: &[(&str, &str)]| {
        let checks: Vec<Value> =
            checks.iter().map(|(id, status)| json!({ "CheckID": id, "Status": status })).collect();
        let entry = json!([{
            "Node": { "Node": "n", "Address": "10.0.0.1" }, "Service": { "ID": "a", "Service": "web", "Port": 80 }, "Checks": checks,
        }]);
        let words = told(&serde_json::from_value::<Vec<Entry>>(entry).unwrap());
        endpoints(&words)[0].health
    };
    let maintenance = ("_service_maintenance:a", "critical");
    assert_eq!(health(&[("up", "passing"), ("x", "warning")]), Health::Healthy);
    assert_eq!(health(&[maintenance, ("up", "passing")]), Health::Draining);
    assert_eq!(health(&[("_node_maintenance", "critical")]), Health::Draining);
    assert_eq!(health(&[maintenance, ("up", "critical")]), Health::Unhealthy);
}

#[test]
fn a_recorded_server_is_read_as_it_was() {
    let recorded = include_str!("../../../fuzz/corpus/consul/catalog");
    let listing = replay(recorded, &TrustDomain::new("test.mesh").unwrap());
    let web = &listing[&convert::origin("web")];
    let names: Vec<_> =
        endpoints(web).iter().map(|it| (it.instance.to_string(), it.health, it.weight)).collect();
    assert_eq!(
        names,
        [("node-1/web-1".to_owned(), Health::Healthy, 7), ("node-2/web-2".to_owned(), Health::Unhealthy, 1),]
    );
    let kinds = |prefix: &str| listing.keys().filter(|origin| origin.as_str().starts_with(prefix)).count();
    assert_eq!([kinds("service/"), kinds("route/"), kinds("intentions/"), kinds("kv/")], [2, 1, 1, 1]);
}

#[test]
fn what_a_record_says_that_cannot_be_is_told() {
    let entry = |meta: Value, tags: Value, node: Value| {
        let entry = json!([{
            "Node": { "Node": "n", "Address": "10.0.0.1", "Meta": node },
            "Service": { "ID": "a", "Service": "web", "Port": 80, "Meta": meta, "Tags": tags },
        }]);
        told(&serde_json::from_value::<Vec<Entry>>(entry).unwrap())
    };
    let words = entry(json!({ "a": "x\ny", "b": "fine" }), json!(["e\u{1b}[2J", "blue"]), json!({}));
    let labels = &endpoints(&words)[0].labels;
    let shown: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(shown, ["b=fine", "tag.blue=true"]);
    assert!(words.faults.iter().any(|it| it.message.contains("control characters")), "{:?}", words.faults);
    let words = entry(json!({}), json!([]), json!({ "weft-locality": "a/b/c/d/e" }));
    assert!(
        words.faults.iter().any(|it| it.message.contains("weft-locality of its node")),
        "{:?}",
        words.faults
    );
}

#[test]
fn consuls_own_servers_are_no_application() {
    let entries = json!([{
        "Node": { "Node": "n", "Address": "10.0.0.1" }, "Service": { "ID": "consul", "Service": "consul", "Port": 8300 },
    }]);
    let entries: Vec<Entry> = serde_json::from_value(entries).unwrap();
    let name = "consul.default".parse().unwrap();
    let words = convert::service(&name, &entries, None, &around());
    assert!(words.resources.is_empty() && words.faults.is_empty(), "{words:?}");
    let text = "[[service]]\nname = \"consul\"\ntls = \"off\"\n".to_owned();
    let source = weft_core::config::SourceFile::new("weft.toml", text);
    let rules = weft_core::config::read(&source, |it| Rules::read(it, &[])).value.unwrap();
    let words = convert::service(&name, &entries, None, &Surroundings { rules, ..around() });
    assert_eq!(endpoints(&words).len(), 1, "unless a rule is for just them");
}

#[test]
fn keys_of_the_mesh_that_are_misspelt_or_misplaced_are_told_and_no_plaintext() {
    let text = "tls = \"preferred\"\n".to_owned();
    let source = weft_core::config::SourceFile::new("weft.toml", text);
    let rules = weft_core::config::read(&source, |it| Rules::read(it, &[])).value.unwrap();
    let around = Surroundings { rules, ..around() };
    let told = |meta: Value, tags: Value| {
        let entry = json!([{
            "Node": { "Node": "n", "Address": "10.0.0.1" },
            "Service": { "ID": "a", "Service": "web", "Port": 80, "Meta": meta, "Tags": tags },
        }]);
        let entries: Vec<Entry> = serde_json::from_value(entry).unwrap();
        let words = convert::service(&"web.default".parse().unwrap(), &entries, None, &around);
        let endpoint = endpoints(&words).remove(0).clone();
        assert_eq!(endpoint.labels.iter().count(), 0, "{:?}", endpoint.labels);
        (endpoint.tls, words.faults.first().map(|it| it.message.clone()).unwrap_or_default())
    };
    assert_eq!(told(json!({}), json!([])).0, TlsMode::Off);
    let (tls, fault) = told(json!({ "weft-mesh-prot": "15008" }), json!([]));
    assert!(tls == TlsMode::Required && fault.contains("weft-mesh-port may be meant"), "{fault}");
    let (tls, fault) = told(json!({}), json!(["weft-mesh-port=15008"]));
    assert!(tls == TlsMode::Required && fault.contains("stand in the meta"), "{fault}");
    let (tls, fault) = told(json!({ "weft-protocol": "smtp" }), json!([]));
    assert!(tls == TlsMode::Required && fault.contains("smtp"), "{fault}");
}
