//! The pure parts: what instances become, what lists and changes add up to, and what nobody may send.

use proptest::prelude::*;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use weft_core::{
    name::HostName,
    registry::Completeness,
    resource::{Endpoint, Health, Resource, Service, TlsMode},
};

use super::{
    catalog::{Catalog, Changes, Memory, Whole},
    convert::{Context, SECURE_VIP, VIP},
    list::{self, Head},
    objects::Instance,
};
use crate::told::Listing;

const NOW: u64 = 2_000_000_000_000;

/// A list with all its instances.
#[derive(Debug, Default)]
pub(super) struct Applications {
    pub(super) hash: String,
    pub(super) instances: Vec<Instance>,
    pub(super) unreadable: usize,
}

impl<'de> Deserialize<'de> for Applications {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut instances = Vec::new();
        let Head { hash, unreadable } = list::read(deserializer, &mut |instance| instances.push(instance))?;
        Ok(Self { hash, instances, unreadable })
    }
}

fn document(instances: &[Value]) -> Value {
    let application = json!({ "name": "ORDERS", "instance": instances });
    json!({ "applications": { "apps__hashcode": "", "application": [application] } })
}

pub(super) fn whole_of(document: &Value, now: u64) -> Whole {
    Whole::take(&Context::default(), now, |each| list::read(document, each)).unwrap()
}

fn whole(instances: &[Value]) -> Whole {
    whole_of(&document(instances), NOW)
}

fn changes(known: &Catalog, instances: &[Value]) -> Changes {
    Changes::take(known, &Context::default(), NOW, |each| list::read(&document(instances), each)).unwrap()
}

fn instance(id: &str) -> Value {
    json!({
        "instanceId": id, "app": "ORDERS", "hostName": "orders", "ipAddr": "10.0.0.1", "status": "UP",
        "overriddenStatus": "UNKNOWN", "vipAddress": "orders,orders.example",
        "port": { "$": 8080, "@enabled": "true" }, "securePort": { "$": 8443, "@enabled": "false" },
        "leaseInfo": { "durationInSecs": 90, "registrationTimestamp": NOW - 1_000, "lastRenewalTimestamp": NOW },
        "metadata": { "zone": "eu-west-1a", "version": "v1", "weft-mesh-port": "15008",
                      "weft-identity": "spiffe://test.mesh/ns/default/sa/orders" },
    })
}

fn with(id: &str, key: &str, value: impl Into<Value>) -> Value {
    let mut object = instance(id);
    object[key] = value.into();
    object
}

fn take(instances: &[Value]) -> Listing {
    whole(instances).listing
}

fn endpoints(listing: &Listing) -> Vec<Endpoint> {
    let resources = listing.values().flat_map(|words| &words.resources);
    let endpoints = resources.filter_map(|resource| match resource {
        Resource::Endpoint(endpoint) => Some(Endpoint::clone(endpoint)),
        _ => None,
    });
    endpoints.collect()
}

fn services(listing: &Listing) -> Vec<Service> {
    let resources = listing.values().flat_map(|words| &words.resources);
    let services = resources.filter_map(|resource| match resource {
        Resource::Service(service) => Some(Service::clone(service)),
        _ => None,
    });
    services.collect()
}

/// But for those that are only served on.
fn labels(endpoint: &Endpoint) -> Vec<(&str, &str)> {
    endpoint.labels.iter().filter(|(key, _)| !key.starts_with("weft.dev/eureka-")).collect()
}

fn faults(listing: &Listing) -> Vec<String> {
    let faults = listing.values().flat_map(|words| &words.faults);
    faults.map(|fault| format!("{}: {}", fault.place, fault.message)).collect()
}

#[test]
fn an_instance_becomes_an_endpoint() {
    let listing = take(&[instance("orders-1")]);
    let endpoint = endpoints(&listing).remove(0);
    assert_eq!(endpoint.service.as_str(), "orders.default");
    assert_eq!((endpoint.address.to_string(), endpoint.port_name.as_str()), ("10.0.0.1:8080".into(), "http"));
    assert_eq!(endpoint.mesh_address.as_ref().unwrap().to_string(), "10.0.0.1:15008");
    assert_eq!(endpoint.identity.as_ref().unwrap().to_string(), "spiffe://test.mesh/ns/default/sa/orders");
    assert_eq!((endpoint.health, endpoint.tls), (Health::Healthy, TlsMode::Required));
    assert_eq!(endpoint.locality.to_string(), "eu-west-1/eu-west-1a");
    assert_eq!(labels(&endpoint), [("version", "v1"), ("zone", "eu-west-1a")]);
    assert_eq!(endpoint.labels.get(VIP), Some("orders,orders.example"), "to be served on");
    let service = services(&listing).remove(0);
    assert_eq!((service.ports[0].number, service.ports.len()), (8080, 1));
    let hosts: Vec<&str> = service.hosts.iter().map(HostName::as_str).collect();
    assert_eq!(hosts, ["orders", "orders.example"]);
    assert_eq!(faults(&listing), [""; 0]);
}

#[test]
fn every_status_means_a_health() {
    for (status, overridden, expected) in [
        ("UP", "UNKNOWN", Health::Healthy),
        ("UP", "OUT_OF_SERVICE", Health::Draining),
        ("UP", "DOWN", Health::Unhealthy),
        ("DOWN", "UP", Health::Unhealthy),
        ("STARTING", "UNKNOWN", Health::Unhealthy),
        ("OUT_OF_SERVICE", "OUT_OF_SERVICE", Health::Draining),
        ("UNKNOWN", "", Health::Unhealthy),
        ("", "", Health::Unhealthy),
    ] {
        let mut object = with("a", "status", status);
        object["overriddenStatus"] = overridden.into();
        assert_eq!(endpoints(&take(&[object]))[0].health, expected, "{status} {overridden}");
    }
    let mut kept = instance("a");
    kept["leaseInfo"]["lastRenewalTimestamp"] = (NOW - 151_000).into();
    assert_eq!(endpoints(&take(&[kept]))[0].health, Health::Unconfirmed, "only self-preservation holds it");
}

#[test]
fn a_secure_port_is_carried_as_opaque_bytes() {
    let mut both = instance("a");
    both["securePort"]["@enabled"] = "true".into();
    let listing = take(&[both.clone()]);
    assert_eq!(endpoints(&listing).len(), 2);
    let kept = |listing: &Listing| {
        endpoints(listing)[0].labels.get(crate::eureka::convert::HOST_NAME).map(str::to_owned)
    };
    assert_eq!(kept(&listing).as_deref(), Some("orders"), "its certificate is for that name");
    assert_eq!(kept(&take(&[instance("a")])), None);
    for host in ["localhost", "a.LOCALHOST", "169.254.169.254", "10.0.0.2", "127.1"] {
        both["hostName"] = host.into();
        let listing = take(&[both.clone()]);
        assert_eq!((endpoints(&listing).len(), kept(&listing)), (2, None), "{host}");
        let faults = faults(&listing);
        assert!(faults.len() == 1 && faults[0].contains("host name"), "{host}: {faults:?}");
    }
    both["hostName"] = "10.0.0.1".into();
    let bare = take(&[both.clone()]);
    assert_eq!((kept(&bare), faults(&bare)), (None, Vec::new()), "its own address");
    let service = services(&listing).remove(0);
    let ports: Vec<_> = service.ports.iter().map(|port| (port.name.as_str(), port.number)).collect();
    assert_eq!(ports, [("http", 8080), ("https", 8443)]);
    assert!(!service.ports[1].protocol.is_http());
    both["port"]["@enabled"] = false.into();
    let ports: Vec<_> =
        services(&take(&[both])).remove(0).ports.into_iter().map(|port| port.number).collect();
    assert_eq!(ports, [8443]);
}

#[test]
fn what_is_hostile_is_left_out_alone_and_named() {
    let many: Value =
        (0..300).map(|n| (format!("k{n:03}"), Value::from("v"))).collect::<serde_json::Map<_, _>>().into();
    for (odd, reason) in [
        (with("b", "port", json!({ "$": 0, "@enabled": "true" })), "port is not between"),
        (with("b", "port", json!({ "$": 70000, "@enabled": "true" })), "port is not between"),
        (with("b", "port", "x"), "neither its port nor its secure port"),
        (with("b", "ipAddr", "169.254.169.254"), "an address of the link"),
        (with("b", "ipAddr", "127.0.0.1"), "allow_loopback"),
        (with("b", "ipAddr", "web.example"), "no IP address"),
        (with("b\nc", "ipAddr", "10.0.0.2"), "cannot be an instance's name"),
        (with("b", "app", "A/B\nC"), "only lower-case letters"),
        (with("b", "app", "a.b"), "dot"),
    ] {
        let listing = take(&[instance("a"), odd]);
        assert_eq!(endpoints(&listing).len(), 1, "{reason}");
        let faults = faults(&listing);
        assert!(faults.iter().any(|fault| fault.contains(reason)), "{reason}: {faults:?}");
        assert!(!faults.concat().contains('\n'));
    }
    let listing = take(&[with("b", "metadata", many)]);
    assert_eq!(labels(&endpoints(&listing)[0]).len(), 64);
    assert!(faults(&listing).iter().any(|fault| fault.contains("236 left out")));
    let half = with("b", "metadata", json!({ "weft-mesh-port": "15008" }));
    let listing = take(&[half]);
    assert_eq!(endpoints(&listing)[0].tls, TlsMode::Required);
    assert!(endpoints(&listing)[0].unusable().is_some() && !faults(&listing).is_empty());
}

#[test]
fn nobody_takes_the_name_of_another_application() {
    let mut evil = with("evil", "app", "EVIL");
    evil["vipAddress"] = "orders,orders.default,evil,orders.example,web.default.mesh,alone.example".into();
    let listing = take(&[instance("a"), evil]);
    let hosts = |label: &str| -> Vec<String> {
        let services = services(&listing);
        let service = services.iter().find(|service| service.name.label() == label).unwrap();
        service.hosts.iter().map(ToString::to_string).collect()
    };
    assert_eq!(hosts("evil"), ["alone.example", "evil"]);
    assert_eq!(hosts("orders"), ["orders"], "what two claim is nobody's");
    assert_eq!(faults(&listing).len(), 5);
}

#[test]
fn an_address_that_not_all_instances_have_is_no_host_of_the_application_and_is_kept_with_those_that_do() {
    let hosts = |listing: &Listing| -> Vec<String> {
        services(listing)[0].hosts.iter().map(ToString::to_string).collect()
    };
    let mut first = with("a", "vipAddress", "shared.example,Vip-A:7001");
    first["secureVipAddress"] = "secure-a".into();
    let second = with("b", "vipAddress", "orders, vip-b,shared.example");
    let listing = take(&[first.clone(), second.clone()]);
    assert_eq!(hosts(&listing), ["orders", "shared.example"], "its own name is the whole application's");
    let told = faults(&listing);
    for host in ["vip-a", "vip-b"] {
        let is_told = |it: &String| it.contains(&format!("\"{host}\"")) && it.contains("not all instances");
        assert!(told.iter().any(is_told), "{told:?}");
    }
    assert_eq!(told.len(), 2, "{told:?}");
    let kept: Vec<_> = endpoints(&listing)
        .iter()
        .map(|it| [VIP, SECURE_VIP].map(|key| it.labels.get(key).unwrap_or_default().to_owned()))
        .collect();
    assert_eq!(kept, [["shared.example,Vip-A:7001", "secure-a"], ["orders,vip-b,shared.example", ""]]);
    // One that nobody can be sent to takes no name from the others; one that comes to be called does.
    let odd = with("c", "ipAddr", "169.254.169.254");
    assert_eq!(hosts(&take(&[first.clone(), odd])), ["orders", "shared.example", "vip-a"]);
    let context = Context::default();
    let mut catalog = whole(&[first]).catalog;
    let some = changes(&catalog, std::slice::from_ref(&second));
    let listing = catalog.change(some, &context).told(false).0;
    assert_eq!(hosts(&listing), ["orders", "shared.example"]);
}

#[test]
fn a_name_of_the_callers_own_host_is_no_virtual_address() {
    let names = "localhost,127.0.0.1,a.localhost,0x7f000001,orders:evil\n,fine.example";
    let mut odd = with("a", "vipAddress", names);
    odd["secureVipAddress"] = names.into();
    let listing = take(&[odd]);
    let hosts: Vec<String> = services(&listing)[0].hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["fine.example", "orders"]);
    assert_eq!(endpoints(&listing)[0].labels.get(VIP), Some("orders,fine.example"));
    let told = faults(&listing);
    assert_eq!(told.len(), 4, "once each: {told:?}");
    assert!(told[0].contains("allow_loopback") && told[1].contains("an address and no name"), "{told:?}");
}

#[test]
fn changes_add_up_to_what_the_server_counts() {
    let context = Context::default();
    let mut catalog = whole(&[instance("a"), instance("b")]).catalog;
    assert_eq!(catalog.hash_after(&Changes::default()), "UP_2_");
    let mut gone = with("b", "actionType", "DELETED");
    gone["status"] = "DOWN".into();
    let down = with("c", "status", "OUT_OF_SERVICE");
    let some = changes(
        &catalog,
        &[instance("a"), down.clone(), gone.clone(), with("c", "status", "UP"), down.clone()],
    );
    assert_eq!(catalog.hash_after(&some), "OUT_OF_SERVICE_1_UP_1_", "the last word on each counts");
    let (listing, deleted) = catalog.change(some, &context).told(false);
    assert_eq!(deleted, ["instance/ORDERS/b".parse().unwrap()]);
    let origins: Vec<&str> = listing.keys().map(|origin| origin.as_str()).collect();
    assert_eq!(origins, ["application/ORDERS", "instance/ORDERS/c"], "what is as it was is not told");
    assert!(changes(&catalog, &[gone, down]).is_empty(), "told again, and nothing is new");
    let all = changes(&catalog, &["a", "c"].map(|id| with(id, "actionType", "DELETED")));
    assert_eq!(catalog.hash_after(&all), "");
    let changed = catalog.change(all, &context);
    assert!(catalog.is_empty());
    assert_eq!(changed.told(true).1.len(), 2, "its instances are gone, others of it may come back");
}

#[test]
fn an_address_that_another_application_comes_to_claim_is_nobodys() {
    let context = Context::default();
    let mut catalog = whole(&[instance("a")]).catalog;
    let evil = with("evil", "app", "EVIL");
    let some = changes(&catalog, std::slice::from_ref(&evil));
    let listing = catalog.change(some, &context).told(false).0;
    assert_eq!(services(&listing).len(), 2, "both are told anew");
    assert!(services(&listing).iter().all(|service| service.hosts.len() < 2), "{listing:?}");
    let mut gone = evil;
    gone["actionType"] = "DELETED".into();
    let some = changes(&catalog, &[gone]);
    let (listing, deleted) = catalog.change(some, &context).told(false);
    assert_eq!((services(&listing)[0].hosts.len(), deleted.len()), (2, 2));
}

#[test]
fn a_server_that_forgot_is_told_from_one_that_knows() {
    let before = whole(&[instance("a"), instance("b")]).catalog;
    assert_eq!(before.memory(None, NOW), Memory::Unknown { young: true });
    let memory = |instances: &[Value]| {
        whole_of(&document(instances), NOW + 5_000).catalog.memory(Some(&before), NOW + 5_000)
    };
    let again = |id: &str| {
        let mut object = instance(id);
        object["leaseInfo"]["registrationTimestamp"] = (NOW + 4_000).into();
        object
    };
    assert_eq!(memory(&[instance("a")]), Memory::Kept, "it knows the one, so the other is gone");
    assert_eq!(memory(&[]), Memory::Lost);
    assert_eq!(memory(&[again("a")]), Memory::Lost, "registered anew, and the other not yet");
    assert_eq!(memory(&[again("a"), again("b")]), Memory::Kept);
    let old = whole_of(&document(&[instance("a")]), NOW + 200_000).catalog;
    assert_eq!(old.memory(None, NOW + 200_000), Memory::Unknown { young: false });
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z0-9./:\\n\u{e9}_-]{0,12}".prop_map(Value::from),
        Just(Value::from("UP")),
        Just(Value::from("10.0.0.1")),
    ];
    let key = prop_oneof![
        Just("instanceId"),
        Just("app"),
        Just("ipAddr"),
        Just("hostName"),
        Just("port"),
        Just("$"),
        Just("@enabled"),
        Just("status"),
        Just("metadata"),
        Just("leaseInfo"),
        Just("vipAddress"),
        Just("instance"),
        Just("application"),
        Just("weft-mesh-port"),
        Just("weft-identity"),
        Just("durationInSecs"),
        Just("lastRenewalTimestamp"),
        Just("dataCenterInfo"),
        Just("name"),
    ];
    leaf.prop_recursive(5, 40, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..10).prop_map(|pairs| pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_panics_and_what_comes_out_is_sound(odd in anything(), more in anything()) {
        let document = json!({ "applications": { "application": [
            { "name": "ORDERS", "instance": [instance("good"), odd] }, more,
        ] } });
        let listing = super::listing(document.to_string().as_bytes()).unwrap();
        prop_assert!(endpoints(&listing).iter().any(|endpoint| endpoint.instance.as_str() == "good"));
        for resource in listing.values().flat_map(|words| &words.resources) {
            prop_assert!(resource.check().is_ok(), "{resource:?}");
        }
        prop_assert!(faults(&listing).iter().all(|fault| !fault.contains('\n')));
        let mut told = crate::told::Told::new(weft_core::registry::Scope::whole("eureka".parse().unwrap()));
        told.tell(listing, Completeness::Full, std::time::Instant::now());
    }
}

#[test]
fn metadata_for_the_mesh_that_is_misspelt_is_told_and_no_label() {
    for (key, told) in [("weft-mesh-prot", "weft-mesh-port may be meant"), ("weft-protocol", "out of use")] {
        let listing = take(&[with("orders-1", "metadata", json!({ key: "15008" }))]);
        let endpoint = endpoints(&listing).remove(0);
        assert_eq!((endpoint.tls, labels(&endpoint)), (TlsMode::Required, vec![]));
        assert!(faults(&listing).iter().any(|it| it.contains(told)), "{:?}", faults(&listing));
    }
}
