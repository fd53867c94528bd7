//! The lines of an answer that goes on.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// The longest line, in bytes: a transaction's changes come as one.
const LONGEST: usize = 16 << 20;

/// Lines, as they come.
pub(super) struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The next whole line; none at the end. May be dropped while it waits.
    ///
    /// # Errors
    /// When the connection breaks, or a line is too long.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.buffer.split_to(at + 1).freeze()));
            }
            if self.buffer.len() > LONGEST {
                return Err(format!("a line is longer than {LONGEST} bytes"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(fault)) => return Err(fault.to_string()),
                None => return Ok(None),
            }
        }
    }
}
