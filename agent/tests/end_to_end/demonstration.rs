//! `weft demo`.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::support::{Process, Sandbox, sandbox::WEFT, until};

#[test]
fn once_runs_a_mesh_and_judges_it() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["demo", "--once", "-o", "json"]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{complaint}"));
    assert!(output.status.success(), "{report:#}\n{complaint}");
    assert_eq!((&report["verdict"], &report["failed"]), (&"ok".into(), &0.into()));
    assert!(report["requests"].as_u64().unwrap() > 500, "{report:#}");
    assert!(report["rotations"].as_u64().unwrap() >= 2);
    assert!(report["by_version"]["v1"].as_u64() > report["by_version"]["v2"].as_u64());
    assert!(report["p50_us"].as_u64().unwrap() <= report["p99_us"].as_u64().unwrap());
    let pair = |caller: &Value| (caller["source"].to_string(), caller["destination"].to_string());
    let callers: BTreeSet<_> = report["callers"].as_array().unwrap().iter().map(pair).collect();
    let id = |account: &str| format!("\"spiffe://demo.mesh/ns/default/sa/{account}\"");
    assert_eq!(callers, BTreeSet::from([(id("loadgen"), id("web")), (id("web"), id("reviews"))]));
}

/// The processes whose parent is `parent`: their number and command line.
fn children_of(parent: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let alive = fields.first().is_some_and(|state| *state != "Z");
        if alive && fields.get(1).and_then(|ppid| ppid.parse().ok()) == Some(parent) {
            let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, command.replace('\0', " ")));
        }
    }
    found
}

fn start(sandbox: &Sandbox) -> Process {
    let mut command = sandbox.weft(&["demo"]);
    command.env("TMPDIR", sandbox.root());
    let mut demo = Process::spawn("demo", sandbox.path("demo.log"), command);
    demo.logged("WHO CALLED WHOM");
    demo
}

fn agents(demo: &Process) -> Vec<(u32, String)> {
    let children = children_of(demo.pid());
    children.into_iter().filter(|(_, command)| command.starts_with(&format!("{WEFT} agent"))).collect()
}

fn nothing_is_left(sandbox: &Sandbox, children: &[(u32, String)]) {
    until("all processes are gone", || {
        children
            .iter()
            .all(|(pid, command)| {
                let now = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                now.replace('\0', " ") != *command
            })
            .then_some(())
    });
    until("the folder is gone", || {
        let left = std::fs::read_dir(sandbox.root()).unwrap().flatten();
        (!left.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("weft-demo")))
            .then_some(())
    });
}

#[test]
fn a_killed_agent_shows_and_ctrl_c_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let mut demo = start(&sandbox);
    let children = children_of(demo.pid());
    assert!(children.iter().any(|(_, command)| command.starts_with(&format!("{WEFT} hub"))), "{children:?}");
    let agents = agents(&demo);
    assert_eq!(agents.len(), 2, "{children:?}");
    let victim = rustix::process::Pid::from_raw(i32::try_from(agents[0].0).unwrap()).unwrap();
    rustix::process::kill_process(victim, rustix::process::Signal::KILL).unwrap();
    demo.logged("GONE");
    demo.signal(rustix::process::Signal::INT);
    assert!(demo.wait_within(Duration::from_secs(10)).success());
    nothing_is_left(&sandbox, &children);
}

#[test]
fn a_killed_demonstration_leaves_nothing_behind_either() {
    let sandbox = Sandbox::new();
    let mut demo = start(&sandbox);
    let children = children_of(demo.pid());
    assert!(children.len() >= 6, "{children:?}");
    demo.kill();
    nothing_is_left(&sandbox, &children);
}
