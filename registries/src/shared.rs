//! The one copy of each thing that many objects have: a catalog of ten thousand instances has a few hundred different
//! nodes, zones and tags.

use std::{borrow::Borrow, collections::HashSet, hash::Hash, sync::Arc};

/// A text of which there is one copy.
pub type Text = Arc<str>;

/// Below this many things it is not worth looking for those that nothing uses.
const SMALLEST_SWEEP: usize = 256;

/// The one copy of each thing that is in use. What nothing uses any more goes when there are twice as many.
#[derive(Debug)]
pub struct Shared<T: ?Sized> {
    copies: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self { copies: HashSet::new(), sweep_at: SMALLEST_SWEEP }
    }
}

impl<T: ?Sized + Eq + Hash> Shared<T> {
    /// The copy of a thing.
    pub fn copy_of(&mut self, thing: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        if let Some(known) = self.copies.get::<T>(thing.borrow()) {
            return known.clone();
        }
        if self.copies.len() >= self.sweep_at {
            self.sweep();
            self.sweep_at = (2 * self.copies.len()).max(SMALLEST_SWEEP);
        }
        let new: Arc<T> = thing.into();
        self.copies.insert(new.clone());
        new
    }

    /// Lets go of what nothing uses any more.
    pub fn sweep(&mut self) {
        self.copies.retain(|copy| Arc::strong_count(copy) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_are_one_and_unused_ones_go() {
        let mut texts = Shared::<str>::default();
        let (first, second) = (texts.copy_of("eu"), texts.copy_of("eu"));
        assert!(Arc::ptr_eq(&first, &second));
        for number in 0..3 * SMALLEST_SWEEP {
            texts.copy_of(number.to_string().as_str());
        }
        assert!(texts.copies.len() <= SMALLEST_SWEEP, "{}", texts.copies.len());
        assert!(Arc::ptr_eq(&first, &texts.copy_of("eu")), "what is used is kept");
        texts.sweep();
        assert_eq!(texts.copies.len(), 1);
    }
}
