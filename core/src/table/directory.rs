//! Names that lead to destinations, in two steps: the name to a place, the place to the destination.
//!
//! A destination has half a dozen names and changes with each of its endpoints; its names hardly ever change. So a change
//! of endpoints puts one new destination in one place, and no map of names is copied, not even in part.

use std::sync::Arc;

use imbl::Vector;

use super::{Destination, SharedMap};
use crate::name::HostName;

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

/// Destinations by host name; a copy shares all but what differs.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    pub(crate) names: SharedMap<HostName, Place>,
    pub(crate) places: Places,
}

impl Directory {
    /// The destination that a name leads to.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Destination>> {
        self.places.get(*self.names.get(name)?)
    }

    /// Lets a name lead to a destination, which may have other names already. For tables that are made by hand: it looks
    /// through all places.
    pub fn insert(&mut self, name: HostName, destination: Arc<Destination>) {
        let known = (0..self.places.next())
            .find(|place| self.places.get(*place).is_some_and(|there| Arc::ptr_eq(there, &destination)));
        let place = known.unwrap_or_else(|| self.places.next());
        self.places.set(place, Some(destination));
        self.names.insert(name, place);
    }

    /// Every name with its destination, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&HostName, &Arc<Destination>)> {
        self.names.iter().filter_map(|(name, place)| Some((name, self.places.get(*place)?)))
    }

    /// Every destination once, whether or not a name leads to it, in no order.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.places.0.iter().flatten()
    }
}
