//! The last good state of a registry, on disk.
//!
//! One file per registry holds all its scopes and the point to go on from, in one write (write, fsync, rename; mode
//! 0600), so the two never disagree. It is lines of JSON between a head and a tail; the tail holds the SHA-256 of what
//! comes before it, so that half a file, or a file somebody edited, is told apart from a whole one.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::{
    identity::SpiffeId,
    merge::{Departed, Origin, RequiredTls, SavedScope, Snapshot},
    name::{OriginName, PortName, RegistryName, ServiceKey},
    registry::{Completeness, OriginFault, Resume, Scope, Version},
    resource::{Resource, Service},
};

/// The version of the file's form.
const FORMAT: u32 = 2;

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refuses.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not whole, or not ours.
    #[error("{path}: line {line}: {message}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The line at which it shows, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// What a state file says of its registry as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Where to go on.
    pub resume: Option<Resume>,
    /// Whether all that was awaited of the registry was heard: a file can be written in the middle of a first list.
    pub ready: bool,
    /// Of a relay: the registries it speaks for, most authoritative first.
    pub relayed: Vec<RegistryName>,
    /// A digest of what decided which of its words were taken over. Under other rules `resume` lies beyond words that
    /// were refused then and would be taken over now.
    pub rules: String,
}

/// What a state file held.
#[derive(Debug, Default)]
pub struct Saved {
    /// The registry as a whole.
    pub summary: Summary,
    /// Everything by scope.
    pub scopes: Vec<SavedScope>,
    /// Ports that stay in TLS.
    pub required_tls: Vec<(ServiceKey, PortName)>,
    /// Services whose last instance is gone, and whose names stay their own for a while.
    pub departed: Vec<(ServiceKey, Departed)>,
}

/// One registry's state file.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Head {
        format: u32,
        summary: Summary,
    },
    RequiredTls(ServiceKey, PortName),
    Departed {
        registry: RegistryName,
        service: Service,
        identities: BTreeSet<SpiffeId>,
        /// Milliseconds since 1970.
        since: u64,
        #[serde(default)]
        is_withdrawn: bool,
    },
    Scope {
        scope: Scope,
        completeness: Option<Completeness>,
        /// Milliseconds since 1970.
        committed_at: u64,
    },
    /// Belongs to the scope before it.
    Origin {
        name: OriginName,
        version: Version,
        resources: Vec<Resource>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        faults: Vec<OriginFault>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made_sense: Option<bool>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unconfirmed_since: Option<u64>,
    },
    Tail {
        sha256: String,
    },
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

impl StateFile {
    /// The state file at `path`. Its folder must exist when it is written.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, where it is.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self) -> Result<(), StateError> {
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Writes the given scopes of a snapshot and what belongs to them, in place of what was there.
    ///
    /// # Errors
    /// When the file system refuses; what was there is then still there.
    pub fn write(
        &self,
        snapshot: &Snapshot,
        scopes: &[Scope],
        summary: &Summary,
        required_tls: &RequiredTls,
    ) -> Result<(), StateError> {
        self.write_io(snapshot, scopes, summary, required_tls)
            .map_err(|source| StateError::Io { path: self.path.clone(), source })
    }

    fn write_io(
        &self,
        snapshot: &Snapshot,
        scopes: &[Scope],
        summary: &Summary,
        required_tls: &RequiredTls,
    ) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        let mut writer = Writer { out: BufWriter::new(file), digest: Context::new(&SHA256) };
        writer.line(&Line::Head { format: FORMAT, summary: summary.clone() })?;
        let ours = |key: &ServiceKey| scopes.iter().any(|scope| scope.registry == key.registry);
        for (service, port) in required_tls.iter().filter(|(service, _)| ours(service)) {
            writer.line(&Line::RequiredTls(service.clone(), port.clone()))?;
        }
        for (registry, partition) in &snapshot.partitions {
            if !scopes.iter().any(|scope| scope.registry == *registry) {
                continue;
            }
            for departed in partition.departed.values() {
                writer.line(&Line::Departed {
                    registry: registry.clone(),
                    service: Service::clone(&departed.service),
                    identities: departed.identities.clone(),
                    since: millis(departed.since),
                    is_withdrawn: departed.is_withdrawn,
                })?;
            }
        }
        for scope in scopes {
            let Some(state) = snapshot.scopes.get(scope) else { continue };
            let Some(committed_at) = state.committed_at.map(millis) else { continue };
            writer.line(&Line::Scope {
                scope: scope.clone(),
                completeness: state.completeness,
                committed_at,
            })?;
            for origin in state.origins.values() {
                writer.line(&origin_line(origin))?;
            }
        }
        let file = writer.finish()?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        // The rename itself must outlive a power cut.
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    }

    /// Reads what was kept; none when there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, or is not whole: it must then not be used at all.
    pub fn read(&self) -> Result<Option<Saved>, StateError> {
        let io_fault = |source| StateError::Io { path: self.path.clone(), source };
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io_fault)?,
        };
        let mut reader = BufReader::new(file);
        let mut digest = Context::new(&SHA256);
        let mut saved = Saved::default();
        let mut text = Vec::new();
        for number in 1.. {
            let corrupt =
                |message: String| StateError::Corrupt { path: self.path.clone(), line: number, message };
            text.clear();
            if reader.read_until(b'\n', &mut text).map_err(io_fault)? == 0 {
                return Err(corrupt("the file ends before its tail".into()));
            }
            let line: Line = serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
            if let Line::Tail { sha256 } = &line {
                let found = HEXLOWER.encode(digest.finish().as_ref());
                let rest = reader.fill_buf().map_err(io_fault)?;
                let whole = *sha256 == found && rest.is_empty();
                return if whole {
                    Ok(Some(saved))
                } else {
                    Err(corrupt("the checksum does not fit".into()))
                };
            }
            if number == 1 && !matches!(line, Line::Head { .. }) {
                return Err(corrupt("the file does not begin with its head".into()));
            }
            digest.update(&text);
            saved.take_in(line, number).map_err(corrupt)?;
        }
        Ok(None)
    }
}

impl Saved {
    fn take_in(&mut self, line: Line, number: usize) -> Result<(), String> {
        match line {
            Line::Head { format, .. } if format != FORMAT => {
                return Err(format!("its form is {format}, this version reads {FORMAT}"));
            }
            Line::Head { summary, .. } if number == 1 => self.summary = summary,
            Line::RequiredTls(service, port) => self.required_tls.push((service, port)),
            Line::Departed { registry, service, identities, since, is_withdrawn } => {
                let key = ServiceKey { registry, service: service.name.clone() };
                let departed =
                    Departed { service: service.into(), identities, since: time(since), is_withdrawn };
                self.departed.push((key, departed));
            }
            Line::Scope { scope, completeness, committed_at } => {
                let committed_at = time(committed_at);
                self.scopes.push(SavedScope { scope, completeness, committed_at, origins: Vec::new() });
            }
            Line::Origin { name, version, resources, faults, made_sense, unconfirmed_since } => {
                // Mostly it does. A file that does not say was written when whatever had words kept them.
                let kept = || !resources.is_empty() || !faults.iter().any(|fault| fault.keeps_last_good);
                let made_sense = made_sense.unwrap_or_else(kept);
                let scope = self.scopes.last_mut().ok_or("an origin stands before any scope")?;
                scope.origins.push(Origin {
                    name,
                    version,
                    resources: resources.into(),
                    faults,
                    made_sense,
                    unconfirmed_since: unconfirmed_since.map(time),
                });
            }
            Line::Head { .. } | Line::Tail { .. } => return Err("this line does not belong here".into()),
        }
        Ok(())
    }
}

fn origin_line(origin: &Origin) -> Line {
    Line::Origin {
        name: origin.name.clone(),
        version: origin.version.clone(),
        resources: origin.resources.to_vec(),
        faults: origin.faults.clone(),
        made_sense: (!origin.faults.is_empty()).then_some(origin.made_sense),
        unconfirmed_since: origin.unconfirmed_since.map(millis),
    }
}

struct Writer {
    out: BufWriter<File>,
    digest: Context,
}

impl Writer {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.digest.update(&text);
        self.out.write_all(&text)
    }

    fn finish(mut self) -> io::Result<File> {
        let sha256 = HEXLOWER.encode(self.digest.clone().finish().as_ref());
        self.line(&Line::Tail { sha256 })?;
        self.out.into_inner().map_err(io::IntoInnerError::into_error)
    }
}
