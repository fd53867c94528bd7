//! What is in the folder: one look, without memory.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use weft_core::{
    config::{Fault, MeshFile, Outcome, SourceFile, read_mesh},
    name::OriginName,
    registry::Version,
};

/// The files of a folder, read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// By origin, in the order of their names.
    pub(super) files: BTreeMap<OriginName, File>,
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
}

impl File {
    fn new(version: Version, outcome: Outcome<MeshFile>, before: Option<&Self>) -> Self {
        let outcome = Arc::new(outcome);
        let last_good = match &outcome.value {
            Some(_) => Some(outcome.clone()),
            None => before.and_then(|before| before.last_good.clone()),
        };
        Self { version, outcome, last_good }
    }

    /// What counts of it: what it says, else what it said when it last made sense.
    pub(super) fn in_force(&self) -> Option<&MeshFile> {
        self.last_good.as_ref().and_then(|outcome| outcome.value.as_ref())
    }
}

impl Listing {
    /// Looks into `folder`. Files whose version is that of `before` are not read again into resources.
    ///
    /// # Errors
    /// When the folder cannot be listed. A file that vanishes in between is gone; one that cannot be read is faulty.
    pub(super) fn read(folder: &Path, before: &Self) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for path in mesh_files(folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // A name that is no origin's (spaces, beyond ASCII) still speaks; it is only spelled differently.
            let origin = OriginName::new(&name).or_else(|_| OriginName::new(&escape(&name)));
            let Ok(origin) = origin else { continue };
            if let Some(file) = read_file(&path, before.files.get(&origin)) {
                files.insert(origin, file);
            }
        }
        Ok(Self { files })
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
    if let Some(before) = before.filter(|before| before.version == version) {
        return Some(before.clone());
    }
    let outcome = match source {
        Ok(source) if source.text().trim().is_empty() => {
            Outcome { value: None, faults: vec![empty(&source)] }
        }
        Ok(source) => read_mesh(&source),
        Err(fault) => Outcome { value: None, faults: vec![fault] },
    };
    Some(File::new(version, outcome, before))
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

fn escape(name: &str) -> String {
    let escaped = name.bytes().map(|byte| match byte.is_ascii_graphic() && byte != b'%' {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02x}"),
    });
    escaped.collect::<String>().chars().take(253).collect()
}
