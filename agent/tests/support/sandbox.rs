//! A folder of a test's own, with the files and logs of its processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use super::Process;

/// The real binary.
pub const WEFT: &str = env!("CARGO_BIN_EXE_weft");

pub struct Sandbox {
    folder: Option<TempDir>,
}

impl Sandbox {
    pub fn new() -> Self {
        // Short: the path of a Unix socket has at most 107 bytes.
        Self { folder: Some(tempfile::Builder::new().prefix("weft-").tempdir_in("/tmp").unwrap()) }
    }

    pub fn root(&self) -> &Path {
        self.folder.as_ref().expect("only the drop takes it").path()
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    /// Writes a file as an editor does: whole, then renamed.
    pub fn write(&self, relative: &str, text: &str) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }

    /// A call of the binary, run in this folder.
    pub fn weft(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(WEFT);
        command.args(arguments).current_dir(self.root()).stdin(Stdio::null());
        for variable in ["WEFT_SOCKET", "WEFT_CONFIG", "WEFT_LOG", "WEFT_LOG_JSON", "NOTIFY_SOCKET"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs a verb to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.weft(arguments).output().unwrap()
    }

    /// Runs a verb that must succeed and returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "weft {arguments:?}: {}\n{printed}\n{complaint}", output.status);
        printed
    }

    /// Runs a reading verb with `-o json` against a socket in this folder.
    pub fn json(&self, verb: &str, socket: &str) -> serde_json::Value {
        let output = self.run(&[verb, "-o", "json", "--socket", socket]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("weft {verb}: {error}\n{}", String::from_utf8_lossy(&output.stderr))
        })
    }

    /// Starts a long-lived verb; its log is `<name>.log`.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Process {
        Process::spawn(name, self.path(&format!("{name}.log")), self.weft(arguments))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = self.folder.take().expect("only the drop takes it").keep();
            eprintln!("the test's files and logs are kept in {}", path.display());
        }
    }
}
