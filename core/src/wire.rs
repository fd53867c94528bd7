//! What two agents say to each other before the first byte of an application: framing, hello, answer.
//!
//! `docs/wire.md` is the normative description; the golden tests here hold the code to it. All of this is pure: bytes
//! in, values out. [`exchange`] is the only part that touches a stream, and any stream will do.
//!
//! Invariants: a decoder takes exactly the bytes of its frame, because the next protocol's first bytes may follow in
//! the same TLS record; nothing a peer sends makes it panic or hold more than 4 KiB.

mod framing;
mod version;
mod frame;
mod pairs;
mod hello;
mod answer;
pub mod exchange;

pub use answer::{Answer, Retry};
pub use frame::{FrameDecoder, HEADER_LENGTH, MAX_FRAME, MAX_PAYLOAD, Step};
pub use framing::Framing;
pub use hello::{Hello, TraceContext};
pub use version::{OUR_VERSIONS, VersionRange};

/// Why bytes are not the message they should be, or a message does not fit a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame does not begin with `WEFT`.
    #[error("a frame begins with \"WEFT\", these bytes with {0:02x?}")]
    Magic([u8; 4]),
    /// Version 0 does not exist.
    #[error("the frame is of version 0")]
    VersionZero,
    /// The payload is longer than a frame may be.
    #[error("the frame's payload has {0} bytes, and {max} is the most", max = MAX_PAYLOAD)]
    TooLong(usize),
    /// The payload is no protobuf message of this kind.
    #[error("the payload cannot be decoded: {0}")]
    Protobuf(String),
    /// A field holds what it must not.
    #[error("the field {field} is wrong: {reason}")]
    Field {
        /// Its name in `docs/wire.md`.
        field: &'static str,
        /// Which rule it breaks.
        reason: String,
    },
}

impl WireError {
    fn field(field: &'static str, reason: impl ToString) -> Self {
        Self::Field { field, reason: reason.to_string() }
    }
}
