//! When to leave a hub that is well and sees nothing: one that has had no word of any of its registries for a while, where
//! another one may have. Pure.
//!
//! Whether another one sees more is known only to who goes there, and whoever does takes everything from it. When a registry
//! itself is away all hubs are blind, and every move is in vain: so agents go one by one over minutes, each waits longer than
//! before its last move, and who is well stays where it is. What was told before stays true meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use crate::http_client::jittered;

/// How long a hub may be blind before it is left the first time, drawn at random; doubled with each move in vain.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(40), Duration::from_secs(300));
/// How long at most, before jitter.
const LONGEST: Duration = Duration::from_secs(900);
/// How long a hub must have seen for the moves before it to be forgotten.
const SAW_FOR_LONG: Duration = Duration::from_secs(900);

/// How long a hub may be blind that is the next after so many were left.
fn patience(left: u32) -> Duration {
    let first = PATIENCE.0 + (PATIENCE.1 - PATIENCE.0).mul_f64(fastrand::f64());
    let grown = first.saturating_mul(2_u32.saturating_pow(left));
    if grown < LONGEST { grown } else { jittered(LONGEST) }
}

/// What the hubs of an agent see, one after the other.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// How many were left in a row for being blind.
    left: u32,
    /// Since when the hub of now sees.
    sees_since: Option<Instant>,
    /// When the hub of now is left, being blind.
    leave_at: Option<Instant>,
}

impl Sight {
    /// A stream begins: nothing is known of its hub.
    pub(super) fn begin(&mut self) {
        (self.sees_since, self.leave_at) = (None, None);
    }

    /// The hub has told whether it hears of any of its registries.
    pub(super) fn note(&mut self, sees: bool) {
        let now = Instant::now();
        if sees {
            self.leave_at = None;
            self.sees_since.get_or_insert(now);
        } else if self.leave_at.is_none() {
            if self.sees_since.take().is_some_and(|since| now - since >= SAW_FOR_LONG) {
                self.left = 0;
            }
            self.leave_at = Some(now + patience(self.left));
        }
    }

    /// When the hub is to be left; none while it is not.
    pub(super) fn leave_at(&self) -> Option<Instant> {
        self.leave_at
    }

    /// It is left.
    pub(super) fn leave(&mut self) {
        self.left = self.left.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// How long a hub is borne with that is blind from now on, in seconds.
    fn borne(sight: &mut Sight) -> u64 {
        sight.note(false);
        (sight.leave_at().unwrap() - Instant::now()).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn each_move_in_vain_makes_the_next_one_later() {
        let mut sight = Sight::default();
        for (least, most) in [(40, 300), (80, 600), (160, 1125), (320, 1125), (640, 1125), (675, 1125)] {
            sight.begin();
            assert_eq!(sight.leave_at(), None);
            let borne = borne(&mut sight);
            assert!((least - 1..=most).contains(&borne), "{borne} of {least} to {most}");
            let at = sight.leave_at();
            sight.note(false);
            assert_eq!(sight.leave_at(), at, "said again, it is blind no longer than before");
            sight.leave();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sees_is_not_left_and_is_borne_with_as_at_first_when_it_saw_for_long() {
        let mut sight = Sight::default();
        sight.note(false);
        sight.leave();
        sight.begin();
        sight.note(true);
        assert_eq!(sight.leave_at(), None);
        advance(Duration::from_secs(60)).await;
        let at = borne(&mut sight);
        assert!(at >= 79, "it saw for a moment: {at}");
        sight.note(true);
        assert_eq!(sight.leave_at(), None);
        advance(SAW_FOR_LONG).await;
        assert!(borne(&mut sight) <= PATIENCE.1.as_secs());
        assert_eq!(sight.left, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn agents_of_one_hub_leave_it_one_by_one_over_minutes() {
        let borne: Vec<u64> = (0..600).map(|_| borne(&mut Sight::default())).collect();
        // Of 600 over 260 s, 69 on average.
        for from in (40..280).step_by(30) {
            let within = borne.iter().filter(|at| (from..from + 30).contains(*at)).count();
            assert!((20..=140).contains(&within), "{within} of 600 from {from} s on");
        }
    }
}
