//! The processes of a demonstration: the binary's own verbs, as a user would start them.
//!
//! Each child holds the reading end of a pipe whose writing end is ours: when we end, however that happens, it reads
//! the end of its input and ends too. Two of them, the first and the last that need no agent, remove the folder when nobody
//! else is left to do it.

use std::{
    fs::{self, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    net::TcpStream,
    process::{Child, ChildStdin, Command},
};

use super::{
    service::Sample,
    site::{AgentLayout, Site, TRUST_DOMAIN, identity},
};
use crate::{admin::client::AdminClient, lifecycle::Phase, view::Status};

/// How long a child may take to come up on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a child may take to end by itself when asked.
const FAREWELL: Duration = Duration::from_secs(3);
/// After how long a child that died is started again, as systemd would.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// What a child says when somebody was faster to take its port.
const PORT_TAKEN: &str = "Address already in use";

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    arguments: Vec<String>,
    child: Child,
    /// The writing end of the pipe that the child reads: it lives as long as we do. Taken out of `child`, which would
    /// close it when waited for.
    lifeline: Option<ChildStdin>,
    /// When and how it ended; none while it runs.
    pub(super) ended: Option<(Instant, ExitStatus)>,
    pub(super) restarts: u32,
}

/// All processes.
#[derive(Debug)]
pub(super) struct Children {
    logs: PathBuf,
    pub(super) processes: Vec<Process>,
}

impl Children {
    pub(super) fn new(site: &Site) -> Self {
        Self { logs: site.root().join("logs"), processes: Vec::new() }
    }

    /// `weft ca init`, and the hub.
    pub(super) async fn start_hub(&mut self, site: &Site) -> anyhow::Result<()> {
        fs::create_dir_all(&self.logs)?;
        let (state, config, root) = (site.hub_folder(), site.hub_config(), site.root());
        run(&["ca", "init", "--state-dir", path(&state), "--trust-domain", TRUST_DOMAIN]).await?;
        self.start("hub", &["hub", "--config", path(&config), "--remove-at-end", path(root)])?;
        self.listening(site.hub).await
    }

    /// A token and `weft join` for each agent.
    pub(super) async fn join_agents(&mut self, site: &Site) -> anyhow::Result<()> {
        let (hub_state, hub) = (site.hub_folder(), site.hub.to_string());
        for agent in &site.agents {
            let node = format!("demo-{}", agent.name);
            let mut create = vec!["ca", "token", "create", "--state-dir", path(&hub_state), "--node", &node];
            let identities: Vec<String> = agent.accounts.iter().map(|account| identity(account)).collect();
            for identity in &identities {
                create.extend(["--identity", identity]);
            }
            let token = run(&create).await?;
            let state = agent.folder.join("state");
            run(&["join", "--state-dir", path(&state), "--hub", &hub, "--token", token.trim()]).await?;
        }
        Ok(())
    }

    /// Starts sample services. The last of them cleans up when we were killed: nobody is left to do it then.
    pub(super) async fn start_samples(&mut self, samples: &[Sample], root: &Path) -> anyhow::Result<()> {
        for (index, sample) in samples.iter().enumerate() {
            let mut arguments = sample.arguments();
            if index + 1 == samples.len() {
                arguments.extend(["--remove-at-end".to_owned(), path(root).to_owned()]);
            }
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            self.start(&sample.title(samples), &arguments)?;
        }
        for sample in samples {
            self.listening(sample.listen).await?;
        }
        Ok(())
    }

    pub(super) async fn start_agents(&mut self, site: &Site) -> anyhow::Result<()> {
        for agent in &site.agents {
            let config = agent.config();
            self.start(&format!("agent {}", agent.name), &["agent", "--config", path(&config)])?;
        }
        for agent in &site.agents {
            self.serving(agent).await?;
        }
        Ok(())
    }

    fn start(&mut self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut child = spawn(&self.logs, name, &arguments)?;
        let lifeline = child.stdin.take();
        let name = name.into();
        self.processes.push(Process { name, arguments, child, lifeline, ended: None, restarts: 0 });
        Ok(())
    }

    /// Waits until someone listens on `address`.
    async fn listening(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            self.all_run()?;
            if Instant::now() > deadline {
                bail!("nobody listens on {address}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until an agent is ready.
    async fn serving(&mut self, agent: &AgentLayout) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let client = AdminClient::new(&agent.socket());
        loop {
            let status = client.get::<Status>("/status").await;
            if status.as_ref().is_ok_and(|status| status.phase == Phase::Serving) {
                return Ok(());
            }
            self.all_run()?;
            // The agent would wait for its port for ever.
            if self.has_no_port() {
                bail!("agent {} finds its port taken", agent.name);
            }
            if Instant::now() > deadline {
                let missing = status.map(|status| status.missing.join(", "))?;
                bail!("agent {} is not ready: missing {missing}", agent.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn all_run(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.child.try_wait()? {
                bail!("{} ended: {status}", process.name);
            }
        }
        Ok(())
    }

    /// Notes who has ended, and starts it again after a while.
    pub(super) async fn look(&mut self) {
        let logs = self.logs.clone();
        for process in &mut self.processes {
            match process.ended {
                None => {
                    if let Ok(Some(status)) = process.child.try_wait() {
                        process.ended = Some((Instant::now(), status));
                    }
                }
                Some((when, _)) if when.elapsed() >= RESTART_AFTER => {
                    if let Ok(mut child) = spawn(&logs, &process.name, &process.arguments) {
                        process.lifeline = child.stdin.take();
                        process.child = child;
                        process.ended = None;
                        process.restarts += 1;
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// Asks all to end and waits until they have; who does not is killed.
    pub(super) async fn end(&mut self) {
        // Callers before called, the hub last.
        for process in self.processes.iter().rev() {
            if let Some(pid) = process.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
                // It may have ended meanwhile.
                let _sent = kill_process(pid, Signal::TERM);
            }
        }
        let deadline = tokio::time::Instant::now() + FAREWELL;
        for process in &mut self.processes {
            if tokio::time::timeout_at(deadline, process.child.wait()).await.is_err() {
                // It may have ended meanwhile.
                let _killed = process.child.kill().await;
            }
            process.lifeline = None;
        }
    }

    /// Whether any child found its port taken.
    pub(super) fn has_no_port(&self) -> bool {
        let log = |process: &Process| fs::read_to_string(log_path(&self.logs, &process.name));
        self.processes.iter().any(|process| log(process).is_ok_and(|log| log.contains(PORT_TAKEN)))
    }

    /// The number of the process of that name, while it runs.
    pub(super) fn pid_of(&self, name: &str) -> Option<u32> {
        self.processes.iter().find(|process| process.name == name).and_then(Process::pid)
    }

    /// Prints the end of every log to standard error.
    pub(super) fn print_logs(&self) {
        for process in &self.processes {
            let log = fs::read_to_string(log_path(&self.logs, &process.name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("--- {}", process.name);
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Process {
    /// Its number, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id().filter(|_| self.ended.is_none())
    }
}

fn log_path(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{}.log", name.replace(' ', "-")))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the temporary folder's path is UTF-8: checked when it was made")
}

fn command(arguments: &[impl AsRef<std::ffi::OsStr>]) -> anyhow::Result<Command> {
    let binary = std::env::current_exe().context("the binary's own path is unknown")?;
    let mut command = Command::new(binary);
    command.args(arguments).kill_on_drop(true);
    // What the user has set for a mesh of their own is not meant for this one.
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        let ours = name.starts_with("WEFT_") && !name.starts_with("WEFT_LOG");
        if ours || name == "NOTIFY_SOCKET" {
            command.env_remove(&variable);
        }
    }
    // A process group of its own: Ctrl-C is for us, and we end the others in order.
    command.process_group(0);
    Ok(command)
}

fn spawn(logs: &Path, name: &str, arguments: &[String]) -> anyhow::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(log_path(logs, name))?;
    let mut command = command(arguments)?;
    command.arg("--end-with-stdin").stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("{name} does not start"))
}

/// Runs a verb to its end and returns what it printed.
async fn run(arguments: &[&str]) -> anyhow::Result<String> {
    let output = command(arguments)?.stdin(Stdio::null()).output().await?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("weft {}: {}", arguments.join(" "), complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
