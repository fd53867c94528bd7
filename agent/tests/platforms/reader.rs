//! A reader of examples/README.md, who copies a folder and types what stands there. What differs is where things listen: the
//! numbers and addresses of the page are replaced by those that are free, in the files and in the commands alike.

use std::{
    env, fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::support::{Process, Sandbox, address, sandbox::WEFT};

/// How long all that a section says may take: Nomad waits until its job is well.
const PATIENCE: Duration = Duration::from_secs(120);

/// A file below `examples`.
fn copied(name: &str) -> String {
    fs::read_to_string(format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The commands of a section of the page, all of its blocks in order.
pub(crate) fn commands(section: &str) -> String {
    let page = copied("README.md");
    let begin = format!("\n## {section}\n");
    let (_, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("no section {section}"));
    let text = rest.split("\n## ").next().unwrap();
    let blocks = text.split("\n```sh\n").skip(1);
    let blocks: Vec<&str> = blocks.map(|block| block.split_once("```").unwrap().0).collect();
    assert!(!blocks.is_empty(), "the section {section} has no commands");
    blocks.concat()
}

/// Somebody who follows one section in a folder of their own.
pub(crate) struct Reader {
    sandbox: Sandbox,
    section: String,
    replaced: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    programs: Vec<PathBuf>,
    shell: Option<Process>,
}

impl Reader {
    pub(crate) fn of(section: &str) -> Self {
        let sandbox = Sandbox::new();
        let programs = sandbox.path("programs");
        fs::create_dir(&programs).unwrap();
        symlink(WEFT, programs.join("weft")).unwrap();
        let (section, programs) = (section.to_owned(), vec![programs]);
        Self { sandbox, section, replaced: Vec::new(), variables: Vec::new(), programs, shell: None }
    }

    /// Here it is `ours`, where the page and the files say `written`.
    pub(crate) fn replace(mut self, written: &str, ours: impl Into<String>) -> Self {
        self.replaced.push((written.to_owned(), ours.into()));
        self
    }

    /// Ports of this machine that are free, instead of these.
    pub(crate) fn ports(mut self, written: &[&str]) -> Self {
        for port in written {
            self = self.replace(port, address().port().to_string());
        }
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A program of the platform, on the reader's path.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        self.programs.push(program.parent().unwrap().to_owned());
        self
    }

    /// Copies the folder and types it all; every command succeeds, and what they printed is given.
    pub(crate) fn follows(&mut self) -> String {
        let commands = commands(&self.section);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(&self.section);
        let mut texts = vec![("commands".to_owned(), commands)];
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("examples/{}/{}", self.section, entry.file_name().to_str().unwrap());
            texts.push((name, fs::read_to_string(entry.path()).unwrap()));
        }
        for (written, ours) in &self.replaced {
            assert!(texts.iter().any(|(_, text)| text.contains(written)), "nothing says {written}");
            texts.iter_mut().for_each(|(_, text)| *text = text.replace(written, ours));
        }
        for (name, text) in &texts {
            self.sandbox.write(name, text);
        }
        let ours = env::var_os("PATH").unwrap();
        let path = env::join_paths(self.programs.iter().cloned().chain(env::split_paths(&ours))).unwrap();
        let mut command = Command::new("sh");
        // What was started in the background runs on in the group of the shell.
        command.args(["-eux", "commands"]).current_dir(self.sandbox.root()).process_group(0);
        command.env("PATH", path).envs(self.variables.iter().cloned());
        for variable in ["WEFT_SOCKET", "WEFT_CONFIG", "WEFT_LOG", "NOTIFY_SOCKET"] {
            command.env_remove(variable);
        }
        let log = self.sandbox.path("shell.log");
        let shell = self.shell.insert(Process::spawn("the reader's shell", log, command));
        let ended = shell.wait_within(PATIENCE);
        let printed = shell.log();
        assert!(ended.success(), "{ended}\n{printed}");
        printed
    }

    /// What `weft check --registry` says of the one registry of a file of the reader's.
    pub(crate) fn looks(&self, file: &str) -> Value {
        let mut look = self.sandbox.weft(&["check", "--registry", "-o", "json", file]);
        let output = look.current_dir(self.sandbox.path("mesh")).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{report}");
        report["registries"][0].clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(shell) = &self.shell else { return };
        let group = Pid::from_raw(i32::try_from(shell.pid()).unwrap()).unwrap();
        // All of them may be gone already.
        let _killed = kill_process_group(group, Signal::KILL);
    }
}

/// What was printed shows an answer, and that `web` gave it to `shop` by mutual TLS.
pub(crate) fn was_answered(printed: &str) {
    assert!(printed.contains("HTTP/1.1 200 OK\r\n"), "{printed}");
    let counted = |line: &&str| {
        [
            "weft_requests_total",
            "example.mesh/ns/default/sa/shop\"",
            "example.mesh/ns/default/sa/web\"",
            "mutual_tls",
        ]
        .iter()
        .all(|part| line.contains(part))
    };
    assert!(printed.lines().any(|line| counted(&line)), "{printed}");
}
