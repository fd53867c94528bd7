//! How long is waited before changes are asked for again. Pure.
//!
//! Eureka tells nobody that something changed, so what is gained by asking often must be weighed against what it costs the
//! servers. A question that finds nothing new costs them little; but each answer holds all changes of the last three
//! minutes, so that after a deployment it is as long as a whole list. And changes rarely come alone: who registers once
//! starts and stops soon, and others with it.

use std::time::{Duration, Instant};

/// How many times as often is asked after something new.
const SOONER: u32 = 10;
/// But no more often than that.
const LEAST: Duration = Duration::from_millis(20);
/// For how long it is asked so after something new.
const SOON: Duration = Duration::from_secs(5);
/// How many bytes a second are asked for while answers are long.
const BYTES_A_SECOND: usize = 20_000;
/// The longest rest after a long answer, unless the usual one is longer.
const LONGEST: Duration = Duration::from_secs(5);

/// When something new was heard last, and how long the answer was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    usual: Duration,
    news: Option<Instant>,
    length: usize,
}

impl Pace {
    /// Asks every so often while there is nothing new.
    pub(super) fn new(usual: Duration) -> Self {
        Self { usual, news: None, length: 0 }
    }

    /// An answer of so many bytes came, and there was something new in it or not.
    pub(super) fn heard(&mut self, length: usize, is_new: bool, now: Instant) {
        self.length = length;
        if is_new {
            self.news = Some(now);
        }
    }

    /// How long to rest, before jitter.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        let is_soon = self.news.is_some_and(|at| now.duration_since(at) < SOON);
        let least = if is_soon { (self.usual / SOONER).max(LEAST) } else { self.usual };
        let cost = Duration::from_secs(1).mul_f64(self.length as f64 / BYTES_A_SECOND as f64);
        least.max(cost.min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_followed_closely_and_long_answers_are_not() {
        let (usual, began) = (Duration::from_secs(1), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut pace = Pace::new(usual);
        assert_eq!(pace.rest(began), usual);
        pace.heard(1_000, true, began);
        assert_eq!(pace.rest(after(4)), usual / 10);
        pace.heard(1_000, false, after(4));
        assert_eq!((pace.rest(after(4)), pace.rest(after(6))), (usual / 10, usual), "nothing new since");
        pace.heard(60_000, true, after(6));
        assert_eq!(pace.rest(after(6)), Duration::from_secs(3));
        pace.heard(10_000_000, true, after(6));
        assert_eq!(pace.rest(after(6)), LONGEST);
        let mut slow = Pace::new(Duration::from_secs(30));
        slow.heard(10_000_000, false, began);
        assert_eq!(slow.rest(began), Duration::from_secs(30));
    }
}
