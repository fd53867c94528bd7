//! How long to wait before the next try.

use std::time::Duration;

use crate::registry::RegistryError;

/// Exponential with jitter and a cap: each pause is drawn from the upper half of a span that doubles, so that a
/// thousand agents that lost the same hub do not come back in one moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    cap: Duration,
    span: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// Begins with pauses of up to `initial` and ends with pauses of up to `cap`. `seed` decides the jitter.
    #[must_use]
    pub fn new(initial: Duration, cap: Duration, seed: u64) -> Self {
        Self { initial, cap, span: initial, random: fastrand::Rng::with_seed(seed) }
    }

    /// The pause after a stream that ended so.
    pub fn next(&mut self, error: &RegistryError) -> Duration {
        if matches!(error, RegistryError::Overloaded(_)) {
            self.span = self.span.max(self.cap / 4);
        }
        let pause = self.span.mul_f64(0.5 + self.random.f64() / 2.0);
        self.span = (self.span * 2).min(self.cap);
        pause
    }

    /// The registry answered: the next failure is the first again.
    pub fn succeeded(&mut self) {
        self.span = self.initial;
    }
}

impl Default for Backoff {
    /// From 200 ms to 15 s, jittered at random: an outage of a second is hardly seen, and one of an hour costs a
    /// registry four tries a minute from each agent.
    fn default() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(15), fastrand::u64(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_cap_and_begin_anew_after_success() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 8 * second, 7);
        let error = RegistryError::Unreachable(String::new());
        for span in [1, 2, 4, 8, 8, 8] {
            let pause = backoff.next(&error);
            assert!(pause >= second * span / 2 && pause <= second * span, "{pause:?} of {span} s");
        }
        backoff.succeeded();
        assert!(backoff.next(&error) <= second);
        backoff.succeeded();
        assert!(backoff.next(&RegistryError::Overloaded(String::new())) >= second);
    }
}
