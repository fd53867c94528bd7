//! Labels as repeated pairs, sorted by key: a map has one encoding only.

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

pub(super) fn encode(labels: &Labels) -> Vec<Pair> {
    labels.iter().map(|(key, value)| Pair { key: key.to_owned(), value: value.to_owned() }).collect()
}

/// Refuses keys out of order or twice.
pub(super) fn decode(pairs: Vec<Pair>, field: &'static str) -> Result<Labels, WireError> {
    if !pairs.is_sorted_by(|a, b| a.key < b.key) {
        return Err(WireError::field(field, "its keys are not sorted or one stands twice"));
    }
    Ok(pairs.into_iter().map(|pair| (pair.key, pair.value)).collect())
}
