//! How long to wait before the next try.

use std::time::Duration;

use crate::registry::RegistryError;

/// How many times longer the pauses may grow for a server that says that it is overloaded.
const OVERLOADED: u32 = 4;

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
        let cap = if matches!(error, RegistryError::Overloaded(_)) {
            // Who asks to be left alone is left alone for longer, and from the first time on.
            self.span = self.span.max(self.cap / 4);
            self.cap * OVERLOADED
        } else {
            self.cap
        };
        let pause = self.span.min(cap).mul_f64(0.5 + self.random.f64() / 2.0);
        self.span = (self.span * 2).min(cap);
        pause
    }

    /// The registry was there for a while: the next failure is the first again.
    pub fn succeeded(&mut self) {
        self.span = self.initial;
    }
}

impl Default for Backoff {
    /// From 200 ms to 4 s, jittered at random: an outage of a second is hardly seen, after one of an hour an agent is back
    /// within five seconds, and a thousand of them come back over two. While it lasts, each tries twenty times a minute,
    /// which is a refused connection; a server that answers that it is overloaded is asked four times a minute.
    fn default() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(4), fastrand::u64(..))
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
        let overloaded = RegistryError::Overloaded(String::new());
        for span in [2, 4, 8, 16, 32, 32] {
            let pause = backoff.next(&overloaded);
            assert!(pause >= second * span / 2 && pause <= second * span, "{pause:?} of {span} s");
        }
        assert!(backoff.next(&error) <= second * 8, "who is merely away again is tried as ever");
    }

    #[test]
    fn a_thousand_agents_that_lost_a_server_at_once_come_back_spread_and_within_five_seconds() {
        let outage = Duration::from_secs(60);
        let error = RegistryError::Unreachable(String::new());
        let comes_back = |seed| {
            let mut backoff = Backoff { random: fastrand::Rng::with_seed(seed), ..Backoff::default() };
            let mut at = Duration::ZERO;
            while at < outage {
                at += backoff.next(&error);
            }
            at - outage
        };
        let mut by_tenth = std::collections::BTreeMap::<u128, usize>::new();
        for seed in 0..1_000 {
            *by_tenth.entry(comes_back(seed).as_millis() / 100).or_default() += 1;
        }
        assert!(by_tenth.keys().all(|tenth| *tenth < 50), "{by_tenth:?}");
        assert!(by_tenth.values().all(|agents| *agents < 80), "a herd: {by_tenth:?}");
    }
}
