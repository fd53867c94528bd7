//! Equal texts exist once: a mesh of a hundred thousand endpoints has a few thousand different names and labels.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use foldhash::fast::RandomState;

/// Texts and label sets that are in use somewhere. Owned by whoever takes resources in; what nobody uses any more goes
/// when the pool has doubled.
#[derive(Debug)]
pub(crate) struct Pool {
    texts: HashSet<Arc<str>, RandomState>,
    labels: HashSet<Arc<BTreeMap<String, String>>, RandomState>,
    /// How many entries lead to a sweep.
    sweep_at: usize,
}

/// Below this many entries a sweep is not worth it.
const SMALLEST_SWEEP: usize = 4096;

impl Default for Pool {
    fn default() -> Self {
        Self { texts: HashSet::default(), labels: HashSet::default(), sweep_at: SMALLEST_SWEEP }
    }
}

impl Pool {
    /// Replaces `text` by the one of the pool that equals it.
    pub(crate) fn text(&mut self, text: &mut Arc<str>) {
        if let Some(known) = self.texts.get(&**text) {
            *text = known.clone();
        } else {
            self.make_room();
            self.texts.insert(text.clone());
        }
    }

    /// Replaces `labels` by the set of the pool that equals it.
    pub(crate) fn labels(&mut self, labels: &mut Arc<BTreeMap<String, String>>) {
        if let Some(known) = self.labels.get(&**labels) {
            *labels = known.clone();
        } else {
            self.make_room();
            self.labels.insert(labels.clone());
        }
    }

    fn make_room(&mut self) {
        if self.texts.len() + self.labels.len() < self.sweep_at {
            return;
        }
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        self.sweep_at = (2 * (self.texts.len() + self.labels.len())).max(SMALLEST_SWEEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_unused_ones_go() {
        let mut pool = Pool::default();
        let (mut first, mut second): (Arc<str>, Arc<str>) = ("reviews".into(), "reviews".into());
        pool.text(&mut first);
        pool.text(&mut second);
        assert!(Arc::ptr_eq(&first, &second));
        for number in 0..3 * SMALLEST_SWEEP {
            pool.text(&mut number.to_string().into());
        }
        assert!(pool.texts.len() <= SMALLEST_SWEEP + 1, "{}", pool.texts.len());
        let mut third: Arc<str> = "reviews".into();
        pool.text(&mut third);
        assert!(Arc::ptr_eq(&first, &third), "what is used is kept");
    }
}
