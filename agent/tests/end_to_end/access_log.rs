//! The access log is whole when the process ends: what was answered has its line.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Application, Connection, Mesh};

const REQUESTS: usize = 300;

#[test]
fn an_agent_that_ends_has_written_a_line_for_every_request() {
    let application = Application::start("echo");
    let mut mesh = Mesh::new();
    mesh.serve("far", "echo", "v1", application.address, "http");
    mesh.caller("near", "client");
    mesh.write();
    let hosts = ["near", "far"];
    let log = |mesh: &Mesh, host: &str| mesh.sandbox.path(&format!("{host}/access.log"));
    for host in hosts {
        mesh.write_config(host, &format!("\n[access_log]\npath = {:?}\n", log(&mesh, host)));
        mesh.spawn(host);
    }
    hosts.iter().for_each(|host| mesh.ready(host));
    let mut connection = Connection::open(mesh.outbound("client")).unwrap();
    for number in 0..REQUESTS {
        let answer = connection.get("echo.default.mesh", &format!("/{number}")).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(connection.get("nowhere.default", "/lost").unwrap().status, 404);
    // At once: a line waits a moment for others before it is written.
    for host in hosts {
        mesh.process(host).signal(Signal::TERM);
    }
    drop(connection);
    for host in hosts {
        assert!(mesh.process(host).wait().success(), "{host}");
        let text = fs::read_to_string(log(&mesh, host)).unwrap();
        let mut lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}")))
            .collect();
        if host == "near" {
            let lost = lines.pop().unwrap();
            assert_eq!(
                (&lost["request.path"], &lost["request.host"]),
                (&"/lost".into(), &"nowhere.default".into())
            );
        }
        let paths: Vec<&str> = lines.iter().map(|line| line["request.path"].as_str().unwrap()).collect();
        let wanted: Vec<String> = (0..REQUESTS).map(|number| format!("/{number}")).collect();
        assert_eq!(paths, wanted, "{host}");
    }
}
