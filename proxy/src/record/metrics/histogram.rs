//! A histogram with fixed bounds and one writer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Adds to a number that only this thread writes: a plain load and store, no locked instruction.
pub(super) fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// Upper bounds of durations in microseconds: Istio's and Envoy's default buckets, which are stated in milliseconds.
pub(super) const DURATIONS: [u64; 19] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// Upper bounds of body sizes in bytes.
pub(super) const SIZES: [u64; 8] = [0, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// Counts by bucket, with a last bucket for all above the bounds. `B` is one more than the number of bounds.
#[derive(Debug)]
pub(super) struct Histogram<const B: usize> {
    buckets: [AtomicU64; B],
    sum: AtomicU64,
}

impl<const B: usize> Default for Histogram<B> {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; B], sum: AtomicU64::new(0) }
    }
}

/// The numbers of a histogram, or of several added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts<const B: usize> {
    pub(super) buckets: [u64; B],
    pub(super) sum: u64,
}

impl<const B: usize> Default for Counts<B> {
    fn default() -> Self {
        Self { buckets: [0; B], sum: 0 }
    }
}

impl<const B: usize> Histogram<B> {
    /// Counts a value. The bounds are tried from below: most values are small.
    pub(super) fn observe(&self, bounds: &[u64], value: u64) {
        let bucket = bounds.iter().position(|&bound| value <= bound).unwrap_or(B - 1);
        if let Some(cell) = self.buckets.get(bucket) {
            add(cell, 1);
        }
        add(&self.sum, value);
    }

    pub(super) fn add_to(&self, counts: &mut Counts<B>) {
        for (total, cell) in counts.buckets.iter_mut().zip(&self.buckets) {
            *total += cell.load(Relaxed);
        }
        counts.sum += self.sum.load(Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_that_bounds_them() {
        let histogram = Histogram::<9>::default();
        for value in [0, 1, 100, 101, u64::from(u32::MAX)] {
            histogram.observe(&SIZES, value);
        }
        let mut counts = Counts::default();
        histogram.add_to(&mut counts);
        assert_eq!(counts.buckets, [1, 2, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(counts.sum, 202 + u64::from(u32::MAX));
    }
}
