//! The one file of a hub's own, `hub.redb` in its state directory: owned by one process, changed in atomic steps.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, TableDefinition, TableError,
    WriteTransaction,
};

/// Single values, by name.
pub(super) const META: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("meta");

/// How long what may be lost waits at most for the disk.
const SETTLED_EVERY: Duration = Duration::from_secs(10);
/// Under which name [`META`] says where the records lie, where that is not here.
const SHARED: &[u8] = b"shared";

/// The open file. After a crash it is as after its last durable step.
#[derive(Debug)]
pub struct HubFile {
    database: Database,
    path: PathBuf,
    /// Whether anything was written since the last durable step that may be lost.
    is_unsettled: AtomicBool,
}

/// The hub's file cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// Another process has it.
    #[error("the store {0} is in use by another process")]
    InUse(String),
    /// It, or a record in it, cannot be read or written.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl HubFile {
    /// Opens the file of a state directory, or makes it.
    ///
    /// # Errors
    /// When another process has it, or it cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self, FileFault> {
        let path = state_dir.join("hub.redb");
        let database = Database::create(&path).map_err(|fault| match fault {
            DatabaseError::DatabaseAlreadyOpen => FileFault::InUse(path.display().to_string()),
            fault => FileFault::Failed(format!("{}: {fault}", path.display())),
        })?;
        restrict(&path)?;
        Ok(Self { database, path, is_unsettled: AtomicBool::new(false) })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the records lie instead, as the hub last said; none when they lie here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn shared(&self) -> Result<Option<String>, FileFault> {
        let transaction = self.read()?;
        let meta = match transaction.open_table(META) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            meta => meta.map_err(failed)?,
        };
        let known = meta.get(SHARED).map_err(failed)?;
        Ok(known.map(|known| String::from_utf8_lossy(known.value()).into_owned()))
    }

    /// Says where the records lie from here on, none for here; gives what was said before. Without a hub that runs its
    /// operator must not be answered from here when they lie elsewhere.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn say_shared(&self, place: Option<&str>) -> Result<Option<String>, FileFault> {
        self.write(Durability::Immediate, |transaction| {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            let before = match place {
                Some(place) => meta.insert(SHARED, place.as_bytes()).map_err(failed)?,
                None => meta.remove(SHARED).map_err(failed)?,
            };
            Ok(before.map(|before| String::from_utf8_lossy(before.value()).into_owned()))
        })
    }

    /// Runs one transaction; nothing of it is kept when it fails. Blocks on the disk.
    pub(super) fn write<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<T, FileFault>,
    ) -> Result<T, FileFault> {
        self.change(durability, |transaction| Ok((change(transaction)?, true)))
    }

    /// Runs one transaction that says of itself whether it wrote something: what did not need not wait for the disk.
    pub(super) fn change<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<(T, bool), FileFault>,
    ) -> Result<T, FileFault> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_durability(durability).map_err(failed)?;
        let (value, has_written) = change(&transaction)?;
        if has_written {
            // Said while nobody else can write.
            self.is_unsettled.store(matches!(durability, Durability::None), Ordering::Relaxed);
            let committed = transaction.commit().map_err(failed);
            committed.inspect_err(|_| self.is_unsettled.store(true, Ordering::Relaxed))?;
        } else {
            transaction.abort().map_err(failed)?;
        }
        Ok(value)
    }

    /// Brings what may be lost to the disk, every so often: where nothing else is written it would wait for ever.
    pub(super) async fn keep_settled(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SETTLED_EVERY).await;
            let file = self.clone();
            let settled = tokio::task::spawn_blocking(move || file.settle()).await;
            if let Ok(Err(fault)) = settled {
                tracing::warn!(%fault, "what may be lost is not on the disk yet");
            }
        }
    }

    /// Brings what may be lost to the disk, if there is anything. Blocks on the disk.
    fn settle(&self) -> Result<(), FileFault> {
        if !self.is_unsettled.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.write(Durability::Immediate, |_| Ok(()))
    }

    /// A look at the file as it is now. Blocks on the disk.
    pub(super) fn read(&self) -> Result<ReadTransaction, FileFault> {
        self.database.begin_read().map_err(failed)
    }
}

fn restrict(path: &Path) -> Result<(), FileFault> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)
}

/// A fault of the database's, in its words.
pub(super) fn failed(fault: impl std::fmt::Display) -> FileFault {
    FileFault::Failed(fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"key";

    /// What a process would find that begins after this one was killed.
    fn after_a_crash(file: &HubFile) -> Option<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(file.path(), folder.path().join("hub.redb")).unwrap();
        let found = HubFile::open(folder.path()).unwrap();
        let meta = found.read().unwrap().open_table(META).unwrap();
        meta.get(KEY).unwrap().map(|value| value.value().to_vec())
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_lost_is_on_the_disk_within_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(HubFile::open(folder.path()).unwrap());
        let write = |durability, value: &'static [u8]| {
            file.write(durability, |transaction| {
                let mut meta = transaction.open_table(META).map_err(failed)?;
                meta.insert(KEY, value).map(drop).map_err(failed)
            })
            .unwrap();
        };
        write(Durability::Immediate, b"before");
        write(Durability::None, b"after");
        assert_eq!(after_a_crash(&file).as_deref(), Some(&b"before"[..]), "it need not be there yet");
        let keeping = tokio::spawn(file.clone().keep_settled());
        let settled = async {
            while file.is_unsettled.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(2 * SETTLED_EVERY, settled).await.unwrap();
        assert_eq!(after_a_crash(&file).as_deref(), Some(&b"after"[..]));
        keeping.abort();
    }
}
