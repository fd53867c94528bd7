//! The API without sockets: what is listed, what changes, who may register, and what nobody may send.

mod registrations;

use std::{collections::BTreeSet, time::SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};
use weft_core::{
    compile::{CompileConfig, Compiler, Join, Prefer},
    merge::{self, Merge, Snapshot},
    name::{OriginName, RegistryName, ServiceKey},
    registry::{Completeness, Event, Scope, Version},
    resource::{Endpoint, Health, Resource, Service, ServicePort, TlsMode},
};

use super::*;
use crate::eureka::{
    self,
    catalog::Changes,
    convert::{Context, HOST_NAME, SECURE_VIP, VIP},
    list,
    tests::Applications,
};

const NOW: u64 = 2_000_000_000_000;
const MOMENT: Moment = Moment { wall: NOW, steady: NOW };

fn service(name: &str, hosts: &[&str]) -> Resource {
    let port = ServicePort { name: "http".parse().unwrap(), number: 80, protocol: Default::default() };
    let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    Resource::Service(
        Service { name: name.parse().unwrap(), ports: vec![port], hosts, nearest: false, declared: true }
            .into(),
    )
}

fn endpoint(service: &str, instance: &str, health: Health) -> Resource {
    let vip = format!("{service},{service}.example");
    let endpoint = Endpoint {
        service: service.parse().unwrap(),
        port_name: "http".parse().unwrap(),
        instance: instance.parse().unwrap(),
        address: ([10, 0, 0, 1], 8080).into(),
        mesh_address: None,
        identity: None,
        said_by: Default::default(),
        tls: Default::default(),
        labels: [("version", "v1"), ("not a name <", "&"), (VIP, &vip)].into_iter().collect(),
        weight: 1,
        locality: weft_core::locality::Locality::new("eu/eu-1").unwrap(),
        health,
    };
    Resource::Endpoint(endpoint.into())
}

/// With the virtual addresses that an instance of Eureka has, of its port and of its secure one.
fn found_by(resource: &Resource, vip: &str, secure_vip: &str) -> Resource {
    let Resource::Endpoint(endpoint) = resource else { panic!("no endpoint") };
    let labels = [(VIP, vip), (SECURE_VIP, secure_vip)].into_iter().filter(|(_, names)| !names.is_empty());
    let endpoint = Endpoint { labels: labels.collect(), ..Endpoint::clone(endpoint) };
    Resource::Endpoint(endpoint.into())
}

fn mesh(merge: &mut Merge, registry: &str, resources: Vec<Resource>) -> Snapshot {
    mesh_at(merge, registry, resources, Completeness::Full, SystemTime::now())
}

fn mesh_at(
    merge: &mut Merge,
    registry: &str,
    resources: Vec<Resource>,
    completeness: Completeness,
    at: SystemTime,
) -> Snapshot {
    let scope = Scope::whole(registry.parse().unwrap());
    let origin: OriginName = "one".parse().unwrap();
    let version = Version(format!("{resources:?}").into());
    let words = Event::Replace { scope: scope.clone(), origin, version, resources, faults: Vec::new() };
    let says_nothing = completeness == Completeness::Filtered;
    for event in [
        Event::Reset { scope: scope.clone() },
        if says_nothing { Event::Reset { scope: scope.clone() } } else { words },
        Event::Ready { scope: scope.clone(), completeness },
        Event::Commit { scope, resume: None, age: Default::default() },
    ] {
        merge.apply(event, at);
    }
    merge.snapshot().clone()
}

/// An API over a mesh of one service with two instances.
struct Bench {
    api: Api,
    merge: Merge,
    snapshot: Snapshot,
    order: Vec<RegistryName>,
    joins: Vec<Join>,
    eureka: BTreeSet<RegistryName>,
    listeners: Listeners,
    lacks: bool,
}

fn bench() -> Bench {
    let mut merge = Merge::default();
    let resources = vec![
        service("orders", &["orders", "orders.example"]),
        endpoint("orders", "orders-1", Health::Healthy),
        endpoint("orders", "orders-2", Health::Draining),
    ];
    let snapshot = mesh(&mut merge, "eureka", resources);
    let order: Vec<RegistryName> = vec!["eureka".parse().unwrap()];
    let (eureka, listeners) = (order.iter().cloned().collect(), Listeners::new());
    Bench { api: Api::default(), merge, snapshot, order, joins: Vec::new(), eureka, listeners, lacks: false }
}

impl Bench {
    fn leads(&self) -> impl Fn(&str) -> Option<ServiceKey> + Sync + use<> {
        let (precedence, joins) = (self.order.clone(), self.joins.clone());
        let config = CompileConfig { precedence, joins, ..CompileConfig::default() };
        let all = self.snapshot.partitions.iter().flat_map(|(registry, partition)| {
            partition.services.keys().map(|name| (registry.clone(), name.clone()))
        });
        let services = all.map(|(registry, service)| ServiceKey { registry, service }).collect();
        let table =
            Compiler::new(config).compile(&self.snapshot, &merge::Changes { services, policies: false });
        move |host| Some(table.destination(host)?.key.clone())
    }

    fn ask(&self, method: &Method, path: &str, accept: Option<&str>, body: &[u8], now: u64) -> Reply {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let content_type = Some(if body.starts_with(b"<") { "application/xml" } else { "application/json" });
        let question = Question { method, path, query, accept, content_type, body };
        self.asked(question, now)
    }

    fn asked(&self, question: Question<'_>, now: u64) -> Reply {
        self.asked_at(question, Moment { wall: now, steady: now })
    }

    fn asked_at(&self, question: Question<'_>, now: Moment) -> Reply {
        let source = Source {
            snapshot: &self.snapshot,
            order: &self.order,
            joins: &self.joins,
            leads: Leads(&self.leads()),
            eureka: &self.eureka,
            listeners: &self.listeners,
            lacks: self.lacks,
        };
        self.api.answer(question, Some(&source), now)
    }

    fn get(&self, path: &str, now: u64) -> Value {
        let reply = self.ask(&Method::GET, path, Some("application/json"), b"", now);
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        serde_json::from_slice(&reply.body).unwrap()
    }

    fn status(&self, method: &Method, path: &str, body: &[u8], now: u64) -> u16 {
        self.ask(method, path, None, body, now).status.as_u16()
    }

    fn ids(&self, now: u64) -> Vec<String> {
        let document = self.get("/eureka/apps", now);
        let all: Applications = serde_json::from_value(document).unwrap();
        all.instances.into_iter().map(|it| format!("{}={}", it.id, it.status)).collect()
    }
}

fn registration(dirty: u64) -> Vec<u8> {
    json!({ "instance": {
        "instanceId": "legacy:1", "app": "LEGACY", "hostName": "h", "ipAddr": "10.9.9.9", "status": "UP",
        "appGroupName": null, "sid": "na", "homePageUrl": "http://h/", "vipAddress": "legacy",
        "port": { "$": 1, "@enabled": "true" }, "lastDirtyTimestamp": dirty.to_string(),
        "leaseInfo": { "durationInSecs": 3 },
        "metadata": { "@class": "java.util.Collections$EmptyMap" },
        "dataCenterInfo": data_center(),
    }})
    .to_string()
    .into_bytes()
}

fn data_center() -> Value {
    json!({ "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn" })
}

#[test]
fn the_mesh_is_listed_as_applications() {
    let bench = bench();
    let all = bench.get("/eureka/apps/", NOW);
    assert_eq!(all["applications"]["apps__hashcode"], "OUT_OF_SERVICE_1_UP_1_");
    let one = &bench.get("/eureka/apps/orders/orders-1", NOW)["instance"];
    assert_eq!(one["ipAddr"], "10.0.0.1");
    assert_eq!(one["port"], json!({ "$": 8080, "@enabled": "true" }));
    assert_eq!(one["vipAddress"], "orders,orders.example");
    assert_eq!(one["metadata"]["zone"], "eu-1");
    assert_eq!(&bench.get("/eureka/v2/instances/orders-1", NOW)["instance"], one);
    for (path, found) in [("vips/orders.example", 2), ("vips/nothing", 0), ("svips/orders", 0)] {
        let list = bench.get(&format!("/eureka/{path}"), NOW);
        let list: Applications = serde_json::from_value(list).unwrap();
        assert_eq!(list.instances.len(), found, "{path}");
    }
    assert_eq!(bench.get("/eureka/apps/ORDERS", NOW)["application"]["name"], "ORDERS");
    for path in
        ["/eureka/apps/NOPE", "/eureka/apps/ORDERS/x", "/eureka/instances/x", "/eureka/x", "/", "/apps"]
    {
        let reply = bench.ask(&Method::GET, path, None, b"", NOW);
        assert_eq!((reply.status.as_u16(), &*reply.body), (404, &b""[..]), "{path}");
    }
}

#[test]
fn clients_find_an_instance_by_the_name_that_its_certificate_is_for() {
    let Resource::Endpoint(secure) = endpoint("pay", "pay-1", Health::Healthy) else { panic!("no endpoint") };
    let labels = [("version", "v1"), (HOST_NAME, "pay.example.com")].into_iter().collect();
    let secure = Endpoint { port_name: "https".parse().unwrap(), labels, ..Endpoint::clone(&secure) };
    let plain = Endpoint { port_name: "http".parse().unwrap(), ..secure.clone() };
    for (registry, endpoint, host) in [
        ("eureka", &secure, "pay.example.com"),
        ("eureka", &plain, "10.0.0.1"),
        // Whoever writes such a label on a pod or into a tag says nothing of a certificate.
        ("kubernetes", &secure, "10.0.0.1"),
    ] {
        let mut bench = bench();
        let resources = vec![service("pay", &["pay"]), Resource::Endpoint(endpoint.clone().into())];
        bench.snapshot = mesh(&mut bench.merge, registry, resources);
        let one = &bench.get("/eureka/instances/pay-1", NOW)["instance"];
        assert_eq!((&one["hostName"], &one["ipAddr"]), (&json!(host), &json!("10.0.0.1")), "{registry}");
        assert_eq!(one["metadata"].get(HOST_NAME), None, "{one}");
    }
}

#[test]
fn an_instance_is_found_by_its_own_virtual_addresses_and_by_no_others() {
    let mut bench = bench();
    let one = |instance: &str, vip, secure_vip| {
        found_by(&endpoint("pay", instance, Health::Healthy), vip, secure_vip)
    };
    let resources = vec![
        service("pay", &["pay"]),
        one("a", "pay,vip-a", "pay-secure"),
        one("b", "Vip-B:7001,pay", ""),
        one("c", "", ""),
    ];
    let ids = |bench: &Bench, path: &str| -> Vec<String> {
        let list: Applications = serde_json::from_value(bench.get(path, NOW)).unwrap();
        list.instances.into_iter().map(|it| it.id).collect()
    };
    bench.snapshot = mesh(&mut bench.merge, "eureka", resources.clone());
    for (path, expected) in [
        ("vips/pay", &["a", "b"][..]),
        ("vips/vip-a", &["a"]),
        ("vips/VIP-B:7001", &["b"]),
        ("svips/pay-secure", &["a"]),
        ("svips/pay", &[]),
        ("apps/PAY", &["a", "b", "c"]),
    ] {
        if path.starts_with("apps/") {
            let listed = bench.get(&format!("/eureka/{path}"), NOW);
            assert_eq!(listed["application"]["instance"].as_array().unwrap().len(), expected.len());
            continue;
        }
        assert_eq!(ids(&bench, &format!("/eureka/{path}")), expected, "{path}");
    }
    // Elsewhere such a label is what anybody may write, and no address of anything.
    bench.snapshot = mesh(&mut bench.merge, "eureka", Vec::new());
    bench.order.insert(0, "consul".parse().unwrap());
    bench.snapshot = mesh(&mut bench.merge, "consul", resources);
    for (path, expected) in [("vips/pay", &["a", "b", "c"][..]), ("vips/vip-a", &[]), ("svips/pay", &[])] {
        let path = format!("/eureka/{path}");
        assert_eq!(ids(&bench, &path), expected, "{path}");
    }
    let metadata = bench.get("/eureka/instances/a", NOW)["instance"]["metadata"].clone();
    assert_eq!(metadata, json!({ "zone": "eu-1" }));
}

#[test]
fn who_does_not_ask_for_json_gets_xml_that_reads_the_same() {
    let bench = bench();
    for accept in [None, Some("*/*"), Some("application/xml")] {
        let reply = bench.ask(&Method::GET, "/eureka/apps", accept, b"", NOW);
        assert_eq!(reply.content_type, Some("application/xml"));
        let read: Applications = serde_json::from_value(xml::read(&reply.body).unwrap()).unwrap();
        let json: Applications = serde_json::from_value(bench.get("/eureka/apps", NOW)).unwrap();
        assert_eq!(read.hash, json.hash);
        for (one, other) in read.instances.iter().zip(&json.instances) {
            assert_eq!(
                (&one.id, &one.ip, one.port, &one.status),
                (&other.id, &other.ip, other.port, &other.status)
            );
            assert_eq!(one.metadata["version"], "v1");
            assert_eq!(one.overridden, "UNKNOWN");
            assert!(!one.metadata.contains_key("not a name <"), "XML has no name for it");
        }
    }
    let recorded = xml::read(include_bytes!("../../../fuzz/corpus/eureka/apps.xml")).unwrap();
    let recorded: Applications = serde_json::from_value(recorded).unwrap();
    assert_eq!((recorded.instances.len(), recorded.unreadable), (3, 0), "the real server's");
}

#[test]
fn changes_are_told_for_three_minutes() {
    let mut bench = bench();
    bench.ids(NOW);
    let resources = vec![service("orders", &[]), endpoint("orders", "orders-1", Health::Unhealthy)];
    bench.snapshot = mesh(&mut bench.merge, "eureka", resources);
    let later = NOW + 170_000;
    let delta: Applications = serde_json::from_value(bench.get("/eureka/apps/delta", later)).unwrap();
    let told: Vec<_> =
        delta.instances.iter().map(|it| format!("{} {} {}", it.id, it.action, it.status)).collect();
    assert_eq!(told, ["orders-1 MODIFIED DOWN", "orders-2 DELETED OUT_OF_SERVICE"]);
    assert_eq!(delta.hash, "DOWN_1_", "of all that there is");
    let before = eureka::tests::whole_of(&self::bench().get("/eureka/apps", NOW), NOW).catalog;
    let delta = bench.get("/eureka/apps/delta", later);
    let changes = Changes::take(&before, &Context::default(), NOW, |each| list::read(&delta, each)).unwrap();
    assert_eq!(before.hash_after(&changes), "DOWN_1_", "as a client counts");
    let delta = bench.get("/eureka/apps/delta", later + 181_000);
    assert_eq!(delta["applications"]["application"], json!([]));
}

#[test]
fn a_listener_of_the_agent_stands_for_the_service_and_no_list_is_no_empty_list() {
    let mut bench = bench();
    bench.listeners.insert("orders".parse().unwrap(), ([127, 0, 0, 1], 9101).into());
    assert_eq!(bench.ids(NOW), ["weft:orders.default:9101=UP"]);
    let question = Question {
        method: &Method::GET,
        path: "/eureka/apps",
        query: "",
        accept: None,
        content_type: None,
        body: b"",
    };
    assert_eq!(bench.api.answer(question, None, MOMENT).status, 503);
    bench.snapshot = mesh(
        &mut bench.merge,
        "static",
        vec![service("orders", &[]), endpoint("orders", "x", Health::Healthy)],
    );
    bench.listeners.clear();
    assert_eq!(bench.ids(NOW), ["orders-1=UP", "orders-2=OUT_OF_SERVICE"], "the first registry has the name");
    bench.order.insert(0, "static".parse().unwrap());
    assert_eq!(bench.ids(NOW), ["x=UP"]);
    // One of several registries was never heard, and nothing is known of the others either.
    (bench.lacks, bench.snapshot) = (true, Snapshot::default());
    assert_eq!(bench.status(&Method::GET, "/eureka/apps", b"", NOW), 503);
    registered(&bench, "MINE", "mine", "mine");
    assert_eq!(bench.ids(NOW), ["mine=UP"]);
}

fn registered(bench: &Bench, app: &str, id: &str, vip: &str) {
    let object = json!({ "instance": {
        "instanceId": id, "app": app, "hostName": "h", "ipAddr": "10.6.6.6", "status": "UP", "vipAddress": vip,
        "port": { "$": 1, "@enabled": "true" }, "dataCenterInfo": data_center(),
    }});
    let path = format!("/eureka/apps/{app}");
    assert_eq!(bench.status(&Method::POST, &path, object.to_string().as_bytes(), NOW), 204);
}

#[test]
fn joined_services_are_listed_as_one() {
    let proved = |instance: &str, last: u8, account: &str, health| {
        let Resource::Endpoint(endpoint) = endpoint("pay", instance, health) else { panic!("no endpoint") };
        let identity = format!("spiffe://demo.mesh/ns/default/sa/{account}").parse().unwrap();
        let address = ([10, 0, 1, last], 80).into();
        let endpoint = Endpoint {
            tls: TlsMode::Required,
            identity: Some(identity),
            mesh_address: Some(([10, 0, 1, last], 15008).into()),
            address,
            ..Endpoint::clone(&endpoint)
        };
        Resource::Endpoint(endpoint.into())
    };
    let mut bench = bench();
    let first = vec![service("pay", &["pay.first"]), proved("a", 1, "pay", Health::Unhealthy)];
    let twice = proved("a-again", 1, "pay", Health::Healthy);
    let second = vec![service("pay", &[]), twice, proved("b", 2, "pay", Health::Healthy)];
    let foreign = vec![service("pay", &[]), proved("c", 3, "bank", Health::Healthy)];
    for (registry, resources) in [("kubernetes", first), ("nomad", second), ("static", foreign)] {
        bench.snapshot = mesh(&mut bench.merge, registry, resources);
    }
    bench.order = ["kubernetes", "nomad", "static"].map(|name| name.parse().unwrap()).to_vec();
    assert_eq!(bench.ids(NOW)[2..], ["a=DOWN"]);
    bench.joins = vec![Join { registries: bench.order.clone(), services: Vec::new(), prefer: Prefer::Any }];
    assert_eq!(bench.ids(NOW)[2..], ["a=DOWN", "b=UP"]);
    assert_eq!(bench.get("/eureka/instances/b", NOW)["instance"]["vipAddress"], "pay,pay.first");
    bench.listeners.insert("pay".parse().unwrap(), ([127, 0, 0, 1], 9).into());
    assert_eq!(bench.ids(NOW)[2..], ["weft:pay.default:9=UP"], "somebody takes it");
}

#[test]
fn no_instance_is_listed_under_the_names_of_another_registrys_service() {
    let mut bench = bench();
    bench.order = ["consul", "eureka"].map(|name| name.parse().unwrap()).to_vec();
    let web = vec![service("web", &["web.service.consul"]), endpoint("web", "web-1", Health::Healthy)];
    bench.snapshot = mesh(&mut bench.merge, "consul", web.clone());
    let thief = service("thief", &["web", "web.service.consul", "web.default", "thief.example"]);
    let instance = endpoint("thief", "thief-1", Health::Healthy);
    let stolen = "thief,web,web.service.consul,WEB:80,web.default,thief.example";
    let thief = vec![thief, found_by(&instance, stolen, "web")];
    bench.snapshot = mesh(&mut bench.merge, "eureka", thief);
    let of = |bench: &Bench, id: &str| bench.get(&format!("/eureka/instances/{id}"), NOW)["instance"].clone();
    assert_eq!(of(&bench, "thief-1")["vipAddress"], "thief,thief.example");
    assert_eq!(of(&bench, "thief-1")["secureVipAddress"], "");
    assert_eq!(of(&bench, "web-1")["vipAddress"], "web,web.service.consul");
    // Nor while the other's last instance is gone.
    let [Resource::Service(declared), instance] = &web[..] else { panic!("no service") };
    let implied = Resource::Service(Service { declared: false, ..Service::clone(declared) }.into());
    mesh(&mut bench.merge, "consul", vec![implied, instance.clone()]);
    bench.snapshot = mesh(&mut bench.merge, "consul", Vec::new());
    let tenants = vec![service("web", &[]), endpoint("web", "web-9", Health::Healthy)];
    bench.snapshot = mesh(&mut bench.merge, "eureka", tenants);
    assert_eq!(bench.ids(NOW), Vec::<String>::new());
    registered(&bench, "WEB", "web:1", "web");
    assert_eq!(bench.ids(NOW), Vec::<String>::new());
}

#[test]
fn a_clock_that_is_set_ends_no_lease_and_all_that_ask_share_one_answer() {
    let bench = bench();
    assert_eq!(bench.status(&Method::POST, "/eureka/apps/legacy", &registration(5), NOW), 204);
    let question = |path| Question {
        method: &Method::GET,
        path,
        query: "",
        accept: Some("application/json"),
        content_type: None,
        body: b"",
    };
    let later = Moment { wall: NOW + 3_600_000, steady: NOW + 1_000 };
    let reply = bench.asked_at(question("/eureka/apps/LEGACY"), later);
    assert_eq!(reply.status, StatusCode::OK, "the clock went on by an hour in a second");
    let all = [(); 2].map(|()| bench.asked_at(question("/eureka/apps"), later).body);
    assert_eq!(all[0].as_ptr(), all[1].as_ptr());
    let delta = bench.asked_at(question("/eureka/apps/delta"), later).body;
    let old = Moment { wall: NOW, steady: NOW + 200_000 };
    let gone = bench.asked_at(question("/eureka/apps/delta"), old).body;
    assert!(delta.len() > gone.len(), "changes are told for a while");
    assert_ne!(bench.asked_at(question("/eureka/apps"), old).body, all[0], "its lease ran out");
}

proptest! {
    #[test]
    fn nothing_panics(
        method in prop_oneof![Just(Method::GET), Just(Method::POST), Just(Method::PUT), Just(Method::DELETE)],
        path in "(/eureka)?(/apps|/vips|/instances|/x)?(/[A-Z%0-9a]{0,4}){0,4}/?",
        query in "[a-z%=&0-9+]{0,20}",
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "<[a-z]{1,3}( a=\"[&a-z;]{0,4}\")?>[^<]{0,5}(<b>|</b>|<c/>){0,4}</[a-z]{1,3}>".prop_map(String::into_bytes),
        ],
    ) {
        let bench = bench();
        bench.ask(&method, &format!("{path}?{query}"), None, &body, NOW);
        prop_assert!(bench.ids(NOW).len() >= 2);
    }
}
