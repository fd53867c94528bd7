//! Real clients of Eureka on Weft's own API: they register there, fetch from there, and go on there when Eureka is gone.
#![allow(clippy::unwrap_used)]

#[path = "../support/support.rs"]
mod support;

use std::{net::SocketAddr, path::Path};

use serde_json::{Value, json};
use support::{Process, Sandbox, address, until, until_within};
use weft_testbed::{Call, Eureka, EurekaClient, EurekaOptions, Kind, installed, required};

/// An agent, or a hub, that serves the API.
struct Served {
    sandbox: Sandbox,
    process: Process,
    api: SocketAddr,
}

fn agent(registries: &str) -> Served {
    let (sandbox, api) = (Sandbox::new(), address());
    let root = sandbox.root().to_owned();
    let text = format!(
        "state_dir = {:?}\nrun_dir = {:?}\n[admin]\nlisten = \"off\"\n[eureka_api]\nlisten = \"{api}\"\n{registries}",
        root.join("state"),
        root.join("run"),
    );
    sandbox.write("weft.toml", &text);
    let process = spawn(&sandbox, &root);
    Served { sandbox, process, api }
}

/// The agent of `examples/eureka`, at places of this test's own.
fn example(eureka: &Eureka) -> Served {
    let (sandbox, api) = (Sandbox::new(), address());
    let root = sandbox.root().to_owned();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/eureka/weft.toml");
    let mut text = std::fs::read_to_string(file).unwrap();
    for (written, ours) in [
        ("127.0.0.1:8762\"", format!("{api}\"")),
        ("127.0.0.1:15020", address().to_string()),
        ("127.0.0.1:15001", address().to_string()),
        ("http://127.0.0.1:8761/eureka\"", format!("{}\"\npoll = \"1s\"", eureka.url())),
    ] {
        assert!(text.contains(written), "{written}");
        text = text.replace(written, &ours);
    }
    sandbox.write("weft.toml", &text);
    let process = spawn(&sandbox, &root);
    Served { sandbox, process, api }
}

fn spawn(sandbox: &Sandbox, root: &Path) -> Process {
    sandbox.spawn("agent", &["agent", "--config", root.join("weft.toml").to_str().unwrap()])
}

impl Served {
    /// What clients are given.
    fn url(&self) -> String {
        format!("http://{}/eureka/", self.api)
    }

    fn get(&self, path: &str) -> Option<Value> {
        let call = Call::new("GET", self.url() + path).header("Accept", "application/json");
        let answer = call.send().ok()?;
        answer.is_success().then(|| answer.json())
    }

    fn instance(&self, id: &str) -> Option<Value> {
        Some(self.get(&format!("instances/{id}"))?["instance"].clone())
    }

    fn register(&self, id: &str) {
        let instance = json!({ "instance": {
            "instanceId": id, "app": "ONLYHERE", "hostName": "127.0.0.1", "ipAddr": "127.0.0.1", "status": "UP",
            "vipAddress": "onlyhere", "port": { "$": 8080, "@enabled": "true" },
            "dataCenterInfo": { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn" },
        }});
        let call = Call::new("POST", self.url() + "apps/ONLYHERE").header("Content-Type", "application/json");
        assert_eq!(call.body(instance.to_string()).send().unwrap().status, 204);
    }
}

/// A folder with one service of one instance in plaintext.
fn files(sandbox: &Sandbox) -> String {
    let text = "[[service]]\nname = \"orders\"\nports = [{ name = \"http\", number = 80 }]\n\
                [[service.endpoint]]\ninstance = \"orders-1\"\naddress = \"10.1.2.3:8080\"\ntls = \"off\"\n";
    sandbox.write("mesh.d/orders.toml", text);
    format!("[[registry]]\nkind = \"static\"\npath = {:?}\n", sandbox.path("mesh.d"))
}

#[test]
fn clients_go_on_when_eureka_is_gone() {
    let Some(home) = required(installed(Kind::Eureka)) else { return };
    let eureka = Eureka::start(&home, EurekaOptions::default()).unwrap();
    let served = example(&eureka);
    let both = format!("{},{}", eureka.url(), served.url());
    let payments = EurekaClient::netflix(&home, &eureka.url(), "payments").unwrap();
    let shop = EurekaClient::spring(&home, &both, "shop").unwrap();
    let all = [payments.id(), shop.id()];
    until("the client sees both", || (shop.sees() == all).then_some(()));
    let listed = until("Weft lists what Eureka has", || {
        served.instance(&shop.id())?;
        served.instance(&payments.id())
    });
    assert_eq!(listed["port"], json!({ "$": payments.port(), "@enabled": "true" }));
    eureka.kill();
    until_within(support::PATIENCE * 2, "it registers at Weft", || {
        let instance = served.instance(&shop.id())?;
        instance["homePageUrl"].is_string().then_some(())
    });
    served.register("onlyhere-1");
    let with_new = ["onlyhere-1".to_owned(), payments.id(), shop.id()];
    until("it sees what Weft alone can tell it, and all that Eureka told", || {
        // One that does not answer has lost nobody.
        let seen = shop.services().ok()?.to_string();
        assert!(all.iter().all(|id| seen.contains(id.as_str())), "nobody was lost: {seen}");
        (shop.sees() == with_new).then_some(())
    });
    eureka.restart().unwrap();
    until_within(support::PATIENCE * 2, "all is as before", || {
        let seen = shop.sees();
        (seen.contains(&payments.id()) && seen.contains(&shop.id())).then_some(())
    });
}

#[test]
fn both_clients_live_with_weft_alone() {
    let Some(home) = required(installed(Kind::Eureka)) else { return };
    let folder = Sandbox::new();
    let mut served = agent(&files(&folder));
    until("it serves", || served.instance("orders-1"));
    let payments = EurekaClient::netflix(&home, &served.url(), "payments").unwrap();
    let shop = EurekaClient::spring(&home, &served.url(), "shop").unwrap();
    let all = ["orders-1".to_owned(), payments.id(), shop.id()];
    for client in [&payments, &shop] {
        until("it sees itself, the other and the mesh", || (client.sees() == all).then_some(()));
    }
    let status = format!("apps/PAYMENTS/{}/status?value=OUT_OF_SERVICE", payments.id());
    assert_eq!(Call::new("PUT", served.url() + &status).send().unwrap().status, 200);
    let others = ["orders-1".to_owned(), shop.id()];
    until("what an operator took out is gone", || (shop.sees() == others).then_some(()));
    let status = status.replace("OUT_OF_SERVICE", "UP");
    assert_eq!(Call::new("DELETE", served.url() + &status).send().unwrap().status, 200);
    until("and back", || (shop.sees() == all).then_some(()));
    served.process.kill();
    let root = served.sandbox.root().to_owned();
    served.process = spawn(&served.sandbox, &root);
    for id in [payments.id(), shop.id()] {
        until("it registers again where nobody knows it any more", || served.instance(&id));
    }
    shop.stop().unwrap();
    until("one said goodbye", || served.instance(&shop.id()).is_none().then_some(()));
    payments.kill();
    until("the other one's lease ran out", || served.instance(&payments.id()).is_none().then_some(()));
    assert!(served.instance("orders-1").is_some());
}

#[test]
fn what_eureka_does_not_take_in_is_not_taken_in_and_no_client_loses_the_list_for_anything() {
    let Some(home) = required(installed(Kind::Eureka)) else { return };
    let eureka = Eureka::start(&home, EurekaOptions::default()).unwrap();
    let folder = Sandbox::new();
    let served = agent(&files(&folder));
    until("it serves", || served.instance("orders-1"));
    let place =
        |class: &str, name: &str| json!({ "@class": format!("com.netflix.appinfo.{class}"), "name": name });
    let default = place("InstanceInfo$DefaultDataCenterInfo", "MyOwn");
    // Eureka reads no name behind the metadata.
    let amazon =
        |metadata: Value| json!({ "@class": "com.netflix.appinfo.AmazonInfo", "metadata": metadata });
    let odd = [
        ("dataCenterInfo", default.clone()),
        ("dataCenterInfo", place("MyDataCenterInfo", "Netflix")),
        ("dataCenterInfo", amazon(json!({ "instance-id": "i-1", "mine": 5 }))),
        ("dataCenterInfo", amazon(json!("text"))),
        ("dataCenterInfo", place("AmazonInfo", "Amazon")),
        ("dataCenterInfo", place("LeaseInfo", "MyOwn")),
        ("dataCenterInfo", place("MyDataCenterInfo", "mine")),
        ("dataCenterInfo", json!({ "name": "MyOwn" })),
        ("dataCenterInfo", json!({ "@class": "my.Own", "name": "MyOwn" })),
        ("dataCenterInfo", json!("MyOwn")),
        ("port", json!({ "$": 99_999_999_999_u64, "@enabled": "true" })),
        ("countryId", json!({})),
        ("countryId", json!("de")),
        ("homePageUrl", json!({ "a": "b" })),
        ("sid", json!([1])),
        ("metadata", json!({ "a": { "b": [1] } })),
        ("leaseInfo", json!({ "serviceUpTimestamp": i64::MAX })),
        ("lastDirtyTimestamp", json!(u64::MAX.to_string())),
        ("status", json!("ODD")),
    ];
    let mut taken = vec!["orders-1".to_owned()];
    for (number, (field, value)) in odd.into_iter().enumerate() {
        let id = format!("odd-{number:02}");
        let mut instance = json!({
            "instanceId": id, "app": "ODD", "hostName": "h", "ipAddr": "10.1.1.1", "status": "UP", "vipAddress": "odd",
            "port": { "$": 1, "@enabled": "true" }, "dataCenterInfo": default,
        });
        instance[field] = value;
        let body = json!({ "instance": instance }).to_string();
        let post = |url: String| {
            let call = Call::new("POST", url + "apps/ODD").header("Content-Type", "application/json");
            call.body(body.clone()).send().unwrap().status
        };
        let ours = post(served.url());
        // What Eureka does with nested fields depends on their order: here they are left out.
        if matches!(field, "dataCenterInfo" | "port") {
            assert_eq!(ours, post(eureka.url()), "{body}");
        }
        taken.extend((ours == 204).then_some(id));
    }
    assert!(taken.len() > 10 && taken.len() < 20, "some are fit and some are not: {taken:?}");
    let netflix = EurekaClient::netflix(&home, &served.url(), "payments").unwrap();
    let spring = EurekaClient::spring(&home, &served.url(), "shop").unwrap();
    taken.extend([netflix.id(), spring.id()]);
    taken.sort();
    for client in [&netflix, &spring] {
        until("it sees all", || {
            let mut seen = client.sees();
            seen.sort();
            (seen == taken).then_some(())
        });
    }
}

#[test]
fn who_asks_for_nothing_gets_xml_and_no_list_comes_before_the_registries_spoke() {
    let folder = Sandbox::new();
    let sections = files(&folder);
    std::fs::rename(folder.path("mesh.d"), folder.path("away")).unwrap();
    let served = agent(&sections);
    let get = || Call::new("GET", served.url() + "apps").send().ok();
    let answer = until("it answers", get);
    assert_eq!(answer.status, 503, "an empty list would take away what clients have");
    std::fs::rename(folder.path("away"), folder.path("mesh.d")).unwrap();
    let answer = until("it lists", || get().filter(|answer| answer.status == 200));
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.starts_with("<applications>") && text.contains("<ipAddr>10.1.2.3</ipAddr>"), "{text}");
    let gone = Call::new("PUT", served.url() + "apps/ORDERS/orders-1").send().unwrap();
    assert_eq!((gone.status, gone.body.len()), (404, 0), "it must register here first");
    let much = Call::new("POST", served.url() + "apps/A").header("Content-Type", "application/json");
    assert_eq!(much.body(vec![b' '; 70 << 10]).send().unwrap().status, 413);
    let second = served.sandbox.run(&["check", served.sandbox.path("weft.toml").to_str().unwrap()]);
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stdout));
}
