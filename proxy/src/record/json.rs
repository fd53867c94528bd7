//! Writes JSON values into bytes, without a tree or a serialiser: a log line has some thirty of them.

use std::{io::Write as _, net::SocketAddr};

use weft_core::context::Value;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Writes a value. False, and nothing is written, for what is absent or empty.
pub(super) fn write_value(out: &mut Vec<u8>, value: &Value<'_>) -> bool {
    match *value {
        Value::Absent | Value::Text("") => return false,
        Value::Text(text) => write_text(out, text),
        Value::Number(number) => write_number(out, number),
        Value::Address(address) => write_address(out, address),
        Value::Service(service) => {
            // Both parts are labels, which need no escaping.
            out.push(b'"');
            out.extend_from_slice(service.label.as_str().as_bytes());
            out.push(b'.');
            out.extend_from_slice(service.namespace.as_str().as_bytes());
            out.push(b'"');
        }
    }
    true
}

/// Writes a string (RFC 8259 §7): quote, backslash and controls are escaped, all else is as it is.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
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
    out.push(b'"');
}

/// Writes a number in decimal.
pub(super) fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes an address and its port as a string. IPv4 is written by hand: the standard library's formatting takes some
/// hundred nanoseconds.
fn write_address(out: &mut Vec<u8>, address: SocketAddr) {
    out.push(b'"');
    match address {
        SocketAddr::V4(v4) => {
            for (index, octet) in v4.ip().octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                write_number(out, octet.into());
            }
            out.push(b':');
            write_number(out, v4.port().into());
        }
        // Writing to a vector does not fail.
        SocketAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
    out.push(b'"');
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
        fn any_text_is_read_back(text: String) {
            prop_assert_eq!(serde_json::from_str::<String>(&text_of(&text)).unwrap(), text);
        }
    }
}
