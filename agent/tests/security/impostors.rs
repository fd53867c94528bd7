//! Servers that answer in the place of the one that was dialled.

use crate::{
    certificates::{params, wrong},
    rogue::Impostor,
    support::{Authority, Mesh, client, mesh::identity, until},
    witness::Witness,
};

/// A service whose only endpoint, so its record says, is `expected` at this address.
fn service(name: &str, address: std::net::SocketAddr, expected: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}.default\"\nports = [{{ name = \"main\", number = 80, protocol = \"http\" }}]\n{}",
        endpoint("impostor", address, expected)
    )
}

fn endpoint(instance: &str, address: std::net::SocketAddr, expected: &str) -> String {
    format!(
        "[[service.endpoint]]\ninstance = \"{instance}\"\nport = \"main\"\naddress = \"127.0.0.1:9\"\n\
         mesh = \"{address}\"\nidentity = \"{expected}\"\n"
    )
}

fn mesh() -> (Mesh, Witness) {
    let witness = Witness::start();
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", witness.address, "http");
    mesh.caller("near", "client");
    (mesh, witness)
}

#[test]
fn another_workloads_certificate_gets_no_byte() {
    let (mut mesh, _witness) = mesh();
    let billing = Impostor::start(&mesh.authority.sign(&params(&[&identity("billing")])));
    mesh.resource("orders.toml", &service("orders", billing.address, &identity("orders")));
    // The same server under its own name: its certificate is a perfectly valid one.
    mesh.resource("billing.toml", &service("billing", billing.address, &identity("billing")));
    mesh.start();
    let near = mesh.outbound("client");
    for _ in 0..3 {
        let response = client::get(near, "orders", "/secret").unwrap();
        assert_eq!(
            (response.status, response.header("x-weft-fault")),
            (503, Some("wrong_identity")),
            "{response:?}"
        );
    }
    assert!(billing.dialled() > 0, "it was never dialled, so this proves nothing");
    assert_eq!(billing.received(), b"", "the impostor was sent something");
    let near_log = mesh.process("near").log();
    assert!(near_log.contains("sa/billing"), "the log names who answered");

    let waiting = std::thread::spawn(move || client::get(near, "billing", "/known"));
    until("under its own name it gets a hello", || billing.received().starts_with(b"WEFT").then_some(()));
    drop(waiting);
}

#[test]
fn wrong_certificates_get_no_byte() {
    let (mut mesh, _witness) = mesh();
    let impostors: Vec<_> = wrong(&mesh.authority, &identity("echo"))
        .into_iter()
        .enumerate()
        .map(|(index, (what, leaf))| {
            let impostor = Impostor::start(&leaf);
            let name = format!("wrong-{index}");
            mesh.resource(&format!("{name}.toml"), &service(&name, impostor.address, &identity("echo")));
            (what, name, impostor)
        })
        .collect();
    mesh.start();
    for (what, name, impostor) in &impostors {
        let response = client::get(mesh.outbound("client"), name, "/secret").unwrap();
        assert_eq!(response.status, 503, "{what}: {response:?}");
        let fault = response.header("x-weft-fault");
        assert!(matches!(fault, Some("tls_failed" | "wrong_identity")), "{what}: {fault:?}");
        assert!(impostor.dialled() > 0, "{what}: it was never dialled");
        assert_eq!(impostor.received(), b"", "{what}: it was sent something");
    }
    assert_eq!(client::get(mesh.outbound("client"), "echo", "/good").unwrap().status, 200);
}

#[test]
fn a_call_goes_round_an_impostor() {
    let (mut mesh, witness) = mesh();
    let impostor = Impostor::start(&mesh.authority.sign(&params(&[&identity("billing")])));
    mesh.start();
    let services = mesh.sandbox.path("mesh.d/services.toml");
    let text = std::fs::read_to_string(services).unwrap();
    let with_impostor = format!("{text}{}", endpoint("impostor", impostor.address, &identity("echo")));
    mesh.sandbox.write("mesh.d/services.toml", &with_impostor);
    let mut calls = 0;
    until("the impostor is tried", || {
        calls += 1;
        let response = client::send(mesh.outbound("client"), "POST", "echo", "/paid").unwrap();
        assert_eq!(response.status, 200, "call {calls}: {response:?}");
        (impostor.dialled() > 0).then_some(())
    });
    assert_eq!(impostor.received(), b"");
    assert_eq!(witness.targets().len(), calls, "every call came once, and to the right one");
}

/// Neither a pooled connection nor a session that could be resumed outlives the trust in whom they were made with.
#[test]
fn a_root_that_is_taken_away_takes_connections_and_sessions_with_it() {
    let (mut mesh, witness) = mesh();
    mesh.start();
    let near = mesh.outbound("client");
    assert_eq!(client::get(near, "echo", "/before").unwrap().status, 200);
    let bundle = "near/certificates/bundle.pem";
    mesh.sandbox.write(bundle, &Authority::new("test.mesh").bundle());
    until("the other side is not believed any more", || {
        (client::get(near, "echo", "/meanwhile").unwrap().status == 503).then_some(())
    });
    let before = witness.targets().len();
    for _ in 0..10 {
        let response = client::get(near, "echo", "/after").unwrap();
        assert_eq!(response.status, 503, "{response:?}");
    }
    assert_eq!(witness.targets().len(), before);
    mesh.sandbox.write(bundle, &mesh.authority.bundle());
    until("it is believed again", || {
        (client::get(near, "echo", "/again").unwrap().status == 200).then_some(())
    });
}
