//! What happens to processes and folders when things go wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use weft_testbed::{Error, Scratch, until};

const SOON: Duration = Duration::from_secs(20);
/// Set in the process that is to be killed.
const VICTIM: &str = "WEFT_TESTBED_VICTIM";

fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000");
    command
}

/// A zombie runs no more.
fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Does nothing by itself: the next test runs it in a process of its own.
#[test]
fn victim() {
    if env::var_os(VICTIM).is_none() {
        return;
    }
    let scratch = Scratch::new("victim").unwrap();
    let process = scratch.start("sleeper", sleeper()).unwrap();
    process.pause();
    println!("\n{} {}", process.pid().unwrap(), scratch.path().display());
    thread::sleep(Duration::from_secs(1000));
}

#[test]
fn nothing_outlives_a_test_process_that_is_killed() {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "victim", "--nocapture"]).env(VICTIM, "1").stdout(Stdio::piped());
    let mut victim = command.spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.into_iter().find(|line| line.contains("weft-victim.")).unwrap();
    let (pid, folder) = line.split_once(' ').unwrap();
    let (pid, folder) = (pid.parse().unwrap(), PathBuf::from(folder));
    assert!(runs(pid) && folder.exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    until("the sleeper and its folder are gone", SOON, || !runs(pid) && !folder.exists()).unwrap();
}

#[test]
fn a_process_that_its_server_left_behind_ends_with_the_folder() {
    let scratch = Scratch::new("left").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 1000 & echo $!"]);
    let server = scratch.start("server", command).unwrap();
    until("the server ended", SOON, || !server.is_running()).unwrap();
    let left: u32 = server.output().trim().parse().unwrap();
    assert!(runs(left));
    drop(scratch);
    until("it is gone", SOON, || !runs(left)).unwrap();
}

#[test]
fn a_panic_keeps_the_logs_and_ends_the_processes() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let panicked = thread::spawn(move || {
        let scratch = Scratch::new("panic").unwrap();
        let process = scratch.start("sleeper", sleeper()).unwrap();
        sender.send((process.pid().unwrap(), scratch.path().to_owned())).unwrap();
        panic!("on purpose");
    });
    let (pid, folder) = receiver.recv().unwrap();
    assert!(panicked.join().is_err());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(folder.join("sleeper.log").exists());
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_process_can_be_paused_ended_politely_and_started_again() {
    let scratch = Scratch::new("again").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "trap 'echo end; exit 3' TERM; echo begin; while :; do sleep 0.02; done"]);
    let process = scratch.start("looper", command).unwrap();
    let said = |text: &str| until(text, SOON, || process.output() == text).unwrap();
    said("begin\n");
    process.pause();
    assert!(process.is_running());
    process.resume();
    assert_eq!(process.terminate().unwrap().unwrap().code(), Some(3));
    assert!(!process.is_running() && process.pid().is_none());
    process.start_again().unwrap();
    said("begin\nend\nbegin\n");
    process.kill();
    assert!(!process.is_running());
}

#[test]
fn a_server_that_ends_instead_of_getting_ready_shows_its_log() {
    let scratch = Scratch::new("ends").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo no such luck; exit 1"]);
    let process = scratch.start("server", command).unwrap();
    let error = scratch.await_ready("it is ready", &[&process], || false).unwrap_err();
    assert!(error.to_string().contains("server ended while waiting until it is ready"), "{error}");
    until("its log is whole", SOON, || process.output().contains("luck")).unwrap();
    let Error::NotReady { logs, .. } = error else { panic!("{error}") };
    drop(scratch);
    assert!(logs.join("server.log").exists());
    fs::remove_dir_all(logs).unwrap();
}
