//! The messages of Consul's API, as far as they are used. Values are in base 64.

use serde::{Deserialize, Serialize};

/// One operation of a transaction.
#[derive(Debug, Serialize)]
pub(super) struct Operation<'a> {
    #[serde(rename = "KV")]
    kv: KeyOperation<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyOperation<'a> {
    verb: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
}

impl<'a> Operation<'a> {
    fn new(verb: &'static str, key: &'a str) -> Self {
        Self { kv: KeyOperation { verb, key, value: None, index: None, session: None } }
    }

    pub(super) fn get(key: &'a str) -> Self {
        Self::new("get", key)
    }

    pub(super) fn tree(prefix: &'a str) -> Self {
        Self::new("get-tree", prefix)
    }

    pub(super) fn check_absent(key: &'a str) -> Self {
        Self::new("check-not-exists", key)
    }

    pub(super) fn check_index(key: &'a str, index: u64) -> Self {
        let kv = KeyOperation { index: Some(index), ..Self::new("check-index", key).kv };
        Self { kv }
    }

    pub(super) fn delete(key: &'a str) -> Self {
        Self::new("delete", key)
    }

    pub(super) fn set(key: &'a str, value: &'a str) -> Self {
        Self { kv: KeyOperation { value: Some(value), ..Self::new("set", key).kv } }
    }

    pub(super) fn lock(key: &'a str, value: &'a str, session: &'a str) -> Self {
        let kv = KeyOperation { value: Some(value), session: Some(session), ..Self::new("lock", key).kv };
        Self { kv }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct TransactionDone {
    #[serde(rename = "Results")]
    pub(super) results: Option<Vec<Outcome>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Outcome {
    #[serde(rename = "KV")]
    pub(super) kv: KeyValue,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct KeyValue {
    pub(super) key: String,
    /// Null when it is empty.
    pub(super) value: Option<String>,
    pub(super) modify_index: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refused {
    #[serde(rename = "Errors")]
    pub(super) errors: Vec<Refusal>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    /// Which operation it is about, from 0.
    #[serde(rename = "OpIndex")]
    pub(super) operation: usize,
    #[serde(rename = "What")]
    pub(super) what: String,
}

/// A session to be made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Session {
    name: &'static str,
    #[serde(rename = "TTL")]
    ttl: String,
    behavior: &'static str,
    lock_delay: &'static str,
    /// None: a server that dies ends no session that was made through it.
    node_checks: [&'static str; 0],
    service_checks: [&'static str; 0],
}

impl Session {
    pub(super) fn lasting(seconds: u64) -> Self {
        Self {
            name: "weft hub",
            ttl: format!("{seconds}s"),
            behavior: "delete",
            lock_delay: "0s",
            node_checks: [],
            service_checks: [],
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct SessionName {
    #[serde(rename = "ID")]
    pub(super) id: String,
}
