//! Bounds on what may be under way before anybody is known, over all workers.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
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
}
