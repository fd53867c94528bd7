//! Two hubs that share a store which the team already runs: a token is good once, whoever is asked; one hub dies, and nobody
//! but the operator notices.

use std::{fs, net::SocketAddr};

use serde_json::Value;
use weft_testbed::{Consul, ConsulOptions, Etcd, Kind, installed, required};

use crate::{
    quick_start::{Start, WEB, socket},
    support::{Application, Load, Process, address, until},
};

/// Calls a second, while it all happens.
const PER_SECOND: u32 = 1_000;

#[test]
fn over_etcd() {
    let Some(home) = required(installed(Kind::Kubernetes)) else { return };
    let etcd = Etcd::start(&home, 3).unwrap();
    two_hubs(
        &format!("[store]\nkind = \"etcd\"\naddresses = {:?}\n", etcd.urls()),
        "etcd at http://127.0.0.1",
    );
}

#[test]
fn over_consul() {
    let Some(home) = required(installed(Kind::Consul)) else { return };
    let consul = Consul::start(&home, ConsulOptions::default()).unwrap();
    let section = format!("[store]\nkind = \"consul\"\naddresses = [{:?}]\n", consul.url());
    two_hubs(&section, "Consul at http://127.0.0.1");
}

/// Has a file say something else.
fn edit(start: &Start, from: &str, to: &str, change: impl Fn(String) -> String) {
    let text = fs::read_to_string(start.sandbox.path(from)).unwrap();
    start.sandbox.write(to, &change(text));
}

fn two_hubs(section: &str, store: &str) {
    let applications = [Application::start("one"), Application::start("two")];
    let mut start = Start::new();
    // Renewed every eight seconds.
    start.leaf_ttl = "24s";
    start.write(&applications);
    let (one, two) = (start.hub, address());
    edit(&start, "hub.toml", "hub.toml", |text| text + "[announcements]\n" + section);
    edit(&start, "hub.toml", "hub-b.toml", |text| {
        text.replace(&one.to_string(), &two.to_string()).replace("\"hub\"", "\"hub-b\"")
    });
    for agent in ["web.toml", "reviews.toml"] {
        edit(&start, agent, agent, |text| {
            text.replace(
                &format!("address = \"{one}\"\n[[registry]]"),
                &format!("address = [\"{one}\", \"{two}\"]\n[[registry]]"),
            )
        });
    }
    start.up();
    let checked = start.sandbox.ok(&["check", "--registry", "-o", "json", "hub.toml"]);
    let checked: Value = serde_json::from_str(&checked).unwrap();
    let looked = checked["registries"].as_array().unwrap().iter().find(|it| it["name"] == "[store]").unwrap();
    let rights = looked["rights"].as_array().unwrap();
    let given = rights.iter().all(|right| right["given"] == true);
    assert!(rights.len() == 10 && given && looked["error"].is_null(), "{looked}");
    start.sandbox.ok(&["ca", "hub", "create", "--state-dir", "hub-b", "--from", "hub"]);
    assert!(!start.sandbox.path("hub-b/ca/root.key").exists(), "the root's key stays where it is");
    let spawn = |name: &str| start.sandbox.spawn(name, &["hub", "--config", &format!("{name}.toml")]);
    let mut second = spawn("hub-b");
    until("the second hub listens", || std::net::TcpStream::connect(two).ok());

    a_token_is_good_once(&start, one, two);
    for node in ["web", "reviews"] {
        assert_eq!(connected_to(&start, node), Some(one.to_string()));
    }
    let load = Load::paced(start.web_outbound, "reviews.default.mesh", 16, PER_SECOND);
    load.go_on(1_000);
    let agents = |start: &Start| [1, 2].map(|index| start.processes[index].log());
    let before = agents(&start).map(|log| log.len());
    start.processes[0].kill();
    for node in ["web", "reviews"] {
        until(&format!("{node} is at the other hub"), || {
            (connected_to(&start, node)? == two.to_string()).then_some(())
        });
    }
    // Whoever signs now is the other hub.
    for _ in 0..2 {
        let before = ["web", "reviews"].map(|node| (node, serials(&start, node)));
        for (node, before) in before {
            until(&format!("{node} has new certificates"), || {
                let now = serials(&start, node);
                before.iter().all(|serial| !now.contains(serial)).then_some(())
            });
        }
    }
    for (log, before) in agents(&start).iter().zip(before) {
        let moving: Vec<&str> = log[before..].lines().collect();
        assert!(
            !moving.iter().any(|line| line.contains("WARN")),
            "a move that works is no outage: {moving:#?}"
        );
        assert_eq!(
            moving.iter().filter(|line| line.contains("followed elsewhere")).count(),
            1,
            "{moving:#?}"
        );
    }
    start.sandbox.write("mesh.d/more.toml", "[[service]]\nname = \"more.default\"\nports = [{ name = \"http\", number = 80, protocol = \"http\" }]\n");
    until("what changed is told by the other hub", || {
        start.sandbox.json("services", &socket("web")).to_string().contains("more.default").then_some(())
    });
    load.go_on(1_000);
    let (answered, failures) = (load.answered(), load.end());
    assert!(failures.is_empty(), "{} of {answered} failed, such as {}", failures.len(), failures[0]);
    println!("{answered} calls, none failed");

    // While the first is down its operator is told where to ask.
    let output = start.sandbox.run(&["ca", "token", "list", "--state-dir", "hub"]);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && complaint.contains(store), "{complaint}");
    start.processes[0] = spawn("hub");
    until("the first hub knows who is at the other", || {
        let nodes = start.sandbox.run(&["ca", "node", "list", "--state-dir", "hub"]);
        let nodes = String::from_utf8_lossy(&nodes.stdout).into_owned();
        let is_elsewhere =
            |node: &str| nodes.lines().any(|line| line.starts_with(node) && line.contains("at another hub"));
        (is_elsewhere("web ") && is_elsewhere("reviews ")).then_some(())
    });
    a_removal_is_heard_of(&start, &mut second);
}

fn serials(start: &Start, node: &str) -> Vec<String> {
    let certificates = start.sandbox.json("certs", &socket(node));
    let serials = certificates.as_array().unwrap().iter();
    serials
        .filter(|it| it["identity"].as_str().unwrap().contains("/ns/default/"))
        .map(|it| it["serial"].to_string())
        .collect()
}

fn connected_to(start: &Start, node: &str) -> Option<String> {
    let status: Value = start.sandbox.json("status", &socket(node));
    status["hub"]["address"].as_str().map(str::to_owned)
}

fn a_token_is_good_once(start: &Start, one: SocketAddr, two: SocketAddr) {
    let sandbox = &start.sandbox;
    for (made_at, used_at, other, node) in [("hub", one, two, "first"), ("hub-b", one, two, "second")] {
        let create = ["ca", "token", "create", "--state-dir", made_at, "--identity", WEB];
        let token = sandbox.ok(&create);
        let join = |state: &str, hub: SocketAddr| {
            let hub = hub.to_string();
            sandbox.run(&[
                "join",
                "--state-dir",
                state,
                "--hub",
                &hub,
                "--node",
                node,
                "--token",
                token.trim(),
            ])
        };
        let joined = join(node, used_at);
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        let refused = join(&format!("{node}-again"), other);
        let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && complaint.contains("this token has been used"), "{complaint}");
    }
    let tokens: Vec<Value> = ["hub", "hub-b"]
        .map(|hub| {
            serde_json::from_str(&sandbox.ok(&["ca", "token", "list", "--state-dir", hub, "-o", "json"]))
                .unwrap()
        })
        .into();
    assert_eq!(tokens[0].as_array().unwrap().len(), 4, "{tokens:?}");
    assert_eq!(tokens[0][0]["id"], tokens[1][0]["id"]);
    // Revoked at one, worthless at the other.
    let token =
        sandbox.ok(&["ca", "token", "create", "--state-dir", "hub", "--node", "third", "--identity", WEB]);
    let listed: Value =
        serde_json::from_str(&sandbox.ok(&["ca", "token", "list", "--state-dir", "hub", "-o", "json"]))
            .unwrap();
    let unused = listed.as_array().unwrap().iter().find(|token| token["used_by"].is_null()).unwrap();
    sandbox.ok(&["ca", "token", "revoke", "--state-dir", "hub-b", unused["id"].as_str().unwrap()]);
    let output =
        sandbox.run(&["join", "--state-dir", "third", "--hub", &one.to_string(), "--token", token.trim()]);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && complaint.contains("unknown here"), "{complaint}");
}

/// The node is connected to the second hub, and removed at the first.
fn a_removal_is_heard_of(start: &Start, second: &mut Process) {
    start.sandbox.ok(&["ca", "node", "remove", "--state-dir", "hub", "web"]);
    until("the stream of the node ends", || {
        let status: Value = start.sandbox.json("status", &socket("web"));
        let link = status["hub"]["link"].as_str()?.to_owned();
        link.contains("away").then_some(())
    });
    second.logged("node web was removed from this mesh");
    assert!(connected_to(start, "reviews").is_some(), "the other node's stream goes on");
}
