//! Names that lead to destinations, in two steps: the name to a place, the place to the destination.
//!
//! A destination has half a dozen names and changes with each of its endpoints; its names hardly ever change. So a change
//! of endpoints puts one new destination in one place, and no map of names is copied, not even in part.

use std::{borrow::Borrow, hash::Hash, sync::Arc};

use imbl::Vector;

use super::{Destination, SharedMap};

/// Where a destination stands; the same as long as the destination exists.
pub type Place = u32;

/// Destinations by place; a copy shares all but what differs.
#[derive(Clone, Debug, Default)]
pub struct Places(Vector<Option<Arc<Destination>>>);

impl Places {
    /// What stands there.
    #[must_use]
    pub fn get(&self, place: Place) -> Option<&Arc<Destination>> {
        self.0.get(usize::try_from(place).ok()?)?.as_ref()
    }

    /// Puts a destination, or nothing, in a place, which is at most the next one after the last.
    pub(crate) fn set(&mut self, place: Place, destination: Option<Arc<Destination>>) {
        let Ok(place) = usize::try_from(place) else { return };
        if place < self.0.len() {
            self.0.set(place, destination);
        } else {
            self.0.push_back(destination);
        }
    }

    /// The place after the last. There are never four thousand million services.
    pub(crate) fn next(&self) -> Place {
        Place::try_from(self.0.len()).unwrap_or(Place::MAX)
    }
}

/// Destinations by some kind of name; a copy shares all but what differs.
#[derive(Clone, Debug)]
pub struct Directory<K> {
    pub(crate) names: SharedMap<K, Place>,
    pub(crate) places: Places,
}

impl<K> Default for Directory<K> {
    fn default() -> Self {
        Self { names: SharedMap::default(), places: Places::default() }
    }
}

impl<K: Hash + Eq + Clone> Directory<K> {
    /// The destination that a name leads to.
    #[must_use]
    pub fn get<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<&Arc<Destination>>
    where
        K: Borrow<Q>,
    {
        self.places.get(*self.names.get(name)?)
    }

    /// Lets a name lead to a destination. For tables that are made by hand: the compiler shares places between names.
    pub fn insert(&mut self, name: K, destination: Arc<Destination>) {
        let place = self.places.next();
        self.places.set(place, Some(destination));
        self.names.insert(name, place);
    }

    /// Every name with its destination, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<Destination>)> {
        self.names.iter().filter_map(|(name, place)| Some((name, self.places.get(*place)?)))
    }

    /// The destination of every name, in no order.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.iter().map(|(_, destination)| destination)
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}
