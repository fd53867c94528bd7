//! How much unread and late a connection of HTTP/2 bears, on either side.
//!
//! h2 ends a connection, with all that is on it, when somebody overdoes what can be an attack of strangers (RFC 9113
//! §10.5). On ours are many callers' requests, and all who speak on them are authenticated or local: what a few of them
//! do in good faith must not end it for the rest. So the bounds lie where memory, not suspicion, sets them.

use std::time::Duration;

/// What frames that lie unread may take beside their data: h2 counts 256 bytes a frame less its length. A stream whose
/// window is full of 20-byte frames takes 770 KB.
pub(super) const UNREAD_FRAMES: usize = 64 << 20;
/// How many streams that we reset are remembered: frames of theirs that were on their way are dropped and not counted.
pub(super) const REMEMBERED_RESETS: usize = 1024;
/// How long.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(10);
/// How many frames may break the rules of a stream in the life of a connection. One that comes for a reset stream that
/// is forgotten counts.
pub(super) const BROKEN_STREAMS: Option<usize> = Some(1 << 20);
/// How many times the largest header is read, so that we refuse what is too large, with a record of it. What is larger
/// still h2 answers with a bare 431.
pub(super) const READ_HEADERS: u32 = 4;
