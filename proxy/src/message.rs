//! Responses of HTTP/1.1, taken apart (RFC 9112).
//!
//! Pure: bytes in, pieces out, and whether they came at once or one by one makes no difference. What could be read in
//! two ways is refused, because somebody behind us might read it in the other.

mod chunks;
mod response;

pub use chunks::{Chunks, Piece};
pub use response::{Framing, Head, MAX_HEAD, parse_head};

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) &'static str);
