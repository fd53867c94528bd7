//! What scripts rely on: exit codes, filters, and that a hub answers as an agent does.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{Application, Mesh, Sandbox, address, client, until};

fn echo_mesh(application: SocketAddr) -> Mesh {
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", application, "http");
    mesh.caller("near", "client");
    mesh
}

/// How a verb ended, and what it complained of.
fn ended(sandbox: &Sandbox, arguments: &[&str]) -> (Option<i32>, String) {
    let output = sandbox.run(arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn status_tells_not_ready_from_failed_and_from_a_wrong_command_line() {
    let application = Application::start("echo");
    let mut mesh = echo_mesh(application.address);
    mesh.write();
    let certificate = mesh.sandbox.path("near/certificates/client.pem");
    let aside = mesh.sandbox.path("near/aside.pem");
    std::fs::rename(&certificate, &aside).unwrap();
    let socket = mesh.socket("near");
    let status = |mesh: &Mesh| ended(&mesh.sandbox, &["status", "--socket", &socket]).0;
    assert_eq!(status(&mesh), Some(1), "no agent");
    assert_eq!(ended(&mesh.sandbox, &["status", "--sokcet", &socket]).0, Some(2), "a wrong command line");
    mesh.spawn("near");
    mesh.spawn("far");
    until("the agent answers", || mesh.try_status("near"));
    assert_eq!(status(&mesh), Some(3), "a certificate is missing");
    std::fs::rename(&aside, &certificate).unwrap();
    mesh.ready("near");
    mesh.ready("far");
    assert_eq!(status(&mesh), Some(0));

    let outbound = mesh.outbound("client");
    let call = std::thread::spawn(move || client::get(outbound, "echo.default.mesh", "/stream"));
    until("the request is under way", || (application.requests() == 1).then_some(()));
    mesh.process("near").signal(Signal::TERM);
    until("it drains", || (mesh.try_status("near")?["phase"] == "draining").then_some(()));
    assert_eq!(status(&mesh), Some(3), "it takes nothing new");
    application.end_streams();
    assert_eq!(call.join().unwrap().unwrap().status, 200);
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do() {
    let (sandbox, taken) = (Sandbox::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = taken.local_addr().unwrap();
    sandbox.ok(&["ca", "init", "--state-dir", "hub", "--trust-domain", "demo.mesh"]);
    let folders = "state_dir = \"hub\"\nrun_dir = \"run\"\nadmin = { listen = \"off\" }\n";
    sandbox.write("hub.toml", &format!("listen = \"{address}\"\n{folders}"));
    let workload = "[[workload]]\nname = \"web\"\nidentity = \"spiffe://demo.mesh/ns/default/sa/web\"\nany_local = true\n";
    let identity = "identity = { kind = \"files\", directory = \"hub\" }\n";
    sandbox.write("weft.toml", &format!("{folders}{identity}{workload}outbound = \"{address}\"\n"));
    for (kind, config) in [("hub", "hub.toml"), ("agent", "weft.toml")] {
        let (code, complaint) = ended(&sandbox, &[kind, "--config", config]);
        assert_eq!(code, Some(1), "{kind}: {complaint}");
        for words in [format!("cannot listen on {address}:"), "another process has it".to_owned()] {
            assert!(complaint.contains(&words), "{kind}: {complaint}");
        }
    }
}

#[test]
fn a_credential_plugin_that_hangs_holds_no_check() {
    let sandbox = Sandbox::new();
    let exec = "exec: {apiVersion: client.authentication.k8s.io/v1, command: sleep, args: [\"60\"], interactiveMode: Never}";
    sandbox.write(
        "kubeconfig",
        &format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:1\"}}}}]\n\
             users: [{{name: u, user: {{{exec}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        ),
    );
    sandbox.write("weft.toml", "[[registry]]\nkind = \"kubernetes\"\nkubeconfig = \"kubeconfig\"\n");
    let began = std::time::Instant::now();
    let output = sandbox.run(&["check", "--registry", "--within", "1s", "weft.toml"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("within 1 s"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
}

#[test]
fn a_service_that_nobody_knows_is_an_error() {
    let application = Application::start("echo");
    let mut mesh = echo_mesh(application.address);
    mesh.resource(
        "empty.toml",
        "[[service]]\nname = \"empty.default\"\nports = [{ name = \"main\", number = 80, protocol = \"http\" }]\n",
    );
    mesh.start();
    let socket = mesh.socket("near");
    for verb in ["services", "endpoints", "routes"] {
        for known in ["echo", "echo.default", "empty"] {
            let (code, complaint) = ended(&mesh.sandbox, &[verb, known, "--socket", &socket]);
            assert_eq!(code, Some(0), "{verb} {known}: {complaint}");
        }
        let rows = mesh.sandbox.ok(&[verb, "echo", "-o", "json", "--socket", &socket]);
        assert!(rows.contains("echo") && !rows.contains("empty.default"), "{verb}: {rows}");
        for unknown in ["ecoh", "echo.other", "default"] {
            let (code, complaint) = ended(&mesh.sandbox, &[verb, unknown, "-o", "json", "--socket", &socket]);
            assert_eq!(code, Some(1), "{verb} {unknown}");
            assert!(complaint.contains(&format!("no service {unknown} is known")), "{verb}: {complaint}");
        }
    }
    let (code, complaint) = ended(&mesh.sandbox, &["hub", "status", "--socket", &socket]);
    assert!(code == Some(1) && complaint.contains("an agent answers at"), "{complaint}");
}

/// Answers every request as a gRPC server that is not available: status 200, and the verdict in `grpc-status`.
fn unavailable() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while stream.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 14\r\n\
                                      content-length: 0\r\n\r\n";
                        stream.write_all(answer.as_bytes()).unwrap();
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_tap_shows_what_failed_by_grpc_status_and_fails_itself_when_its_agent_ends() {
    let mut mesh = echo_mesh(unavailable());
    mesh.start();
    let socket = mesh.socket("near");
    let mut tap = mesh.sandbox.spawn("tap", &["tap", "--failed", "echo", "--socket", &socket]);
    let mut other = mesh.sandbox.spawn("other", &["tap", "-n", "1", "other", "--socket", &socket]);
    let outbound = mesh.outbound("client");
    until("the tap shows the call", || {
        let mut stream = TcpStream::connect(outbound).unwrap();
        let call = "POST /echo.Echo/Call HTTP/1.1\r\nhost: echo.default.mesh\r\ncontent-type: application/grpc\r\n\
                    content-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(call.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        tap.log().contains("200 grpc=14").then_some(())
    });
    assert!(other.is_running(), "{}", other.log());
    mesh.process("near").kill();
    for (name, tap) in [("tap", &mut tap), ("other", &mut other)] {
        assert_eq!(tap.wait().code(), Some(1), "{name}: {}", tap.log());
    }
}

#[test]
fn a_hub_answers_the_same_questions_as_an_agent() {
    let sandbox = Sandbox::new();
    let (listen, admin) = (address(), address());
    sandbox.ok(&["ca", "init", "--state-dir", "hub", "--trust-domain", "demo.mesh"]);
    let config = format!(
        "listen = \"{listen}\"\nstate_dir = \"hub\"\nrun_dir = \"hub\"\n[admin]\nlisten = \"{admin}\"\n\
         [[registry]]\nkind = \"static\"\nname = \"static\"\npath = \"mesh.d\"\n"
    );
    sandbox.write("hub.toml", &config);
    let mut hub = sandbox.spawn("hub", &["hub", "--config", "hub.toml"]);
    let page = |path: &str| client::get(admin, "weft", path).ok();
    let waits = until("the hub waits for its registry", || page("/readyz").filter(|page| page.status == 503));
    assert_eq!(waits.body, "missing: registry static\n");
    let status = ["status", "--socket", "hub/admin.sock"];
    assert_eq!(ended(&sandbox, &status).0, Some(3), "weft status");
    assert_eq!(
        ended(&sandbox, &["hub", "status", "--socket", "hub/admin.sock"]).0,
        Some(3),
        "weft hub status"
    );
    assert!(page("/metrics").unwrap().body.contains("\nweft_ready 0\n"));
    for verb in ["services", "tap"] {
        let (code, complaint) = ended(&sandbox, &[verb, "--socket", "hub/admin.sock"]);
        assert!(code == Some(1) && complaint.contains("a hub answers at"), "{verb}: {complaint}");
    }

    sandbox.write("mesh.d/none.toml", "# nothing yet\n");
    until("it is ready", || page("/readyz").filter(|page| page.status == 200 && page.body == "ok\n"));
    let table = sandbox.ok(&status);
    assert!(table.contains("hub of demo.mesh"), "{table}");
    assert_eq!(sandbox.json("status", "hub/admin.sock")["trust_domain"], "demo.mesh");
    assert_eq!(page("/version").unwrap().json()["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(client::send(admin, "HEAD", "weft", "/livez").unwrap().status, 200);
    assert_eq!(client::send(admin, "POST", "weft", "/livez").unwrap().status, 404);
    assert_eq!(page("/status").unwrap().status, 404, "only the operator sees that");
    let metrics = page("/metrics").unwrap().body;
    for line in [
        "weft_ready 1",
        "weft_registry_connected{registry=\"static\"} 1",
        "weft_hub_nodes_connected 0",
        "weft_hub_certificate_requests_total{result=\"signed\"} 0",
        "weft_authority_expiry_timestamp_seconds{certificate=\"root\"} ",
        "weft_authority_expiry_timestamp_seconds{certificate=\"intermediate\"} ",
    ] {
        assert!(metrics.lines().any(|known| known.starts_with(line)), "{line} is not in\n{metrics}");
    }

    // A name that no node can have is refused by its name, and grants nothing that it spells.
    let token =
        ["ca", "token", "create", "--state-dir", "hub", "--identity", "spiffe://demo.mesh/ns/default/sa/a"];
    for odd in ["a b", "db1.example.org", "x&identity=spiffe://demo.mesh/ns/default/sa/b"] {
        let (code, complaint) = ended(&sandbox, &[&token[..], &["--node", odd]].concat());
        assert!(code == Some(2) && complaint.contains("--node"), "{odd}: {complaint}");
    }
    let (code, complaint) = ended(&sandbox, &[&token[..5], &["--node", "a"]].concat());
    assert!(code == Some(2) && complaint.contains("--identity"), "good for nothing: {complaint}");
    sandbox.ok(&[&token[..], &["--hub", "[::1]:1 &%"]].concat());
    let tokens = sandbox.ok(&["ca", "token", "list", "--state-dir", "hub", "-o", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&tokens).unwrap().as_array().unwrap().len(), 1);
    hub.signal(Signal::TERM);
    assert!(hub.wait().success());
}
