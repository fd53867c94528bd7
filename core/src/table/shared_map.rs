//! A hash map whose copies share what is equal, in few bytes.
//!
//! A map of hash maps: a copy that differs in one entry copies the one shard that holds it, some hundredths of the whole. Hash
//! tries share more, but a trie whose nodes have just been split holds one or two entries in room for sixteen: of the names
//! of ten thousand services that was ten megabytes, six times what is in them. What changes here at a high rate changes
//! within values ([`Places`](super::Places)); names and keys hardly ever do.

use std::{
    borrow::Borrow,
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hash},
    sync::{Arc, LazyLock},
};

use foldhash::fast::RandomState;

/// How many shards a map has. Of a hundred thousand entries each holds four hundred.
const SHARDS: usize = 256;

type Shard<K, V> = HashMap<K, V, RandomState>;
/// A shard; none as long as there is nothing in it.
type Slot<K, V> = Option<Arc<Shard<K, V>>>;

/// A persistent hash map: a copy that differs in one entry shares nearly all the rest.
pub struct SharedMap<K, V> {
    /// None as long as there is nothing in it.
    shards: Option<Arc<[Slot<K, V>]>>,
    len: usize,
}

/// In which shard a key is: another hash than those of the shards, which would otherwise be alike within each.
static SPREAD: LazyLock<RandomState> = LazyLock::new(RandomState::default);

fn shard_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    let [low, ..] = SPREAD.hash_one(key).to_le_bytes();
    low.into()
}

impl<K: Eq + Hash, V> SharedMap<K, V> {
    /// What a key leads to.
    #[must_use]
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.as_ref()?[shard_of(key)].as_ref()?.get(key)
    }

    /// The same with the key as it is in the map.
    #[must_use]
    pub fn get_key_value<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.shards.as_ref()?[shard_of(key)].as_ref()?.get_key_value(key)
    }

    /// Whether a key leads to anything.
    #[must_use]
    pub fn contains_key<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K: Clone + Eq + Hash, V: Clone> SharedMap<K, V> {
    /// Lets a key lead to something; returns what it led to until now.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shards = self.shards.get_or_insert_with(|| (0..SHARDS).map(|_| None).collect());
        let shard = Arc::make_mut(shards)[shard_of(&key)].get_or_insert_with(Arc::default);
        let before = Arc::make_mut(shard).insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes a key out; returns what it led to.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if !self.contains_key(key) {
            return None;
        }
        let shard = &mut Arc::make_mut(self.shards.as_mut()?)[shard_of(key)];
        let entries = Arc::make_mut(shard.as_mut()?);
        let before = entries.remove(key);
        if entries.is_empty() {
            *shard = None;
        }
        self.len -= 1;
        before
    }
}

impl<K, V> SharedMap<K, V> {
    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.shards.iter().flat_map(|shards| shards.iter().flatten()).flat_map(|shard| shard.iter())
    }

    /// Every key, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// What every key leads to, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is the very same map: neither has changed since one was copied from the other.
    #[must_use]
    pub fn ptr_eq(&self, other: &Self) -> bool {
        match (&self.shards, &other.shards) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone(), len: self.len }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { shards: None, len: 0 }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Eq + Hash, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |(key, value): (&K, &V)| other.get(key) == Some(value);
        self.len == other.len && self.iter().all(is_same)
    }
}

impl<K: Clone + Eq + Hash, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        entries.into_iter().for_each(|(key, value)| drop(map.insert(key, value)));
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_and_copies_are_left_alone(changes in prop::collection::vec((0_u16..600, prop::option::of(0_u8..9)), 0..900)) {
            let (mut map, mut model) = (SharedMap::default(), BTreeMap::new());
            let mut copy = (map.clone(), model.clone());
            for (at, (key, value)) in changes.into_iter().enumerate() {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                if at % 100 == 0 {
                    copy = (map.clone(), model.clone());
                }
            }
            for (map, model) in [(map, model), copy] {
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.is_empty(), model.is_empty());
                prop_assert_eq!(map.iter().map(|(key, value)| (*key, *value)).collect::<BTreeMap<_, _>>(), model);
            }
        }
    }
}
