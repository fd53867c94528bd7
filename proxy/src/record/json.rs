//! Writes JSON values into bytes, without a tree or a serialiser: a log line has some thirty of them.

use std::{io::Write as _, net::SocketAddr};

use weft_core::context::Value;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whether a value has nothing to be written.
pub(super) fn is_empty(value: &Value<'_>) -> bool {
    matches!(value, Value::Absent | Value::Text(""))
}

/// Writes a value; nothing for one that [`is_empty`], except that an empty text is an empty string.
pub(super) fn write_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match *value {
        Value::Absent => {}
        Value::Text(text) => write_text(out, text),
        Value::Number(number) => write_number(out, number),
        Value::Address(address) => write_address(out, address),
        Value::Service(service) => {
            // Both parts are labels, which need no escaping.
            out.push(b'"');
            out.extend_from_slice(service.as_str().as_bytes());
            out.push(b'"');
        }
    }
}

/// Writes a string (RFC 8259 §7): quote, backslash and controls are escaped, all else is as it is.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if needs_escape(text.as_bytes()) {
        write_escaped(out, text.as_bytes());
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
}

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Looks at eight bytes at a time: a byte is special if subtracting borrows into its highest bit ("Bit Twiddling Hacks",
/// "Determine if a word has a byte less than n"). Bytes from 0x80 on are never special, and are masked out.
fn needs_escape(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    let special = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGH;
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        (below(word, 0x20) | quote | backslash) != 0
    };
    words.iter().any(special) || rest.iter().any(|&byte| is_special(byte))
}

fn write_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut written = 0;
    for (index, &byte) in bytes.iter().enumerate().filter(|(_, byte)| is_special(**byte)) {
        out.extend_from_slice(&bytes[written..index]);
        written = index + 1;
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            _ => {
                out.extend(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[written..]);
}

/// Writes a number in decimal.
pub(super) fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes an address and its port as a string. IPv4 is written by hand: the standard library's formatting takes some
/// hundred nanoseconds.
fn write_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            let mut text = [0; 23];
            let mut length = 0;
            let mut push = |byte: u8| {
                text[length] = byte;
                length += 1;
            };
            for (octet, before) in v4.ip().octets().into_iter().zip(b"\"...") {
                push(*before);
                if octet >= 100 {
                    push(b'0' + octet / 100);
                }
                if octet >= 10 {
                    push(b'0' + octet / 10 % 10);
                }
                push(b'0' + octet % 10);
            }
            push(b':');
            out.extend_from_slice(&text[..length]);
            write_number(out, v4.port().into());
            out.push(b'"');
        }
        // Writing to a vector does not fail.
        SocketAddr::V6(v6) => drop(write!(out, "\"{v6}\"")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(text: &str) -> String {
        let mut out = Vec::new();
        write_text(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_must_be_escaped_is() {
        assert_eq!(text_of("a\"b\\c\n\u{1}\u{1f}ü"), "\"a\\\"b\\\\c\\n\\u0001\\u001fü\"");
    }

    #[test]
    fn addresses_are_as_the_standard_library_writes_them() {
        for address in ["127.0.0.1:80", "255.1.20.3:65535", "[::1]:9"] {
            let mut out = Vec::new();
            write_value(&mut out, &Value::Address(address.parse().unwrap()));
            assert_eq!(out, format!("\"{address}\"").into_bytes());
        }
    }

    proptest! {
        #[test]
        fn special_bytes_are_found_wherever_they_are(bytes: Vec<u8>) {
            prop_assert_eq!(needs_escape(&bytes), bytes.iter().any(|&byte| is_special(byte)));
        }

        #[test]
        fn any_text_is_read_back(text: String) {
            prop_assert_eq!(serde_json::from_str::<String>(&text_of(&text)).unwrap(), text);
        }
    }
}
