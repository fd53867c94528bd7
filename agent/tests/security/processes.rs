//! Local processes that want to speak as a workload that they are not.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    path::Path,
    process::Command,
};

use crate::{
    support::{Mesh, address, client, mesh::identity, uid},
    witness::Witness,
};

const DIAL: &str = "WEFT_TEST_DIAL";
const OWNER: u32 = 61_001;
const OTHER: u32 = 61_002;

/// Not a test: what a process of another user does when a test runs this binary with [`DIAL`].
#[test]
fn child() {
    let Ok(target) = std::env::var(DIAL) else { return };
    let request = b"GET /as-other HTTP/1.1\r\nhost: echo\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    match target.strip_prefix("unix:") {
        Some(path) => {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(request).unwrap();
            stream.read_to_string(&mut answer).unwrap();
        }
        None => {
            let mut stream = TcpStream::connect(&target).unwrap();
            stream.write_all(request).unwrap();
            stream.read_to_string(&mut answer).unwrap();
        }
    }
    println!("ANSWER {answer}");
}

/// What `target` answers a process of this user.
fn answer_for(uid: u32, program: &Path, target: &str) -> String {
    let output = Command::new(program)
        .args(["--exact", "processes::child", "--nocapture"])
        .env(DIAL, target)
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    printed.split_once("ANSWER ").unwrap_or_else(|| panic!("user {uid}: {printed}{complaint}")).1.to_owned()
}

#[test]
fn a_listener_serves_its_user_alone() {
    if uid() != 0 {
        eprintln!("SKIPPED: only root can run processes of other users");
        return;
    }
    let witness = Witness::start();
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", witness.address, "http");
    mesh.caller("near", "client");
    mesh.write();
    let socket = mesh.sandbox.path("near/other.sock");
    let four = address();
    let mut targets = vec![four.to_string(), format!("unix:{}", socket.display())];
    match std::net::TcpListener::bind("[::1]:0") {
        Ok(_) => targets.push(format!("[::1]:{}", four.port())),
        Err(error) => eprintln!("SKIPPED for IPv6: {error}"),
    }
    mesh.write_config(
        "near",
        &format!(
            "\n[[workload]]\nname = \"other\"\nidentity = \"{}\"\noutbound = {targets:?}\nuid = {OWNER}\n",
            identity("other")
        ),
    );
    mesh.authority.write(&mesh.sandbox.path("near/certificates"), "other", &identity("other"));
    for host in ["far", "near"] {
        mesh.spawn(host);
    }
    for host in ["far", "near"] {
        mesh.ready(host);
    }
    let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    open(mesh.sandbox.root());
    open(&mesh.sandbox.path("near"));
    let program = mesh.sandbox.path("child");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open(&program);

    for target in &targets {
        let refused = answer_for(OTHER, &program, target);
        assert!(refused.starts_with("HTTP/1.1 403"), "{target}: {refused}");
        assert!(
            refused.contains("caller_refused") && refused.contains(&OTHER.to_string()),
            "{target}: {refused}"
        );
    }
    let root = client::get(four, "echo", "/as-root").unwrap();
    assert_eq!(root.status, 403, "root is no exception: {root:?}");
    assert!(root.body.contains("user 0 "), "{root:?}");
    assert_eq!(witness.connections(), 0);
    let log = mesh.process("near").log();
    assert!(log.contains(&OTHER.to_string()), "the log names the user");

    for target in &targets {
        let answered = answer_for(OWNER, &program, target);
        assert!(answered.starts_with("HTTP/1.1 200"), "{target}: {answered}");
    }
    assert_eq!(witness.targets(), vec!["/as-other"; targets.len()]);
}
