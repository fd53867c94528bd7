//! The messages of etcd's JSON gateway, as far as they are used: bytes in base 64, numbers of 64 bits as text, fields with
//! their default value left out.

use serde::{Deserialize, Deserializer, Serialize, de::Error};

#[derive(Debug, Serialize)]
pub(super) struct Range<'a> {
    pub(super) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range_end: Option<&'a str>,
    pub(super) limit: u32,
    /// As of when; `0` for now.
    pub(super) revision: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Ranged {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
    #[serde(default)]
    pub(super) more: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
    #[serde(default, deserialize_with = "number")]
    pub(super) mod_revision: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct Transaction<'a> {
    pub(super) compare: Vec<Compare<'a>>,
    pub(super) success: Vec<Operation<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Compare<'a> {
    key: &'a str,
    result: &'static str,
    target: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_revision: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mod_revision: Option<&'a str>,
}

impl<'a> Compare<'a> {
    /// Whether the key was made by this revision; `0` when it is absent.
    pub(super) fn created(key: &'a str, revision: &'a str) -> Self {
        Self { key, result: "EQUAL", target: "CREATE", create_revision: Some(revision), mod_revision: None }
    }

    /// Whether the key was last changed by this revision.
    pub(super) fn modified(key: &'a str, revision: &'a str) -> Self {
        Self { key, result: "EQUAL", target: "MOD", create_revision: None, mod_revision: Some(revision) }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Operation<'a> {
    RequestPut {
        key: &'a str,
        value: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        lease: Option<&'a str>,
    },
    RequestDeleteRange {
        key: &'a str,
    },
}

impl<'a> Operation<'a> {
    pub(super) fn put(key: &'a str, value: String, lease: Option<&'a str>) -> Self {
        Self::RequestPut { key, value, lease }
    }

    pub(super) fn delete(key: &'a str) -> Self {
        Self::RequestDeleteRange { key }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct TransactionDone {
    #[serde(default)]
    pub(super) succeeded: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Wanted<'a> {
    /// In seconds.
    #[serde(rename = "TTL")]
    pub(super) ttl: &'a str,
}

#[derive(Debug, Deserialize)]
pub(super) struct Granted {
    #[serde(rename = "ID")]
    pub(super) id: String,
}

#[derive(Debug, Serialize)]
pub(super) struct LeaseName<'a> {
    #[serde(rename = "ID")]
    pub(super) id: &'a str,
}

#[derive(Debug, Deserialize)]
pub(super) struct KeptAlive {
    /// In seconds; absent when the lease has ended.
    #[serde(rename = "TTL", default)]
    pub(super) ttl: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Login<'a> {
    pub(super) name: &'a str,
    pub(super) password: &'a str,
}

#[derive(Deserialize)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Watch<'a> {
    pub(super) create_request: WatchCreate<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct WatchCreate<'a> {
    pub(super) key: &'a str,
    pub(super) range_end: &'a str,
    /// The first revision that is told.
    pub(super) start_revision: String,
}

/// One message of an answer that is a stream.
#[derive(Debug, Deserialize)]
pub(super) struct Streamed<T> {
    #[serde(default = "Option::default")]
    pub(super) result: Option<T>,
    pub(super) error: Option<Fault>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Watched {
    #[serde(default)]
    pub(super) canceled: bool,
    #[serde(default)]
    pub(super) cancel_reason: String,
    #[serde(default)]
    pub(super) events: Vec<Happened>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Happened {
    /// `DELETE`; absent for a put.
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    pub(super) kv: KeyValue,
}

/// What etcd says against a call.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fault {
    /// One of gRPC's codes.
    pub(super) code: u32,
    pub(super) message: String,
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(i64),
    }
    match Either::deserialize(deserializer)? {
        Either::Text(text) => text.parse().map_err(D::Error::custom),
        Either::Number(number) => Ok(number),
    }
}
