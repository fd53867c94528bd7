//! Equal texts exist once: a mesh of a hundred thousand endpoints has a few thousand different names and labels.

use std::{collections::HashSet, sync::Arc};

use arcstr::ArcStr;
use foldhash::fast::RandomState;

/// Sorted pairs of texts: labels.
type Pairs = Arc<Box<[(ArcStr, ArcStr)]>>;

/// Texts and label sets that are in use somewhere. Owned by whoever takes resources in; what nobody uses any more goes
/// when the pool has doubled.
#[derive(Debug)]
pub(crate) struct Pool {
    texts: HashSet<ArcStr, RandomState>,
    pairs: HashSet<Pairs, RandomState>,
    /// How many entries lead to a sweep.
    sweep_at: usize,
}

/// Below this many entries a sweep is not worth it.
const SMALLEST_SWEEP: usize = 4096;

impl Default for Pool {
    fn default() -> Self {
        Self { texts: HashSet::default(), pairs: HashSet::default(), sweep_at: SMALLEST_SWEEP }
    }
}

impl Pool {
    /// Replaces `text` by the one of the pool that equals it.
    pub(crate) fn text(&mut self, text: &mut ArcStr) {
        if let Some(known) = self.texts.get(&**text) {
            *text = known.clone();
        } else {
            self.make_room();
            self.texts.insert(text.clone());
        }
    }

    /// Replaces `pairs` by those of the pool that equal them.
    pub(crate) fn pairs(&mut self, pairs: &mut Pairs) {
        if let Some(known) = self.pairs.get(&**pairs) {
            *pairs = known.clone();
            return;
        }
        let mut shared = Box::clone(pairs);
        for (key, value) in &mut shared {
            self.text(key);
            self.text(value);
        }
        *pairs = Arc::new(shared);
        self.make_room();
        self.pairs.insert(pairs.clone());
    }

    fn make_room(&mut self) {
        if self.len() < self.sweep_at {
            return;
        }
        self.texts.retain(|text| ArcStr::strong_count(text).is_none_or(|count| count > 1));
        self.pairs.retain(|pairs| Arc::strong_count(pairs) > 1);
        self.sweep_at = (2 * self.len()).max(SMALLEST_SWEEP);
    }

    fn len(&self) -> usize {
        self.texts.len() + self.pairs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_unused_ones_go() {
        let mut pool = Pool::default();
        let (mut first, mut second): (ArcStr, ArcStr) = ("reviews".into(), "reviews".into());
        pool.text(&mut first);
        pool.text(&mut second);
        assert!(ArcStr::ptr_eq(&first, &second));
        for number in 0..3 * SMALLEST_SWEEP {
            pool.text(&mut number.to_string().into());
        }
        assert!(pool.texts.len() <= SMALLEST_SWEEP + 1, "{}", pool.texts.len());
        let mut third: ArcStr = "reviews".into();
        pool.text(&mut third);
        assert!(ArcStr::ptr_eq(&first, &third), "what is used is kept");
    }
}
