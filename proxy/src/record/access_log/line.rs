//! One line: the time, then every attribute that is known, by its name in the one list of attributes. First those that
//! make the metric's series, as one piece that was made with it, then those of the request itself.

use std::time::{Duration, Instant, SystemTime};

use weft_core::context::{Attribute, Outcome};

use super::super::json::{is_empty, write_value};

/// What lines have in common.
#[derive(Debug)]
pub(super) struct LineFormat {
    /// `,"name":` of every attribute that belongs to the request and not to its series.
    own: Box<[Key]>,
    clock: WallClock,
}

/// An attribute and how it begins in a line.
type Key = (Attribute, Box<[u8]>);

/// Whether an attribute is one of those that make a metric's series: then its text is made once for all its requests.
const fn is_shared(attribute: Attribute) -> bool {
    matches!(
        attribute,
        Attribute::Reporter
            | Attribute::SourceWorkload
            | Attribute::SourcePrincipal
            | Attribute::SourceNamespace
            | Attribute::DestinationService
            | Attribute::DestinationRegistry
            | Attribute::DestinationWorkload
            | Attribute::DestinationPrincipal
            | Attribute::SecurityPolicy
            | Attribute::RequestProtocol
            | Attribute::ResponseCode
            | Attribute::GrpcStatus
            | Attribute::ResponseFlags
    )
}

fn keys(shared: bool) -> Box<[Key]> {
    let key = |attribute: Attribute| format!(",\"{}\":", attribute.name()).into_bytes().into_boxed_slice();
    let wanted = Attribute::ALL.iter().filter(|attribute| is_shared(**attribute) == shared);
    wanted.map(|&attribute| (attribute, key(attribute))).collect()
}

fn write_attributes(out: &mut Vec<u8>, keys: &[Key], outcome: &Outcome<'_>) {
    for (attribute, key) in keys {
        let value = outcome.value(*attribute);
        if !is_empty(&value) {
            out.extend_from_slice(key);
            write_value(out, &value);
        }
    }
}

/// The part of a line that all requests of a series share.
pub(in super::super) fn shared_part(outcome: &Outcome<'_>) -> Box<[u8]> {
    let mut out = Vec::with_capacity(512);
    write_attributes(&mut out, &keys(true), outcome);
    out.into()
}

impl LineFormat {
    pub(super) fn new() -> Self {
        Self { own: keys(false), clock: WallClock::new() }
    }

    /// `shared` is the [`shared_part`] of the outcome's series.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, outcome: &Outcome<'_>, shared: &[u8], ended: Instant) {
        out.extend_from_slice(b"{\"time\":\"");
        self.clock.write(out, ended);
        out.push(b'"');
        out.extend_from_slice(shared);
        write_attributes(out, &self.own, outcome);
        out.extend_from_slice(b"}\n");
    }
}

/// The time of day, formatted once a second.
#[derive(Debug)]
struct WallClock {
    /// `2026-01-31T23:59:59.`
    second: [u8; 20],
    /// When that second began.
    began: Instant,
}

impl WallClock {
    fn new() -> Self {
        let mut clock = Self { second: [b'0'; 20], began: Instant::now() };
        clock.read();
        clock
    }

    /// Reads the system's clock: what is set there shows here within a second.
    fn read(&mut self) {
        let now = Instant::now();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.began = now.checked_sub(Duration::from_nanos(since.subsec_nanos().into())).unwrap_or(now);
        self.second = format_second(since.as_secs());
    }

    /// RFC 3339, in microseconds and UTC.
    fn write(&mut self, out: &mut Vec<u8>, instant: Instant) {
        let mut passed = instant.saturating_duration_since(self.began);
        if passed >= Duration::from_secs(1) {
            self.read();
            passed = instant.saturating_duration_since(self.began).min(Duration::from_nanos(999_999_999));
        }
        out.extend_from_slice(&self.second);
        let mut fraction = *b"000000Z";
        write_digits(&mut fraction[..6], passed.subsec_micros().into());
        out.extend_from_slice(&fraction);
    }
}

/// Writes a number with leading zeros.
fn write_digits(place: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789"[(rest % 10) as usize];
        rest /= 10;
    }
}

/// The civil date of a day since 1970, by the algorithm of Howard Hinnant
/// (<https://howardhinnant.github.io/date_algorithms.html>, `civil_from_days`).
fn format_second(seconds: u64) -> [u8; 20] {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let mut text = *b"0000-00-00T00:00:00.";
    let parts = [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, time / 3_600),
        (14, 2, time / 60 % 60),
        (17, 2, time % 60),
    ];
    for (place, width, number) in parts {
        write_digits(&mut text[place..place + width], number);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00."),
            (951_782_399, "2000-02-28T23:59:59."),
            (951_782_400, "2000-02-29T00:00:00."),
            (1_795_253_133, "2026-11-21T09:25:33."),
            (4_107_542_400, "2100-03-01T00:00:00."),
        ] {
            assert_eq!(std::str::from_utf8(&format_second(seconds)).unwrap(), wanted);
        }
    }

    #[test]
    fn the_clock_follows_the_instant() {
        let mut clock = WallClock::new();
        clock.second = *b"2026-01-31T23:59:59.";
        let mut out = Vec::new();
        clock.write(&mut out, clock.began + Duration::from_micros(42));
        assert_eq!(out, b"2026-01-31T23:59:59.000042Z");
    }
}
