//! The objects, as far as they are used.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

/// The label that says of which store an object is.
pub(super) const STORE: &str = "weft-store";
/// The label that names a key's lease.
pub(super) const LEASE: &str = "weft-lease";
/// The label with what a key begins with, up to its first slash: who lists or watches one kind of record is not told of
/// all others.
const PART: &str = "weft-part";
/// The annotation with the whole key.
const KEY: &str = "weft-key";
/// Under which name a ConfigMap holds the value.
const VALUE: &str = "value";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) resource_version: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl Metadata {
    pub(super) fn named(name: String, store: &str) -> Self {
        let labels = BTreeMap::from([(STORE.to_owned(), store.to_owned())]);
        Self { name, labels, ..Self::default() }
    }

    /// Of the object of `key`, which `prefix` stands before.
    pub(super) fn of_key(
        name: String,
        store: &str,
        (prefix, key): (&str, &str),
        lease: Option<&str>,
    ) -> Self {
        let mut metadata = Self::named(name, store);
        metadata.annotations.insert(KEY.to_owned(), format!("{prefix}{key}"));
        metadata.labels.extend(part(key).map(|part| (PART.to_owned(), part.to_owned())));
        metadata.labels.extend(lease.map(|lease| (LEASE.to_owned(), lease.to_owned())));
        metadata
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.annotations.get(KEY).map(String::as_str)
    }

    pub(super) fn lease(&self) -> Option<&str> {
        self.labels.get(LEASE).map(String::as_str)
    }
}

/// What a key begins with, as far as a label can hold it.
fn part(key: &str) -> Option<&str> {
    let (part, _) = key.split_once('/')?;
    let is_plain = part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    Some(part).filter(|part| is_plain && (1..=63).contains(&part.len()))
}

/// The further label, as a selector's end, of all keys that begin with `prefix`; nothing where there is none.
pub(super) fn selector(prefix: &str) -> String {
    part(prefix).map(|part| format!(",{PART}%3D{part}")).unwrap_or_default()
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigMap {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    pub(super) metadata: Metadata,
    #[serde(default)]
    binary_data: BTreeMap<String, String>,
}

impl ConfigMap {
    pub(super) fn new(metadata: Metadata, value: &[u8]) -> Self {
        let binary_data = BTreeMap::from([(VALUE.to_owned(), BASE64.encode(value))]);
        Self { api_version: "v1".to_owned(), kind: "ConfigMap".to_owned(), metadata, binary_data }
    }

    pub(super) fn value(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.binary_data.get(VALUE)?.as_bytes()).ok()
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lease {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    pub(super) metadata: Metadata,
    spec: LeaseSpec,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct LeaseSpec {
    lease_duration_seconds: u64,
    renew_time: String,
}

impl Lease {
    pub(super) fn new(metadata: Metadata, seconds: u64, now: &str) -> Self {
        Self {
            api_version: "coordination.k8s.io/v1".to_owned(),
            kind: "Lease".to_owned(),
            metadata,
            spec: LeaseSpec { lease_duration_seconds: seconds, renew_time: now.to_owned() },
        }
    }

    /// How long it lasts after its last renewal.
    pub(super) fn lasts(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.spec.lease_duration_seconds)
    }
}

/// The change that renews a Lease.
#[derive(Debug, Serialize)]
pub(super) struct Renewal<'a> {
    spec: RenewalSpec<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RenewalSpec<'a> {
    renew_time: &'a str,
}

impl<'a> Renewal<'a> {
    pub(super) fn at(renew_time: &'a str) -> Self {
        Self { spec: RenewalSpec { renew_time } }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeleteOptions<'a> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    preconditions: Option<Preconditions<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Preconditions<'a> {
    resource_version: &'a str,
}

impl<'a> DeleteOptions<'a> {
    pub(super) fn expecting(version: Option<&'a str>) -> Self {
        let preconditions = version.map(|resource_version| Preconditions { resource_version });
        Self { api_version: "v1", kind: "DeleteOptions", preconditions }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct List<T> {
    pub(super) metadata: ListMetadata,
    pub(super) items: Vec<T>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMetadata {
    pub(super) resource_version: String,
    /// Where the next page begins; empty at the end.
    #[serde(rename = "continue")]
    pub(super) next: String,
}

/// A word of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Happened {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) object: serde_json::Value,
}
