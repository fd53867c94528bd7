//! What is in the folder: one look, without memory.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use weft_core::{
    config::{Fault, MeshFile, Outcome, SourceFile, read_mesh},
    name::OriginName,
    registry::Version,
};

/// The longest name of an origin.
const LONGEST_NAME: usize = 253;

/// How long a file must have been left alone to be believed when it is written in place.
pub(super) const SETTLED_AFTER: Duration = Duration::from_millis(300);

/// The files of a folder, read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// By origin, in the order of their names.
    pub(super) files: BTreeMap<OriginName, File>,
    /// Whether a file is being written: it was passed over, and there must be another look soon.
    pub(super) unsettled: bool,
}

/// One file, as it is now.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Changes when the content does.
    pub(super) version: Version,
    /// What it says.
    pub(super) outcome: Arc<Outcome<MeshFile>>,
    /// What it said when it last made sense.
    last_good: Option<Arc<Outcome<MeshFile>>>,
    /// Its device and number: a file that is renamed into place is another one.
    place: Option<(u64, u64)>,
}

impl File {
    fn new(
        version: Version,
        outcome: Outcome<MeshFile>,
        before: Option<&Self>,
        place: Option<(u64, u64)>,
    ) -> Self {
        let outcome = Arc::new(outcome);
        let last_good = match &outcome.value {
            Some(_) => Some(outcome.clone()),
            None => before.and_then(|before| before.last_good.clone()),
        };
        Self { version, outcome, last_good, place }
    }

    /// Whether it is the file of before with other content, written so lately that there may be more to come.
    fn is_unsettled(&self, before: &Self, path: &Path) -> bool {
        let is_young = || {
            let changed = path.metadata().and_then(|metadata| metadata.modified());
            changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < SETTLED_AFTER))
        };
        self.version != before.version && self.place.is_some() && self.place == before.place && is_young()
    }

    /// What counts of it: what it says, else what it said when it last made sense.
    pub(super) fn in_force(&self) -> Option<&MeshFile> {
        self.last_good.as_ref().and_then(|outcome| outcome.value.as_ref())
    }
}

impl Listing {
    /// Looks into `folder`. Files whose version is that of `before` are not read again into resources. A known file that
    /// is being written in place counts as it was: half a file often makes sense, and says that the rest is gone.
    ///
    /// # Errors
    /// When the folder cannot be listed. A file that vanishes in between is gone; one that cannot be read is faulty.
    pub(super) fn read(folder: &Path, before: &Self) -> io::Result<Self> {
        let (mut files, mut unsettled) = (BTreeMap::new(), false);
        for path in mesh_files(folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(origin) = origin_of(&name) else {
                tracing::warn!(file = %path.display(), "passed over: its name cannot be told");
                continue;
            };
            let known = before.files.get(&origin);
            let file = read_file(&path, known);
            match known.filter(|known| file.as_ref().is_some_and(|file| file.is_unsettled(known, &path))) {
                Some(known) => {
                    unsettled = true;
                    files.insert(origin, known.clone());
                }
                None => files.extend(file.map(|file| (origin, file))),
            }
        }
        Ok(Self { files, unsettled })
    }
}

/// The resource files of a folder in the order of their names: `*.toml`, but not hidden ones and not what editors leave
/// (`.x.toml.swp`, `x.toml~`, `#x.toml#`).
///
/// # Errors
/// When the folder cannot be listed.
pub fn mesh_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Links are followed: Kubernetes mounts a file as a link into a hidden folder that it swaps as a whole.
        let is_folder = path.metadata().is_ok_and(|metadata| metadata.is_dir());
        if name.ends_with(".toml") && !name.starts_with(['.', '#']) && !is_folder {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// None when the file is gone.
fn read_file(path: &Path, before: Option<&File>) -> Option<File> {
    let (version, source) = match SourceFile::read(path) {
        Ok(source) => (version_of(source.text().as_bytes()), Ok(source)),
        Err(_) if is_gone(path) => return None,
        Err(fault) => (version_of(format!("unreadable: {fault}").as_bytes()), Err(*fault)),
    };
    let place = path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    if let Some(before) = before.filter(|before| before.version == version) {
        return Some(File { place, ..before.clone() });
    }
    let outcome = match source {
        Ok(source) => read_resources(&source),
        Err(fault) => Outcome { value: None, faults: vec![fault] },
    };
    Some(File::new(version, outcome, before, place))
}

/// Reads a file of resources as one of a watched folder: it says something, or it is faulty.
#[must_use]
pub fn read_resources(source: &SourceFile) -> Outcome<MeshFile> {
    match source.text().trim().is_empty() {
        true => Outcome { value: None, faults: vec![empty(source)] },
        false => read_mesh(source),
    }
}

fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Many programs empty a file before they write it anew; taking that at its word would drop all traffic in between.
fn empty(source: &SourceFile) -> Fault {
    let fault = Fault::error(source.place(0..0), "the file is empty");
    fault.help("delete the file, or leave a comment in it, to take its resources away")
}

/// A digest of the content; the length beside it. Only equality means anything.
fn version_of(content: &[u8]) -> Version {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    Version(format!("{:016x}-{}", hasher.finish(), content.len()).into())
}

/// The origin that a file is. A name that is no origin's (spaces, beyond ASCII, too long) still speaks; it is only spelled
/// differently, and in such a way that no two files are one.
fn origin_of(name: &str) -> Option<OriginName> {
    let escaped = name.bytes().map(|byte| match byte.is_ascii_graphic() && byte != b'%' {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02x}"),
    });
    let mut text: String = escaped.collect();
    if text.len() > LONGEST_NAME {
        let digest = version_of(name.as_bytes());
        text.truncate(LONGEST_NAME - digest.0.len() - 1);
        text = format!("{text}%{}", digest.0);
    }
    OriginName::new(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_files_are_one_origin() {
        let long = |end: &str| format!("{}{end}.toml", "x".repeat(245));
        let names =
            ["a.toml", "a b.toml", "a%20b.toml", "\u{fc}.toml", &long("\u{fc}\u{e4}"), &long("\u{fc}\u{f6}")];
        let origins: std::collections::BTreeSet<_> =
            names.iter().map(|name| origin_of(name).expect("every name speaks")).collect();
        assert_eq!(origins.len(), names.len());
        assert_eq!(origin_of("a.toml").unwrap().as_str(), "a.toml");
    }
}
