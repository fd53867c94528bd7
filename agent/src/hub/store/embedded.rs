//! The store of a single hub: in its own file, every change durable before it is answered.
//!
//! The file's calls block, so each runs on a thread that may. Changes are numbered, and told to watches in their order:
//! the lock that orders them is held from before a transaction until it is told.
//!
//! A lease counts by this process's clock. While no hub runs nobody can keep a lease alive, so with the file's opening
//! each lasts its whole time again.

mod leases;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use redb::{Durability, ReadableTable, Table, TableDefinition, WriteTransaction};
use tokio::sync::{Notify, broadcast};

use super::{Entry, Expected, Later, LeaseId, Put, Store, StoreError, Told, Version};
use crate::hub::file::{FileFault, HubFile, META, failed};
use leases::Leases;

/// Key to the number of its last change, its lease (0 for none) and its value.
const RECORDS: TableDefinition<'static, &str, Record> = TableDefinition::new("records");
/// Lease to its time in milliseconds.
const LEASES: TableDefinition<'static, u64, u64> = TableDefinition::new("leases");
/// How many changes a slow watch may be behind before it takes the full list.
const CHANGES: usize = 1024;

type Record = (u64, u64, &'static [u8]);

/// A [`Store`] in one file.
#[derive(Clone, Debug)]
pub struct EmbeddedStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Arc<HubFile>,
    /// Held while a change is written and told; the number of the last one.
    last: Mutex<u64>,
    changes: broadcast::Sender<Change>,
    leases: Mutex<Leases>,
    /// A lease ends earlier than was known, or nobody uses the store any more.
    sooner: Arc<Notify>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sooner.notify_one();
    }
}

/// One change of one key.
#[derive(Clone, Debug)]
struct Change {
    number: u64,
    key: String,
    /// None when it is gone.
    value: Option<Bytes>,
}

impl EmbeddedStore {
    /// Opens the store in the file of a state directory, on the runtime that this is called on.
    ///
    /// # Errors
    /// When another process has it, or it cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        Self::in_file(Arc::new(HubFile::open(state_dir)?))
    }

    /// The store in an open file, on the runtime that this is called on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn in_file(file: Arc<HubFile>) -> Result<Self, StoreError> {
        let (last, known) = file.write(Durability::Immediate, |transaction| {
            transaction.open_table(RECORDS).map_err(failed)?;
            let leases = transaction.open_table(LEASES).map_err(failed)?;
            let mut known = Vec::new();
            for entry in leases.iter().map_err(failed)? {
                let (lease, milliseconds) = entry.map_err(failed)?;
                known.push((lease.value(), Duration::from_millis(milliseconds.value())));
            }
            Ok((last_change(transaction)?, known))
        })?;
        let inner = Arc::new(Inner {
            file,
            last: Mutex::new(last),
            changes: broadcast::channel(CHANGES).0,
            leases: Mutex::new(known.into_iter().collect()),
            sooner: Arc::default(),
        });
        tokio::spawn(leases::end_when_due(Arc::downgrade(&inner), inner.sooner.clone()));
        Ok(Self(inner))
    }

    /// Does what waits for the disk on a thread that may.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Later<'_, T> {
        let inner = self.0.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&inner)).await;
            done.unwrap_or_else(|fault| Err(StoreError::Failed(fault.to_string())))
        })
    }

    async fn next_told(&self, watching: &mut Watching) -> Result<Told, StoreError> {
        loop {
            if !watching.begun {
                // Before the list is read: what changes meanwhile is heard as well.
                watching.changes = self.0.changes.subscribe();
                let prefix = watching.prefix.clone();
                let (entries, number) = self.blocking(move |inner| inner.list(&prefix)).await?;
                (watching.begun, watching.number) = (true, number);
                return Ok(Told::All(entries));
            }
            match watching.changes.recv().await {
                Ok(change)
                    if change.number <= watching.number || !change.key.starts_with(&watching.prefix) => {}
                Ok(Change { number, key, value }) => {
                    return Ok(match value {
                        Some(value) => Told::Put(Entry { key, value, version: version(number) }),
                        None => Told::Gone(key),
                    });
                }
                Err(broadcast::error::RecvError::Lagged(_)) => watching.begun = false,
                Err(broadcast::error::RecvError::Closed) => {
                    return Err(StoreError::Failed("it was closed".to_owned()));
                }
            }
        }
    }
}

/// One watch.
struct Watching {
    prefix: String,
    changes: broadcast::Receiver<Change>,
    begun: bool,
    /// The change up to which the list told all.
    number: u64,
}

impl Inner {
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let table = self.file.read()?.open_table(RECORDS).map_err(failed)?;
        let found = table.get(key).map_err(failed)?;
        Ok(found.map(|record| entry(key, record.value())))
    }

    /// All keys of a prefix, and the number of the last change that they hold.
    fn list(&self, prefix: &str) -> Result<(Vec<Entry>, u64), StoreError> {
        let transaction = self.file.read()?;
        let meta = transaction.open_table(META).map_err(failed)?;
        let number =
            number_in(meta.get(LAST_CHANGE).map_err(failed)?.as_ref().map(redb::AccessGuard::value))?;
        let table = transaction.open_table(RECORDS).map_err(failed)?;
        let mut found = Vec::new();
        for record in table.range(prefix..).map_err(failed)? {
            let (key, record) = record.map_err(failed)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push(entry(key.value(), record.value()));
        }
        Ok((found, number))
    }

    fn swap(&self, key: &str, expected: &Expected, put: Option<Put>) -> Result<bool, StoreError> {
        let lease = put.as_ref().and_then(|put| put.lease.as_ref()).map(number_of).transpose()?.unwrap_or(0);
        let may_be_lost = put.as_ref().is_some_and(|put| put.may_be_lost);
        let value = put.map(|put| put.value);
        self.change(if may_be_lost { Durability::None } else { Durability::Immediate }, |step| {
            let known = step.records.get(key).map_err(failed)?.map(|record| record.value().0);
            let is_expected = match expected {
                Expected::Any => true,
                Expected::Absent => known.is_none(),
                Expected::Version(wanted) => known.is_some_and(|known| version(known) == *wanted),
            };
            if !is_expected {
                return Ok(Ok(false));
            }
            if lease != 0 && step.leases.get(lease).map_err(failed)?.is_none() {
                return Ok(Err(StoreError::LeaseGone));
            }
            match value {
                Some(value) => step.put(key, lease, value)?,
                None => step.remove(key)?,
            }
            Ok(Ok(true))
        })?
    }

    /// One transaction, told to all watches when it is written.
    fn change<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut Step<'_>) -> Result<T, FileFault>,
    ) -> Result<T, StoreError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, told, number) = self.file.change(durability, |transaction| {
            let mut step = Step {
                records: transaction.open_table(RECORDS).map_err(failed)?,
                leases: transaction.open_table(LEASES).map_err(failed)?,
                leases_changed: false,
                number: *last,
                told: Vec::new(),
            };
            let value = change(&mut step)?;
            let Step { number, told, leases_changed, .. } = step;
            if number > *last {
                let mut meta = transaction.open_table(META).map_err(failed)?;
                meta.insert(LAST_CHANGE, number.to_be_bytes().as_slice()).map_err(failed)?;
            }
            Ok(((value, told, number), number > *last || leases_changed))
        })?;
        *last = number;
        for change in told {
            // Nobody may be watching.
            let _heard = self.changes.send(change);
        }
        Ok(value)
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let milliseconds = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let lease = u64::from_be_bytes(crate::hub::token::random()).max(1);
        self.change(Durability::Immediate, |step| {
            step.leases_changed = true;
            step.leases.insert(lease, milliseconds).map(drop).map_err(failed)
        })?;
        self.leases().keep(lease, ttl);
        self.sooner.notify_one();
        Ok(LeaseId(format!("{lease:016x}").into()))
    }

    /// Ends a lease with its keys.
    fn end(&self, lease: u64) -> Result<(), StoreError> {
        self.change(Durability::Immediate, |step| {
            if step.leases.remove(lease).map_err(failed)?.is_none() {
                return Ok(());
            }
            step.leases_changed = true;
            let mut keys = Vec::new();
            for record in step.records.iter().map_err(failed)? {
                let (key, record) = record.map_err(failed)?;
                if record.value().1 == lease {
                    keys.push(key.value().to_owned());
                }
            }
            keys.iter().try_for_each(|key| step.remove(key))
        })?;
        self.leases().forget(lease);
        Ok(())
    }
}

/// The tables while a change is made.
struct Step<'t> {
    records: Table<'t, &'static str, Record>,
    leases: Table<'t, u64, u64>,
    leases_changed: bool,
    number: u64,
    told: Vec<Change>,
}

impl Step<'_> {
    fn put(&mut self, key: &str, lease: u64, value: Bytes) -> Result<(), FileFault> {
        self.number += 1;
        self.records.insert(key, (self.number, lease, &*value)).map_err(failed)?;
        self.told.push(Change { number: self.number, key: key.to_owned(), value: Some(value) });
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), FileFault> {
        if self.records.remove(key).map_err(failed)?.is_some() {
            self.number += 1;
            self.told.push(Change { number: self.number, key: key.to_owned(), value: None });
        }
        Ok(())
    }
}

impl Store for EmbeddedStore {
    fn describe(&self) -> String {
        self.0.file.path().display().to_string()
    }

    fn get<'a>(&'a self, key: &'a str) -> Later<'a, Option<Entry>> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.get(&key))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Later<'a, Vec<Entry>> {
        let prefix = prefix.to_owned();
        self.blocking(move |inner| Ok(inner.list(&prefix)?.0))
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, put: Option<Put>) -> Later<'a, bool> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.swap(&key, &expected, put))
    }

    fn grant(&self, ttl: Duration) -> Later<'_, LeaseId> {
        self.blocking(move |inner| inner.grant(ttl))
    }

    fn keep_alive<'a>(&'a self, lease: &'a LeaseId) -> Later<'a, bool> {
        Box::pin(async move { Ok(self.0.leases().renew(number_of(lease)?)) })
    }

    fn revoke<'a>(&'a self, lease: &'a LeaseId) -> Later<'a, ()> {
        let lease = number_of(lease);
        self.blocking(move |inner| inner.end(lease?))
    }

    fn watch<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Told, StoreError>> {
        let changes = self.0.changes.subscribe();
        let watching = Watching { prefix: prefix.to_owned(), changes, begun: false, number: 0 };
        let told = stream::unfold(Some(watching), move |watching| async move {
            let mut watching = watching?;
            Some(match self.next_told(&mut watching).await {
                Ok(told) => (Ok(told), Some(watching)),
                Err(fault) => (Err(fault), None),
            })
        });
        told.boxed()
    }
}

/// Where the number of the last change is kept.
const LAST_CHANGE: &[u8] = b"last change";

fn last_change(transaction: &WriteTransaction) -> Result<u64, FileFault> {
    let mut meta = transaction.open_table(META).map_err(failed)?;
    let known = number_in(meta.get(LAST_CHANGE).map_err(failed)?.as_ref().map(redb::AccessGuard::value))?;
    meta.insert(LAST_CHANGE, known.to_be_bytes().as_slice()).map_err(failed)?;
    Ok(known)
}

fn number_in(bytes: Option<&[u8]>) -> Result<u64, FileFault> {
    bytes.map_or(Ok(0), |bytes| <[u8; 8]>::try_from(bytes).map(u64::from_be_bytes).map_err(failed))
}

fn number_of(lease: &LeaseId) -> Result<u64, StoreError> {
    u64::from_str_radix(&lease.0, 16).map_err(|_| StoreError::LeaseGone)
}

fn version(number: u64) -> Version {
    Version(number.to_string().into())
}

fn entry(key: &str, (number, _, value): (u64, u64, &[u8])) -> Entry {
    Entry { key: key.to_owned(), value: Bytes::copy_from_slice(value), version: version(number) }
}
