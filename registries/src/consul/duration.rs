//! Durations as Consul writes them. Pure.

use std::time::Duration;

/// A duration as Go writes it: numbers with a unit each, and with a fraction, such as `1m30.5s`.
pub(super) fn duration(text: &str) -> Result<Duration, ()> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("\u{b5}s", 1e-6),
        ("\u{3bc}s", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.').ok_or(())?;
        let number: f64 = rest[..end].parse().map_err(|_| ())?;
        let from = &rest[end..];
        let unit = from.find(|it: char| it.is_ascii_digit() || it == '.').unwrap_or(from.len());
        let (_, length) = UNITS.iter().find(|(name, _)| *name == &from[..unit]).ok_or(())?;
        seconds += number * length;
        rest = &from[unit..];
    }
    // Nothing, or more than there is time.
    if text.is_empty() { Err(()) } else { Duration::try_from_secs_f64(seconds).map_err(|_| ()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let milliseconds = |text: &str| duration(text).map(|read| read.as_millis());
        for (text, expected) in
            [("1.5s", 1500), ("250ms", 250), ("1m30.25s", 90_250), ("0s", 0), ("1h", 3_600_000)]
        {
            assert_eq!(milliseconds(text), Ok(expected), "{text}");
        }
        for wrong in ["", "1", "s", "1.5", "-1s", "1d", "1s2", "1..5s", "1e400h", &"9".repeat(400)] {
            assert_eq!(milliseconds(wrong), Err(()), "{wrong}");
        }
    }
}
