//! A watch of Consul's KV: blocking queries of the whole prefix, told as what differs from the last answer. What was
//! written and removed between two answers is passed over.
//!
//! An index that goes back (a snapshot was restored) begins anew.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{ConsulStore, messages::KeyValue, probe};
use crate::hub::store::{Entry, StoreError, Told, Version, servers::meaning};

/// How long a query blocks when nothing changes. Consul adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(30);
/// How much longer an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

struct Watching<'a> {
    store: &'a ConsulStore,
    prefix: &'a str,
    /// Zero before the first answer.
    index: u64,
    known: BTreeMap<String, Version>,
    told: VecDeque<Told>,
}

pub(super) fn watch<'a>(store: &'a ConsulStore, prefix: &'a str) -> BoxStream<'a, Result<Told, StoreError>> {
    let watching = Watching { store, prefix, index: 0, known: BTreeMap::new(), told: VecDeque::new() };
    let told =
        stream::try_unfold(
            watching,
            |mut watching| async move { Ok(Some((watching.next().await?, watching))) },
        );
    told.boxed()
}

impl Watching<'_> {
    async fn next(&mut self) -> Result<Told, StoreError> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Ok(told);
            }
            let (entries, index) = self.query().await?;
            if self.index == 0 || index < self.index {
                self.confirm(&entries).await?;
                self.index = index.max(1);
                self.known = entries.iter().map(|entry| (entry.key.clone(), entry.version.clone())).collect();
                return Ok(Told::All(entries));
            }
            if self.confirm(&entries).await? {
                self.index = index.max(1);
                self.compare(entries);
            }
        }
    }

    /// Whether what is known and not among the entries is gone; whoever may not see it is refused.
    async fn confirm(&self, entries: &[Entry]) -> Result<bool, StoreError> {
        let listed: BTreeSet<_> = entries.iter().map(|entry| &entry.key).collect();
        let missing = self.known.keys().filter(|key| !listed.contains(key));
        let missing: Vec<_> = missing.map(|key| format!("{}{key}", self.store.prefix)).collect();
        if missing.is_empty() && self.index != 0 {
            return Ok(true);
        }
        let probe = probe(&format!("{}{}", self.store.prefix, self.prefix));
        self.store.confirm_absent(&[missing, vec![probe]].concat()).await
    }

    /// Tells of what is gone first: whoever waits for the last of several changes has heard of the others then.
    fn compare(&mut self, entries: Vec<Entry>) {
        let mut before = std::mem::take(&mut self.known);
        let mut put = Vec::new();
        for entry in entries {
            let is_same = before.remove(&entry.key).is_some_and(|version| version == entry.version);
            self.known.insert(entry.key.clone(), entry.version.clone());
            if !is_same {
                put.push(Told::Put(entry));
            }
        }
        self.told.extend(before.into_keys().map(Told::Gone).chain(put));
    }

    /// All there is, once it is newer than what is known.
    async fn query(&self) -> Result<(Vec<Entry>, u64), StoreError> {
        let prefix = format!("{}{}", self.store.prefix, self.prefix);
        let prefix = utf8_percent_encode(&prefix, NON_ALPHANUMERIC);
        let wait = WAIT.as_secs();
        let path = match self.index {
            // The first is to be as new as any read.
            0 => format!("/v1/kv/{prefix}?recurse&consistent"),
            index => format!("/v1/kv/{prefix}?recurse&index={index}&wait={wait}s"),
        };
        let call = self.store.call(Method::GET, path).await?;
        let answer = self.store.servers.ask_for(call, WAIT + PATIENCE).await?;
        let index = answer.number("X-Consul-Index").unwrap_or(0);
        match answer.status.as_u16() {
            404 => Ok((Vec::new(), index)),
            _ => {
                let answer = answer.ok().map_err(meaning)?;
                let found: Vec<KeyValue> = answer.json().map_err(meaning)?;
                Ok((self.store.sorted(found)?, index))
            }
        }
    }
}
