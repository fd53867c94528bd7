//! Durations and sizes as people write them.

use std::time::Duration;

/// Why a duration or size could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A number was expected.
    #[error("`{0}` does not begin with a number")]
    NoNumber(String),
    /// A number without a unit.
    #[error("`{0}` has no unit")]
    NoUnit(String),
    /// A unit that does not exist.
    #[error("`{0}` is no unit here")]
    Unit(String),
    /// Too large to be kept.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

const NANOSECONDS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

const BYTES: [(&str, u64); 8] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Reads `15s`, `1m30s`, `250ms`, `24h`: whole numbers each with a unit of `ns us ms s m h d`, added up. At most 100
/// years, so that no clock arithmetic overflows.
///
/// # Errors
/// Says which part is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let nanoseconds = parse(text, &NANOSECONDS)?;
    let duration = Duration::from_nanos(nanoseconds);
    let century = Duration::from_secs(100 * 365 * 86_400);
    if duration > century { Err(UnitError::TooLarge(shorten(text))) } else { Ok(duration) }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// Reads `64KiB`, `1MiB`, `10MB`, `512B`.
///
/// # Errors
/// Says which part is wrong.
pub fn parse_size(text: &str) -> Result<Size, UnitError> {
    parse(text, &BYTES).map(Size)
}

/// Writes a duration in the form that [`parse_duration`] reads.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in NANOSECONDS.iter().rev() {
        if rest >= *size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let too_large = || UnitError::TooLarge(shorten(text));
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() || total == 0 && rest.len() == text.len() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(|byte| !byte.is_ascii_digit()).count();
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = tail.split_at(letters);
        if number.is_empty() {
            return Err(UnitError::NoNumber(shorten(rest)));
        }
        if unit.is_empty() {
            return Err(UnitError::NoUnit(shorten(rest)));
        }
        let number: u64 = number.parse().map_err(|_| too_large())?;
        let size = units.iter().find(|(word, _)| *word == unit).map(|(_, size)| *size);
        let size = size.ok_or_else(|| UnitError::Unit(shorten(unit)))?;
        total = number.checked_mul(size).and_then(|part| total.checked_add(part)).ok_or_else(too_large)?;
        rest = tail;
    }
    Ok(total)
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read() {
        let second = Duration::from_secs(1);
        for (text, expected) in [
            ("15s", 15 * second),
            ("1m30s", 90 * second),
            ("250ms", second / 4),
            ("0s", Duration::ZERO),
            ("1d", 86_400 * second),
        ] {
            assert_eq!(parse_duration(text).unwrap(), expected, "{text}");
            assert_eq!(parse_duration(&format_duration(expected)).unwrap(), expected, "{text}");
        }
        assert_eq!(parse_size("64KiB").unwrap(), Size(65_536));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "15",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "15sec",
            "99999999999999999999s",
            "40000d",
            "9e9s",
            "1s ",
            "ü",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        assert!(parse_size("1").is_err());
    }
}
