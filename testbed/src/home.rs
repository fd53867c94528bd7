//! Where the programs of a server lie.
//!
//! `testbed/install` builds them into `SERVER-KEY` folders, the key being a hash of what they were built from. A checkout
//! knows its key, and takes no other folder: a test must not pass against a version that the checkout no longer pins.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

/// A server, by the name that `testbed/install` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// HashiCorp Consul.
    Consul,
    /// HashiCorp Nomad.
    Nomad,
    /// A Kubernetes API server, its controller manager, etcd, and kubectl.
    Kubernetes,
    /// Netflix's Eureka server and two clients of it.
    Eureka,
    /// A server of the domain name system, Knot, of the distribution: `testbed/install` does not know it.
    Knot,
}

impl Kind {
    /// Those that services run on, or register themselves at.
    pub const PLATFORMS: [Self; 4] = [Self::Consul, Self::Nomad, Self::Kubernetes, Self::Eureka];

    /// The word for it on command lines and in folder names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Consul => "consul",
            Self::Nomad => "nomad",
            Self::Kubernetes => "kubernetes",
            Self::Eureka => "eureka",
            Self::Knot => "knot",
        }
    }

    /// What the search path must have for this server when no folder has it; nothing when it is in no distribution.
    const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Consul => &["consul"],
            Self::Nomad => &["nomad"],
            Self::Kubernetes => &["kube-apiserver", "kube-controller-manager", "etcd", "kubectl"],
            Self::Eureka => &[],
            Self::Knot => &["knotd", "knotc"],
        }
    }

    /// What to run to get it.
    fn cure(self) -> String {
        match self {
            Self::Knot => "your package manager (Debian: apt-get install knot)".into(),
            built => format!("testbed/install {built}"),
        }
    }

    /// What the search path must have beside the server itself.
    const fn helpers(self) -> &'static [&'static str] {
        match self {
            Self::Consul | Self::Nomad | Self::Knot => &[],
            Self::Kubernetes => &["bash", "openssl"],
            Self::Eureka => &["java"],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A server that is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the real server {kind} is not on this machine ({why}); get it with: {cure}")]
pub struct NotInstalled {
    /// Which.
    pub kind: Kind,
    /// What was looked for.
    pub why: String,
    /// What to run.
    pub cure: String,
}

/// The programs of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    kind: Kind,
    /// None: they are on the search path.
    folder: Option<PathBuf>,
}

impl Home {
    /// Which server it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A program of it, to give to [`Command::new`].
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        match &self.folder {
            Some(folder) => folder.join("bin").join(name),
            None => on_path(name).unwrap_or_else(|| name.into()),
        }
    }

    /// A jar of it.
    pub(crate) fn jar(&self, name: &str) -> PathBuf {
        self.folder.as_deref().unwrap_or(Path::new("")).join("lib").join(name)
    }
}

/// Looks for a server: in `$WEFT_TESTBED` (default `~/.cache/weft-testbed`), then on the search path.
///
/// # Errors
///
/// [`NotInstalled`], whose text says what is skipped and how to get it.
pub fn installed(kind: Kind) -> Result<Home, NotInstalled> {
    let not = |why: String, cure: String| NotInstalled { kind, why, cure };
    if let Some(helper) = kind.helpers().iter().find(|helper| on_path(helper).is_none()) {
        return Err(not(format!("it needs {helper}"), format!("install {helper} with your package manager")));
    }
    if let Some(folder) = built(kind) {
        return Ok(Home { kind, folder: Some(folder) });
    }
    if !kind.programs().is_empty() && kind.programs().iter().all(|program| on_path(program).is_some()) {
        return Ok(Home { kind, folder: None });
    }
    let why = match kind.programs() {
        [] => format!("no folder for it in {}", cache().display()),
        programs => {
            format!("no folder for it in {}, and not on the path: {}", cache().display(), programs.join(", "))
        }
    };
    Err(not(why, kind.cure()))
}

/// For tests: what was found, or nothing, said loudly on standard error.
///
/// # Panics
///
/// When nothing was found and `WEFT_TESTS_MUST_NOT_SKIP` is set.
pub fn required<T>(found: Result<T, NotInstalled>) -> Option<T> {
    found
        .map_err(|not| {
            assert!(
                env::var_os("WEFT_TESTS_MUST_NOT_SKIP").is_none(),
                "{not}; and nothing may be skipped here"
            );
            eprintln!("SKIPPED: {not}");
        })
        .ok()
}

fn cache() -> PathBuf {
    let home = || env::var_os("HOME").map(PathBuf::from).unwrap_or_default().join(".cache/weft-testbed");
    env::var_os("WEFT_TESTBED").map_or_else(home, PathBuf::from)
}

/// The folder of this checkout's version; where there is no checkout, the newest of any version.
fn built(kind: Kind) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("install");
    if script.exists() {
        let output = Command::new("bash").arg(script).args(["--path", kind.name()]).output().ok()?;
        let path = String::from_utf8(output.stdout).ok()?;
        return output.status.success().then(|| path.trim_end().into());
    }
    newest(&cache(), kind)
}

/// The folder `SERVER-KEY` that was made last; not one that is still being built.
fn newest(cache: &Path, kind: Kind) -> Option<PathBuf> {
    let prefix = format!("{kind}-");
    let folders = fs::read_dir(cache).ok()?.flatten().filter(|entry| {
        let name = entry.file_name();
        let key = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        key.is_some_and(|key| key.bytes().all(|byte| byte.is_ascii_hexdigit())) && entry.path().is_dir()
    });
    let made = |entry: &fs::DirEntry| {
        entry.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    folders.max_by_key(made).map(|entry| entry.path())
}

/// Where the search path has a program, or where distributions keep servers, which users' search paths lack.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_folder_is_taken_where_there_is_no_checkout() {
        let cache = tempfile::tempdir().unwrap();
        for name in ["nomad-aa", "consul-old", "consul-0a", "consul-0b", "consul-0c.part"] {
            fs::create_dir(cache.path().join(name)).unwrap();
        }
        let touch = |name: &str, seconds| {
            let folder = fs::File::open(cache.path().join(name)).unwrap();
            folder.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        };
        touch("consul-0a", 20);
        touch("consul-0b", 10);
        assert_eq!(newest(cache.path(), Kind::Consul), Some(cache.path().join("consul-0a")));
        assert_eq!(newest(cache.path(), Kind::Eureka), None);
    }

    #[test]
    fn what_is_missing_says_how_to_get_it() {
        let not =
            NotInstalled { kind: Kind::Nomad, why: "no folder".into(), cure: "testbed/install nomad".into() };
        assert_eq!(
            not.to_string(),
            "the real server nomad is not on this machine (no folder); get it with: testbed/install nomad"
        );
    }
}
