//! Points in time as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::UnixTime;

/// Seconds since 1970; 0 for what is earlier.
pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The same moment as TLS counts it.
pub(super) fn system_time(at: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(at.as_secs())
}

/// `2026-11-20T08:00:00Z`: RFC 3339 in UTC, whole seconds. What lies before 1970 is shown as 1970.
#[must_use]
pub fn rfc3339(at: SystemTime) -> String {
    let total = seconds(at);
    let (days, rest) = (total / 86_400, total % 86_400);
    let (year, month, day) = civil_date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Year, month and day of a count of days since 1970-01-01, in the Gregorian calendar. Counts from 1 March of the year
/// 0, so that the leap day is the last of its year, in eras of 400 years (146 097 days).
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// How long between two moments, in the largest unit that gives a number above one: `3 days`, `90 seconds`.
pub(super) fn span(from: SystemTime, to: SystemTime) -> String {
    let total = to.duration_since(from).unwrap_or_default().as_secs();
    match total {
        0..120 => format!("{total} seconds"),
        120..7200 => format!("{} minutes", total / 60),
        7200..172_800 => format!("{} hours", total / 3600),
        _ => format!("{} days", total / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn spans_take_a_unit_that_people_use() {
        for (seconds, text) in
            [(5, "5 seconds"), (300, "5 minutes"), (90_000, "25 hours"), (864_000, "10 days")]
        {
            assert_eq!(span(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
