//! Messages of HTTP/1.1 (RFC 9112): responses taken apart, and fields written.
//!
//! Pure: bytes in, pieces out, and whether they came at once or one by one makes no difference. What could be read in
//! two ways is refused, because somebody behind us might read it in the other.

mod chunks;
mod response;

pub use chunks::{Chunks, Piece};
pub use response::{Framing, Head, MAX_HEAD, parse_head};

/// Writes one field of a head, or of trailers. Name and value are sound, as the types of `http` are that hold them.
pub(crate) fn write_field(to: &mut Vec<u8>, name: &str, value: &[u8]) {
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b": ");
    to.extend_from_slice(value);
    to.extend_from_slice(b"\r\n");
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) &'static str);
