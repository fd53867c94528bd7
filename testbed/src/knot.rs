//! A server of the domain name system: Knot, with one zone `test.` that is written anew at will.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    error::Error,
    home::Home,
    ports::Port,
    process::{Process, Scratch, held, run_tool},
};

/// What a server was asked so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnotCounts {
    /// Questions.
    pub queries: u64,
    /// Bytes of questions and answers, without the headers of what carries them.
    pub bytes: u64,
}

/// A running server. It answers for `test.` and refuses all else.
#[derive(Debug)]
pub struct Knot {
    control: PathBuf,
    port: Port,
    process: Process,
    serial: AtomicU32,
    denials_hold: AtomicU32,
    records: Mutex<String>,
    scratch: Scratch,
}

impl Knot {
    /// Starts it with these records in the zone (see [`Knot::set`]), and waits until it answers to its control.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] when it does not come up; other errors of the system.
    pub fn start(home: &Home, records: &str) -> Result<Self, Error> {
        let scratch = Scratch::new("knot")?;
        let port = Port::free()?;
        let configuration = configuration(&scratch, &port, true);
        let path = scratch.write("knot.conf", configuration)?;
        scratch.write("test.zone", zone(1, 1, records))?;
        let mut command = Command::new(home.program("knotd"));
        command.arg("-c").arg(&path);
        let process = scratch.start("knotd", command)?;
        let knot = Self {
            control: home.program("knotc"),
            port,
            process,
            serial: AtomicU32::new(1),
            denials_hold: AtomicU32::new(1),
            records: Mutex::new(records.to_owned()),
            scratch,
        };
        knot.await_ready()?;
        Ok(knot)
    }

    /// Where it listens, by UDP and TCP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port.number()).into()
    }

    /// Writes all records of the zone `test.` anew, a line each, such as `web A 10.0.0.1`. They hold for a second where
    /// they do not say for how long, and so do denials (see [`Knot::deny_for`]). Returns when they are in force.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when they make no zone; [`Error::System`].
    pub fn set(&self, records: &str) -> Result<(), Error> {
        let serial = self.serial.fetch_add(1, Ordering::SeqCst) + 1;
        records.clone_into(&mut held(&self.records));
        self.write_zone(serial, records)?;
        self.control(&["-b", "zone-reload", "test."]).map(drop)
    }

    /// For how many seconds it holds that there is no such record, from the next [`Knot::set`] on.
    pub fn deny_for(&self, seconds: u32) {
        self.denials_hold.store(seconds, Ordering::SeqCst);
    }

    /// Loses the zone: it fails (`SERVFAIL`) until [`Knot::set`].
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn lose_zone(&self) -> Result<(), Error> {
        self.control(&["-f", "-b", "zone-purge", "test."]).map(drop)
    }

    /// Has it refuse the zone (`REFUSED`), or not any more.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], [`Error::System`].
    pub fn refuse(&self, refuses: bool) -> Result<(), Error> {
        self.scratch.write("knot.conf", configuration(&self.scratch, &self.port, !refuses))?;
        self.control(&["reload"]).map(drop)
    }

    /// What it was asked so far.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn counts(&self) -> Result<KnotCounts, Error> {
        let text = self.control(&["stats"])?;
        let sum = |names: &[&str]| {
            let lines = text.lines().filter_map(|line| line.split_once(" = "));
            let counted = lines.filter(|(name, _)| names.contains(name));
            counted.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
        };
        Ok(KnotCounts {
            queries: sum(&["mod-stats.server-operation[query]"]),
            bytes: sum(&["mod-stats.request-bytes[query]", "mod-stats.response-bytes[reply]"]),
        })
    }

    /// The process, to be killed or paused: a paused one is silent.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Starts it again with the records that it had, and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`], [`Error::System`].
    pub fn restart(&self) -> Result<(), Error> {
        let serial = self.serial.load(Ordering::SeqCst);
        self.write_zone(serial, &held(&self.records))?;
        self.process.start_again()?;
        self.await_ready()
    }

    fn write_zone(&self, serial: u32, records: &str) -> Result<(), Error> {
        let denials_hold = self.denials_hold.load(Ordering::SeqCst);
        self.scratch.write("test.zone", zone(serial, denials_hold, records)).map(drop)
    }

    fn await_ready(&self) -> Result<(), Error> {
        self.scratch.await_ready("Knot answers", &[&self.process], || {
            self.control(&["-b", "zone-status", "test.", "+serial"]).is_ok()
        })
    }

    /// Gives what it says.
    fn control(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new(&self.control);
        command.arg("-s").arg(self.scratch.path().join("knot.sock")).args(arguments);
        let said = run_tool(&format!("knotc {}", arguments.join(" ")), &mut command, b"")?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

fn configuration(scratch: &Scratch, port: &Port, has_zone: bool) -> String {
    let folder = scratch.path().display();
    let number = port.number();
    let zone = format!(
        "zone:\n  - domain: test.\n    storage: \"{folder}\"\n    file: test.zone\n    zonefile-sync: -1\n    \
         journal-content: none\n"
    );
    format!(
        "server:\n    listen: 127.0.0.1@{number}\n    rundir: \"{folder}\"\n    udp-workers: 1\n    tcp-workers: 1\n    \
         background-workers: 1\ndatabase:\n    storage: \"{folder}\"\ncontrol:\n    listen: \"{folder}/knot.sock\"\n\
         log:\n  - target: stderr\n    any: info\ntemplate:\n  - id: default\n    global-module: mod-stats\n{}",
        if has_zone { &*zone } else { "" }
    )
}

/// Denials hold as long as the `SOA` does, and its last number at most (RFC 2308 §5).
fn zone(serial: u32, denials_hold: u32, records: &str) -> String {
    format!(
        "$ORIGIN test.\n$TTL 1\n@ {denials_hold} SOA ns hostmaster {serial} 60 60 600 {denials_hold}\n@ NS ns\n\
         ns A 127.0.0.1\n{records}\n"
    )
}
