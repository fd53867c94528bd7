//! What is a single hub's own, wherever the records lie that hubs share: its epoch and the relay's positions. Each hub
//! numbers what it relays itself, so an agent that goes over to another hub finds another epoch and takes the full list.

use std::sync::Arc;

use redb::{Durability, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{
    file::{FileFault, HubFile, META, failed},
    token::random,
};

/// Registry and origin to version, position and whether it is gone.
const RELAYED: TableDefinition<'static, (&str, &str), (u64, u64, bool)> = TableDefinition::new("relayed");

/// One relayed origin, as far as it must be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecord {
    /// The version of its words.
    pub version: u64,
    /// When it last changed, in the relay's own count.
    pub position: u64,
    /// Whether it is gone.
    pub gone: bool,
}

/// The journal of one hub. Its calls block on the disk.
#[derive(Debug)]
pub struct Journal {
    file: Arc<HubFile>,
    epoch: [u8; 16],
}

impl Journal {
    /// The journal in a hub's file; the first time it is made there.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(file: Arc<HubFile>) -> Result<Self, FileFault> {
        let epoch = file.write(Durability::Immediate, |transaction| {
            transaction.open_table(RELAYED).map_err(failed)?;
            epoch(transaction)
        })?;
        Ok(Self { file, epoch })
    }

    /// The epoch: made at random with the journal, and never changed.
    #[must_use]
    pub fn epoch(&self) -> [u8; 16] {
        self.epoch
    }

    /// All relayed origins of a registry.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn relayed(&self, registry: &str) -> Result<Vec<(String, RelayRecord)>, FileFault> {
        let table = self.file.read()?.open_table(RELAYED).map_err(failed)?;
        let mut found = Vec::new();
        for entry in table.range((registry, "")..).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let (of, origin) = key.value();
            if of != registry {
                break;
            }
            let (version, position, gone) = value.value();
            found.push((origin.to_owned(), RelayRecord { version, position, gone }));
        }
        Ok(found)
    }

    /// Remembers changed origins of a registry, and forgets those without a record, in one durable step.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn remember(&self, registry: &str, changes: &[(&str, Option<RelayRecord>)]) -> Result<(), FileFault> {
        self.file.write(Durability::Immediate, |transaction| {
            let mut table = transaction.open_table(RELAYED).map_err(failed)?;
            for (origin, record) in changes {
                match record {
                    Some(record) => table
                        .insert((registry, *origin), (record.version, record.position, record.gone))
                        .map_err(failed)?,
                    None => table.remove((registry, *origin)).map_err(failed)?,
                };
            }
            Ok(())
        })
    }
}

fn epoch(transaction: &WriteTransaction) -> Result<[u8; 16], FileFault> {
    let mut table = transaction.open_table(META).map_err(failed)?;
    if let Some(known) = table.get(b"epoch".as_slice()).map_err(failed)? {
        return <[u8; 16]>::try_from(known.value()).map_err(failed);
    }
    let new = random();
    table.insert(b"epoch".as_slice(), new.as_slice()).map_err(failed)?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relayed_origins_are_remembered_by_registry_and_so_is_the_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Journal::open(Arc::new(HubFile::open(folder.path()).unwrap())).unwrap();
        let journal = open();
        let at = |position| RelayRecord { version: 1, position, gone: false };
        journal.remember("a", &[("x", Some(at(1))), ("y", Some(at(2)))]).unwrap();
        journal.remember("ab", &[("x", Some(at(3)))]).unwrap();
        journal.remember("a", &[("x", None)]).unwrap();
        let epoch = journal.epoch();
        drop(journal);

        let journal = open();
        assert_eq!(journal.epoch(), epoch);
        assert_eq!(journal.relayed("a").unwrap(), [("y".to_owned(), at(2))]);
        assert_eq!(journal.relayed("ab").unwrap(), [("x".to_owned(), at(3))]);
        assert_eq!(journal.relayed("b").unwrap(), []);
    }
}
