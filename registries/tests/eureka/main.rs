//! Against the real Eureka server, and the real clients that register there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use weft_core::{
    config::{SourceFile, read},
    merge::{Limits, Merge, Snapshot},
    name::{RegistryName, ServiceKey, ServiceName},
    registry::{Completeness, Event, Lease, LocalInstance, Registry, conformance::held},
    resource::{AppProtocol, Endpoint, Health, SaidBy, Sayer, ServicePort, TlsMode},
};
use weft_registries::{
    Environment, Plan,
    eureka::api::{Api, Leads, Listeners, Moment, Question, Source},
    probe::probe,
};
use weft_testbed::{Eureka, EurekaClient, EurekaOptions, Gate, GateMode, Kind, installed, required};

const SOON: Duration = Duration::from_secs(60);

fn registry(more: &str) -> Arc<dyn Registry> {
    let text = format!("kind = \"eureka\"\npoll = \"1s\"\n{more}");
    let read = read(&SourceFile::new("weft.toml", text), |section| Plan::read(section, ""));
    assert!(read.faults.is_empty(), "{:?}", read.faults);
    read.value.unwrap().build(&Environment::default()).unwrap()
}

#[derive(Clone, Default)]
struct Seen {
    snapshot: Snapshot,
    errors: Vec<String>,
    completeness: Vec<Completeness>,
}

impl Seen {
    fn endpoints(&self, service: &str) -> Vec<Arc<Endpoint>> {
        let key = ServiceKey { registry: "eureka".parse().unwrap(), service: service.parse().unwrap() };
        let partition = self.snapshot.partitions.get(&RegistryName::new("eureka").unwrap());
        let entry = partition.and_then(|partition| partition.services.get(&key.service));
        entry.map(|entry| entry.endpoints.to_vec()).unwrap_or_default()
    }

    fn healthy(&self, service: &str) -> usize {
        self.endpoints(service).iter().filter(|it| it.health == Health::Healthy).count()
    }
}

/// Follows as an agent does, over every outage.
struct Follower {
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn follow(registry: Arc<dyn Registry>) -> Follower {
    let (told, seen) = watch::channel(Seen::default());
    let task = tokio::spawn(async move {
        let mut merge = Merge::new(Default::default());
        loop {
            let mut stream = held(&*registry, None);
            while let Some(word) = stream.next().await {
                told.send_modify(|seen| match word {
                    Ok(event) => {
                        if let Event::Ready { completeness, .. } = &event {
                            seen.completeness.push(*completeness);
                        }
                        merge.apply(event, std::time::SystemTime::now());
                        seen.snapshot = merge.snapshot().clone();
                    }
                    Err(error) => {
                        merge.abandon(&weft_core::registry::Scope::whole(registry.name().clone()));
                        seen.errors.push(error.to_string());
                    }
                });
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    Follower { seen, task }
}

impl Follower {
    async fn until(&mut self, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        let waited = timeout(SOON, self.seen.wait_for(|seen| holds(seen))).await;
        let waited = waited.map(|seen| seen.unwrap().clone());
        waited.unwrap_or_else(|_| {
            let seen = self.seen.borrow();
            panic!("not in time: {what}; {:?} {:?}", seen.snapshot.partitions, seen.errors.last())
        })
    }
}

fn instance(app: &str, number: usize) -> Value {
    let ip = format!("10.0.0.{number}");
    json!({ "instance": {
        "instanceId": format!("{app}-{number}"), "app": app.to_uppercase(), "hostName": ip, "ipAddr": ip, "status": "UP",
        "vipAddress": app, "port": { "$": 8080, "@enabled": "true" }, "metadata": { "zone": "a" },
        "leaseInfo": { "durationInSecs": 3600 },
        "dataCenterInfo": { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn" },
    }})
}

fn eureka() -> Option<(weft_testbed::Home, Eureka)> {
    let home = required(installed(Kind::Eureka))?;
    let eureka = Eureka::start(&home, EurekaOptions::default()).unwrap();
    Some((home, eureka))
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_are_seen_as_they_are() {
    let Some((home, eureka)) = tokio::task::block_in_place(eureka) else { return };
    let address =
        format!("address = \"{}\"\nallow_loopback = true\ntls = \"off\"\nregion = \"eu\"\n", eureka.url());
    let mut follower = follow(registry(&address));
    let shop = EurekaClient::spring(&home, &eureka.url(), "shop").unwrap();
    let payments = EurekaClient::netflix(&home, &eureka.url(), "payments").unwrap();
    let seen = follower
        .until("both are up", |seen| seen.healthy("shop") == 1 && seen.healthy("payments") == 1)
        .await;
    let endpoint = &seen.endpoints("shop")[0];
    assert_eq!(endpoint.address.to_string(), format!("127.0.0.1:{}", shop.port()));
    assert_eq!((endpoint.labels.get("version"), endpoint.unusable()), (Some("v1"), None));
    let path = format!("apps/PAYMENTS/{}/status?value=", payments.id());
    eureka.call("PUT", &format!("{path}OUT_OF_SERVICE"), "").unwrap().success("override").unwrap();
    let drains = |seen: &Seen| seen.endpoints("payments").iter().any(|it| it.health == Health::Draining);
    follower.until("an operator takes it out of service", drains).await;
    eureka.call("DELETE", &format!("{path}UP"), "").unwrap().success("end the override").unwrap();
    follower.until("and in again", |seen| seen.healthy("payments") == 1).await;
    shop.stop().unwrap();
    follower.until("one said goodbye", |seen| seen.endpoints("shop").is_empty()).await;
    payments.kill();
    follower.until("the other one's lease ran out", |seen| seen.endpoints("payments").is_empty()).await;
}

/// The ids of those that a list shows.
fn listed(document: &Value) -> Vec<String> {
    let applications = document["applications"]["application"].as_array().unwrap();
    let instances = applications.iter().flat_map(|it| it["instance"].as_array().unwrap());
    let mut ids: Vec<String> = instances.map(|it| it["instanceId"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// The same, of Weft's own API over what was seen.
fn served(seen: &Seen, path: &str) -> Vec<String> {
    let order = [RegistryName::new("eureka").unwrap()];
    let source = Source {
        snapshot: &seen.snapshot,
        order: &order,
        joins: &[],
        leads: Leads(&|_| None),
        eureka: &order.iter().cloned().collect(),
        listeners: &Listeners::new(),
        lacks: false,
    };
    let question = Question {
        method: &http::Method::GET,
        path: &format!("/eureka/{path}"),
        query: "",
        accept: Some("application/json"),
        content_type: None,
        body: b"",
    };
    let reply = Api::default().answer(question, Some(&source), Moment { wall: 1, steady: 1 });
    listed(&serde_json::from_slice(&reply.body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_found_by_what_the_server_finds_it_by_and_called_by_what_all_have() {
    let Some((_home, eureka)) = tokio::task::block_in_place(eureka) else { return };
    for (number, vip) in [(1, "all.example,vip-a"), (2, "vip-b,all.example,localhost")] {
        let mut one = instance("orders", number);
        one["instance"]["vipAddress"] = vip.into();
        eureka.register(&one).unwrap();
    }
    let mut follower = follow(registry(&format!("address = \"{}\"\n", eureka.url())));
    let seen = follower.until("both", |seen| seen.healthy("orders") == 2).await;
    for (path, found) in [
        ("vips/all.example", 2),
        ("vips/vip-a", 1),
        ("vips/vip-b", 1),
        ("svips/vip-a", 0),
        ("vips/orders", 0),
    ] {
        let real = tokio::task::block_in_place(|| listed(&eureka.call("GET", path, "").unwrap().json()));
        assert_eq!((served(&seen, path), real.len()), (real, found), "{path}");
    }
    let partition = &seen.snapshot.partitions[&RegistryName::new("eureka").unwrap()];
    let entry = partition.services.get(&"orders".parse::<ServiceName>().unwrap()).unwrap();
    let service = entry.service.as_ref().unwrap();
    assert_eq!(service.hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>(), ["all.example"]);
    let origins = seen.snapshot.scopes.values().flat_map(|scope| scope.origins.values());
    let faults: Vec<&str> = origins.flat_map(|origin| &origin.faults).map(|fault| &*fault.message).collect();
    for told in ["\"vip-a\" is left out", "\"vip-b\" is left out", "\"localhost\" is left out"] {
        assert!(faults.iter().any(|fault| fault.contains(told)), "{told}: {faults:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgot_everything_takes_nothing_with_it() {
    let Some((_home, eureka)) = tokio::task::block_in_place(eureka) else { return };
    for number in 1..=3 {
        eureka.register(&instance("orders", number)).unwrap();
    }
    eureka.register(&instance("api", 1)).unwrap();
    let mut follower = follow(registry(&format!("address = \"{}\"\n", eureka.url())));
    let three = |seen: &Seen| seen.healthy("orders") == 3 && seen.healthy("api") == 1;
    follower.until("all of them", three).await;
    eureka.kill();
    follower.until("the outage", |seen| !seen.errors.is_empty()).await;
    eureka.restart().unwrap();
    let doubted = |seen: &Seen| {
        let scopes = seen.snapshot.scopes.values();
        let mut faults = scopes.flat_map(|it| it.origins.values()).flat_map(|origin| &origin.faults);
        seen.completeness.last() == Some(&Completeness::Filtered)
            && faults.any(|fault| fault.message.contains("may have been restarted"))
    };
    let seen = follower.until("an empty server is doubted, and why is told", doubted).await;
    assert_eq!((seen.endpoints("orders").len(), seen.endpoints("api").len()), (3, 1), "nothing is gone");
    eureka.register(&instance("orders", 2)).unwrap();
    let seen = follower.until("the first is back", |seen| seen.healthy("orders") == 1).await;
    assert_eq!((seen.endpoints("orders").len(), seen.endpoints("api").len()), (3, 1));
    let kept = seen.endpoints("api")[0].health;
    assert_eq!(kept, Health::Unconfirmed, "kept and ranked last");
    for number in [1, 3] {
        eureka.register(&instance("orders", number)).unwrap();
    }
    eureka.register(&instance("api", 1)).unwrap();
    follower.until("all are back", three).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_an_empty_server_says_why_its_list_is_not_taken_for_whole() {
    let Some((_home, eureka)) = tokio::task::block_in_place(eureka) else { return };
    let registry = registry(&format!("address = \"{}\"\n", eureka.url()));
    let found = probe(&*registry, &Limits::default(), &[], SOON).await;
    assert_eq!((found.complete, found.services), (Some(false), 0), "{found:?}");
    let is_told = found.skipped.iter().any(|fault| fault.message.contains("may have just started"));
    assert!(is_told, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_asked_when_the_first_is_silent() {
    let Some((_home, first)) = tokio::task::block_in_place(eureka) else { return };
    let Some((_home, second)) = tokio::task::block_in_place(eureka) else { return };
    let gate = Gate::before(&first.url()).unwrap();
    for server in [&first, &second] {
        server.register(&instance("orders", 1)).unwrap();
    }
    first.register(&instance("orders", 2)).unwrap();
    let two = format!("address = \"{}\"\npeers = [\"{}\"]\n", gate.url() + "/eureka", second.url());
    let mut follower = follow(registry(&two));
    follower.until("what the first has", |seen| seen.healthy("orders") == 2).await;
    gate.set(GateMode::Cut).unwrap();
    second.register(&instance("orders", 3)).unwrap();
    let seen = follower.until("what the second has too", |seen| seen.endpoints("orders").len() == 3).await;
    let lacking: Vec<_> = seen
        .endpoints("orders")
        .iter()
        .filter(|it| it.health == Health::Unconfirmed)
        .map(|it| it.instance.to_string())
        .collect();
    assert_eq!(lacking, ["orders-2"], "what the second does not know is not gone");
    assert!(seen.errors.is_empty(), "{:?}", seen.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_says_what_is_seen_and_what_is_not() {
    let Some((_home, eureka)) = tokio::task::block_in_place(eureka) else { return };
    eureka.register(&instance("orders", 1)).unwrap();
    let mut odd = instance("odd", 1);
    odd["instance"]["ipAddr"] = "169.254.169.254".into();
    eureka.register(&odd).unwrap();
    let found =
        probe(&*registry(&format!("address = \"{}\"\n", eureka.url())), &Limits::default(), &[], SOON).await;
    assert_eq!((found.endpoints, found.complete, found.error.as_deref()), (1, Some(true), None), "{found:?}");
    assert!(
        found.is_well() && found.skipped.iter().any(|fault| fault.message.contains("address of the link"))
    );
    let base = eureka.url().replace("/eureka/", "/nowhere");
    let found = probe(&*registry(&format!("address = \"{base}\"\n")), &Limits::default(), &[], SOON).await;
    assert!(found.error.unwrap().contains("ends in /eureka"));
    let gone = eureka.url();
    eureka.kill();
    let found = probe(&*registry(&format!("address = \"{gone}\"\n")), &Limits::default(), &[], SOON).await;
    assert_eq!(found.error_kind, Some("unreachable"));
}

fn announced(health: Health) -> Arc<LocalInstance> {
    let (name, number) = ("http".parse().unwrap(), 8080);
    let endpoint = Endpoint {
        service: "stock".parse().unwrap(),
        port_name: "http".parse().unwrap(),
        instance: "host-1.stock".parse().unwrap(),
        address: ([10, 0, 0, 9], number).into(),
        mesh_address: None,
        identity: None,
        said_by: SaidBy::all(Sayer::Metadata),
        tls: TlsMode::Off,
        labels: Default::default(),
        weight: 1,
        locality: Default::default(),
        health,
    };
    let port = ServicePort { name, number, protocol: AppProtocol::Http };
    Arc::new(LocalInstance { endpoint, port, note: String::new() })
}

/// The instance's status and its override, as the server lists them.
fn status(eureka: &Eureka) -> Option<(String, String)> {
    let answer = eureka.call("GET", "apps/STOCK/host-1.stock:http", "").unwrap();
    let listed = (answer.status != 404).then(|| answer.json())?;
    let is = |key: &str| listed["instance"][key].as_str().unwrap().to_owned();
    Some((is("status"), is("overriddenStatus")))
}

async fn shows(eureka: &Eureka, expected: Option<(&str, &str)>) {
    let expected = expected.map(|(status, overridden)| (status.to_owned(), overridden.to_owned()));
    let reached = timeout(SOON, async {
        while tokio::task::block_in_place(|| status(eureka)) != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("{:?} is not {expected:?}", status(eureka)));
}

/// Says something else, and waits until that is confirmed.
async fn change(lease: &Lease, health: Health) {
    let said = std::time::SystemTime::now();
    lease.change(announced(health));
    confirmed_since(lease, said).await;
}

/// Waits until what was said at that time is confirmed.
async fn confirmed_since(lease: &Lease, said: std::time::SystemTime) {
    let mut state = lease.state();
    let confirmed = state.wait_for(|state| state.confirmed.is_some_and(|at| at > said));
    assert!(timeout(SOON, confirmed).await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drains_is_out_of_service_and_in_again_unless_an_operator_says_otherwise() {
    let Some((_home, eureka)) = tokio::task::block_in_place(eureka) else { return };
    let registry = registry(&format!("address = \"{}\"\n", eureka.url()));
    let (up, drained) = (Some(("UP", "UNKNOWN")), Some(("OUT_OF_SERVICE", "OUT_OF_SERVICE")));
    let lease = registry.register(announced(Health::Healthy)).unwrap();
    shows(&eureka, up).await;
    lease.change(announced(Health::Draining));
    shows(&eureka, drained).await;
    lease.change(announced(Health::Healthy));
    shows(&eureka, up).await;
    lease.change(announced(Health::Unhealthy));
    shows(&eureka, Some(("DOWN", "UNKNOWN"))).await;
    change(&lease, Health::Draining).await;
    shows(&eureka, drained).await;
    // As if the process had died: nothing is withdrawn, and the next life begins while the last one is still listed.
    lease.leave();
    let lease = registry.register(announced(Health::Healthy)).unwrap();
    shows(&eureka, up).await;
    lease.change(announced(Health::Draining));
    shows(&eureka, drained).await;
    lease.withdraw().await;
    shows(&eureka, None).await;
    let lease = registry.register(announced(Health::Draining)).unwrap();
    shows(&eureka, drained).await;
    lease.change(announced(Health::Healthy));
    shows(&eureka, up).await;
    lease.withdraw().await;
    let lease = registry.register(announced(Health::Healthy)).unwrap();
    shows(&eureka, up).await;
    let path = "apps/STOCK/host-1.stock:http";
    let overrides = format!("{path}/status?value=OUT_OF_SERVICE");
    eureka.call("PUT", &overrides, "").unwrap().success("override").unwrap();
    lease.change(announced(Health::Unhealthy));
    shows(&eureka, Some(("DOWN", "OUT_OF_SERVICE"))).await;
    lease.change(announced(Health::Healthy));
    shows(&eureka, drained).await;
    lease.leave();
    let lease = registry.register(announced(Health::Healthy)).unwrap();
    let taken =
        timeout(SOON, async { lease.state().wait_for(|state| state.confirmed.is_some()).await.is_ok() });
    assert!(taken.await.unwrap());
    shows(&eureka, drained).await;
    // It drains and is well again under the operator's word, which is not ours to end: not in this life, not in the next.
    change(&lease, Health::Draining).await;
    shows(&eureka, drained).await;
    change(&lease, Health::Healthy).await;
    shows(&eureka, drained).await;
    change(&lease, Health::Draining).await;
    lease.leave();
    let said = std::time::SystemTime::now();
    let lease = registry.register(announced(Health::Healthy)).unwrap();
    confirmed_since(&lease, said).await;
    shows(&eureka, drained).await;
    eureka
        .call("DELETE", &format!("{path}/status?value=UP"), "")
        .unwrap()
        .success("end the override")
        .unwrap();
    shows(&eureka, up).await;
}
