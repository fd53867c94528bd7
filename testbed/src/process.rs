//! A scratch folder, and the processes whose logs and state lie there.
//!
//! A guard, a shell that reads from a pipe of which this process holds the other end, stands over each folder. When the
//! pipe closes, because the folder is dropped or because this process was killed, the guard ends what still has something
//! open below the folder (each server's output at least) and removes it. Nothing is asked of a server for that, and a
//! process group of its own keeps the guard and the servers out of reach of the terminal's interrupt, which would
//! else end them before the test has said what it wants.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::{
    error::Error,
    wait::{LIMIT, until},
};

/// Ends everything below a folder; `testbed/try` runs the same file.
const SWEEP: &str = include_str!("../sweep");
/// $0 is the text of the sweep, $1 the folder. The word `keep` leaves the folder.
const GUARD: &str = r#"read -r word; sh -c "$0" sweep "$1" $PPID; [ "$word" = keep ] || rm -rf "$1""#;
/// How much of a log an error shows.
const TAIL_LINES: usize = 15;

/// A folder for the state and the logs of servers. Dropping it ends what still runs there and removes it; when the thread
/// panics it is kept and its place printed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    guard: Child,
    keep: Mutex<bool>,
}

impl Scratch {
    /// Makes one below the folder for temporary files; `name` is a part of its name.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn new(name: &str) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix(&format!("weft-{name}.")).tempdir();
        let folder = folder.map_err(Error::system("make a scratch folder"))?;
        // What a process has open is known by its real name.
        let path = folder.path().canonicalize().map_err(Error::system("find the scratch folder"))?;
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, SWEEP]).arg(&path).process_group(0);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let guard = guard.spawn().map_err(Error::system("start a shell"))?;
        let _ = folder.keep();
        Ok(Self { path, guard, keep: Mutex::new(false) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the folder when this is dropped.
    pub fn keep(&self) {
        *held(&self.keep) = true;
    }

    /// Writes a file there, whole at once, and says where it is.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        // Whoever reads it meanwhile sees the old one or the new one.
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        let written =
            folder.and_then(|()| fs::write(&beside, content)).and_then(|()| fs::rename(&beside, &path));
        written.map_err(Error::system(format!("write {}", path.display())))?;
        Ok(path)
    }

    /// Starts a process whose output goes to `NAME.log` there and whose input is empty.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn start(&self, name: &str, mut command: Command) -> Result<Process, Error> {
        command.stdin(Stdio::null());
        self.spawn(name, command)
    }

    /// Starts a process as [`Scratch::start`] does, whose input stays open until it ends.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn start_with_open_input(&self, name: &str, mut command: Command) -> Result<Process, Error> {
        command.stdin(Stdio::piped());
        self.spawn(name, command)
    }

    /// Ends every process that has something open below a folder of it, or works there, and unmounts what is there.
    ///
    /// # Errors
    ///
    /// [`Error::System`], [`Error::Refused`].
    pub fn sweep(&self, folder: &str) -> Result<(), Error> {
        let mut sweep = Command::new("sh");
        sweep.args(["-c", SWEEP, "sweep"]).arg(self.path.join(folder)).arg(std::process::id().to_string());
        run_tool("end what runs below a folder", &mut sweep, b"").map(drop)
    }

    fn spawn(&self, name: &str, mut command: Command) -> Result<Process, Error> {
        let log = self.path.join(format!("{name}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = file.map_err(Error::system(format!("write {}", log.display())))?;
        let second = file.try_clone().map_err(Error::system("copy a descriptor"))?;
        command.stdout(file).stderr(second).process_group(0);
        let process =
            Process { name: name.into(), log, command: Mutex::new(command), running: Mutex::new(None) };
        process.start_again()?;
        Ok(process)
    }

    /// Waits, at most a minute, until `ready`; gives up when one of `processes` ends. On failure the folder is kept.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] with the end of the log of the process that ended, or else of the first.
    pub fn await_ready(
        &self,
        what: &str,
        processes: &[&Process],
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        let mut ended = None;
        let waited = until(what, LIMIT, || {
            ended = processes.iter().find(|process| !process.is_running());
            ended.is_some() || ready()
        });
        let why = match (ended, waited) {
            (None, Ok(())) => return Ok(()),
            (Some(process), _) => format!("{} ended while waiting until {what}", process.name),
            (None, Err(error)) => error.to_string(),
        };
        self.keep();
        let culprit = ended.or(processes.first());
        Err(Error::NotReady {
            server: culprit.map_or_else(String::new, |process| process.name.clone()),
            why,
            logs: self.path.clone(),
            tail: culprit.map_or_else(String::new, |process| process.tail()),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let kept = *held(&self.keep) || thread::panicking();
        if let Some(mut pipe) = self.guard.stdin.take()
            && kept
        {
            eprintln!("the logs of the real servers are in {}", self.path.display());
            // A guard that is gone removes nothing either.
            let _ = pipe.write_all(b"keep\n");
        }
        let _ = self.guard.wait();
    }
}

/// A process of a server. It can be killed and started again any number of times; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    command: Mutex<Command>,
    running: Mutex<Option<Child>>,
}

impl Process {
    /// Its id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        held(&self.running).as_ref().map(Child::id)
    }

    /// Whether it runs; a paused one does.
    #[must_use]
    pub fn is_running(&self) -> bool {
        held(&self.running).as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends it as a crash would, and waits until it is gone. Does nothing when it does not run.
    pub fn kill(&self) {
        if let Some(mut child) = held(&self.running).take() {
            // Fails only for one that has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end (`SIGTERM`), closes its input, and waits until it has ended, at most a minute.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]; it was killed then.
    pub fn terminate(&self) -> Result<Option<ExitStatus>, Error> {
        self.signal(Signal::TERM);
        let Some(mut child) = held(&self.running).take() else { return Ok(None) };
        drop(child.stdin.take());
        let mut status = None;
        let waited = until(&format!("{} ends", self.name), LIMIT, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        if waited.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        waited.map(|()| status)
    }

    /// Stops it where it is (`SIGSTOP`), and waits until it stands: its sockets stay and nobody answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let stands = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            // Fails only for one that is gone.
            let _ = waitid(WaitId::Pid(pid), stands);
        }
    }

    /// Lets it go on after [`Process::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts it with the same arguments. Does nothing when it runs.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn start_again(&self) -> Result<(), Error> {
        if !self.is_running() {
            self.kill();
            let child = held(&self.command).spawn();
            *held(&self.running) = Some(child.map_err(Error::system(format!("start {}", self.name)))?);
        }
        Ok(())
    }

    /// Its input, when that was left open, for the caller to write to or to close.
    pub fn take_input(&self) -> Option<ChildStdin> {
        held(&self.running).as_mut().and_then(|child| child.stdin.take())
    }

    /// All its output so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Held over the whole act, so that the id is still this child's.
    fn signal(&self, signal: Signal) {
        let mut running = held(&self.running);
        if let Some(child) = running.as_mut()
            && matches!(child.try_wait(), Ok(None))
            && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        {
            // Fails only for one that ends just now.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A lock whose holder panicked protects nothing that could be half done here.
pub(crate) fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a tool to its end, with `input` on its standard input, and gives its output.
///
/// # Errors
///
/// [`Error::System`] when it cannot be started, [`Error::Refused`] with what it complained of when it fails.
pub(crate) fn run_tool(what: &str, command: &mut Command, input: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = || Error::system(what.to_owned());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed())?;
    let mut pipe = child.stdin.take();
    // A second thread: a tool that answers before it has read everything must not stand still.
    let output = thread::scope(|scope| {
        scope.spawn(move || pipe.as_mut().map(|pipe| pipe.write_all(input)));
        child.wait_with_output()
    });
    let output = output.map_err(failed())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Refused { what: what.into(), answer: String::from_utf8_lossy(&output.stderr).trim().into() })
}
