//! What is read: services, slices, pods and nodes, joined.

use std::sync::Arc;

use tokio::task::block_in_place;
use weft_core::{
    merge::Limits,
    resource::{AppProtocol, Endpoint, FOR_ZONES, Health, Sayer, TlsMode},
};
use weft_registries::probe::probe;
use weft_testbed::Kubernetes;

use crate::{
    cluster::{Pod, SOON, by_admin, namespace, shared},
    follower::{Follower, View},
};

/// A service of a namespace that selects `app`, whose port 80 is the pods' port `http`.
fn service(kubernetes: &Kubernetes, namespace: &str, name: &str, more: &str) {
    kubernetes
        .apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
             selector: {{app: {name}}}\n  ports: [{{name: http, port: 80, targetPort: http}}]\n{more}"
        ))
        .unwrap();
}

fn pod<'a>(namespace: &'a str, name: &'a str, app: &'a str, addresses: &'a [&'a str]) -> Pod<'a> {
    Pod { namespace, name, app, account: "app", addresses, port: 8080, mesh_port: Some(15008) }
}

fn follow(kubernetes: &Kubernetes, space: &str) -> Follower {
    Follower::new(by_admin(kubernetes, &format!("namespaces = [\"{space}\"]")), None)
}

fn endpoint(view: &View<'_>, service: &str, instance: &str) -> Option<Arc<Endpoint>> {
    view.endpoints(service)?.into_iter().find(|endpoint| endpoint.instance.as_str() == instance)
}

fn has_fault(view: &View<'_>, words: &str) -> bool {
    let scopes = view.seen.snapshot.scopes.values();
    let mut faults = scopes.flat_map(|state| state.origins.values()).flat_map(|origin| origin.faults.iter());
    faults.any(|fault| format!("{}: {}", fault.place, fault.message).contains(words))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_its_slice_with_its_pod_and_its_node() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    block_in_place(|| {
        namespace(kubernetes, "joins");
        service(kubernetes, "joins", "web", "");
        pod("joins", "web-1", "web", &["10.50.1.1"]).write(kubernetes, true);
        kubernetes
            .apply(
                "{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: joins}, spec: {ports: [{name: grpc, port: 80}]}}\n---\n\
                 {apiVersion: v1, kind: Service, metadata: {name: away, namespace: joins}, spec: {type: ExternalName, externalName: example.com}}\n---\n\
                 {apiVersion: v1, kind: Service, metadata: {name: old, namespace: joins}, spec: {type: ExternalName, externalName: web.joins.svc.cluster.local}}\n---\n\
                 {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
                 metadata: {name: orders-1, namespace: joins, labels: {kubernetes.io/service-name: orders}}, \
                 endpoints: [{addresses: [10.50.2.7], zone: east-2, conditions: {ready: true}}, \
                 {addresses: [239.1.1.1], conditions: {ready: true}}], ports: [{name: grpc, port: 8080}]}",
            )
            .unwrap();
    });
    let mut follower = follow(kubernetes, "joins");
    let both = |view: &View<'_>| view.count("web.joins") == 1 && view.count("orders.joins") == 1;
    follower.until("one endpoint each", SOON, both).await.unwrap();
    follower.view(|view| {
        let web = endpoint(view, "web.joins", "web-1").unwrap();
        assert_eq!(web.address.to_string(), "10.50.1.1:8080");
        assert_eq!(web.mesh_address.as_ref().unwrap().to_string(), "10.50.1.1:15008");
        assert_eq!(web.identity.as_ref().unwrap().as_str(), "spiffe://test.mesh/ns/joins/sa/app");
        assert_eq!((web.said_by.identity, web.tls), (Sayer::Platform, TlsMode::Required));
        assert_eq!((web.labels.get("app"), web.labels.get("version")), (Some("web"), Some("v1")));
        assert_eq!((web.locality.to_string(), web.health), ("east/east-1".to_owned(), Health::Healthy));
        let orders = endpoint(view, "orders.joins", "10.50.2.7:8080").unwrap();
        assert_eq!((orders.locality.zone(), orders.identity.is_none()), ("east-2", true));
        let key = |name: &str| weft_core::name::ServiceKey {
            registry: "kubernetes".parse().unwrap(),
            service: name.parse().unwrap(),
        };
        let entry = view.seen.snapshot.service(&key("orders.joins")).unwrap();
        let read = entry.service.as_ref().unwrap();
        let hosts: Vec<&str> = read.hosts.iter().map(|host| host.as_str()).collect();
        assert_eq!(hosts, ["orders.joins.svc.cluster.local", "orders.joins.svc"]);
        assert_eq!((read.ports[0].number, read.ports[0].protocol), (80, AppProtocol::Grpc));
        assert!(view.seen.snapshot.service(&key("away.joins")).is_none_or(|entry| entry.service.is_none()));
        let web = view.service("web.joins").unwrap();
        assert!(web.hosts.iter().any(|host| host.as_str() == "old.joins.svc.cluster.local"), "{web:?}");
        for words in [
            "joins/away\": skipped: it is an ExternalName for \"example.com\"",
            "239.1.1.1 is the address of a group",
        ] {
            assert!(has_fault(view, words), "{words}");
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_serves_a_port_twice_is_two_endpoints_and_a_collision_is_told() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    block_in_place(|| {
        namespace(kubernetes, "twice");
        let service = |name: &str| {
            format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: twice}}, spec: {{ports: [{{name: http, port: 80}}]}}}}"
            )
        };
        kubernetes.apply(&format!("{}\n---\n{}", service("one"), service("two"))).unwrap();
        pod("twice", "one-1", "one", &["10.50.8.2"]).write(kubernetes, true);
        let uid = ["get", "pod", "one-1", "-n", "twice", "-o", "jsonpath={.metadata.uid}"];
        let uid = kubernetes.kubectl(&uid, "").unwrap();
        let pod = format!("10.50.8.2], targetRef: {{kind: Pod, namespace: twice, name: one-1, uid: {uid}}}");
        // Those of `two` are what the API server's controllers make of Endpoints with two subsets.
        for (name, endpoint) in [("one", pod.as_str()), ("two", "10.50.8.1]")] {
            for (suffix, port) in [("a", 8001), ("b", 8002)] {
                kubernetes
                    .apply(&format!(
                        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
                         metadata: {{name: {name}-{suffix}, namespace: twice, labels: {{kubernetes.io/service-name: {name}}}}}, \
                         endpoints: [{{addresses: [{endpoint}}}], ports: [{{name: http, port: {port}}}]}}"
                    ))
                    .unwrap();
            }
        }
    });
    let mut follower = follow(kubernetes, "twice");
    let all = |view: &View<'_>| view.count("two.twice") == 2 && view.count("one.twice") == 1;
    follower.until("both ports of the address, and the pod", SOON, all).await.unwrap();
    follower.view(|view| {
        let instances = ["10.50.8.1:8001", "10.50.8.1:8002"].map(|name| endpoint(view, "two.twice", name));
        let addresses = instances.map(|it| it.unwrap().address.to_string());
        assert_eq!(addresses, ["10.50.8.1:8001", "10.50.8.1:8002"]);
    });
    let seen = probe(&*by_admin(kubernetes, "namespaces = [\"twice\"]"), &Limits::default(), &[], SOON).await;
    assert_eq!((seen.services, seen.endpoints), (2, 3), "{seen:?}");
    let told = seen.skipped.iter().find(|fault| fault.place == "kubernetes/one.twice").unwrap();
    for words in ["one-a", "one-b", "the first one stands"] {
        assert!(told.message.contains(words), "{words}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_and_the_end_of_pods_are_told() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    let pods = [pod("ends", "web-1", "web", &["10.50.3.1"]), pod("ends", "web-2", "web", &["10.50.3.2"])];
    block_in_place(|| {
        namespace(kubernetes, "ends");
        service(kubernetes, "ends", "web", "");
        service(kubernetes, "ends", "early", "  publishNotReadyAddresses: true\n  clusterIP: None\n");
        pods.iter().for_each(|pod| pod.write(kubernetes, true));
        pod("ends", "early-1", "early", &["10.50.3.3"]).write(kubernetes, false);
        // Whoever writes a slice by hand says what is so, and not what the service makes of it.
        kubernetes
            .apply(
                "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
                 metadata: {name: early-by-hand, namespace: ends, labels: {kubernetes.io/service-name: early}}, \
                 endpoints: [{addresses: [10.50.3.4], conditions: {ready: false, serving: false}}, \
                 {addresses: [10.50.3.5], conditions: {ready: false, serving: false, terminating: true}}], \
                 ports: [{name: http, port: 8080}]}",
            )
            .unwrap();
    });
    let mut follower = follow(kubernetes, "ends");
    let health = |view: &View<'_>, instance: &str| endpoint(view, "web.ends", instance).map(|it| it.health);
    follower.until("two endpoints", SOON, |view| view.count("web.ends") == 2).await.unwrap();
    let published = |view: &View<'_>| {
        let of = |instance: &str| endpoint(view, "early.ends", instance).map(|it| it.health);
        let healthy = Some(Health::Healthy);
        (of("early-1"), of("10.50.3.4:8080")) == (healthy, healthy)
            && of("10.50.3.5:8080") == Some(Health::Draining)
    };
    follower.until("one that is published before it is ready", SOON, published).await.unwrap();
    block_in_place(|| pods[0].report(kubernetes, false));
    let unhealthy = |view: &View<'_>| health(view, "web-1") == Some(Health::Unhealthy);
    follower.until("one is not ready", SOON, unhealthy).await.unwrap();
    block_in_place(|| pods[0].report(kubernetes, true));
    let healthy = |view: &View<'_>| health(view, "web-1") == Some(Health::Healthy);
    follower.until("both are ready", SOON, healthy).await.unwrap();
    block_in_place(|| {
        kubernetes.kubectl(&["delete", "pod", "web-1", "-n", "ends", "--wait=false"], "").unwrap()
    });
    let draining = |view: &View<'_>| health(view, "web-1") == Some(Health::Draining);
    follower.until("one is about to end, and still serves", SOON, draining).await.unwrap();
    block_in_place(|| pods[0].end(kubernetes));
    let gone = |view: &View<'_>| view.count("web.ends") == 1 && health(view, "web-2").is_some();
    follower.until("one is gone", SOON, gone).await.unwrap();
    block_in_place(|| kubernetes.kubectl(&["delete", "service", "web", "-n", "ends"], "").unwrap());
    follower.until("the service is gone", SOON, |view| view.endpoints("web.ends").is_none()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_zones_that_an_endpoint_is_meant_for_are_told_where_nearness_does_not_say() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    block_in_place(|| {
        namespace(kubernetes, "hinted");
        for (name, more) in [("auto", ""), ("near", ", trafficDistribution: PreferSameZone")] {
            let endpoint = |last: u8, zone: &str, zones: &str| {
                format!("{{addresses: [10.50.9.{last}], zone: {zone}, hints: {{forZones: [{zones}]}}}}")
            };
            let (here, both) = ("{name: east-1}", "{name: east-1}, {name: east-2}");
            let endpoints = [endpoint(1, "east-1", here), endpoint(2, "east-2", both)].join(", ");
            kubernetes
                .apply(&format!(
                    "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: hinted}}, spec: {{ports: [{{port: 80}}]{more}}}}}\n---\n\
                     {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
                     metadata: {{name: {name}-1, namespace: hinted, labels: {{kubernetes.io/service-name: {name}}}}}, \
                     endpoints: [{endpoints}], ports: [{{name: \"\", port: 8080}}]}}"
                ))
                .unwrap();
        }
    });
    let mut follower = follow(kubernetes, "hinted");
    let all = |view: &View<'_>| view.count("auto.hinted") == 2 && view.count("near.hinted") == 2;
    follower.until("all endpoints", SOON, all).await.unwrap();
    follower.view(|view| {
        let meant = |service: &str| {
            let mut all = view.endpoints(service).unwrap();
            all.sort_by_key(|it| it.address.to_string());
            let meant = |it: &Arc<Endpoint>| it.labels.get(FOR_ZONES).map(str::to_owned);
            all.iter().map(meant).collect::<Vec<_>>()
        };
        assert_eq!(meant("auto.hinted"), [Some("east-1".to_owned()), Some("east-1,east-2".to_owned())]);
        assert_eq!(meant("near.hinted"), [None, None]);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_annotation_is_spoilt_is_called_as_before() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    let annotate = |word: &str| {
        let word = format!("weft-protocol={word}");
        let arguments = ["annotate", "service", "web", "-n", "spoilt", "--overwrite", &word];
        block_in_place(|| kubernetes.kubectl(&arguments, "").unwrap());
    };
    block_in_place(|| {
        namespace(kubernetes, "spoilt");
        service(kubernetes, "spoilt", "web", "");
        pod("spoilt", "web-1", "web", &["10.50.8.1"]).write(kubernetes, true);
    });
    annotate("grpc");
    let mut follower = follow(kubernetes, "spoilt");
    follower.until("the pod", SOON, |view| view.count("web.spoilt") == 1).await.unwrap();
    annotate("smtp");
    let told = |view: &View<'_>| has_fault(view, "how it is called: what it said before stands");
    follower.until("it is told", SOON, told).await.unwrap();
    block_in_place(|| pod("spoilt", "web-2", "web", &["10.50.8.2"]).write(kubernetes, true));
    follower.until("pods still come", SOON, |view| view.count("web.spoilt") == 2).await.unwrap();
    let protocol = |view: &View<'_>| {
        let key = weft_core::name::ServiceKey {
            registry: "kubernetes".parse().unwrap(),
            service: "web.spoilt".parse().unwrap(),
        };
        let service = view.seen.snapshot.service(&key)?.service.clone()?;
        Some(service.ports[0].protocol)
    };
    assert_eq!(follower.view(protocol), Some(AppProtocol::Grpc));
    let mut newcomer = follow(kubernetes, "spoilt");
    let told = |view: &View<'_>| has_fault(view, "does not say how it is called");
    newcomer.until("it is told", SOON, told).await.unwrap();
    assert_eq!(newcomer.view(protocol), None, "who never heard how it is called leaves it out");
    annotate("http2");
    let mended = |view: &View<'_>| protocol(view) == Some(AppProtocol::Http2) && !told(view);
    for each in [&mut follower, &mut newcomer] {
        each.until("it is mended", SOON, mended).await.unwrap();
        assert_eq!(each.view(|view| view.count("web.spoilt")), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_port_has_each_pods_own_number() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    block_in_place(|| {
        namespace(kubernetes, "ports");
        kubernetes
            .apply(
                "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: ports}\nspec:\n  clusterIP: None\n  \
                 selector: {app: web}\n  ports:\n  - {name: http, port: 80, targetPort: http}\n  \
                 - {name: grpc-api, port: 81, targetPort: 9090}\n  - {name: raw, port: 82, targetPort: 9091, appProtocol: tcp}\n  \
                 - {name: http-like, port: 84, targetPort: 9093, appProtocol: example.com/own}\n  \
                 - {name: stream, port: 83, targetPort: 9092, appProtocol: kubernetes.io/h2c}\n  \
                 - {name: dns, port: 53, targetPort: 53, protocol: UDP}\n",
            )
            .unwrap();
        pod("ports", "web-1", "web", &["10.50.4.1"]).write(kubernetes, true);
        Pod { port: 8081, ..pod("ports", "web-2", "web", &["10.50.4.2"]) }.write(kubernetes, true);
    });
    let mut follower = follow(kubernetes, "ports");
    follower.until("five ports of two pods", SOON, |view| view.count("web.ports") == 10).await.unwrap();
    follower.view(|view| {
        let all = view.endpoints("web.ports").unwrap();
        let address = |instance: &str, port: &str| {
            let mut found =
                all.iter().filter(|it| it.instance.as_str() == instance && it.port_name.as_str() == port);
            found.next().unwrap().address.to_string()
        };
        assert_eq!(address("web-1", "http"), "10.50.4.1:8080");
        assert_eq!(address("web-2", "http"), "10.50.4.2:8081");
        assert_eq!(address("web-2", "grpc-api"), "10.50.4.2:9090");
        let key = weft_core::name::ServiceKey {
            registry: "kubernetes".parse().unwrap(),
            service: "web.ports".parse().unwrap(),
        };
        let entry = view.seen.snapshot.service(&key).unwrap();
        let ports = &entry.service.as_ref().unwrap().ports;
        let protocols: Vec<_> = ports.iter().map(|port| (port.name.as_str(), port.protocol)).collect();
        assert_eq!(
            protocols,
            [
                ("http", AppProtocol::Http),
                ("grpc-api", AppProtocol::Grpc),
                ("raw", AppProtocol::Tcp),
                ("http-like", AppProtocol::Tcp),
                ("stream", AppProtocol::Http2)
            ]
        );
        assert!(has_fault(view, "port \"dns\" is left out"));
        assert!(has_fault(view, "appProtocol \"example.com/own\" is none that we know: taken as tcp"));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_two_families_is_one_endpoint_of_the_services_first() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    block_in_place(|| {
        namespace(kubernetes, "dual");
        let families = |first: &str, second: &str| {
            format!("  ipFamilyPolicy: RequireDualStack\n  ipFamilies: [{first}, {second}]\n")
        };
        service(kubernetes, "dual", "four", &families("IPv4", "IPv6"));
        service(kubernetes, "dual", "six", &families("IPv6", "IPv4"));
        pod("dual", "four-1", "four", &["10.50.5.1", "fd00::5:1"]).write(kubernetes, true);
        pod("dual", "six-1", "six", &["10.50.5.2", "fd00::5:2"]).write(kubernetes, true);
    });
    let count = || {
        let arguments =
            ["get", "endpointslices", "-n", "dual", "-o", "jsonpath={.items[*].endpoints[*].addresses[0]}"];
        kubernetes.kubectl(&arguments, "").unwrap().split_whitespace().count()
    };
    block_in_place(|| weft_testbed::until("slices of both families", SOON, || count() == 4).unwrap());
    let mut follower = follow(kubernetes, "dual");
    let one = |view: &View<'_>| view.count("four.dual") == 1 && view.count("six.dual") == 1;
    follower.until("one endpoint each", SOON, one).await.unwrap();
    follower.view(|view| {
        assert_eq!(endpoint(view, "four.dual", "four-1").unwrap().address.to_string(), "10.50.5.1:8080");
        assert_eq!(endpoint(view, "six.dual", "six-1").unwrap().address.to_string(), "[fd00::5:2]:8080");
    });
    // Where the slices of the first family are gone, those of the second stand.
    let arguments = ["get", "endpointslices", "-n", "dual", "-l", "kubernetes.io/service-name=four"];
    let names = "-o=jsonpath={.items[?(@.addressType==\"IPv4\")].metadata.name}";
    block_in_place(|| {
        kubernetes.controllers().unwrap().pause();
        let slice = kubernetes.kubectl(&[&arguments[..], &[names]].concat(), "").unwrap();
        kubernetes.kubectl(&["delete", "endpointslice", "-n", "dual", slice.trim()], "").unwrap();
    });
    let other = |view: &View<'_>| {
        endpoint(view, "four.dual", "four-1").is_some_and(|it| it.address.to_string() == "[fd00::5:1]:8080")
    };
    let seen = follower.until("the other family's endpoint", SOON, other).await;
    kubernetes.controllers().unwrap().resume();
    seen.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_or_a_name_that_another_pod_took_over_borrows_no_identity() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    let first = pod("reuse", "db-0", "db", &["10.50.6.1"]);
    let by_hand = |uid: &str| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
             metadata: {{name: hand-1, namespace: reuse, labels: {{kubernetes.io/service-name: hand}}}}, \
             endpoints: [{{addresses: [10.50.6.1], targetRef: {{kind: Pod, namespace: reuse, name: db-0, {uid}}}}}], \
             ports: [{{name: http, port: 8080}}]}}"
        )
    };
    let uid_of = || {
        let arguments = ["get", "pod", "db-0", "-n", "reuse", "-o", "jsonpath={.metadata.uid}"];
        kubernetes.kubectl(&arguments, "").unwrap()
    };
    let old = block_in_place(|| {
        namespace(kubernetes, "reuse");
        kubernetes
            .apply(
                "{apiVersion: v1, kind: ServiceAccount, metadata: {name: other, namespace: reuse}}\n---\n\
                 {apiVersion: v1, kind: Service, metadata: {name: hand, namespace: reuse}, spec: {ports: [{name: http, port: 80}]}}",
            )
            .unwrap();
        first.write(kubernetes, true);
        let uid = uid_of();
        kubernetes.apply(&by_hand(&format!("uid: {uid}"))).unwrap();
        uid
    });
    let mut follower = follow(kubernetes, "reuse");
    let is = |view: &View<'_>, account: &str| {
        let found = endpoint(view, "hand.reuse", "db-0").and_then(|it| it.identity.clone());
        found.is_some_and(|it| it.as_str().ends_with(account))
    };
    follower.until("the pod's identity", SOON, |view| is(view, "/sa/app")).await.unwrap();
    // Another pod takes the name and the address; nobody has told the slice.
    block_in_place(|| {
        first.end(kubernetes);
        Pod { account: "other", ..pod("reuse", "db-0", "db", &["10.50.6.1"]) }.write(kubernetes, true);
        assert_ne!(uid_of(), old);
    });
    let withheld = |view: &View<'_>| {
        view.count("hand.reuse") == 0 && has_fault(view, "withheld: pod \"db-0\" of that uid is not known")
    };
    follower.until("the endpoint is withheld", SOON, withheld).await.unwrap();
    block_in_place(|| {
        let uid = uid_of();
        kubernetes.apply(&by_hand(&format!("uid: {uid}"))).unwrap();
    });
    follower.until("the other pod's identity", SOON, |view| is(view, "/sa/other")).await.unwrap();
    // A slice that names no uid points to nobody for certain.
    block_in_place(|| kubernetes.apply(&by_hand("")).unwrap());
    let unclear = |view: &View<'_>| view.count("hand.reuse") == 0 && has_fault(view, "of no known uid");
    follower.until("the endpoint is withheld again", SOON, unclear).await.unwrap();
}
