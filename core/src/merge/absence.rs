//! What it means that an origin is missing from a full list: silence is not absence.

use std::time::{Duration, SystemTime};

use super::snapshot::ScopeState;
use crate::registry::Completeness;

/// From how many origins on a list that lacks more than half of them is doubted.
pub const DOUBTED_FROM: usize = 8;
/// How long an origin has been unconfirmed before a later full list without it is believed.
pub const BELIEVED_AFTER: Duration = Duration::from_secs(600);

/// By how much a full list may be older than what is held and still count: more than registries let pass between two
/// words that all is still true.
pub const OLDER_BY: Duration = Duration::from_secs(60);

/// Whether a full list that was true at `said_at` says nothing that is not known better. A relay may tell such a one that
/// has not heard from its registry for long: whom it names may be gone, and whom it lacks may be new.
pub(super) fn is_outdated(held: &ScopeState, said_at: SystemTime, now: SystemTime) -> bool {
    // A clock that was set back tells no age.
    let known = held.committed_at.filter(|known| *known <= now);
    let is_older = |known: SystemTime| known.duration_since(said_at).is_ok_and(|by| by > OLDER_BY);
    held.completeness == Some(Completeness::Full) && known.is_some_and(is_older)
}

/// What happens to one origin that a full list lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is gone.
    Goes,
    /// It stays, ranked after what is ready, until a later list or the operator says more.
    Unconfirmed,
    /// It stays unconfirmed as it was.
    Stays,
}

/// A list that lacks some of a scope's origins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Absence {
    /// Whether the list says that it is all there is.
    full: bool,
    /// Whether it lacks so much that it is not believed at once.
    doubted: bool,
}

impl Absence {
    /// A list that lacks `missing` of the `held` origins that the scope had.
    pub(super) fn new(completeness: Completeness, held: usize, missing: usize) -> Self {
        let doubted = held >= DOUBTED_FROM && missing * 2 > held;
        Self { full: completeness == Completeness::Full, doubted }
    }

    /// A list of all scopes that lacks this one altogether.
    pub(super) fn of_scope() -> Self {
        Self { full: true, doubted: true }
    }

    /// Decides about one missing origin.
    pub(super) fn fate(self, unconfirmed_since: Option<SystemTime>, now: SystemTime) -> Fate {
        match unconfirmed_since {
            Some(since) if self.full && now.duration_since(since).is_ok_and(|age| age >= BELIEVED_AFTER) => {
                Fate::Goes
            }
            Some(_) => Fate::Stays,
            None if self.full && !self.doubted => Fate::Goes,
            None => Fate::Unconfirmed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plausible_full_list_removes() {
        use Completeness::{Filtered, Full};
        use Fate::{Goes, Stays, Unconfirmed};
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100_000);
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        let cases = [
            (Full, 7, 7, None, Goes),
            (Full, 8, 4, None, Goes),
            (Full, 8, 5, None, Unconfirmed),
            (Full, 100, 100, None, Unconfirmed),
            (Filtered, 2, 1, None, Unconfirmed),
            (Full, 100, 90, ago(599), Stays),
            (Full, 100, 90, ago(600), Goes),
            (Filtered, 100, 1, ago(90_000), Stays),
            // A clock that was set back proves nothing.
            (Full, 3, 1, Some(now + Duration::from_secs(5)), Stays),
        ];
        for (completeness, held, missing, since, expected) in cases {
            let absence = Absence::new(completeness, held, missing);
            assert_eq!(absence.fate(since, now), expected, "{absence:?} {since:?}");
        }
        for (since, expected) in [(None, Unconfirmed), (ago(599), Stays), (ago(600), Goes)] {
            assert_eq!(Absence::of_scope().fate(since, now), expected);
        }
    }
}
