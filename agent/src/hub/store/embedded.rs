//! The store of a single hub: one file, owned by one process, every change durable before it is answered.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};
use serde::{Serialize, de::DeserializeOwned};
use weft_core::identity::SpiffeId;

use super::{
    ClaimError, JoinClaim, KnownNode, LastReport, NodeRecord, RelayRecord, SecretHash, Store, StoreError,
    TokenRecord, judge,
};
use crate::hub::token::random;

/// Records are JSON: a person can read them, and fields can be added.
type Records = TableDefinition<'static, &'static [u8], &'static [u8]>;

const TOKENS: Records = TableDefinition::new("tokens");
const NODES: Records = TableDefinition::new("nodes");
/// What each node last told of itself.
const REPORTS: Records = TableDefinition::new("reports");
const META: Records = TableDefinition::new("meta");
/// Serial number to identity and end of validity, in seconds since 1970.
const SERIALS: TableDefinition<'static, &str, (&str, u64)> = TableDefinition::new("serials");
/// Registry and origin to version, position and whether it is gone.
const RELAYED: TableDefinition<'static, (&str, &str), (u64, u64, bool)> = TableDefinition::new("relayed");

/// How long a token's record is kept after it expired, so that its second use can be told from a typing error.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// A [`Store`] in one file.
#[derive(Debug)]
pub struct EmbeddedStore {
    database: Database,
    epoch: [u8; 16],
    sweep: Mutex<Sweep>,
}

/// When expired serials are forgotten: when so many are new as were left the last time. So the table holds at most about
/// twice those that are valid, and a sweep costs each serial once.
#[derive(Debug)]
struct Sweep {
    left: u64,
    new: u64,
}

/// New serials that are let be, however few are left.
const SWEPT_TOGETHER: u64 = 256;

impl Sweep {
    fn is_due(&mut self) -> bool {
        self.new += 1;
        self.new >= self.left.max(SWEPT_TOGETHER)
    }
}

impl EmbeddedStore {
    /// Opens the store `hub.redb` of a state directory, or makes it. After a crash it is as after its last durable step.
    ///
    /// # Errors
    /// When another process has it, or it cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join("hub.redb");
        let database = Database::create(&path).map_err(|fault| match fault {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.display().to_string()),
            fault => StoreError::Failed(format!("{}: {fault}", path.display())),
        })?;
        restrict(&path)?;
        let transaction = database.begin_write().map_err(failed)?;
        let (epoch, left) = {
            for table in [TOKENS, NODES, REPORTS, META] {
                transaction.open_table(table).map_err(failed)?;
            }
            transaction.open_table(RELAYED).map_err(failed)?;
            let left = forget_expired_serials(&transaction)?;
            (epoch(&transaction)?, left)
        };
        transaction.commit().map_err(failed)?;
        Ok(Self { database, epoch, sweep: Mutex::new(Sweep { left, new: 0 }) })
    }

    /// Runs one transaction; nothing of it is kept when it fails.
    fn write<T, E: From<StoreError>>(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_durability(durability).map_err(failed)?;
        let value = change(&transaction)?;
        transaction.commit().map_err(failed)?;
        Ok(value)
    }
}

impl Store for EmbeddedStore {
    fn add_token(&self, hash: SecretHash, record: &TokenRecord) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |transaction| {
            let mut table = transaction.open_table(TOKENS).map_err(failed)?;
            let now = SystemTime::now();
            let kept = |_: &[u8], value: &[u8]| {
                let expires = parse::<TokenRecord>(value).map(|record| record.expires);
                expires
                    .map_or(true, |expires| expires.checked_add(KEPT_AFTER_EXPIRY).is_none_or(|at| at > now))
            };
            table.retain(kept).map_err(failed)?;
            table.insert(hash.as_slice(), encode(record)?.as_slice()).map_err(failed)?;
            Ok(())
        })
    }

    fn tokens(&self) -> Result<Vec<(SecretHash, TokenRecord)>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(TOKENS).map_err(failed)?;
        let mut tokens = Vec::new();
        for entry in table.iter().map_err(failed)? {
            let (hash, record) = entry.map_err(failed)?;
            let hash = SecretHash::try_from(hash.value()).map_err(failed)?;
            tokens.push((hash, parse(record.value())?));
        }
        Ok(tokens)
    }

    fn remove_token(&self, hash: SecretHash) -> Result<bool, StoreError> {
        self.write(Durability::Immediate, |transaction| {
            let mut tokens = transaction.open_table(TOKENS).map_err(failed)?;
            let removed = tokens.remove(hash.as_slice()).map_err(failed)?;
            Ok(removed.is_some())
        })
    }

    fn claim(&self, claim: &JoinClaim) -> Result<NodeRecord, ClaimError> {
        self.write(Durability::Immediate, |transaction| {
            let mut tokens = transaction.open_table(TOKENS).map_err(failed)?;
            let mut nodes = transaction.open_table(NODES).map_err(failed)?;
            let record = get(&tokens, &claim.secret_hash)?;
            let known = get::<NodeRecord>(&nodes, claim.node.as_bytes())?;
            let (record, newly_bound) = judge(record, known.is_some(), claim)?;
            if let (Some(known), false) = (known, newly_bound) {
                return Ok(known);
            }
            let node = NodeRecord { identities: record.identities.clone() };
            tokens.insert(claim.secret_hash.as_slice(), encode(&record)?.as_slice()).map_err(failed)?;
            nodes.insert(claim.node.as_bytes(), encode(&node)?.as_slice()).map_err(failed)?;
            Ok(node)
        })
    }

    fn node(&self, name: &str) -> Result<Option<NodeRecord>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        get(&transaction.open_table(NODES).map_err(failed)?, name.as_bytes())
    }

    fn nodes(&self) -> Result<Vec<KnownNode>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let nodes = transaction.open_table(NODES).map_err(failed)?;
        let reports = transaction.open_table(REPORTS).map_err(failed)?;
        let mut known = Vec::new();
        for entry in nodes.iter().map_err(failed)? {
            let (name, record) = entry.map_err(failed)?;
            let last = get(&reports, name.value())?;
            let name = String::from_utf8(name.value().to_vec()).map_err(failed)?;
            known.push(KnownNode { name, record: parse(record.value())?, last });
        }
        Ok(known)
    }

    fn remove_node(&self, name: &str) -> Result<bool, StoreError> {
        self.write(Durability::Immediate, |transaction| {
            let mut tokens = transaction.open_table(TOKENS).map_err(failed)?;
            let mut nodes = transaction.open_table(NODES).map_err(failed)?;
            let mut reports = transaction.open_table(REPORTS).map_err(failed)?;
            let used_elsewhere = |_: &[u8], value: &[u8]| {
                let record = parse::<TokenRecord>(value).ok();
                record.and_then(|record| record.bound).is_none_or(|binding| binding.node != name)
            };
            tokens.retain(used_elsewhere).map_err(failed)?;
            reports.remove(name.as_bytes()).map_err(failed)?;
            let removed = nodes.remove(name.as_bytes()).map_err(failed)?;
            Ok(removed.is_some())
        })
    }

    fn note_report(&self, name: &str, report: &LastReport) -> Result<(), StoreError> {
        // Told again at the next connection: it may wait for the next durable step.
        self.write(Durability::None, |transaction| {
            let nodes = transaction.open_table(NODES).map_err(failed)?;
            if nodes.get(name.as_bytes()).map_err(failed)?.is_some() {
                let mut reports = transaction.open_table(REPORTS).map_err(failed)?;
                reports.insert(name.as_bytes(), encode(report)?.as_slice()).map_err(failed)?;
            }
            Ok(())
        })
    }

    fn note_serial(
        &self,
        serial: &str,
        identity: &SpiffeId,
        not_after: SystemTime,
    ) -> Result<(), StoreError> {
        // An audit trail, not a decision: it may wait for the next durable step.
        let left = self.write(Durability::None, |transaction| {
            let mut table = transaction.open_table(SERIALS).map_err(failed)?;
            table.insert(serial, (identity.as_str(), seconds(not_after))).map_err(failed)?;
            drop(table);
            let is_due = self.sweep.lock().unwrap_or_else(PoisonError::into_inner).is_due();
            if is_due { forget_expired_serials(transaction).map(Some) } else { Ok(None) }
        });
        if let Some(left) = left? {
            *self.sweep.lock().unwrap_or_else(PoisonError::into_inner) = Sweep { left, new: 0 };
        }
        Ok(())
    }

    fn epoch(&self) -> [u8; 16] {
        self.epoch
    }

    fn relayed(&self, registry: &str) -> Result<Vec<(String, RelayRecord)>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(RELAYED).map_err(failed)?;
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

    fn remember(&self, registry: &str, changes: &[(&str, Option<RelayRecord>)]) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |transaction| {
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

fn epoch(transaction: &WriteTransaction) -> Result<[u8; 16], StoreError> {
    let mut table = transaction.open_table(META).map_err(failed)?;
    if let Some(known) = table.get(b"epoch".as_slice()).map_err(failed)? {
        return <[u8; 16]>::try_from(known.value()).map_err(failed);
    }
    let new = random();
    table.insert(b"epoch".as_slice(), new.as_slice()).map_err(failed)?;
    Ok(new)
}

/// How many are left.
fn forget_expired_serials(transaction: &WriteTransaction) -> Result<u64, StoreError> {
    let now = seconds(SystemTime::now());
    let mut table = transaction.open_table(SERIALS).map_err(failed)?;
    table.retain(|_, (_, not_after)| not_after > now).map_err(failed)?;
    table.len().map_err(failed)
}

fn restrict(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)
}

fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    table.get(key).map_err(failed)?.map(|record| parse(record.value())).transpose()
}

fn parse<T: DeserializeOwned>(record: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(record).map_err(failed)
}

fn encode(record: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(failed)
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn failed(fault: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_of_certificates_that_have_expired_do_not_pile_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path()).unwrap();
        let identity = SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/web").unwrap();
        let kept = || {
            let transaction = store.database.begin_read().unwrap();
            transaction.open_table(SERIALS).unwrap().len().unwrap()
        };
        let now = SystemTime::now();
        let valid = SWEPT_TOGETHER / 2;
        for number in 0..valid {
            store.note_serial(&format!("valid-{number}"), &identity, now + Duration::from_secs(600)).unwrap();
        }
        for number in 0..10 * SWEPT_TOGETHER {
            store.note_serial(&format!("old-{number}"), &identity, now - Duration::from_secs(1)).unwrap();
            assert!(kept() <= valid + SWEPT_TOGETHER, "{number}: {}", kept());
        }
        assert!(kept() >= valid, "a certificate that is valid is not forgotten");
    }
}
