//! etcd, version 3: records as its keys, leases as its leases.
//!
//! It is spoken to through the JSON gateway that every member serves on its client port, by the HTTP client that the
//! registries use: one stack of TLS, bounds and messages, and no second gRPC client beside the hub's own. Reads and swaps
//! are linearizable: a quorum has what was answered.

mod messages;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use data_encoding::BASE64;
use futures_core::stream::BoxStream;
use http::{Method, header};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;
use weft_registries::http_client::{Answer, Call, ServerSettings};

use super::{Entry, Expected, Later, LeaseId, Put, Store, StoreError, Told, Version, servers::Servers};
use messages::{
    Authenticated, Compare, Fault, Granted, KeptAlive, KeyValue, LeaseName, Login, Operation, Range, Ranged,
    Streamed, Transaction, TransactionDone, Wanted,
};

/// How many keys a page of a list holds.
const PAGE: u32 = 1000;
/// What gRPC calls `NOT_FOUND`: no such lease.
const NOT_FOUND: u32 = 5;
/// What gRPC calls `INVALID_ARGUMENT`: also a call without a user where users are needed.
const INVALID_ARGUMENT: u32 = 3;
/// What gRPC calls `UNAUTHENTICATED`: the token has expired.
const UNAUTHENTICATED: u32 = 16;

/// A [`Store`] in etcd.
#[derive(Clone)]
pub struct EtcdStore {
    servers: Servers,
    login: Option<(String, PathBuf)>,
    /// What a login gave, until etcd wants a new one.
    token: Arc<Mutex<Option<String>>>,
    prefix: String,
}

impl EtcdStore {
    /// A client of these members, with a user and the file of its password where etcd asks for one; nothing is connected
    /// before something is asked. All keys begin with `prefix`.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub fn new(
        servers: &[ServerSettings],
        login: Option<(String, PathBuf)>,
        prefix: &str,
    ) -> Result<Self, StoreError> {
        let servers = Servers::new(servers)?;
        Ok(Self { servers, login, token: Arc::default(), prefix: prefix.to_owned() })
    }

    /// The answer to a question that may be asked twice.
    async fn ask<T: DeserializeOwned>(&self, path: &str, question: &impl Serialize) -> Result<T, StoreError> {
        let call = call(path, question)?;
        let answer = match self.servers.ask(&self.with_token(call.clone()).await?).await? {
            answer if self.wants_login(&answer) => {
                self.servers.ask(&self.with_new_token(call).await?).await?
            }
            answer => answer,
        };
        read(answer)
    }

    /// The answer to what must not happen twice.
    async fn ask_once<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<T, StoreError> {
        let call = call(path, question)?;
        let answer = match self.servers.ask_once(self.with_token(call.clone()).await?).await? {
            // Who is not let in has changed nothing.
            answer if self.wants_login(&answer) => {
                self.servers.ask_once(self.with_new_token(call).await?).await?
            }
            answer => answer,
        };
        read(answer)
    }

    fn wants_login(&self, answer: &Answer) -> bool {
        let code = || serde_json::from_slice::<Fault>(&answer.body).map_or(0, |fault| fault.code);
        self.login.is_some()
            && !answer.status.is_success()
            && matches!(code(), UNAUTHENTICATED | INVALID_ARGUMENT)
    }

    async fn with_token(&self, call: Call) -> Result<Call, StoreError> {
        let Some(login) = &self.login else { return Ok(call) };
        let mut token = self.token.lock().await;
        let token = match &*token {
            Some(known) => known,
            None => token.insert(self.log_in(login).await?),
        };
        Ok(call.header(header::AUTHORIZATION, token, true))
    }

    async fn with_new_token(&self, call: Call) -> Result<Call, StoreError> {
        *self.token.lock().await = None;
        self.with_token(call).await
    }

    async fn log_in(&self, (name, file): &(String, PathBuf)) -> Result<String, StoreError> {
        let refused = |why: String| StoreError::Denied(format!("no login at etcd as {name}: {why}"));
        let read = tokio::fs::read_to_string(file).await;
        let password = read.map_err(|fault| refused(format!("{}: {fault}", file.display())))?;
        let question = Login { name, password: password.trim() };
        let answer = self.servers.ask(&call("/v3/auth/authenticate", &question)?).await?;
        match read_answer::<Authenticated>(&answer) {
            Ok(Ok(authenticated)) => Ok(authenticated.token),
            Ok(Err(fault)) => Err(refused(fault.message)),
            Err(fault) => Err(refused(fault.to_string())),
        }
    }

    /// All keys of a prefix, with the revision as of which they are.
    async fn list_at(&self, prefix: &str) -> Result<(Vec<Entry>, i64), StoreError> {
        let first = format!("{}{prefix}", self.prefix).into_bytes();
        let end = BASE64.encode(&after(&first));
        let (mut from, mut revision, mut entries) = (first, 0, Vec::new());
        loop {
            let range = Range {
                key: BASE64.encode(&from),
                range_end: Some(&end),
                limit: PAGE,
                revision: revision.to_string(),
            };
            let page: Ranged = self.ask("/v3/kv/range", &range).await?;
            if revision == 0 {
                revision = page.header.revision;
            }
            let Some(last) = page.kvs.last().filter(|_| page.more) else {
                entries.extend(self.entries(&page.kvs)?);
                return Ok((entries, revision));
            };
            from = decode(&last.key)?;
            from.push(0);
            entries.extend(self.entries(&page.kvs)?);
        }
    }

    fn entries(&self, found: &[KeyValue]) -> Result<Vec<Entry>, StoreError> {
        found.iter().map(|found| self.entry(found)).collect()
    }

    fn entry(&self, found: &KeyValue) -> Result<Entry, StoreError> {
        let version = Version(found.mod_revision.to_string().into());
        Ok(Entry { key: self.key_of(found)?, value: decode(&found.value)?.into(), version })
    }

    /// The key without the prefix of all.
    fn key_of(&self, found: &KeyValue) -> Result<String, StoreError> {
        let foreign = || StoreError::Failed("etcd names a key that is none of ours".to_owned());
        let key = String::from_utf8(decode(&found.key)?).map_err(|_| foreign())?;
        key.strip_prefix(&self.prefix).map(str::to_owned).ok_or_else(foreign)
    }

    fn encoded(&self, key: &str) -> String {
        BASE64.encode(format!("{}{key}", self.prefix).as_bytes())
    }
}

impl Store for EtcdStore {
    fn describe(&self) -> String {
        format!("etcd at {}, under {}", self.servers.describe(), self.prefix)
    }

    fn get<'a>(&'a self, key: &'a str) -> Later<'a, Option<Entry>> {
        Box::pin(async move {
            let range = Range { key: self.encoded(key), range_end: None, limit: 0, revision: "0".to_owned() };
            let found: Ranged = self.ask("/v3/kv/range", &range).await?;
            found.kvs.first().map(|found| self.entry(found)).transpose()
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Later<'a, Vec<Entry>> {
        Box::pin(async move { Ok(self.list_at(prefix).await?.0) })
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, put: Option<Put>) -> Later<'a, bool> {
        Box::pin(async move {
            let key = self.encoded(key);
            let compare = match &expected {
                Expected::Any => Vec::new(),
                Expected::Absent => vec![Compare::created(&key, "0")],
                Expected::Version(version) => vec![Compare::modified(&key, &version.0)],
            };
            let success = match &put {
                Some(put) => {
                    Operation::put(&key, BASE64.encode(&put.value), put.lease.as_ref().map(|it| &*it.0))
                }
                None => Operation::delete(&key),
            };
            let transaction = Transaction { compare, success: vec![success] };
            Ok(self.ask_once::<TransactionDone>("/v3/kv/txn", &transaction).await?.succeeded)
        })
    }

    fn grant(&self, ttl: Duration) -> Later<'_, LeaseId> {
        Box::pin(async move {
            let seconds = (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).to_string();
            let granted: Granted = self.ask("/v3/lease/grant", &Wanted { ttl: &seconds }).await?;
            Ok(LeaseId(granted.id.into()))
        })
    }

    fn keep_alive<'a>(&'a self, lease: &'a LeaseId) -> Later<'a, bool> {
        Box::pin(async move {
            let kept: Streamed<KeptAlive> =
                self.ask("/v3/lease/keepalive", &LeaseName { id: &lease.0 }).await?;
            Ok(kept.result.is_some_and(|kept| kept.ttl.parse::<u64>().is_ok_and(|seconds| seconds > 0)))
        })
    }

    fn revoke<'a>(&'a self, lease: &'a LeaseId) -> Later<'a, ()> {
        Box::pin(async move {
            match self.ask::<serde_json::Value>("/v3/lease/revoke", &LeaseName { id: &lease.0 }).await {
                Ok(_) | Err(StoreError::LeaseGone) => Ok(()),
                Err(fault) => Err(fault),
            }
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Told, StoreError>> {
        watch::watch(self, prefix)
    }
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore").field("at", &self.describe()).finish_non_exhaustive()
    }
}

fn call(path: &str, question: &impl Serialize) -> Result<Call, StoreError> {
    let body = serde_json::to_vec(question).map_err(|fault| StoreError::Failed(fault.to_string()))?;
    Ok(Call::new(Method::POST, path).body("application/json", Bytes::from(body)))
}

fn read<T: DeserializeOwned>(answer: Answer) -> Result<T, StoreError> {
    match read_answer(&answer)? {
        Ok(value) => Ok(value),
        Err(fault) => Err(fault.meaning()),
    }
}

/// What etcd says, or its fault in its own words.
fn read_answer<T: DeserializeOwned>(answer: &Answer) -> Result<Result<T, Fault>, StoreError> {
    if answer.status.is_success() {
        return answer.json().map(Ok).map_err(super::servers::meaning);
    }
    match serde_json::from_slice::<Fault>(&answer.body) {
        Ok(fault) => Ok(Err(fault)),
        Err(_) => Err(super::servers::meaning(answer.fault())),
    }
}

impl Fault {
    fn meaning(&self) -> StoreError {
        let said: String = self.message.chars().take(200).flat_map(char::escape_debug).collect();
        match self.code {
            NOT_FOUND => StoreError::LeaseGone,
            // `PERMISSION_DENIED`, and what no login cured.
            7 | UNAUTHENTICATED => StoreError::Denied(format!("etcd: {said}")),
            _ => StoreError::Failed(format!("etcd: {said}")),
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, StoreError> {
    BASE64.decode(text.as_bytes()).map_err(|fault| StoreError::Failed(format!("etcd's answer: {fault}")))
}

/// The first key behind all that begin with `prefix`, which is not empty.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}
