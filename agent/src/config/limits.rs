//! `[limits]`: how much callers may take, before they are known and after.

use std::{ops::RangeInclusive, time::Duration};

use weft_core::config::{Fault, Readable, Section, Size, format_duration};
use weft_proxy::Limits;

/// The longest time that may be waited for a caller's first words.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// The longest time that an opaque connection may be told to idle; without a bound it may idle for ever.
const LONGEST_IDLE: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) fn read(root: &Section<'_>) -> Limits {
    let default = Limits::default();
    let Some(section) = root.section("limits") else { return default };
    let count = |key, default, range| count(&section, key, default, range);
    let wait = |key, default| duration(&section, key, default, Duration::from_secs(1)..=LONGEST_WAIT);
    let handshake = wait("handshake_timeout", default.handshake);
    let idle_range = Duration::from_secs(1)..=LONGEST_IDLE;
    let opaque_idle = section.get("tcp_idle_timeout").is_some();
    Limits {
        connections: count("connections", default.connections, 16..=10_000_000),
        handshakes: count("handshakes", default.handshakes, 1..=1_000_000),
        handshakes_per_address: count(
            "handshakes_per_address",
            default.handshakes_per_address,
            1..=1_000_000,
        ),
        handshake,
        hello: handshake,
        first_byte: wait("first_request_timeout", default.first_byte),
        header: wait("header_timeout", default.header),
        header_bytes: header_bytes(&section, default.header_bytes),
        streams: count("streams", default.streams, 1..=10_000),
        opaque_idle: opaque_idle.then(|| duration(&section, "tcp_idle_timeout", LONGEST_IDLE, idle_range)),
        window_bytes: unread(&section, default.window_bytes),
        ..default
    }
}

fn count(section: &Section<'_>, key: &'static str, default: u32, range: RangeInclusive<u64>) -> u32 {
    let written = section.get(key).and_then(|value| value.integer(range));
    written.and_then(|count| u32::try_from(count).ok()).unwrap_or(default)
}

fn duration(
    section: &Section<'_>,
    key: &'static str,
    default: Duration,
    range: RangeInclusive<Duration>,
) -> Duration {
    let text = |duration: &Duration| format_duration(*duration);
    let expected = format!("a duration from \"{}\" to \"{}\"", text(range.start()), text(range.end()));
    within(section, key, default, &range, &expected)
}

fn header_bytes(section: &Section<'_>, default: u32) -> u32 {
    let (least, default) = (u64::from(Limits::LEAST_HEADER_BYTES), u64::from(default));
    let range = Size(least)..=Size(1 << 20);
    let Size(bytes) =
        within(section, "header_size", Size(default), &range, "a size from \"8KiB\" to \"1MiB\"");
    u32::try_from(bytes).unwrap_or(Limits::LEAST_HEADER_BYTES)
}

fn unread(section: &Section<'_>, default: u64) -> u64 {
    let range = Size(16 << 20)..=Size(64 << 30);
    within(section, "unread_bytes", Size(default), &range, "a size from \"16MiB\" to \"64GiB\"").0
}

/// The value of a key, which must be within a range.
fn within<T: Readable + PartialOrd>(
    section: &Section<'_>,
    key: &'static str,
    default: T,
    range: &RangeInclusive<T>,
    expected: &str,
) -> T {
    let Some(value) = section.get(key) else { return default };
    match T::read(&value) {
        Some(written) if range.contains(&written) => written,
        Some(_) => {
            let fault = Fault::error(value.place(), format!("`{key}` is out of range"));
            value.report(fault.expected(format!("expected {expected}")));
            default
        }
        None => default,
    }
}
