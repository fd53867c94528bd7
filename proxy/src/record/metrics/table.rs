//! A worker's series of one kind, by hash.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use weft_core::context::Outcome;

use super::{
    MAX_SERIES, Shelf, lock,
    series::{Series, SeriesKey},
};

/// The writing side of a [`Shelf`].
#[derive(Debug)]
pub(super) struct SeriesTable<C> {
    series: HashTable<Arc<Series<C>>>,
    other: Option<Arc<Series<C>>>,
    shelf: Shelf<C>,
    hasher: RandomState,
    swept: u64,
}

impl<C: Default> SeriesTable<C> {
    pub(super) fn new(shelf: Shelf<C>) -> Self {
        Self { series: HashTable::new(), other: None, shelf, hasher: RandomState::default(), swept: 0 }
    }

    /// The series that an outcome belongs to, made if it is new.
    pub(super) fn find(&mut self, outcome: &Outcome<'_>, minute: u64) -> &Arc<Series<C>> {
        if self.swept != minute {
            self.sweep(minute);
        }
        let hash = SeriesKey::hash(&self.hasher, outcome);
        let fits = |series: &Arc<Series<C>>| series.key.as_ref().is_some_and(|key| key.fits(outcome));
        let series = if self.series.len() >= MAX_SERIES && self.series.find(hash, fits).is_none() {
            self.other.get_or_insert_with(|| put(&self.shelf, Series::other()))
        } else {
            let entry = self.series.entry(hash, fits, |series| series.hash);
            entry.or_insert_with(|| put(&self.shelf, Series::new(outcome, hash))).into_mut()
        };
        series.touch(minute);
        series
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// Forgets what nobody has counted into for long.
    fn sweep(&mut self, minute: u64) {
        self.swept = minute;
        let before = self.series.len();
        self.series.retain(|series| !series.is_idle(minute));
        if self.series.len() != before {
            // What the table has let go of is on the shelf alone.
            lock(&self.shelf).retain(|series| !series.is_idle_beyond(minute, 1));
        }
    }
}

fn put<C>(shelf: &Shelf<C>, series: Series<C>) -> Arc<Series<C>> {
    let series = Arc::new(series);
    lock(shelf).push(series.clone());
    series
}
