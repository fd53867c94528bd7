//! Whatever is said in whatever order, what is told in pieces adds up to what there is.

mod aliased;
mod judged;
mod named;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use proptest::prelude::*;
use serde_json::{Value, json, value::RawValue};
use weft_core::{
    identity::TrustDomain,
    resource::{Health, Resource, TlsMode},
};

use super::*;
use crate::{kubernetes::objects::Kind, narrow::Narrow, speaking::Rules};

fn catalog() -> Catalog {
    catalog_by(Rules::default())
}

fn catalog_by(rules: Rules) -> Catalog {
    catalog_of(rules, None)
}

fn catalog_of(rules: Rules, narrow: Option<Narrow>) -> Catalog {
    let conversion = Conversion {
        rules,
        trust_domain: TrustDomain::new("test.mesh").unwrap(),
        cluster_domain: "cluster.local".into(),
        narrow,
        root_namespace: "weft-system".into(),
    };
    Catalog::new(Arc::new(conversion))
}

fn read(kind: Kind, object: &Value) -> Result<Object, Unreadable> {
    let raw = RawValue::from_string(object.to_string()).unwrap();
    kind.read(&raw)
}

fn uid(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{number:02x}")
}

fn pod(number: u8, account: &str) -> Value {
    json!({
        "metadata": {"name": format!("web-{number}"), "namespace": "default", "uid": uid(number),
            "labels": {"app": "web"}, "annotations": {"weft-mesh-port": "15008", "other": "x"}},
        "spec": {"serviceAccountName": account},
    })
}

fn service(name: &str, family: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 80}], "ipFamilies": [family]},
    })
}

fn slice(name: &str, service: &str, family: &str, pods: &[u8]) -> Value {
    let endpoint = |number: &u8| {
        let address = if family == "IPv6" { format!("fd00::{number}") } else { format!("10.0.0.{number}") };
        let target = json!({"kind": "Pod", "namespace": "default", "name": format!("web-{number}"), "uid": uid(*number)});
        json!({"addresses": [address], "nodeName": "node-1", "targetRef": target, "conditions": {"ready": true}})
    };
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": 8080}],
    })
}

fn node(zone: &str) -> Value {
    json!({"metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": zone}}})
}

/// All that the sources say, without those that say nothing.
fn told(catalog: &mut Catalog) -> BTreeMap<Source, Words> {
    let all = catalog.all();
    all.into_iter().map(|source| (source.clone(), catalog.words(&source))).filter(said).collect()
}

fn said((_, words): &(Source, Words)) -> bool {
    *words != Words::default()
}

#[test]
fn an_endpoint_is_told_when_all_that_it_is_joined_with_is_there() {
    let mut catalog = catalog();
    let mut put = |kind, object: &Value| {
        catalog.put(read(kind, object).unwrap());
        let words = catalog.words(&Source::Slice("default/web-a".into()));
        let first = words.resources.into_iter().find_map(|resource| match resource {
            Resource::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        });
        (first, words.faults.first().map(|fault| fault.message.clone()).unwrap_or_default())
    };
    let (none, fault) = put(Kind::Slices, &slice("web-a", "web", "IPv4", &[1]));
    assert!(none.is_none() && fault.contains("no service"), "{fault}");
    let (none, fault) = put(Kind::Services, &service("web", "IPv4"));
    assert!(none.is_none() && fault.contains("withheld: pod \"web-1\""), "{fault}");
    let (none, _) = put(Kind::Pods, &pod(2, "other"));
    assert!(none.is_none());
    let (endpoint, fault) = put(Kind::Pods, &pod(1, "web"));
    let endpoint = endpoint.unwrap();
    assert_eq!((fault.as_str(), endpoint.locality.zone()), ("", ""));
    assert_eq!(endpoint.identity.as_ref().unwrap().as_str(), "spiffe://test.mesh/ns/default/sa/web");
    let (endpoint, _) = put(Kind::Nodes, &node("east-1"));
    assert_eq!(endpoint.unwrap().locality.zone(), "east-1");
    catalog.sweep(&Place::all(Kind::Pods, None), &HashSet::new());
    assert_eq!(catalog.take_due().len(), 2, "the service and the slice");
    assert!(catalog.words(&Source::Slice("default/web-a".into())).resources.is_empty());
}

#[test]
fn a_pod_that_its_slice_names_first_is_told_when_it_stays_missing() {
    let mut catalog = catalog();
    let put = |catalog: &mut Catalog, kind, object: &Value| drop(catalog.put(read(kind, object).unwrap()));
    let faults = |catalog: &Catalog| {
        let words = catalog.words(&Source::Slice("default/web-a".into()));
        (words.resources.len(), words.faults.iter().filter(|it| it.message.contains("withheld")).count())
    };
    put(&mut catalog, Kind::Services, &service("web", "IPv4"));
    put(&mut catalog, Kind::Slices, &slice("web-a", "web", "IPv4", &[1]));
    assert_eq!(faults(&catalog), (0, 1), "a whole list lacks it");
    catalog.be_patient();
    assert_eq!((faults(&catalog), catalog.awaits_pods()), ((0, 1), false));
    put(&mut catalog, Kind::Slices, &slice("web-a", "web", "IPv4", &[1, 2, 3]));
    assert_eq!(faults(&catalog), (0, 1), "it may come any moment");
    put(&mut catalog, Kind::Pods, &pod(2, "web"));
    catalog.look_for_pods();
    assert_eq!((faults(&catalog), catalog.awaits_pods()), ((1, 1), true));
    catalog.take_due();
    catalog.look_for_pods();
    assert_eq!(catalog.take_due(), BTreeSet::from([Source::Slice("default/web-a".into())]));
    assert_eq!((faults(&catalog), catalog.awaits_pods()), ((1, 2), false), "it did not come");
    put(&mut catalog, Kind::Slices, &slice("web-a", "web", "IPv4", &[3, 2]));
    assert_eq!(faults(&catalog), (1, 1), "a slice that changes says nothing of who is missing already");
    catalog.sweep(&Place::all(Kind::Pods, None), &HashSet::new());
    assert_eq!(faults(&catalog), (0, 1), "of one that is gone the slice is to say so soon");
}

#[test]
fn annotations_for_the_mesh_that_are_misspelt_are_told_and_no_plaintext() {
    let source = weft_core::config::SourceFile::new("weft.toml", "tls = \"preferred\"\n".to_owned());
    let rules = weft_core::config::read(&source, |it| Rules::read(it, &[])).value.unwrap();
    let taken = |of_pod: Value, of_service: Value| {
        let mut catalog = catalog_by(rules.clone());
        let (mut pod, mut service) = (pod(1, "web"), service("web", "IPv4"));
        pod["metadata"]["annotations"] = of_pod;
        service["metadata"]["annotations"] = of_service;
        let all = [
            (Kind::Slices, slice("web-a", "web", "IPv4", &[1])),
            (Kind::Services, service),
            (Kind::Pods, pod),
        ];
        all.iter().for_each(|(kind, object)| drop(catalog.put(read(*kind, object).unwrap())));
        let words: Vec<Words> = told(&mut catalog).into_values().collect();
        let endpoint = words.iter().flat_map(|it| &it.resources).find_map(|resource| match resource {
            Resource::Endpoint(endpoint) => Some(endpoint.tls),
            _ => None,
        });
        let faults = words.iter().flat_map(|it| &it.faults).map(|fault| fault.message.clone());
        (endpoint, faults.collect::<Vec<_>>().join("\n"))
    };
    let (none, other) = (json!({}), json!({"weft.dev/inject": "true", "other": "x"}));
    assert_eq!(taken(other, none.clone()), (Some(TlsMode::Off), String::new()));
    let typo = json!({"weft-mesh-prot": "15008"});
    for (of_pod, of_service) in [(typo.clone(), none.clone()), (none.clone(), typo)] {
        let (tls, faults) = taken(of_pod, of_service);
        assert!(tls == Some(TlsMode::Required) && faults.contains("weft-mesh-port may be meant"), "{faults}");
    }
}

#[test]
fn conditions_mean_what_the_api_says() {
    let health = |ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>| {
        crate::kubernetes::convert::health(&objects::Conditions { ready, serving, terminating })
    };
    let (yes, no) = (Some(true), Some(false));
    for (conditions, expected) in [
        ((None, None, None), Health::Healthy),
        ((yes, yes, no), Health::Healthy),
        ((no, no, no), Health::Unhealthy),
        ((no, None, None), Health::Unhealthy),
        ((no, yes, yes), Health::Draining),
        ((no, no, yes), Health::Unhealthy),
        ((yes, no, yes), Health::Draining),
        ((yes, no, no), Health::Healthy),
    ] {
        assert_eq!(health(conditions.0, conditions.1, conditions.2), expected, "{conditions:?}");
    }
}

#[test]
fn what_is_hostile_is_left_out_alone_and_told() {
    let mut catalog = catalog();
    let labels: BTreeMap<String, String> =
        (0..300).map(|number| (format!("l{number}"), "x".into())).collect();
    let mut loud = pod(1, "web");
    loud["metadata"]["labels"] = json!(labels);
    let mut many = slice("web-a", "web", "IPv4", &[1]);
    let addresses = ["169.254.169.254", "127.0.0.1", "fd00::1", "x\ny", "", "10.0.0.9"];
    let more = addresses.map(|address| json!({"addresses": [address]}));
    many["endpoints"].as_array_mut().unwrap().extend(more);
    many["endpoints"][0]["targetRef"]["x"] = json!(null);
    many["ports"] = json!([{"name": "http", "port": 70000}, {"name": "http", "port": 0}, {"name": "http", "port": 8080},
        {"name": "http"}, {"name": "no", "port": 1}]);
    let mut odd = service("odd", "IPv4");
    odd["spec"]["ports"] =
        json!([{"name": "A b\n", "port": 1}, {"name": "zero", "port": 0}, {"name": "ok", "port": 70000}]);
    for (kind, object) in [
        (Kind::Services, &service("web", "IPv4")),
        (Kind::Services, &odd),
        (Kind::Pods, &loud),
        (Kind::Slices, &many),
    ] {
        catalog.put(read(kind, object).unwrap());
    }
    for (kind, object) in [
        (Kind::Services, json!({"metadata": {"name": "a/b", "namespace": "default"}})),
        (Kind::Slices, json!({"metadata": {"name": "x", "namespace": "default"}, "endpoints": "many"})),
        (Kind::Pods, json!({"metadata": {"namespace": "default"}})),
    ] {
        catalog.unreadable(read(kind, &object).unwrap_err());
    }
    let told = told(&mut catalog);
    let resources: Vec<_> = told.values().flat_map(|words| &words.resources).collect();
    assert!(resources.iter().all(|resource| resource.check().is_ok()), "{resources:?}");
    let endpoints = resources.iter().filter_map(|resource| match resource {
        Resource::Endpoint(endpoint) => Some(endpoint),
        _ => None,
    });
    let endpoints: Vec<_> = endpoints.collect();
    let addresses: Vec<String> = endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:8080", "10.0.0.9:8080"]);
    assert_eq!(endpoints[0].labels.len(), 64);
    let faults: Vec<String> = told
        .values()
        .flat_map(|words| &words.faults)
        .map(|it| format!("{} {}", it.place, it.message))
        .collect();
    for words in [
        "169.254.169.254 is",
        "127.0.0.1 is",
        "fd00::1 is not of",
        "\"x\\ny\"",
        "labels left out",
        "between 1 and 65535",
        "has no number",
        "none of the service's",
        "\"A b\\n\" is left out",
        "no TCP port",
        "services/default/a/b",
        "endpointslices/default/x",
    ] {
        assert!(faults.iter().any(|fault| fault.contains(words)), "{words}: {faults:#?}");
    }
    assert!(faults.iter().all(|fault| !fault.contains('\n') && fault.len() < 400), "{faults:#?}");
}

/// Something that happens to a cluster.
#[derive(Clone, Debug)]
enum Step {
    Put(Kind, Value),
    Gone(Kind, Value),
    Relist(Kind),
}

fn alias(name: &str, target: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": format!("{target}.default.svc.cluster.local")},
    })
}

fn objects() -> impl Strategy<Value = (Kind, Value)> {
    let family = || prop_oneof![Just("IPv4"), Just("IPv6")];
    let name = || prop_oneof![Just("web"), Just("api")];
    let other = || prop_oneof![Just("web"), Just("api"), Just("old"), Just("older")];
    let pods = proptest::collection::vec(0..4_u8, 0..4);
    prop_oneof![
        (name(), family()).prop_map(|(name, family)| (Kind::Services, service(name, family))),
        (other(), name()).prop_map(|(name, target)| (Kind::Services, alias(name, target))),
        (0..4_u8, name(), family(), pods).prop_map(|(number, name, family, pods)| (
            Kind::Slices,
            slice(&format!("s{number}"), name, family, &pods)
        )),
        (0..4_u8, name()).prop_map(|(number, account)| (Kind::Pods, pod(number, account))),
        prop_oneof![Just("a"), Just("b")].prop_map(|zone| (Kind::Nodes, node(zone))),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![Just(Kind::Services), Just(Kind::Slices), Just(Kind::Pods), Just(Kind::Nodes)];
    let step = prop_oneof![
        6 => objects().prop_map(|(kind, object)| Step::Put(kind, object)),
        2 => objects().prop_map(|(kind, object)| Step::Gone(kind, object)),
        1 => kind.prop_map(Step::Relist),
    ];
    proptest::collection::vec(step, 0..40)
}

#[test]
fn what_goes_unread_is_gone() {
    let (mut catalog, place) = (catalog(), "default/web");
    catalog.put(read(Kind::Services, &service("web", "IPv4")).unwrap());
    catalog.put(read(Kind::Pods, &pod(1, "app")).unwrap());
    catalog.take_due();
    for (kind, mut object) in [(Kind::Services, service("web", "IPv4")), (Kind::Pods, pod(1, "app"))] {
        object["spec"] = json!("nonsense");
        let unread = || read(kind, &object).unwrap_err();
        catalog.unreadable(unread());
        catalog.remove_unread(kind, &unread());
    }
    assert!(catalog.words(&Source::Service(place.into())).resources.is_empty());
    assert_eq!((catalog.pods.len(), catalog.faults.len()), (0, 0));
    assert!(catalog.take_due().contains(&Source::Service(place.into())));
}

proptest! {
    #[test]
    fn what_is_told_in_pieces_adds_up_to_what_there_is(steps in steps()) {
        // So few aliases count that some do not.
        let few = || Catalog { max_aliases: (1, 1), ..catalog() };
        let mut followed = few();
        let mut heard: BTreeMap<Source, Words> = BTreeMap::new();
        let mut there: BTreeMap<(Kind, String), Value> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(kind, object) => {
                    followed.put(read(kind, &object).unwrap());
                    there.insert((kind, object["metadata"]["name"].to_string()), object);
                }
                Step::Gone(kind, object) => {
                    followed.remove(&read(kind, &object).unwrap());
                    there.remove(&(kind, object["metadata"]["name"].to_string()));
                }
                Step::Relist(kind) => {
                    // Half of what is there was lost while nobody listened.
                    let mut keep = false;
                    there.retain(|(known, _), _| { keep = !keep; *known != kind || keep });
                    let listed = there.iter().filter(|((known, _), _)| *known == kind);
                    let seen: HashSet<Id> = listed
                        .filter_map(|(_, object)| followed.put(read(kind, object).unwrap())).collect();
                    followed.sweep(&Place::all(kind, None), &seen);
                }
            }
            for source in followed.take_due() {
                heard.insert(source.clone(), followed.words(&source));
            }
        }
        let mut fresh = few();
        for ((kind, _), object) in &there {
            fresh.put(read(*kind, object).unwrap());
        }
        let heard: BTreeMap<_, _> = heard.into_iter().filter(said).collect();
        prop_assert_eq!(heard, told(&mut fresh));
        for ((kind, _), object) in &there {
            followed.remove(&read(*kind, object).unwrap());
        }
        let left = (followed.services.len(), followed.slices.len(), followed.pods.len(), followed.nodes.len());
        prop_assert_eq!(left, (0, 0, 0, 0));
    }

    #[test]
    fn no_text_panics(kind in 0..4_u8, text in "\\PC{0,200}", cut in any::<prop::sample::Index>()) {
        let kind = [Kind::Services, Kind::Slices, Kind::Pods, Kind::Nodes][usize::from(kind)];
        let whole = slice(&text, &text, &text, &[1]).to_string();
        let texts = [whole.clone(), whole.chars().take(cut.index(whole.len())).collect(), text];
        let mut catalog = catalog();
        for raw in texts.into_iter().filter_map(|text| RawValue::from_string(text).ok()) {
            match kind.read(&raw) {
                Ok(object) => drop(catalog.put(object)),
                Err(unreadable) => drop(catalog.unreadable(unreadable)),
            }
        }
        for words in told(&mut catalog).into_values() {
            prop_assert!(words.resources.iter().all(|resource| resource.check().is_ok()));
        }
    }
}

#[test]
fn a_service_that_is_called_nobody_knows_how_is_called_as_before() {
    let mut catalog = catalog();
    let said = |catalog: &Catalog| {
        let (service, slice) = (Source::Service("default/web".into()), Source::Slice("default/web-a".into()));
        let words = [catalog.words(&service), catalog.words(&slice)];
        let counts = words.each_ref().map(|words| words.resources.len());
        let faults: Vec<_> = words.into_iter().flat_map(|words| words.faults).collect();
        (counts, faults)
    };
    let spoken = |protocol: &str| {
        let mut service = service("web", "IPv4");
        service["metadata"]["annotations"] = json!({"weft-protocol": protocol});
        read(Kind::Services, &service).unwrap()
    };
    let hears = |catalog: &mut Catalog, object| drop(catalog.put(object));
    hears(&mut catalog, read(Kind::Slices, &slice("web-a", "web", "IPv4", &[1, 2])).unwrap());
    hears(&mut catalog, read(Kind::Pods, &pod(1, "web")).unwrap());
    hears(&mut catalog, spoken("smtp"));
    let (counts, faults) = said(&catalog);
    assert_eq!(counts, [0, 1], "nobody has ever heard how it is called: there are endpoints of no service");
    let kept: Vec<_> = faults.iter().filter(|fault| fault.keeps_last_good).collect();
    assert_eq!(kept.len(), 1, "what was heard of it in another life stands: {faults:?}");
    assert_eq!(kept[0].message, "its annotation does not say how it is called");
    hears(&mut catalog, spoken("grpc"));
    assert_eq!(said(&catalog).0, [1, 1]);
    hears(&mut catalog, spoken("smtp"));
    hears(&mut catalog, read(Kind::Pods, &pod(2, "web")).unwrap());
    let (counts, faults) = said(&catalog);
    assert_eq!(counts, [1, 2], "and its endpoints go on to come and go");
    assert!(faults.iter().any(|fault| fault.message.contains("what it said before stands")), "{faults:?}");
    assert!(faults.iter().all(|fault| !fault.keeps_last_good), "{faults:?}");
    let words = catalog.words(&Source::Service("default/web".into()));
    let Resource::Service(service) = &words.resources[0] else { panic!("{words:?}") };
    assert_eq!(service.ports[0].protocol, weft_core::resource::AppProtocol::Grpc);
    let mut renamed = spoken("smtp");
    let Object::Service(other) = &mut renamed else { panic!("{renamed:?}") };
    other.spec.ports.as_mut().unwrap()[0].name = Some("renamed".into());
    hears(&mut catalog, renamed);
    let words = catalog.words(&Source::Service("default/web".into()));
    let Resource::Service(service) = &words.resources[0] else { panic!("{words:?}") };
    let port = &service.ports[0];
    assert_eq!((port.name.as_str(), port.protocol), ("renamed", weft_core::resource::AppProtocol::Grpc));
    catalog.remove(&spoken("smtp"));
    hears(&mut catalog, spoken("smtp"));
    assert_eq!(said(&catalog).0[0], 0, "another service of that name has said nothing yet");
}

#[test]
fn a_route_that_another_one_hides_says_so_until_that_is_gone() {
    let route = |name: &str, rules: Value| {
        let metadata = json!({"name": name, "namespace": "shop", "resourceVersion": "1", "generation": 1});
        read(Kind::Routes, &json!({"metadata": metadata, "spec": {"service": "web", "rules": rules}}))
            .unwrap()
    };
    let everything = route("a", json!([{"name": "all"}]));
    let mut catalog = catalog();
    let accepted = |catalog: &mut Catalog| {
        let verdicts = catalog.take_verdicts().into_iter();
        let condition = |verdict: configured::Verdict| {
            let mut all = verdict.conditions.into_iter();
            let accepted = all.find(|it| it.kind == configured::ACCEPTED).unwrap();
            (verdict.name, accepted.status, accepted.reason, accepted.message)
        };
        verdicts.map(condition).collect::<Vec<_>>()
    };
    catalog.put(route("b", json!([{"name": "api", "matches": [{"path": {"prefix": "/api"}}]}])));
    assert_eq!(accepted(&mut catalog), [("b".into(), "True".into(), "Accepted".into(), String::new())]);
    catalog.put(everything);
    let told = accepted(&mut catalog);
    let [first, (name, status, reason, message)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((first.0.as_str(), first.1.as_str()), ("a", "True"));
    assert_eq!((name.as_str(), status.as_str(), reason.as_str()), ("b", "False", "Conflicted"));
    assert!(message.contains("the route a.shop"), "{message}");
    catalog.remove(&route("a", json!([{"name": "all"}])));
    assert_eq!(accepted(&mut catalog), [("b".into(), "True".into(), "Accepted".into(), String::new())]);
}
