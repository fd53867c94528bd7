//! Verbs that are called while what they need is starting: they wait for it, for a while.

use std::net::TcpListener;

use rustix::process::Signal;
use weft_agent::hub::file::HubFile;

use crate::support::{Application, Mesh, Sandbox, address, client, until};

const WEB: &str = "spiffe://demo.mesh/ns/default/sa/web";

#[test]
fn a_token_a_join_and_a_hub_wait_for_each_other() {
    let sandbox = Sandbox::new();
    let listen = address();
    sandbox.ok(&["ca", "init", "--state-dir", "hub", "--trust-domain", "demo.mesh"]);
    let create = ["ca", "token", "create", "--state-dir", "hub", "--node", "one", "--identity", WEB];

    // A hub that is starting has its store and does not answer yet.
    let store = HubFile::open(&sandbox.path("hub")).unwrap();
    let mut waiting = sandbox.spawn("token", &create);
    waiting.logged("waiting for the hub that is starting");
    assert!(waiting.is_running(), "{}", waiting.log());
    drop(store);
    assert!(waiting.wait().success(), "{}", waiting.log());
    let printed = waiting.log();
    let token = printed.lines().find(|line| line.starts_with("weft-join-1.")).unwrap();

    let hub = listen.to_string();
    let mut joining = sandbox.spawn("join", &["join", "--state-dir", "one", "--hub", &hub, "--token", token]);
    joining.logged("trying again");
    assert!(joining.is_running(), "{}", joining.log());
    let config =
        format!("listen = \"{listen}\"\nstate_dir = \"hub\"\nrun_dir = \"hub\"\n[admin]\nlisten = \"off\"\n");
    sandbox.write("hub.toml", &config);
    let _hub = sandbox.spawn("hub", &["hub", "--config", "hub.toml"]);
    // At once: it waits for the hub, or the hub for it.
    let another = sandbox.ok(&create);
    assert_ne!(another.trim(), token);
    assert!(joining.wait().success(), "{}", joining.log());
}

#[test]
fn status_waits_until_the_agent_is_ready() {
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", address(), "http");
    mesh.caller("near", "client");
    mesh.write();
    let certificate = mesh.sandbox.path("near/certificates/client.pem");
    let aside = mesh.sandbox.path("near/aside.pem");
    std::fs::rename(&certificate, &aside).unwrap();
    let socket = mesh.socket("near");
    let short = ["status", "--wait", "1s", "--socket", &socket];
    assert_eq!(mesh.sandbox.run(&short).status.code(), Some(1), "nobody came");
    let mut waiting = mesh.sandbox.spawn("wait", &["status", "--wait", "60s", "--socket", &socket]);
    mesh.spawn("near");
    until("the agent answers", || mesh.try_status("near"));
    assert_eq!(mesh.sandbox.run(&short).status.code(), Some(3), "a certificate is missing");
    assert!(waiting.is_running(), "{}", waiting.log());
    std::fs::rename(&aside, &certificate).unwrap();
    assert!(waiting.wait().success(), "{}", waiting.log());
    assert!(waiting.log().contains("serving"), "{}", waiting.log());
    mesh.process("near").signal(Signal::TERM);
    assert!(mesh.process("near").wait().success());
}

/// Until the first registry has spoken, or failed to, it may have every name that the next one has.
#[test]
fn a_service_waits_for_a_registry_before_its_own_and_says_so() {
    let (silent, application) = (TcpListener::bind("127.0.0.1:0").unwrap(), Application::start("v1"));
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", application.address, "http");
    mesh.caller("near", "client");
    let folder = mesh.sandbox.path("mesh.d");
    let first =
        format!("[[registry]]\nkind = \"consul\"\naddress = \"http://{}\"\n", silent.local_addr().unwrap());
    let next = format!("[[registry]]\nkind = \"static\"\npath = {folder:?}\nallow_loopback = true\n");
    mesh.follow("near", &(first + &next));
    mesh.write();
    mesh.spawn("far");
    mesh.ready("far");
    mesh.spawn("near");
    let (outbound, socket) = (mesh.outbound("client"), mesh.socket("near"));
    let call = || client::get(outbound, "echo.default.mesh", "/");
    let listed = || mesh.sandbox.json("services", &socket).as_array().unwrap().first().cloned();
    until("the agent answers", || mesh.try_status("near"));
    let service = until("the next one has spoken", listed);
    assert_eq!(service["held"], true, "{service}");
    let answer = call().unwrap();
    assert_eq!((answer.status, answer.header("x-weft-fault")), (503, Some("not_ready")));
    assert!(
        mesh.sandbox.ok(&["services", "--socket", &socket]).contains("waits for a registry before its own")
    );
    // Now the first one is away.
    drop(silent);
    until("it is called", || call().ok().filter(|answer| answer.status == 200));
    assert_eq!(listed().unwrap()["held"], false);
}
