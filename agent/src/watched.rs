//! Files that are looked at now and then: configuration and certificates.
//!
//! A look costs a `stat` per file and happens twice a second, which notices every way in which files are replaced
//! (written over, renamed, a symlink swapped, a mount that appears) without a watch that could be lost.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(500);

/// What tells one content from the next without reading it: device, inode, size, and time of change with nanoseconds.
type Mark = Option<(u64, u64, u64, i64, i64)>;

/// Some files and how they were when last looked at.
#[derive(Debug)]
pub struct Watched {
    marks: Vec<(PathBuf, Mark)>,
}

impl Watched {
    /// Begins to watch; how the files are now counts as known.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { marks: paths.into_iter().map(|path| (path.clone(), mark(&path))).collect() }
    }

    /// Waits until one of the files is not as it was. A writer may still be at work: a file is reported when it was the
    /// same for one look.
    pub async fn changed(&mut self) {
        loop {
            tokio::time::sleep(EVERY).await;
            if self.look() {
                while {
                    tokio::time::sleep(EVERY / 10).await;
                    self.look()
                } {}
                return;
            }
        }
    }

    /// Whether any file has changed since the last look.
    fn look(&mut self) -> bool {
        let mut changed = false;
        for (path, known) in &mut self.marks {
            let now = mark(path);
            changed |= now != *known;
            *known = now;
        }
        changed
    }
}

fn mark(path: &Path) -> Mark {
    let data = std::fs::metadata(path).ok()?;
    Some((data.dev(), data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_a_file_come_change_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weft.toml");
        let mut watched = Watched::new([path.clone()]);
        assert!(!watched.look());
        std::fs::write(&path, "one").unwrap();
        assert!(watched.look() && !watched.look());
        std::fs::write(folder.path().join("new"), "two").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(watched.look() && !watched.look());
        std::fs::remove_file(&path).unwrap();
        assert!(watched.look() && !watched.look());
    }
}
