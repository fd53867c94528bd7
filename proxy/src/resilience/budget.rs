//! A bound on retries in proportion to requests, so that an outage is not made worse by everybody asking twice.

use std::{cell::Cell, hash::BuildHasher};

use foldhash::fast::FixedState;
use weft_core::name::ServiceKey;

/// What a request adds, in thousandths of a retry: one retry for five requests.
const PER_REQUEST: u32 = 200;
/// What a retry costs, in thousandths.
const PER_RETRY: u32 = 1_000;
/// What a second adds whatever the traffic, so that a quiet service can retry at all: ten retries.
const PER_SECOND: u32 = 10 * PER_RETRY;
/// What can be saved up: enough for a hundred retries at once.
const MOST: u32 = 100 * PER_RETRY;

/// One service's retries on one worker: 20 % of its requests, and ten a second.
#[derive(Debug)]
pub struct RetryBudget {
    saved: Cell<u32>,
    second: Cell<u64>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { saved: Cell::new(PER_SECOND), second: Cell::new(0) }
    }
}

impl RetryBudget {
    /// Counts a request, not a retry of one. `now` is in [milliseconds](crate::clock::milliseconds).
    pub fn deposit(&self, now: u64) {
        let second = now / 1_000;
        let mut saved = self.saved.get().saturating_add(PER_REQUEST);
        if second != self.second.replace(second) {
            saved = saved.saturating_add(PER_SECOND);
        }
        self.saved.set(saved.min(MOST));
    }

    /// Takes what a retry costs; false when it is not there.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        let left = self.saved.get().checked_sub(PER_RETRY);
        left.map(|left| self.saved.set(left)).is_some()
    }
}

/// How many services can have a budget of their own on a worker; beyond, some share one.
const SLOTS: usize = 256;

/// The budgets of all services, on one worker.
#[derive(Debug)]
pub struct RetryBudgets(Box<[RetryBudget]>);

impl Default for RetryBudgets {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| RetryBudget::default()).collect())
    }
}

impl RetryBudgets {
    /// The budget of a service. Found by hash alone: 4 KiB for all, nothing to create or to expire, and it survives a
    /// new table.
    #[must_use]
    pub fn of(&self, service: &ServiceKey) -> &RetryBudget {
        let hash = FixedState::default().hash_one(service);
        // The slots are a power of two, and more than none.
        &self.0[usize::try_from(hash % SLOTS as u64).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(budget: &RetryBudget) -> usize {
        std::iter::from_fn(|| budget.withdraw().then_some(())).count()
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retries() {
        let budget = RetryBudget::default();
        retries(&budget);
        for _ in 0..100 {
            budget.deposit(0);
        }
        assert_eq!(retries(&budget), 20);
    }

    #[test]
    fn a_quiet_service_may_retry_ten_times_a_second() {
        let budget = RetryBudget::default();
        assert_eq!(retries(&budget), 10);
        budget.deposit(5_000);
        assert_eq!(retries(&budget), 10);
        budget.deposit(5_999);
        assert_eq!(retries(&budget), 0);
    }

    #[test]
    fn savings_are_bounded() {
        let budget = RetryBudget::default();
        for _ in 0..10_000 {
            budget.deposit(0);
        }
        assert_eq!(retries(&budget), 100);
    }
}
