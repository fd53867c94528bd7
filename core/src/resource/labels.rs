//! Labels in little memory: a mesh has two sets of them per service, and a map of texts takes 700 bytes for two labels.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arcstr::ArcStr;
use serde::{Deserialize, Serialize};

use crate::intern::Pool;

type Pair = (ArcStr, ArcStr);

/// The label that names the zones whose callers an endpoint is meant for, separated by commas: the hints of Kubernetes'
/// `EndpointSlice` objects. It counts where all healthy endpoints that a registry has of a service carry it, and one is meant for the
/// caller's zone.
pub const FOR_ZONES: &str = "weft.dev/for-zones";

/// Labels of an endpoint or a workload, sorted by key, each key once; shared between all that carry the same ones.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(Option<Arc<Box<[Pair]>>>);

impl Labels {
    /// Every key with its value, in the order of keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.pairs().iter().map(|(key, value)| (&**key, &**value))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.pairs().binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        self.pairs().get(found).map(|(_, value)| &**value)
    }

    /// Whether it is meant for callers of a zone; none where it names no zones ([`FOR_ZONES`]).
    #[must_use]
    pub fn are_for_zone(&self, zone: &str) -> Option<bool> {
        self.get(FOR_ZONES).map(|zones| zones.split(',').any(|named| named == zone))
    }

    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether all of `wanted` are among these.
    #[must_use]
    pub fn carry(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted.iter().all(|(key, value)| self.get(key) == Some(value))
    }

    fn pairs(&self) -> &[Pair] {
        self.0.as_ref().map_or(&[], |pairs| pairs)
    }

    /// Shares the set, or else its texts, with all equal ones of the pool.
    pub(crate) fn intern(&mut self, pool: &mut Pool) {
        let Some(pairs) = &mut self.0 else { return };
        pool.pairs(pairs);
    }
}

impl<K: Into<ArcStr>, V: Into<ArcStr>> FromIterator<(K, V)> for Labels {
    /// Of two values of one key, the last stands.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let sorted: BTreeMap<_, _> =
            pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        if sorted.is_empty() { Self(None) } else { Self(Some(Arc::new(sorted.into_iter().collect()))) }
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(labels: BTreeMap<String, String>) -> Self {
        labels.into_iter().collect()
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_found_and_survive_json() {
        let labels: Labels = [("version", "v1"), ("app", "web"), ("app", "api")].into_iter().collect();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("app", "api"), ("version", "v1")]);
        assert_eq!((labels.get("version"), labels.get("x"), labels.len()), (Some("v1"), None, 2));
        let json = serde_json::to_string(&labels).unwrap();
        assert_eq!(json, r#"{"app":"api","version":"v1"}"#);
        assert_eq!(serde_json::from_str::<Labels>(&json).unwrap(), labels);
        assert!(labels.carry(&BTreeMap::from([("app".to_owned(), "api".to_owned())])));
        assert!(Labels::from(BTreeMap::new()).is_empty() && size_of::<Labels>() == 8);
    }
}
