//! Bounds on what one source address may have under way before it is known.

use std::{cell::RefCell, collections::HashMap, net::IpAddr};

/// Handshakes and hellos under way, by source address.
#[derive(Debug, Default)]
pub(crate) struct Slots(RefCell<HashMap<IpAddr, u32, foldhash::fast::RandomState>>);

/// A place among the handshakes of a source address; given back when dropped.
pub(crate) struct Slot<'a>(&'a Slots, IpAddr);

impl Slots {
    /// A place, unless the address has `limit` already.
    pub(crate) fn take(&self, address: IpAddr, limit: u32) -> Option<Slot<'_>> {
        let mut slots = self.0.borrow_mut();
        let count = slots.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(slots);
        Some(Slot(self, address))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut slots = self.0.0.borrow_mut();
        if let Some(count) = slots.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                slots.remove(&self.1);
            }
        }
    }
}
