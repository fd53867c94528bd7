//! Trust in a peer that is looked at again when what we trust has changed, and only then.

use std::cell::Cell;

/// Whether a peer whose certificates were checked once is still trusted.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The [trust generation](weft_core::tls::Credentials::trust_generation) of the last check.
    generation: Cell<u64>,
    good: Cell<bool>,
}

impl Standing {
    /// Of a peer that was found good under `generation`.
    pub(crate) fn new(generation: u64) -> Self {
        Self { generation: Cell::new(generation), good: Cell::new(true) }
    }

    /// Whether the peer is trusted under `generation`, which `check` decides if that is another than the last.
    pub(crate) fn is_good(&self, generation: u64, check: impl FnOnce() -> bool) -> bool {
        if self.generation.replace(generation) != generation {
            self.good.set(check());
        }
        self.good.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_checked_once_for_each_change_of_trust() {
        let checks = Cell::new(0);
        let check = |good| {
            checks.set(checks.get() + 1);
            good
        };
        let standing = Standing::new(7);
        assert!((0..10).all(|_| standing.is_good(7, || check(false))));
        assert_eq!(checks.get(), 0);
        assert!((0..10).all(|_| !standing.is_good(8, || check(false))));
        assert_eq!(checks.get(), 1);
        assert!((0..10).all(|_| standing.is_good(7, || check(true))));
        assert_eq!(checks.get(), 2);
    }
}
