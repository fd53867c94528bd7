//! How many files a process may have open, and what it says of that.

use std::process::Command;

use crate::support::{Mesh, Process, Sandbox, address, sandbox::WEFT, until};

/// The most that the hard limit allows in these tests.
const HARD: u64 = 4096;

/// Starts a verb with a small soft limit.
fn start(sandbox: &Sandbox, name: &str, verb: &str, config: &str) -> Process {
    let script = format!("ulimit -Sn 256; ulimit -Hn {HARD}; exec \"$0\" {verb} --config {config}");
    let mut command = Command::new("sh");
    command.args(["-c", &script, WEFT]).current_dir(sandbox.root()).env_remove("NOTIFY_SOCKET");
    Process::spawn(name, sandbox.path(&format!("{name}.log")), command)
}

/// The soft limit and the hard one.
fn limits(process: &Process) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(u64::MAX));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn an_agent_takes_what_it_may_and_says_when_that_is_little() {
    // Two listeners, two files a connection.
    for (connections, is_little) in [(HARD / 4, false), (HARD / 4 + 1, true)] {
        let mut mesh = Mesh::new();
        mesh.serve("far", "echo", "v1", address(), "http");
        mesh.caller("near", "client");
        mesh.write();
        mesh.write_config("near", &format!("\n[limits]\nconnections = {connections}\n"));
        let process = start(&mesh.sandbox, "near", "agent", "near/weft.toml");
        until("the agent is ready", || (mesh.try_status("near")?["phase"] == "serving").then_some(()));
        assert_eq!(limits(&process), (HARD, HARD));
        let log = process.log();
        let said = log.matches("fewer files may be open").count();
        assert_eq!(said, usize::from(is_little), "{log}");
        let figures = log.contains(&format!("limit={HARD} needed={}", 4 * connections));
        assert_eq!(figures && log.contains("LimitNOFILE"), is_little, "{log}");
    }
}

#[test]
fn a_hub_takes_what_it_may_and_says_when_that_is_little() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["ca", "init", "--state-dir", "hub", "--trust-domain", "demo.mesh"]);
    let listen = address();
    let config =
        format!("listen = \"{listen}\"\nstate_dir = \"hub\"\nrun_dir = \"hub\"\n[admin]\nlisten = \"off\"\n");
    sandbox.write("hub.toml", &config);
    let mut process = start(&sandbox, "hub", "hub", "hub.toml");
    process.logged("serving");
    assert_eq!(limits(&process), (HARD, HARD));
    assert!(process.log().contains(&format!("limit={HARD} needed=16384")), "{}", process.log());
}
