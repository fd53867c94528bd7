//! Coming up, going down, and dying.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Application, Load, Mesh, client, until};

fn echo_mesh(application: &Application) -> Mesh {
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", application.address, "http");
    mesh.caller("near", "client");
    mesh
}

#[test]
fn readiness_names_what_is_missing() {
    let application = Application::start("echo");
    let mut mesh = echo_mesh(&application);
    mesh.write();
    let certificate = mesh.sandbox.path("near/certificates/client.pem");
    let aside = mesh.sandbox.path("near/aside.pem");
    std::fs::rename(&certificate, &aside).unwrap();
    mesh.spawn("near");
    let page = until("the agent says what is missing", || {
        let page = client::get(mesh.admin("near"), "weft", "/readyz").ok()?;
        (page.status == 503 && !page.body.contains("registry")).then_some(page.body)
    });
    assert!(page.contains("certificate of client"), "{page}");
    assert_eq!(client::get(mesh.admin("near"), "weft", "/livez").unwrap().status, 200);
    assert_eq!(mesh.try_status("near").unwrap()["phase"], "starting");
    std::fs::rename(&aside, &certificate).unwrap();
    mesh.ready("near");
    assert_eq!(client::get(mesh.admin("near"), "weft", "/readyz").unwrap().status, 200);
}

#[test]
fn inbound_stays_closed_until_policy_is_known() {
    let application = Application::start("echo");
    let mut mesh = echo_mesh(&application);
    mesh.write();
    let folder = mesh.sandbox.path("mesh.d");
    let aside = mesh.sandbox.path("aside.d");
    std::fs::rename(&folder, &aside).unwrap();
    mesh.spawn("far");
    until("the agent waits for its registry", || {
        let missing = mesh.try_status("far")?["missing"].to_string();
        missing.contains("registry static").then_some(())
    });
    assert!(std::net::TcpStream::connect(mesh.inbound("far")).is_err(), "inbound is open without policy");
    std::fs::rename(&aside, &folder).unwrap();
    mesh.ready("far");
    assert!(std::net::TcpStream::connect(mesh.inbound("far")).is_ok());
}

/// Ends the agent of one of two instances while both are called. What failed of it.
fn failures_while_one_agent_ends(drain_deadline: &str) -> Vec<String> {
    let applications = [Application::start("one"), Application::start("two")];
    let mut mesh = Mesh::new();
    mesh.settings = format!("workers = 2\ndrain_deadline = \"{drain_deadline}\"\n");
    mesh.serve("far", "echo", "v1", applications[0].address, "http");
    mesh.serve("other", "echo", "v2", applications[1].address, "http");
    mesh.caller("near", "client");
    mesh.start();
    applications.iter().for_each(|application| application.delay(Duration::from_millis(200)));
    let load = Load::once_only(mesh.outbound("client"), "echo.default.mesh", 16);
    until("both take part", || applications.iter().all(|it| it.requests() > 10).then_some(()));
    mesh.process("far").signal(Signal::TERM);
    assert!(mesh.process("far").wait().success());
    load.go_on(100);
    load.end()
}

#[test]
fn a_called_agent_drains_under_load_without_a_failed_request() {
    let failures = failures_while_one_agent_ends("20s");
    assert!(failures.is_empty(), "{} failures, such as {}", failures.len(), failures[0]);
}

/// Or the test above would prove nothing.
#[test]
fn without_time_to_drain_the_same_load_fails() {
    assert!(!failures_while_one_agent_ends("0s").is_empty());
}

#[test]
fn a_request_under_way_is_finished_before_the_agent_ends() {
    let application = Application::start("echo");
    let mut mesh = echo_mesh(&application);
    mesh.start();
    application.delay(Duration::from_millis(1500));
    let outbound = mesh.outbound("client");
    let call = std::thread::spawn(move || client::get(outbound, "echo.default.mesh", "/slow"));
    until("the request is under way", || (application.requests() == 1).then_some(()));
    for host in ["far", "near"] {
        mesh.process(host).signal(Signal::TERM);
    }
    let answer = call.join().unwrap().unwrap();
    assert_eq!(answer.status, 200);
    for host in ["far", "near"] {
        assert!(mesh.process(host).wait().success(), "{host}");
    }
}

/// What the tests of draining rely on: without a deadline the same request is cut, and their client says so.
#[test]
fn with_a_deadline_of_zero_the_same_request_is_cut() {
    let application = Application::start("echo");
    let mut mesh = echo_mesh(&application);
    mesh.settings = "workers = 2\ndrain_deadline = \"0s\"\n".into();
    mesh.start();
    application.delay(Duration::from_secs(15));
    let outbound = mesh.outbound("client");
    let call = std::thread::spawn(move || client::get(outbound, "echo.default.mesh", "/slow"));
    until("the request is under way", || (application.requests() == 1).then_some(()));
    mesh.process("near").signal(Signal::TERM);
    assert!(mesh.process("near").wait().success());
    let answer = call.join().unwrap();
    assert!(answer.is_err() || answer.as_ref().is_ok_and(|answer| answer.status != 200), "{answer:?}");
}

#[test]
fn a_second_signal_ends_the_agent_at_once() {
    let application = Application::start("echo");
    let mut mesh = echo_mesh(&application);
    mesh.start();
    application.delay(Duration::from_secs(15));
    let outbound = mesh.outbound("client");
    let call = std::thread::spawn(move || client::get(outbound, "echo.default.mesh", "/slow"));
    until("the request is under way", || (application.requests() == 1).then_some(()));
    mesh.process("near").signal(Signal::TERM);
    mesh.process("near").logged("draining");
    assert!(mesh.process("near").is_running(), "it drains as long as a request is under way");
    mesh.process("near").signal(Signal::INT);
    // Sooner than the request is answered, and than its time to drain is over.
    mesh.process("near").wait_within(Duration::from_secs(10));
    assert!(call.join().unwrap().is_err(), "the request was cut off");
}

#[test]
fn after_kill_9_and_a_restart_calls_go_on() {
    let application = Application::start("echo");
    let mut mesh = echo_mesh(&application);
    mesh.start();
    let outbound = mesh.outbound("client");
    assert_eq!(client::get(outbound, "echo.default.mesh", "/").unwrap().status, 200);
    mesh.process("far").kill();
    let refused = client::get(outbound, "echo.default.mesh", "/").unwrap();
    assert!([502, 503].contains(&refused.status), "{refused:?}");
    mesh.spawn("far");
    mesh.ready("far");
    until("calls go on", || {
        let answer = client::get(outbound, "echo.default.mesh", "/").unwrap();
        (answer.status == 200).then_some(())
    });
    mesh.process("near").kill();
    mesh.spawn("near");
    mesh.ready("near");
    assert_eq!(client::get(outbound, "echo.default.mesh", "/").unwrap().status, 200);
}

#[test]
fn drain_by_the_verb_ends_the_agent() {
    let application = Application::start("echo");
    let mut mesh = echo_mesh(&application);
    mesh.start();
    let socket = mesh.socket("near");
    mesh.sandbox.ok(&["drain", "--socket", &socket]);
    assert!(mesh.process("near").wait().success());
    assert!(!mesh.sandbox.path("near/admin.sock").exists());
}
