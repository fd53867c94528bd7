//! Bounds on callers that nobody knows yet: one address cannot take the places of all others.
//!
//! A place is held from accepting on until the caller has shown the certificate of a node, or for as long as it stays
//! without one, to join.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many may be unknown at a time. The others of the hub's connections are for nodes.
const ALL: u32 = 4096;
/// How many of them may come from one address: whole racks may join from behind one.
const FROM_ONE_ADDRESS: u32 = 256;

/// The callers that are unknown now. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: u32,
    by_address: HashMap<IpAddr, u32>,
}

/// A place among the strangers; given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Strangers, IpAddr);

impl Strangers {
    /// A place, unless there are as many as there may be, from this address or of all.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Place> {
        // An IPv4 caller is the same on a socket of either kind.
        let address = address.to_canonical();
        let mut counts = self.lock();
        let from_here = counts.by_address.get(&address).copied().unwrap_or_default();
        if counts.all >= ALL || from_here >= FROM_ONE_ADDRESS {
            return None;
        }
        counts.by_address.insert(address, from_here + 1);
        counts.all += 1;
        Some(Place(self.clone(), address))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // A panic elsewhere cannot leave the counts half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.0.lock();
        counts.all -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_address_cannot_take_all_and_all_cannot_take_more() {
        let strangers = Strangers::default();
        let address = |number: u32| Ipv4Addr::from_bits(number);
        let mut held: Vec<Place> =
            (0..FROM_ONE_ADDRESS).map(|_| strangers.admit(address(1).into()).unwrap()).collect();
        assert!(strangers.admit(address(1).into()).is_none());
        assert!(strangers.admit(address(1).to_ipv6_mapped().into()).is_none(), "the same by another name");
        held.extend((FROM_ONE_ADDRESS..ALL).map(|other| strangers.admit(address(other).into()).unwrap()));
        assert!(strangers.admit(address(ALL).into()).is_none());
        held.swap_remove(0);
        assert!(
            strangers.admit(address(ALL).into()).is_some() && strangers.admit(address(1).into()).is_some()
        );
        drop(held);
        let counts = strangers.lock();
        assert_eq!((counts.all, counts.by_address.len()), (0, 0));
    }
}
