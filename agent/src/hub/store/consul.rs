//! Consul: records as keys of its KV store, leases as its sessions.
//!
//! Keys are read and written by transactions, whose bodies carry any key; a transaction is one entry of the servers'
//! log, so a quorum has what was answered. Reads are `consistent`: the leader asks the others whether it still is.
//!
//! A session deletes its keys when it ends (`behavior=delete`), is bound to no health check, and has no lock delay: the
//! delay would keep a key from its next owner although nobody holds it any more, and what it is for, a holder that goes on
//! too long, is met by the holder's own clock. Consul's sessions last ten seconds at least and up to twice their time.
//!
//! A token that may no longer read a key gets lists without it, with status 200, or 404 where nothing is left. So with each
//! list the right to the prefix is checked, and what a watch misses is told as gone only when it is confirmed to be absent.

mod messages;
mod watch;

use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use futures_core::stream::BoxStream;
use http::{HeaderName, Method};
use serde::Serialize;
use weft_registries::{
    credential::Credential,
    http_client::{Answer, Call, ServerSettings},
};

use super::{
    Entry, Expected, Later, LeaseId, Put, Store, StoreError, Told, Version,
    servers::{Servers, meaning},
};
use messages::{KeyValue, Operation, Refused, Session, SessionName, TransactionDone};

/// The shortest and the longest time of a session.
const SESSION: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(86_400));

/// How many operations a transaction may hold.
const MOST_OPERATIONS: usize = 64;

/// A [`Store`] in Consul's KV.
#[derive(Clone)]
pub struct ConsulStore {
    servers: Servers,
    credential: Credential,
    prefix: String,
}

impl ConsulStore {
    /// A client of these agents or servers; nothing is connected before something is asked. All keys begin with `prefix`.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub fn new(servers: &[ServerSettings], credential: Credential, prefix: &str) -> Result<Self, StoreError> {
        let servers = Servers::new(servers)?;
        Ok(Self { servers, credential, prefix: prefix.to_owned() })
    }

    async fn call(&self, method: Method, path: impl Into<String>) -> Result<Call, StoreError> {
        let call = Call::new(method, path);
        let token = self.credential.token().await.map_err(meaning)?;
        Ok(match token {
            Some(token) => call.header(HeaderName::from_static("x-consul-token"), token.secret(), true),
            None => call,
        })
    }

    async fn put_call(&self, path: impl Into<String>, body: &impl Serialize) -> Result<Call, StoreError> {
        let body = serde_json::to_vec(body).map_err(|fault| StoreError::Failed(fault.to_string()))?;
        Ok(self.call(Method::PUT, path).await?.body("application/json", Bytes::from(body)))
    }

    /// What a transaction of reads finds; none when a key is missing.
    async fn read(&self, operations: &[Operation<'_>]) -> Result<Option<Vec<KeyValue>>, StoreError> {
        let call = self.put_call("/v1/txn?consistent", &operations).await?;
        let answer = self.servers.ask(&call).await?;
        match refusal(&answer)? {
            None => {
                let done: TransactionDone = answer.json().map_err(meaning)?;
                Ok(Some(done.results.unwrap_or_default().into_iter().map(|result| result.kv).collect()))
            }
            Some(refused) if refused.what.contains("doesn't exist") => Ok(None),
            Some(refused) => Err(failed(&refused.what)),
        }
    }

    /// A key that is there is one result; what a token may not read is left out, and must not be taken for absent.
    fn only(&self, key: &str, mut found: Vec<KeyValue>) -> Result<Entry, StoreError> {
        let hidden = || StoreError::Denied(format!("Consul: the token may not read the key {key}"));
        self.entry(found.pop().ok_or_else(hidden)?)
    }

    /// Checks that none of these keys, of this store's whole names, is there. Consul lists without a word only what a token
    /// may read; this it refuses where it may not write.
    async fn confirm_absent(&self, keys: &[String]) -> Result<bool, StoreError> {
        for keys in keys.chunks(MOST_OPERATIONS) {
            let operations: Vec<_> = keys.iter().map(|key| Operation::check_absent(key)).collect();
            let answer = self.servers.ask(&self.put_call("/v1/txn?consistent", &operations).await?).await?;
            match refusal(&answer)? {
                None => {}
                Some(refused) if is_denial(&refused.what) => return Err(failed(&refused.what)),
                Some(refused) => {
                    // There after all: made again meanwhile, or hidden.
                    let Some(key) = keys.get(refused.operation) else { return Err(failed(&refused.what)) };
                    if let Some(found) = self.read(&[Operation::get(key)]).await? {
                        self.only(key, found)?;
                    }
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn entry(&self, found: KeyValue) -> Result<Entry, StoreError> {
        let foreign = || StoreError::Failed("Consul names a key that is none of ours".to_owned());
        let key = found.key.strip_prefix(&self.prefix).ok_or_else(foreign)?.to_owned();
        let value = BASE64.decode(found.value.unwrap_or_default().as_bytes());
        let value = value.map_err(|fault| failed(&fault.to_string()))?.into();
        Ok(Entry { key, value, version: Version(found.modify_index.to_string().into()) })
    }

    fn sorted(&self, found: Vec<KeyValue>) -> Result<Vec<Entry>, StoreError> {
        let entries: Result<Vec<_>, _> = found.into_iter().map(|found| self.entry(found)).collect();
        let mut entries = entries?;
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(entries)
    }
}

impl Store for ConsulStore {
    fn describe(&self) -> String {
        format!("Consul at {}, under {}", self.servers.describe(), self.prefix)
    }

    fn get<'a>(&'a self, key: &'a str) -> Later<'a, Option<Entry>> {
        Box::pin(async move {
            let key = format!("{}{key}", self.prefix);
            let found = self.read(&[Operation::get(&key)]).await?;
            found.map(|found| self.only(&key, found)).transpose()
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Later<'a, Vec<Entry>> {
        Box::pin(async move {
            let prefix = format!("{}{prefix}", self.prefix);
            let probe = probe(&prefix);
            let operations = [Operation::tree(&prefix), Operation::check_absent(&probe)];
            self.sorted(self.read(&operations).await?.unwrap_or_default())
        })
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, put: Option<Put>) -> Later<'a, bool> {
        Box::pin(async move {
            let key = format!("{}{key}", self.prefix);
            let check = match &expected {
                Expected::Any => None,
                Expected::Absent => Some(Operation::check_absent(&key)),
                // Another store's version is none of any key here.
                Expected::Version(version) => {
                    Some(Operation::check_index(&key, version.0.parse().unwrap_or(u64::MAX)))
                }
            };
            let is_checked = check.is_some();
            let value = put.as_ref().map(|put| BASE64.encode(&put.value));
            let lease = put.as_ref().and_then(|put| put.lease.as_ref());
            // Removed first: else a key that was a session's stays that session's.
            let mut operations: Vec<_> = check.into_iter().chain([Operation::delete(&key)]).collect();
            operations.extend(value.as_deref().map(|value| match lease {
                Some(lease) => Operation::lock(&key, value, &lease.0),
                None => Operation::set(&key, value),
            }));
            let answer = self.servers.ask_once(self.put_call("/v1/txn", &operations).await?).await?;
            match refusal(&answer)? {
                None => Ok(true),
                Some(refused) if is_denial(&refused.what) => Err(failed(&refused.what)),
                Some(refused) if refused.operation == 0 && is_checked => Ok(false),
                Some(refused) if lease.is_some() && refused.what.contains("session") => {
                    Err(StoreError::LeaseGone)
                }
                Some(refused) => Err(failed(&refused.what)),
            }
        })
    }

    fn grant(&self, ttl: Duration) -> Later<'_, LeaseId> {
        Box::pin(async move {
            let ttl = ttl.clamp(SESSION.0, SESSION.1);
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            let call = self.put_call("/v1/session/create", &Session::lasting(seconds)).await?;
            let answer = self.servers.ask(&call).await?.ok().map_err(meaning)?;
            let made: SessionName = answer.json().map_err(meaning)?;
            Ok(LeaseId(made.id.into()))
        })
    }

    fn keep_alive<'a>(&'a self, lease: &'a LeaseId) -> Later<'a, bool> {
        Box::pin(async move {
            let call = self.call(Method::PUT, format!("/v1/session/renew/{}", lease.0)).await?;
            let answer = self.servers.ask(&call).await?;
            match answer.status.as_u16() {
                404 => Ok(false),
                _ => answer.ok().map(|_| true).map_err(meaning),
            }
        })
    }

    fn revoke<'a>(&'a self, lease: &'a LeaseId) -> Later<'a, ()> {
        Box::pin(async move {
            let call = self.call(Method::PUT, format!("/v1/session/destroy/{}", lease.0)).await?;
            self.servers.ask(&call).await?.ok().map(drop).map_err(meaning)
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Told, StoreError>> {
        watch::watch(self, prefix)
    }
}

impl std::fmt::Debug for ConsulStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsulStore").field("at", &self.describe()).finish_non_exhaustive()
    }
}

/// A key of a prefix that nobody writes: to check that it is absent needs the right that all of the prefix needs.
fn probe(prefix: &str) -> String {
    format!("{prefix}~")
}

/// Why a transaction was rolled back; none when it was not.
fn refusal(answer: &Answer) -> Result<Option<messages::Refusal>, StoreError> {
    match answer.status.as_u16() {
        200 => Ok(None),
        409 => {
            let refused: Refused = answer.json().map_err(meaning)?;
            refused
                .errors
                .into_iter()
                .min_by_key(|refusal| refusal.operation)
                .map(Some)
                .ok_or_else(|| failed("409"))
        }
        _ => Err(meaning(answer.fault())),
    }
}

fn is_denial(what: &str) -> bool {
    what.contains("Permission denied") || what.contains("ACL not found")
}

fn failed(what: &str) -> StoreError {
    let said: String = what.chars().take(200).flat_map(char::escape_debug).collect();
    let said = format!("Consul: {said}");
    if is_denial(what) { StoreError::Denied(said) } else { StoreError::Failed(said) }
}
