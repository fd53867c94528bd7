//! Time as the data path counts it: milliseconds since the process began, in a `u64` that fits an atomic.

use std::{sync::OnceLock, time::Instant};

static BEGAN: OnceLock<Instant> = OnceLock::new();

/// Milliseconds from the first call of this function to `instant`; 0 for what was before. Never 0 for the present, so
/// that 0 can mean "never".
#[must_use]
pub fn milliseconds(instant: Instant) -> u64 {
    let began = *BEGAN.get_or_init(Instant::now);
    let passed = instant.saturating_duration_since(began).as_millis();
    u64::try_from(passed).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn counts_from_the_first_call() {
        let now = Instant::now();
        assert_eq!(milliseconds(now), 1);
        let later = milliseconds(now + Duration::from_millis(250));
        assert!((249..=250).contains(&later), "{later}");
    }
}
