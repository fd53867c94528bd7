//! State on disk as plain files: written whole or not at all, readable by their owner only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Two writers of one process never share a temporary file.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file that could not be read or written, with its path.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    fn new<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self { action, path: path.to_owned(), source }
    }

    /// Whether the file is just not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Makes a folder, and those above it, that only its owner may enter. One that is there keeps its mode.
///
/// # Errors
/// When it cannot be made.
pub fn make_private_folder(path: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FileError::new("cannot create", path))
}

/// Puts `content` in place of what `path` held, with mode 0600. Whoever reads `path`, now or after a crash, sees the old
/// content or the new: it is written beside it, synced, renamed, and the folder is synced.
///
/// # Errors
/// When a step fails; `path` is then as it was.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let error = || FileError::new("cannot write", path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let beside = folder.join(format!(".{name}.{}.{number}.tmp", std::process::id()));
    let written = write_synced(&beside, content)
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        // It may never have been made.
        let _removed = fs::remove_file(&beside);
    }
    written.map_err(error())
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Reads a text file.
///
/// # Errors
/// When it cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(FileError::new("cannot read", path))
}

/// PEM (RFC 7468): one block of `label` for each content.
#[must_use]
pub fn to_pem<'a>(label: &str, contents: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for content in contents {
        text.push_str(&format!("-----BEGIN {label}-----\n"));
        let encoded = data_encoding::BASE64.encode(content);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str(&format!("-----END {label}-----\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_replaced_whole_and_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read_text(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn an_error_names_the_path_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none/state");
        let error = write_private(&missing, b"x").unwrap_err();
        assert!(error.to_string().contains("none/state"), "{error}");
        assert!(error.is_missing());
    }
}
