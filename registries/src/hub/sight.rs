//! When to leave a hub that is well and sees nothing: one that has had no word of any of its registries for a while, where
//! another one may have. Pure.
//!
//! Whether another one sees more is known only to who goes there. When a registry itself is away all hubs are blind, and
//! every move is in vain: so each waits longer than the one before it, and who is well stays where it is.

use std::time::Duration;

use tokio::time::Instant;

use crate::http_client::growing_pause;

/// How long a hub may be blind before it is left: the first time, and at most. Spread, so that the agents of a hub do not
/// all leave in one moment.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(40), Duration::from_secs(900));

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
            if self.sees_since.take().is_some_and(|since| now - since >= PATIENCE.1) {
                self.left = 0;
            }
            self.leave_at = Some(now + growing_pause(PATIENCE, self.left));
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
        for patience in [40, 80, 160, 320, 640, 900, 900] {
            sight.begin();
            assert_eq!(sight.leave_at(), None);
            let borne = borne(&mut sight);
            assert!(borne >= patience * 3 / 4 - 1 && borne <= patience * 5 / 4, "{borne} of {patience}");
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
        assert!(borne(&mut sight) >= 59, "it saw for a moment");
        sight.note(true);
        assert_eq!(sight.leave_at(), None);
        advance(PATIENCE.1).await;
        assert!(borne(&mut sight) <= 50);
    }
}
