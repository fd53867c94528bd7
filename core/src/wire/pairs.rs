//! Labels as repeated pairs, sorted by key: a map has one encoding only.

use std::{collections::BTreeMap, sync::Arc};

use super::WireError;
use crate::resource::Labels;

/// One label.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Pair {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

pub(super) fn encode(labels: &BTreeMap<String, String>) -> Vec<Pair> {
    labels.iter().map(|(key, value)| Pair { key: key.clone(), value: value.clone() }).collect()
}

/// Refuses keys out of order or twice.
pub(super) fn decode(pairs: Vec<Pair>, field: &'static str) -> Result<Labels, WireError> {
    if !pairs.is_sorted_by(|a, b| a.key < b.key) {
        return Err(WireError::field(field, "its keys are not sorted or one stands twice"));
    }
    Ok(Arc::new(pairs.into_iter().map(|pair| (pair.key, pair.value)).collect()))
}
