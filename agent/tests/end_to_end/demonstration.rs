//! `weft demo`.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::Value;

use crate::support::{PATIENCE, Process, Sandbox, sandbox::WEFT, until};

#[test]
fn once_runs_a_mesh_and_judges_it_twice_at_the_same_time_wherever_it_is_called() {
    let sandbox = Sandbox::new();
    // A folder whose name a shell would split, another mesh's settings, and no home.
    let folder = sandbox.path("with blank");
    std::fs::create_dir(&folder).unwrap();
    let start = || {
        let mut command = sandbox.weft(&["demo", "--once", "-o", "json"]);
        command.env("TMPDIR", "with blank").env_remove("HOME").env("WEFT_STATE_DIR", "foreign");
        command.env("WEFT_HUB_STATE_DIR", "foreign").env("WEFT_RUN_DIR", "foreign");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for demo in [start(), start()] {
        let output = demo.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{complaint}"));
        assert!(output.status.success(), "{report:#}\n{complaint}");
        judge(&report);
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "the folders are gone");
    assert!(!sandbox.path("foreign").exists(), "the settings of another mesh are not used");
}

fn judge(report: &Value) {
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

/// The demonstration's folder in `sandbox`, once it is there.
fn demo_folder(sandbox: &Sandbox) -> Option<PathBuf> {
    let mut folders = std::fs::read_dir(sandbox.root()).unwrap().flatten();
    folders
        .find(|entry| entry.file_name().to_string_lossy().starts_with("weft-demo"))
        .map(|entry| entry.path())
}

#[test]
fn a_hop_in_plaintext_fails_the_verdict() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.weft(&["demo", "--once", "-o", "json"]);
    command.env("TMPDIR", sandbox.root()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let demo = command.spawn().unwrap();
    // Before the hub reads it, for what was in TLS once stays there: `reviews` is not in the mesh, and is called all the same.
    let services = until_at_once("the files are there", || {
        let folder = demo_folder(&sandbox)?.join("mesh.d");
        folder.join("policies.toml").exists().then(|| folder.join("services.toml"))
    });
    let text = std::fs::read_to_string(&services).unwrap();
    let plain: String = text
        .lines()
        .scan(false, |of_reviews, line| {
            *of_reviews |= line == "name = \"reviews.default\"";
            Some(match line {
                _ if *of_reviews && line.starts_with("mesh = ") => "tls = \"off\"\n".to_owned(),
                _ if *of_reviews && line.starts_with("identity = ") => String::new(),
                line => format!("{line}\n"),
            })
        })
        .collect();
    assert_ne!(plain, text);
    sandbox.write(services.strip_prefix(sandbox.root()).unwrap().to_str().unwrap(), &plain);
    let output = demo.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"], "failed");
    let reasons = report["reasons"].to_string();
    assert!(reasons.contains("sa/web -> reviews.default by plaintext"), "{report:#}");
}

/// As [`until`], without a pause between two looks.
fn until_at_once<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = state() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// The command that was printed for `what`.
fn printed(demo: &Process, what: &str) -> String {
    let log = demo.log();
    let line = log.lines().find_map(|line| line.trim_start().strip_prefix(what)).unwrap();
    line.trim().to_owned()
}

#[test]
fn the_commands_to_try_next_do_what_they_say_when_they_are_copied() {
    let sandbox = Sandbox::new();
    let mut demo = start(&sandbox);
    let shell = |command: &str| {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(shell(&printed(&demo, "what an agent knows")).contains("reviews-v2"));
    assert!(shell(&printed(&demo, "its certificates")).contains("sa/reviews"));
    assert!(shell(&format!("{} -n 1", printed(&demo, "look at every call"))).contains("mTLS"));
    assert!(shell(&printed(&demo, "be refused")).contains("403"));
    shell(&printed(&demo, "change the split"));
    let socket = demo_folder(&sandbox).unwrap().join("two/admin.sock");
    until("the split is half and half", || {
        let routes = sandbox.json("routes", socket.to_str().unwrap());
        let route = routes.as_array()?.iter().find(|route| route["service"] == "reviews.default")?.clone();
        (route["targets"][0]["percent"] == 50.0).then_some(())
    });
    for (what, name) in [("kill reviews v2", "reviews v2"), ("kill an agent", "agent one")] {
        shell(&printed(&demo, what));
        until("the table shows it", || {
            demo.log().lines().any(|line| line.starts_with(name) && line.contains("GONE")).then_some(())
        });
    }
    demo.signal(rustix::process::Signal::INT);
    assert!(demo.wait().success());
}

#[test]
fn ctrl_c_leaves_nothing_behind_at_any_stage() {
    let sandbox = Sandbox::new();
    for (round, stage) in
        ["hub.toml", "hub/ca", "logs/hub.log", "one/state", "logs/web.log", "one/admin.sock"]
            .into_iter()
            .enumerate()
    {
        let mut command = sandbox.weft(&["demo"]);
        command.env("TMPDIR", sandbox.root());
        let mut demo = Process::spawn("demo", sandbox.path(&format!("demo-{round}.log")), command);
        until(stage, || demo_folder(&sandbox)?.join(stage).exists().then_some(()));
        let children = children_of(demo.pid());
        demo.signal(rustix::process::Signal::INT);
        let status = demo.wait();
        assert!(demo.log().contains("stopped before") || status.success(), "{stage}: {}", demo.log());
        nothing_is_left(&sandbox, &children);
    }
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
                // Nothing: it is gone, and had gone before its command line was read if that was nothing too.
                now.is_empty() || now.replace('\0', " ") != *command
            })
            .then_some(())
    });
    until("the folder is gone", || demo_folder(sandbox).is_none().then_some(()));
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
    until("the table shows it", || demo.log().contains("GONE").then_some(()));
    demo.signal(rustix::process::Signal::INT);
    assert!(demo.wait().success());
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
