//! The operator's verbs.

use crate::support::{Application, Mesh, Sandbox, client, until};

#[test]
fn a_verb_without_an_agent_names_the_socket_and_how_to_start_one() {
    let sandbox = Sandbox::new();
    for verb in ["status", "services", "endpoints", "routes", "certs", "tap", "drain"] {
        let output = sandbox.run(&[verb, "--socket", "none/admin.sock"]);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        assert!(
            complaint.contains("none/admin.sock") && complaint.contains("weft agent"),
            "{verb}: {complaint}"
        );
        assert!(output.stdout.is_empty(), "{verb} printed a result");
    }
}

#[test]
fn every_reading_verb_shows_what_the_agent_knows() {
    let application = Application::start("echo");
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", application.address, "http");
    mesh.caller("near", "client");
    mesh.start();

    let services = mesh.ask("near", "services");
    assert_eq!(services[0]["name"], "echo.default");
    assert_eq!((&services[0]["endpoints"], &services[0]["healthy"]), (&1.into(), &1.into()));
    let endpoints = mesh.ask("near", "endpoints");
    assert_eq!(endpoints[0]["mesh_address"], mesh.inbound("far").to_string());
    assert_eq!(endpoints[0]["labels"]["version"], "v1");
    let routes = mesh.ask("near", "routes");
    assert_eq!(routes[0]["targets"][0]["instances"][0], "echo-v1");
    let certs = mesh.ask("near", "certs");
    assert_eq!(certs[0]["identity"], "spiffe://test.mesh/ns/default/sa/client");
    assert!(certs[0]["ends_in_s"].as_i64().unwrap() > 80_000);

    let socket = mesh.socket("near");
    let table = mesh.sandbox.ok(&["endpoints", "--socket", &socket]);
    assert!(table.starts_with("SERVICE") && table.contains("echo-v1"), "{table}");
    assert!(!table.contains('\x1b'), "colour belongs on a terminal only");

    let version = client::get(mesh.admin("near"), "weft", "/version").unwrap().json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    for page in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(client::get(mesh.admin("near"), "weft", page).unwrap().status, 200, "{page}");
    }
    for page in ["/status", "/certs", "/tap", "/config"] {
        let status = client::get(mesh.admin("near"), "weft", page).unwrap().status;
        assert_eq!(status, 404, "{page} must not be readable over TCP");
    }
    assert_eq!(client::send(mesh.admin("near"), "POST", "weft", "/drain").unwrap().status, 404);
}

#[test]
fn tap_shows_a_call_on_both_sides() {
    let application = Application::start("echo");
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", application.address, "http");
    mesh.caller("near", "client");
    mesh.start();
    let arguments = |mesh: &Mesh, host: &str| {
        let socket = mesh.socket(host);
        ["tap", "-n", "1", "-o", "json", "--socket", &socket].map(str::to_owned)
    };
    let mut taps = ["near", "far"].map(|host| {
        let arguments = arguments(&mesh, host);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        (host, mesh.sandbox.spawn(&format!("tap-{host}"), &arguments))
    });
    // A tap hears what ends after it has begun: call until both have heard one.
    until("both taps show a call", || {
        let answer = client::get(mesh.outbound("client"), "echo.default.mesh", "/x").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"service\":\"echo\"}"));
        taps.iter_mut().all(|(_, tap)| !tap.is_running()).then_some(())
    });
    for (host, tap) in &taps {
        let call: serde_json::Value = serde_json::from_str(tap.log().lines().next().unwrap()).unwrap();
        assert_eq!(call["reporter"], if *host == "near" { "source" } else { "destination" });
        assert_eq!(call["source"]["identity"], "spiffe://test.mesh/ns/default/sa/client");
        assert_eq!(call["destination"]["identity"], "spiffe://test.mesh/ns/default/sa/echo");
        assert_eq!((&call["mutual_tls"], &call["verdict"]["status"]), (&true.into(), &200.into()));
    }

    // The caller's side by the instance, the called side by the workload; here they are called the same.
    for host in ["near", "far"] {
        let metrics = client::get(mesh.admin(host), "weft", "/metrics").unwrap().body;
        let counted = metrics.lines().find(|line| line.starts_with("weft_requests_total{")).unwrap();
        assert!(counted.contains(r#"destination_workload="echo-v1""#), "{host}: {counted}");
    }

    let socket = mesh.socket("near");
    let mut tap = mesh.sandbox.spawn("tap-nowhere", &["tap", "-n", "1", "--socket", &socket]);
    until("the tap shows a call to nowhere", || {
        assert_eq!(client::get(mesh.outbound("client"), "nowhere.default", "/x").unwrap().status, 404);
        (!tap.is_running()).then_some(())
    });
    assert!(tap.log().contains("-> - GET /x 404 no_destination"), "{}", tap.log());
    assert!(tap.log().contains(" host=nowhere.default "), "{}", tap.log());
}
