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

/// Under which name [`META`] keeps the lives of the store, oldest first: the name of each, and the position at its begin.
const LIVES: &[u8] = b"lives";
/// How many lives are remembered: whoever comes from before takes the full list.
const KEPT_LIVES: usize = 256;

/// The journal of one hub. Its calls block on the disk.
#[derive(Debug)]
pub struct Journal {
    file: Arc<HubFile>,
    past: Past,
}

/// What a hub's store has been through: from where agents may go on.
///
/// Each start of the hub is a life. A store that is set back to a copy of it knows the life in which the copy was made only
/// as far as it had come then, and the later ones not at all: whoever comes from there was told what this one never was.
#[derive(Clone, Debug)]
pub struct Past {
    epoch: [u8; 16],
    life: [u8; 16],
    /// Former lives with the position at which each ended.
    former: FormerLives,
}

/// Lives with the position at which each ended.
type FormerLives = Arc<[([u8; 16], u64)]>;

impl Past {
    /// The epoch: made at random with the journal, and never changed.
    #[must_use]
    pub fn epoch(&self) -> [u8; 16] {
        self.epoch
    }

    /// The life that began with this start.
    #[must_use]
    pub fn life(&self) -> [u8; 16] {
        self.life
    }

    /// Whether this store gave out that position in that life. An agent that knows of no lives names none, and is believed.
    #[must_use]
    pub fn holds(&self, life: &[u8], position: u64) -> bool {
        let is_former = |(former, ended): &([u8; 16], u64)| *former == *life && position <= *ended;
        life.is_empty() || self.life == *life || self.former.iter().any(is_former)
    }
}

impl Journal {
    /// The journal in a hub's file, which begins a life with it; the first time it is made there.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(file: Arc<HubFile>) -> Result<Self, FileFault> {
        let past = file.write(Durability::Immediate, |transaction| {
            let position = last_position(transaction)?;
            let (life, former) = begin_life(transaction, position)?;
            Ok(Past { epoch: epoch(transaction)?, life, former })
        })?;
        Ok(Self { file, past })
    }

    /// From where agents may go on.
    #[must_use]
    pub fn past(&self) -> &Past {
        &self.past
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

/// The highest position that was given out.
fn last_position(transaction: &WriteTransaction) -> Result<u64, FileFault> {
    let table = transaction.open_table(RELAYED).map_err(failed)?;
    let mut last = 0;
    for entry in table.iter().map_err(failed)? {
        let (_, value) = entry.map_err(failed)?;
        last = last.max(value.value().1);
    }
    Ok(last)
}

/// Begins a life; gives it and the former ones.
fn begin_life(transaction: &WriteTransaction, position: u64) -> Result<([u8; 16], FormerLives), FileFault> {
    let mut table = transaction.open_table(META).map_err(failed)?;
    let known = table.get(LIVES).map_err(failed)?.map(|known| known.value().to_vec()).unwrap_or_default();
    let (entries, []) = known.as_chunks::<24>() else { return Err(failed("its lives cannot be read")) };
    let life_of = |entry: &[u8; 24]| {
        let (mut life, mut began) = ([0; 16], [0; 8]);
        life.copy_from_slice(&entry[..16]);
        began.copy_from_slice(&entry[16..]);
        (life, u64::from_be_bytes(began))
    };
    let mut lives: Vec<_> = entries.iter().map(life_of).collect();
    let life = random();
    lives.push((life, position));
    lives.drain(..lives.len().saturating_sub(KEPT_LIVES));
    let written: Vec<u8> =
        lives.iter().flat_map(|(life, at)| life.iter().copied().chain(at.to_be_bytes())).collect();
    table.insert(LIVES, written.as_slice()).map_err(failed)?;
    // Where one ended, the next one began.
    let former = lives.windows(2).map(|pair| (pair[0].0, pair[1].1)).collect();
    Ok((life, former))
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
        let past = journal.past().clone();
        drop(journal);

        let journal = open();
        assert_eq!(journal.past().epoch(), past.epoch());
        assert_ne!(journal.past().life(), past.life());
        let holds = |position| journal.past().holds(&past.life(), position);
        assert_eq!((holds(3), holds(4)), (true, false), "no more was told in that life");
        assert!(journal.past().holds(&journal.past().life(), 1 << 40) && journal.past().holds(&[], 1 << 40));
        assert!(!journal.past().holds(&[7; 16], 0), "a life that it never had");
        assert_eq!(journal.relayed("a").unwrap(), [("y".to_owned(), at(2))]);
        assert_eq!(journal.relayed("ab").unwrap(), [("x".to_owned(), at(3))]);
        assert_eq!(journal.relayed("b").unwrap(), []);
    }
}
