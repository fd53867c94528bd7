//! `weft demo --platforms`, the real binary over the real servers.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use weft_testbed::{Kind, installed, required};

use crate::{
    platform::turn,
    support::{Process, Sandbox, until_within},
};

/// How long everything may take to come up, or to go.
const LONG: Duration = Duration::from_secs(120);

fn here(kind: Kind) -> bool {
    required(installed(kind)).is_some()
}

fn demo(sandbox: &Sandbox, platforms: &str, more: &[&str]) -> Command {
    let mut command = sandbox.weft(&[&["demo", "--platforms", platforms], more].concat());
    command.env("TMPDIR", sandbox.root());
    command
}

/// A report and what was said beside it, of one that went well.
fn report(output: &std::process::Output) -> Value {
    let complaint = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{complaint}"));
    assert!(output.status.success(), "{report:#}\n{complaint}");
    assert_eq!((&report["verdict"], &report["reasons"]), (&"ok".into(), &Value::Array(Vec::new())));
    assert_eq!((&report["failed"], &report["outage"]["failed"]), (&0.into(), &0.into()), "{report:#}");
    report
}

fn number(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {report:#}"))
}

/// The folders of the demonstration and its servers, and whoever works below them.
fn left(root: &Path) -> Vec<String> {
    let mut left: Vec<String> = fs::read_dir(root)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("weft-"))
        .collect();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let text = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).replace('\0', " ");
        let below = text.contains(&format!("{}/weft-", root.display()));
        left.extend(below.then(|| format!("{}: {text}", process.path().display())));
    }
    left
}

fn nothing_is_left(sandbox: &Sandbox) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left = left(sandbox.root());
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{left:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn each_platform_alone_carries_the_application_through_its_own_outage() {
    let _turn = turn();
    let sandbox = Sandbox::new();
    let started: Vec<_> = Kind::PLATFORMS
        .into_iter()
        .filter(|kind| here(*kind))
        .map(|kind| {
            let mut command = demo(&sandbox, kind.name(), &["--once", "-o", "json"]);
            (kind, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        })
        .collect();
    for (kind, demo) in started {
        let report = report(&demo.wait_with_output().unwrap());
        let of_it = format!("/platforms/{kind}");
        assert_eq!(report["platforms"].as_object().unwrap().len(), 1, "{report:#}");
        for count in ["services", "endpoints"] {
            assert_eq!(number(&report, &format!("{of_it}/{count}")), 1, "{report:#}");
            assert_eq!(number(&report, &format!("/outage/{count}")), 1, "{report:#}");
        }
        let (requests, meanwhile) = (number(&report, "/requests"), number(&report, "/outage/requests"));
        assert!(requests > 400 && meanwhile > 200 && meanwhile < requests, "{report:#}");
        // One that is under way in the end has not been answered.
        assert!(number(&report, &format!("{of_it}/requests")) <= requests, "{report:#}");
        assert_eq!(report["outage"]["killed"], kind.name());
        number(&report, "/outage/noticed_after_ms");
        let callers = report["callers"].as_array().unwrap();
        assert!(callers.len() == 1 && callers[0]["mutual_tls"] == true, "{report:#}");
    }
    nothing_is_left(&sandbox);
}

#[test]
fn four_platforms_carry_one_application_while_one_of_them_is_dead() {
    if !Kind::PLATFORMS.into_iter().all(here) {
        return;
    }
    let (_turn, sandbox) = (turn(), Sandbox::new());
    // Not the order in which they are known: the first named is the one that dies.
    let order = ["kubernetes", "consul", "eureka", "nomad"];
    let output = demo(&sandbox, &order.join(","), &["--once", "-o", "json"]).output().unwrap();
    let report = report(&output);
    assert_eq!(report["outage"]["killed"], "kubernetes");
    let answered = number(&report, "/platforms/nomad/requests");
    assert!(answered > 400, "{report:#}");
    for (index, platform) in order.into_iter().enumerate() {
        // The first two have the shared service too; all its calls go to the first, which is preferred.
        let services = if index < 2 { 2 } else { 1 };
        for count in ["services", "endpoints"] {
            assert_eq!(number(&report, &format!("/platforms/{platform}/{count}")), services, "{report:#}");
        }
        let times = if index == 0 { 2 } else { 1 };
        assert_eq!(
            number(&report, &format!("/platforms/{platform}/requests")),
            times * answered,
            "{report:#}"
        );
        assert!(number(&report, &format!("/outage/by_platform/{platform}")) > 200, "{report:#}");
    }
    let hops: Vec<String> = report["callers"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(hops.len(), 5, "{report:#}");
    assert!(hops.iter().all(|hop| hop.contains("\"mutual_tls\":true")), "{report:#}");
    nothing_is_left(&sandbox);
}

#[test]
fn what_cannot_be_shown_is_refused_before_anything_starts() {
    let sandbox = Sandbox::new();
    let empty = sandbox.path("empty");
    fs::create_dir(&empty).unwrap();
    let ended = |platforms: &str| {
        let output =
            demo(&sandbox, platforms, &["--once", "-o", "json"]).env("WEFT_TESTBED", &empty).output();
        let output = output.unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{platforms}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let unknown = ended("consul,istio");
    assert!(unknown.contains("istio") && unknown.contains("consul, nomad, kubernetes, eureka"), "{unknown}");
    let twice = ended("eureka,consul,eureka");
    assert!(twice.contains("names eureka twice"), "{twice}");
    assert!(!ended("").is_empty());
    // Eureka is on no search path.
    let missing = ended("eureka");
    assert!(missing.contains("eureka") && missing.contains("just testbed eureka"), "{missing}");
    assert!(missing.contains("nothing was started") && !missing.contains("starting"), "{missing}");
    nothing_is_left(&sandbox);
}

#[test]
fn a_server_on_the_search_path_is_found() {
    let Some(home) = required(installed(Kind::Consul)) else { return };
    let (_turn, sandbox) = (turn(), Sandbox::new());
    let programs = sandbox.path("programs");
    fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink(home.program("consul"), programs.join("consul")).unwrap();
    let path = std::env::join_paths(
        [programs].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut command = demo(&sandbox, "consul", &["--once", "-o", "json"]);
    let output = command.env("WEFT_TESTBED", sandbox.path("nothing")).env("PATH", path.unwrap()).output();
    report(&output.unwrap());
}

#[test]
fn ctrl_c_and_a_kill_leave_nothing_behind_at_any_stage() {
    if ![Kind::Consul, Kind::Nomad].into_iter().all(here) {
        return;
    }
    let _turn = turn();
    let stages = ["nomad: starting", "consul: ready", "nomad: has payments", "who told of what"];
    for (round, stage) in stages.into_iter().enumerate() {
        let sandbox = Sandbox::new();
        let log = sandbox.path(&format!("demo-{round}.log"));
        let mut demo = Process::spawn("demo", log, demo(&sandbox, "consul,nomad", &[]));
        until_within(LONG, stage, || demo.log().contains(stage).then_some(()));
        demo.signal(Signal::INT);
        let status = demo.wait_within(Duration::from_secs(30));
        assert!(demo.log().contains("stopped before") || status.success(), "{stage}: {}", demo.log());
        nothing_is_left(&sandbox);
    }
    let sandbox = Sandbox::new();
    let mut demo = Process::spawn("demo", sandbox.path("demo.log"), demo(&sandbox, "nomad,consul", &[]));
    until_within(LONG, "a registry is killed", || demo.log().contains("nomad was killed").then_some(()));
    until_within(LONG, "the table shows it", || demo.log().contains("away, confirmed ").then_some(()));
    assert!(demo.log().contains(" 0 failed"), "{}", demo.log());
    demo.kill();
    nothing_is_left(&sandbox);
}
