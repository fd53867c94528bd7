//! When to ask for the next certificate. Pure.

use std::time::{Duration, SystemTime};

use weft_core::{control::BACKDATE, tls::Validity};

/// The first pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause after a failure that may pass.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When a certificate is renewed: from a third of its life on, spread over the next twenty-fourth. `spread` is 0 to 1.
///
/// Its life begins with its issue. Certificates are valid from [`BACKDATE`] before that; one that is not so old began
/// with its validity.
pub(super) fn renew_at(validity: Validity, spread: f64) -> SystemTime {
    let Validity { not_before, not_after } = validity;
    let whole = not_after.duration_since(not_before).unwrap_or_default();
    let life = whole.checked_sub(BACKDATE).filter(|life| !life.is_zero()).unwrap_or(whole);
    not_after - life + life / 3 + (life / 24).mul_f64(spread.clamp(0.0, 1.0))
}

/// How long to wait after so many failures in a row. `spread` is 0 to 1.
pub(super) fn pause(failures: u32, spread: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE).mul_f64(0.5 + spread.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_certificate_is_renewed_from_a_third_of_its_life_on() {
        let issued = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let hours = |count: u64| Duration::from_secs(3600 * count);
        let day = Validity { not_before: issued - BACKDATE, not_after: issued + hours(24) };
        assert_eq!(renew_at(day, 0.0), issued + hours(8));
        assert_eq!(renew_at(day, 1.0), issued + hours(9));
        let short = Validity { not_before: issued - BACKDATE, not_after: issued + Duration::from_secs(6) };
        assert_eq!(renew_at(short, 0.0), issued + Duration::from_secs(2));
        let foreign = Validity { not_before: issued, not_after: issued + hours(1) };
        assert_eq!(renew_at(foreign, 0.0), issued + Duration::from_secs(1200));
    }

    #[test]
    fn pauses_grow_to_a_minute_and_spread() {
        assert_eq!(pause(1, 0.5), FIRST_PAUSE);
        assert_eq!(pause(3, 0.5), FIRST_PAUSE * 4);
        assert_eq!(pause(u32::MAX, 1.0), LONGEST_PAUSE.mul_f64(1.5));
    }
}
