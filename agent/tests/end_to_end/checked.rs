//! Endpoints of a registry that knows no health, looked after by the caller's agent through the mesh.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Application, Load, Mesh, client, until_within};

const SECONDS: Duration = Duration::from_secs(40);

fn endpoints(mesh: &Mesh) -> Vec<Value> {
    mesh.ask("near", "endpoints").as_array().cloned().unwrap_or_default()
}

/// A caller of an application on each of some hosts, whose agent checks them as said.
fn checked(hosts: &[&str], check: &str) -> (Mesh, Vec<Application>) {
    let applications: Vec<_> = hosts.iter().map(|host| Application::start(host)).collect();
    let mut mesh = Mesh::new();
    mesh.caller("near", "web");
    for (application, host) in applications.iter().zip(hosts) {
        mesh.serve(host, "reviews", host, application.address, "http");
    }
    let folder = mesh.sandbox.path("mesh.d");
    mesh.follow(
        "near",
        &format!(
            "[[registry]]\nkind = \"static\"\npath = {folder:?}\nallow_loopback = true\n[registry.check]\n{check}\n"
        ),
    );
    mesh.start();
    assert!(left(&mesh, hosts.len()).is_empty());
    (mesh, applications)
}

/// Waits until so many can be called, and yields what is said of the others.
fn left(mesh: &Mesh, eligible: usize) -> Vec<String> {
    let all = until_within(SECONDS, &format!("{eligible} can be called"), || {
        let all = endpoints(mesh);
        (all.iter().filter(|row| row["eligible"] == true).count() == eligible).then_some(all)
    });
    let others = all.iter().filter(|row| row["eligible"] == false);
    others.map(|row| format!("{} {}", row["health"], row["reason"])).collect()
}

#[test]
fn an_endpoint_that_fails_its_check_is_left_out_and_the_reason_is_told() {
    let (mut mesh, mut applications) =
        checked(&["one", "two", "three"], "kind = \"http\"\npath = \"/up\"\ninterval = \"1500ms\"");
    // The checks come through the mesh to the application itself.
    until_within(SECONDS, "all are asked", || {
        let asked = |it: &Application| it.last().first().is_some_and(|line| line.starts_with("GET /up "));
        applications.iter().all(asked).then_some(())
    });
    // An application dies behind an agent that is well. Its connections of before rest, and are closed, between two checks.
    drop(applications.remove(0));
    let [reason] = left(&mesh, 2).try_into().unwrap();
    assert!(reason.contains("unhealthy") && reason.contains("its check fails for"), "{reason}");
    assert!(reason.contains("GET /up through") && reason.contains("status 503"), "{reason}");
    // Then a whole agent, and nobody loses a call by it.
    let load = Load::paced(mesh.outbound("web"), "reviews.default.mesh", 4, 200);
    load.go_on(50);
    mesh.process("three").kill();
    // Calls take it out first, for a while; its check then keeps it out.
    until_within(SECONDS, "its check has found it", || {
        let reasons = endpoints(&mesh).into_iter().map(|row| row["reason"].to_string());
        let is_found = |reason: String| reason.contains("its check fails") && reason.contains("refused");
        reasons.into_iter().any(is_found).then_some(())
    });
    load.go_on(50);
    let (answered, failures) = (load.answered(), load.end());
    assert!(failures.is_empty(), "{} of {answered} failed, such as {}", failures.len(), failures[0]);
    // When all fail, none is taken away.
    mesh.process("two").kill();
    left(&mesh, 0);
    assert_eq!(endpoints(&mesh).len(), 3);
    mesh.spawn("two");
    mesh.ready("two");
    left(&mesh, 1);
    let answer = client::get(mesh.outbound("web"), "reviews.default.mesh", "/").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn who_dies_while_the_registry_is_away_is_left_out_until_it_is_back() {
    let (mut mesh, _applications) = checked(&["one", "two"], "kind = \"tcp\"\ninterval = \"500ms\"");
    let [folder, away] = ["mesh.d", "away.d"].map(|name| mesh.sandbox.path(name));
    std::fs::rename(&folder, &away).unwrap();
    let is = |mesh: &Mesh, state: &str| {
        let now = || mesh.ask("near", "status")["registries"][0]["state"].clone();
        until_within(SECONDS, &format!("the registry is {state}"), || (now() == state).then_some(()));
    };
    is(&mesh, "away");
    mesh.process("two").kill();
    let [reason] = left(&mesh, 1).try_into().unwrap();
    assert!(reason.contains("its check fails"), "{reason}");
    mesh.spawn("two");
    mesh.ready("two");
    assert!(left(&mesh, 2).is_empty());
    until_within(SECONDS, "its age is told", || {
        let row = mesh.ask("near", "status")["registries"][0].clone();
        assert_eq!(row["state"], "away", "{row}");
        (row["age_s"].as_u64().unwrap() >= 1).then_some(())
    });
    std::fs::rename(&away, &folder).unwrap();
    is(&mesh, "connected");
    assert!(left(&mesh, 2).is_empty());
}
