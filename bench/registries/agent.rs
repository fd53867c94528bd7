//! The measured process: the real binary, what it says of itself, and what the kernel says of it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::runtime::Runtime;
use weft_agent::{admin::client::AdminClient, view::Status};
use weft_testbed::{Port, Process, Scratch};

/// How long it may take until an agent has all it is to have.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a process that was busy is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(5);
/// Clock ticks in a second of the kernel's accounting, the same on every Linux.
const TICKS: f64 = 100.0;

/// A running process of the binary's.
pub(crate) struct Measured {
    process: Process,
}

impl Measured {
    /// Starts it; it ends with this value.
    pub(crate) fn start(
        scratch: &Scratch,
        name: &str,
        binary: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.args(arguments).args(["--end-with-stdin", "--log", "warn"]);
        Ok(Self { process: scratch.start_with_open_input(name, command)? })
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Resident memory in MB, once it has been left alone for a while.
    pub(crate) fn settled_megabytes(&self) -> anyhow::Result<f64> {
        std::thread::sleep(SETTLE);
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kilobytes.context("the kernel does not say how much memory it has")? * 1024.0 / 1e6)
    }

    /// User and system time so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // proc(5), counted from the field after the name.
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        Ok((ticks(11).context("no user time")? + ticks(12).context("no system time")?) / TICKS)
    }

    /// Waits until it has used next to no processor time for two seconds.
    pub(crate) fn calm(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut before = self.cpu_seconds()?;
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_secs(2));
            let now = self.cpu_seconds()?;
            if now - before < 0.03 {
                return Ok(());
            }
            before = now;
        }
        bail!("it is still busy")
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.process
            .pid()
            .filter(|_| self.process.is_running())
            .with_context(|| format!("the measured process ended:\n{}", self.process.output()))
    }
}

/// Where an agent lies that follows one registry and has one workload, which calls.
pub(crate) struct Place {
    scratch: Scratch,
    port: Port,
    binary: PathBuf,
    runtime: Runtime,
}

/// An agent.
pub(crate) struct Agent<'a> {
    pub(crate) measured: Measured,
    place: &'a Place,
    began: Instant,
    client: AdminClient,
}

impl Place {
    pub(crate) fn new(binary: &Path) -> anyhow::Result<Self> {
        let (scratch, port) = (Scratch::new("bench")?, Port::free()?);
        let place = Self {
            port,
            binary: binary.to_owned(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            scratch,
        };
        let (state, certificates) = (place.path("authority"), place.path("certificates"));
        run(binary, &["ca", "init", "--state-dir", &state, "--trust-domain", "bench.mesh"])?;
        let identity = ["--identity", "spiffe://bench.mesh/ns/default/sa/bench"];
        let issue = ["ca", "issue", "--state-dir", &state, "--directory", &certificates];
        run(binary, &[&issue[..], &identity].concat())?;
        Ok(place)
    }

    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Where calls of the workload go in.
    pub(crate) fn outbound(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.number()))
    }

    /// An agent without any memory of earlier ones.
    pub(crate) fn start(&self, name: &str, section: &str) -> anyhow::Result<Agent<'_>> {
        let (folder, uid) = (self.path(name), rustix::process::getuid().as_raw());
        let text = format!(
            "trust_domain = \"bench.mesh\"\nstate_dir = \"{folder}/state\"\nrun_dir = \"{folder}\"\n\
             [admin]\nlisten = \"off\"\n[identity]\nkind = \"files\"\ndirectory = \"{}\"\n{section}\n\
             [[workload]]\nname = \"bench\"\nidentity = \"spiffe://bench.mesh/ns/default/sa/bench\"\n\
             outbound = \"{}\"\nuid = {uid}\n",
            self.path("certificates"),
            self.outbound(),
        );
        let config = self.scratch.write(&format!("{name}/weft.toml"), text)?;
        let began = Instant::now();
        let config = config.display().to_string();
        let measured = Measured::start(&self.scratch, name, &self.binary, &["agent", "--config", &config])?;
        let client = AdminClient::new(&Path::new(&folder).join("admin.sock"));
        Ok(Agent { measured, place: self, began, client })
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }
}

impl Agent<'_> {
    /// Waits until it has at least so many endpoints in force of a registry that it reaches; says since its start.
    pub(crate) fn until(&self, endpoints: usize) -> anyhow::Result<Duration> {
        loop {
            let status = self.place.runtime.block_on(self.client.get::<Status>("/status"));
            let row = status.ok().and_then(|status| status.registries.into_iter().next());
            let has = row.as_ref().is_some_and(|row| {
                row.state == "connected" && row.counts.get("endpoints").copied().unwrap_or(0) >= endpoints
            });
            if has {
                return Ok(self.began.elapsed());
            }
            if self.began.elapsed() > PATIENCE {
                bail!(
                    "the agent does not have {endpoints} endpoints: {row:?}\n{}",
                    self.measured.process.output()
                );
            }
            self.measured.pid()?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs a verb to its end.
fn run(binary: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new(binary).args(arguments).output().with_context(|| binary.display().to_string())?;
    if !output.status.success() {
        bail!("weft {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
