//! One canonical form for a path, so that what a policy sees, what is forwarded and what the application understands are
//! the same.
//!
//! The form, from RFC 3986 §6.2.2 and what applications do in practice:
//! * percent-encoded letters, digits, `-`, `.`, `_` and `~` are decoded; other encodings get upper-case digits; bytes
//!   that have no place in a path (controls, spaces, quotes, non-ASCII, …) are encoded;
//! * a backslash is a slash, and slashes in a row are one;
//! * then `.` and `..` segments are resolved, never above the root;
//! * refused: an invalid encoding, NUL, a path that does not begin with a slash, and `..;` (a dot segment with a
//!   parameter), which some application servers resolve as `..`.
//!
//! **Encoded slashes and backslashes** (`%2F`, `%5C`) are neither decoded, which would change what a path like
//! `/projects/group%2Fname` means, nor let through where it matters: an application may decode them after we have
//! decided. Ports whose policy has rules on paths refuse them ([`EncodedSlash::Refuse`]); elsewhere they are kept.
//!
//! The result is always normal, so a second pass changes nothing; a path that is normal already is borrowed. A condition
//! on paths is compared with this form, so one that is not in it would never hold: whoever reads conditions asks here.

use std::borrow::Cow;

/// What to do with `%2F` and `%5C`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// Refuse the request: rules on paths apply to it.
    Refuse,
    /// Keep it encoded.
    Keep,
}

/// Why a path has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// An invalid encoding, NUL, no slash at the beginning, or a dot segment with a parameter.
    #[error("the path is not well formed")]
    Malformed,
    /// An encoded slash or backslash, where those are refused.
    #[error("encoded slashes are refused where rules on paths apply")]
    EncodedSlash,
}

/// Brings `path`, without its query, into the canonical form. `*`, the target of `OPTIONS *`, is canonical.
///
/// # Errors
/// [`PathFault::Malformed`] or [`PathFault::EncodedSlash`], see the module.
pub fn normalise(path: &str, slashes: EncodedSlash) -> Result<Cow<'_, str>, PathFault> {
    if is_normal(path.as_bytes()) || path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    rewrite(path.as_bytes(), slashes).map(Cow::Owned)
}

/// A canonical path as an application reads it that takes what follows a `;` in a segment for a parameter and drops it
/// (RFC 3986 §3.3 leaves that to applications). None when that changes nothing.
#[must_use]
pub fn without_parameters(path: &str) -> Option<String> {
    if !path.contains(';') && !path.contains("%3B") {
        return None;
    }
    let mut bare = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let end = segment.find(';').into_iter().chain(segment.find("%3B")).min();
        match &segment[..end.unwrap_or(segment.len())] {
            // A segment of nothing but parameters is none; at the end its slash is left.
            "" if segments.peek().is_some() => {}
            name => {
                bare.push('/');
                bare.push_str(name);
            }
        }
    }
    Some(bare)
}

/// What a byte of a path is: nothing special, needs a look, or must not stand there.
const PLAIN: u8 = 0;
const SLASH: u8 = 1;
const DOT: u8 = 2;
const PERCENT: u8 = 3;
const BACKSLASH: u8 = 4;
const ENCODE: u8 = 5;

/// `pchar` of RFC 3986 §3.3, by byte.
const CLASS: [u8; 256] = {
    let mut class = [ENCODE; 256];
    let plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~!$&'()*+,;=:@";
    let mut index = 0;
    while index < plain.len() {
        class[plain[index] as usize] = PLAIN;
        index += 1;
    }
    class[b'/' as usize] = SLASH;
    class[b'.' as usize] = DOT;
    class[b'%' as usize] = PERCENT;
    class[b'\\' as usize] = BACKSLASH;
    class
};

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether the path is in the canonical form for certain: one pass, no allocation. Encodings are left to [`rewrite`]
/// when they are not simply kept.
fn is_normal(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    let mut index = 0;
    while let Some(&byte) = path.get(index) {
        match CLASS[usize::from(byte)] {
            PLAIN | DOT => {}
            SLASH if !begins_oddly(&path[index + 1..]) => {}
            PERCENT if is_kept(path.get(index + 1..index + 3)) => index += 2,
            _ => return false,
        }
        index += 1;
    }
    true
}

/// Whether a segment is empty before another slash, or a dot segment.
fn begins_oddly(segment: &[u8]) -> bool {
    match segment {
        [b'/', ..] => true,
        [b'.', rest @ ..] => {
            let rest = rest.strip_prefix(b".").unwrap_or(rest);
            matches!(rest.first(), None | Some(b'/' | b';' | b'\\')) || rest.starts_with(b"%3B")
        }
        _ => false,
    }
}

/// Whether an encoding stays as it is: upper-case digits, and neither unreserved nor a slash, backslash or NUL.
fn is_kept(digits: Option<&[u8]>) -> bool {
    let Some(&[high, low]) = digits else { return false };
    let upper = |digit: u8| digit.is_ascii_digit() || (b'A'..=b'F').contains(&digit);
    upper(high)
        && upper(low)
        && decode(high, low).is_some_and(|b| !is_unreserved(b) && !matches!(b, b'/' | b'\\' | 0))
}

fn decode(high: u8, low: u8) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(value(high)? << 4 | value(low)?)
}

/// Writes the canonical form.
fn rewrite(path: &[u8], slashes: EncodedSlash) -> Result<String, PathFault> {
    if !matches!(path.first(), Some(b'/' | b'\\')) {
        return Err(PathFault::Malformed);
    }
    let mut out = Vec::with_capacity(path.len() + 8);
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match CLASS[usize::from(byte)] {
            SLASH | BACKSLASH => end_segment(&mut out)?,
            PERCENT => {
                let Some((&[high, low], after)) = rest.split_first_chunk::<2>() else {
                    return Err(PathFault::Malformed);
                };
                rest = after;
                push_decoded(&mut out, decode(high, low).ok_or(PathFault::Malformed)?, slashes)?;
            }
            ENCODE if byte == 0 => return Err(PathFault::Malformed),
            ENCODE => push_encoded(&mut out, byte),
            _ => out.push(byte),
        }
    }
    resolve_last(&mut out)?;
    // Only ASCII was written.
    String::from_utf8(out).map_err(|_| PathFault::Malformed)
}

fn push_decoded(out: &mut Vec<u8>, byte: u8, slashes: EncodedSlash) -> Result<(), PathFault> {
    match byte {
        0 => return Err(PathFault::Malformed),
        b'/' | b'\\' if slashes == EncodedSlash::Refuse => return Err(PathFault::EncodedSlash),
        _ if is_unreserved(byte) => out.push(byte),
        _ => push_encoded(out, byte),
    }
    Ok(())
}

fn push_encoded(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
}

/// Ends the segment that was being written, at a slash.
fn end_segment(out: &mut Vec<u8>) -> Result<(), PathFault> {
    resolve_last(out)?;
    if out.last() != Some(&b'/') {
        out.push(b'/');
    }
    Ok(())
}

/// Resolves the last segment if it is a dot segment. `out` is empty or begins with a slash.
fn resolve_last(out: &mut Vec<u8>) -> Result<(), PathFault> {
    let Some(slash) = out.iter().rposition(|&byte| byte == b'/') else { return Ok(()) };
    let segment = &out[slash + 1..];
    match segment {
        b"." => out.truncate(slash + 1),
        b".." => {
            let parent = out[..slash].iter().rposition(|&byte| byte == b'/').map_or(0, |at| at);
            out.truncate(parent + 1);
        }
        [b'.', b';', ..] | [b'.', b'.', b';', ..] => return Err(PathFault::Malformed),
        [b'.', b'%', b'3', b'B', ..] | [b'.', b'.', b'%', b'3', b'B', ..] => {
            return Err(PathFault::Malformed);
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
