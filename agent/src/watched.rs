//! Files that are looked at now and then: configuration and certificates.
//!
//! A look costs a `stat` per file and happens twice a second, which notices every way in which files are replaced
//! (written over, renamed, a symlink swapped, a mount that appears) without a watch that could be lost.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(500);
/// How long a changed file must stay as it is before it is reported: a writer may still be at work.
const SETTLED_AFTER: Duration = Duration::from_millis(50);

/// What tells one content from the next without reading it: device, inode, size, and time of the last change (of content,
/// owner or mode: a file that could not be opened may be readable now) with nanoseconds.
type Mark = Option<(u64, u64, u64, i64, i64)>;

/// Some files and how they were when last looked at.
///
/// Begin to watch before the files are read: what changes after that is reported, at worst once too often.
#[derive(Debug)]
pub struct Watched {
    marks: Vec<(PathBuf, Mark)>,
    next_look: Instant,
    /// Whether a change was seen that has not been reported yet.
    changing: bool,
}

impl Watched {
    /// Begins to watch; how the files are now counts as known.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let marks = paths.into_iter().map(|path| (path.clone(), mark(&path))).collect();
        Self { marks, next_look: Instant::now() + EVERY, changing: false }
    }

    /// Watches these files from here on. Of those that were watched before, what was known stays known.
    pub fn watch_instead(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let known: BTreeMap<PathBuf, Mark> = self.marks.drain(..).collect();
        let marks = paths.into_iter().map(|path| {
            let mark = known.get(&path).copied().unwrap_or_else(|| mark(&path));
            (path, mark)
        });
        self.marks = marks.collect();
    }

    /// Takes how the files are now for known: the caller reads them anyway.
    pub fn skip(&mut self) {
        self.look();
        self.changing = false;
    }

    /// Waits until one of the files is not as it was and stays as it is for one look. Loses nothing when it is dropped
    /// before: the next call goes on where this one was.
    pub async fn changed(&mut self) {
        loop {
            tokio::time::sleep_until(self.next_look).await;
            let moved = self.look();
            self.next_look = Instant::now() + if moved { SETTLED_AFTER } else { EVERY };
            if moved {
                self.changing = true;
            } else if std::mem::take(&mut self.changing) {
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
    Some((data.dev(), data.ino(), data.len(), data.ctime(), data.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn sees_a_file_that_becomes_readable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut watched = Watched::new([file.path().to_owned()]);
        // Times of change have the clock's tick for a grain.
        let seen = (0..1000).any(|turn| {
            let mode = if turn % 2 == 0 { 0o600 } else { 0o644 };
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            std::thread::yield_now();
            watched.look()
        });
        assert!(seen);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_dropped_again_and_again_misses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weft.toml");
        let mut watched = Watched::new([path.clone()]);
        std::fs::write(&path, "one").unwrap();
        let mut turns = 0;
        // Shorter than a look takes, as it is beside a timer that ticks fast.
        while tokio::time::timeout(EVERY / 25, watched.changed()).await.is_err() {
            turns += 1;
            assert!(turns < 100, "never reported");
        }
    }

    #[test]
    fn what_was_known_of_a_file_stays_known_when_others_join_it() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
        let mut watched = Watched::new([old.clone()]);
        std::fs::write(&old, "one").unwrap();
        watched.watch_instead([old, new]);
        assert!(watched.look(), "the change from before is still to be reported");
    }
}
