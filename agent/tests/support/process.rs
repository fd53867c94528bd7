//! A process of a test: it ends when it is dropped, and its log is shown when the test fails.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{until, until_within};

pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    pub fn spawn(name: &str, log: PathBuf, mut command: Command) -> Self {
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.into(), log, child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        until(&format!("{} ends", self.name), || self.child.try_wait().unwrap())
    }

    /// Waits until it ends by itself, at most for `patience`.
    pub fn wait_within(&mut self, patience: Duration) -> ExitStatus {
        until_within(patience, &format!("{} ends", self.name), || self.child.try_wait().unwrap())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log has a line with `text`.
    pub fn logged(&mut self, text: &str) {
        let what = format!("{} logs {text:?}", self.name);
        until(&what, || {
            let log = self.log();
            assert!(log.contains(text) || self.is_running(), "{} ended before it logged {text:?}", self.name);
            log.contains(text).then_some(())
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- log of {} (the last 40 lines)", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
