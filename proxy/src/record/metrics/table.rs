//! A worker's series of one kind, by hash.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use weft_core::context::Outcome;

use super::{
    MAX_SERIES, Shelf,
    instances::Instances,
    lock,
    series::{Series, SeriesKey},
};

/// The writing side of a [`Shelf`].
#[derive(Debug)]
pub(super) struct SeriesTable<C> {
    series: HashTable<Arc<Series<C>>>,
    other: Option<Arc<Series<C>>>,
    instances: Instances,
    shelf: Shelf<C>,
    hasher: RandomState,
    swept: u64,
}

impl<C: Default> SeriesTable<C> {
    pub(super) fn new(shelf: Shelf<C>) -> Self {
        Self {
            series: HashTable::new(),
            other: None,
            instances: Instances::default(),
            shelf,
            hasher: RandomState::default(),
            swept: 0,
        }
    }

    /// The series that an outcome belongs to, made if it is new.
    pub(super) fn find(&mut self, outcome: &Outcome<'_>, minute: u64) -> &Arc<Series<C>> {
        if self.swept != minute {
            self.sweep(minute);
        }
        let hash = SeriesKey::hash(&self.hasher, outcome);
        let series = match self.series.find_bucket_index(hash, fits(outcome)) {
            Some(index) => self.series.get_bucket(index).expect("it was found there"),
            None => {
                let outcome = self.instances.admit(outcome);
                self.find_new(&outcome)
            }
        };
        series.touch(minute);
        series
    }

    /// The same for an outcome that has no series as it is, but may be counted with others.
    fn find_new(&mut self, outcome: &Outcome<'_>) -> &Arc<Series<C>> {
        let hash = SeriesKey::hash(&self.hasher, outcome);
        if self.series.len() >= MAX_SERIES && self.series.find(hash, fits(outcome)).is_none() {
            return self.other.get_or_insert_with(|| put(&self.shelf, Series::other()));
        }
        let entry = self.series.entry(hash, fits(outcome), |series| series.hash);
        entry.or_insert_with(|| put(&self.shelf, Series::new(outcome, hash))).into_mut()
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
            let keys = self.series.iter().filter_map(|series| series.key.as_ref());
            self.instances.renew(keys.filter_map(SeriesKey::instance));
            // What the table has let go of is on the shelf alone.
            lock(&self.shelf).retain(|series| !series.is_idle_beyond(minute, 1));
        }
    }
}

/// Whether a series is that of an outcome.
fn fits<C>(outcome: &Outcome<'_>) -> impl Fn(&Arc<Series<C>>) -> bool {
    |series| series.key.as_ref().is_some_and(|key| key.fits(outcome))
}

fn put<C>(shelf: &Shelf<C>, series: Series<C>) -> Arc<Series<C>> {
    let series = Arc::new(series);
    lock(shelf).push(series.clone());
    series
}
