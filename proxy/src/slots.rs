//! Bounds on what may be under way, over all workers: handshakes, before anybody is known, and connections of a listener.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use crate::config::Limits;

/// Handshakes and hellos under way. Its lock is held for a look into a map, once before and once after a handshake.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    by_address: HashMap<IpAddr, u32, foldhash::fast::RandomState>,
}

/// A place among the handshakes; given back when dropped.
pub(crate) struct Slot<'a>(&'a Slots, IpAddr);

impl Slots {
    /// A place, unless there are as many as there may be, from this address or of all.
    pub(crate) fn take(&self, address: IpAddr, limits: &Limits) -> Option<Slot<'_>> {
        let mut taken = self.lock();
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= limits.handshakes || of_address >= limits.handshakes_per_address {
            return None;
        }
        taken.by_address.insert(address, of_address + 1);
        taken.all += 1;
        Some(Slot(self, address))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut taken = self.0.lock();
        taken.all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.1);
            }
        }
    }
}

/// How many connections that came by one listener there are; on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Places(AtomicU32);

/// A connection's place among those of its listener; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

impl Places {
    /// A place, unless there are `limit` connections.
    pub(crate) fn take(self: &Arc<Self>, limit: u32) -> Option<Place> {
        let before = self.0.fetch_add(1, Relaxed);
        // Gives back at once what was too much.
        Some(Place(self.clone())).filter(|_| before < limit)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_and_all_cannot_take_more() {
        let limits = Limits { handshakes: 3, handshakes_per_address: 2, ..Limits::default() };
        let slots = Slots::default();
        let take = |address: [u8; 4]| slots.take(address.into(), &limits);
        let (first, _second) = (take([1; 4]).unwrap(), take([1; 4]).unwrap());
        assert!(take([1; 4]).is_none());
        let _third = take([2; 4]).unwrap();
        assert!(take([3; 4]).is_none());
        drop(first);
        assert!(take([3; 4]).is_some() && take([1; 4]).is_some());
        drop((_second, _third));
        let closed = Limits { handshakes_per_address: 0, ..limits };
        assert!(slots.take([4; 4].into(), &closed).is_none());
        let taken = slots.lock();
        assert_eq!((taken.all, taken.by_address.len()), (0, 0));
    }

    #[test]
    fn a_listener_has_so_many_places_and_gets_them_back() {
        let places = Arc::new(Places::default());
        for _ in 0..3 {
            let (first, second) = (places.take(2), places.take(2));
            assert!(first.is_some() && second.is_some());
            assert!(places.take(2).is_none() && places.take(2).is_none());
            drop(first);
            assert!(places.take(2).is_some());
        }
    }
}
