//! Nomad's event stream as a wake-up: lines of JSON, one each 30 s at least.
//!
//! What an event says is not applied (the loss of a node shows the services that went as if they had come). It only says
//! what to read again. A stream that is open and says nothing is as common here as one that breaks: who may read nothing
//! is answered 200 and silence, and so is who follows through an agent whose server died. So silence is a fault.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use weft_core::registry::RegistryError;

use super::{
    client::Client,
    objects::{EventLine, StreamEvent},
};

/// A stream begins with an empty line at once.
const FIRST_LINE: Duration = Duration::from_secs(5);
/// An empty line comes every 30 s when nothing happens.
const NEXT_LINE: Duration = Duration::from_secs(35);
/// A longer line is passed over: it says that very much has changed.
const MAX_LINE: usize = 16 << 20;

/// An open stream.
pub(super) struct Events {
    body: Incoming,
    lines: Lines,
    /// How long the next line may take, and until when that is.
    patience: Duration,
    silent_from: Instant,
}

/// A line.
#[derive(Debug)]
pub(super) enum Line {
    /// Nothing happened.
    Beat,
    /// Something happened.
    Events(Vec<StreamEvent>),
    /// Nobody knows what happened: the line is too long or makes no sense.
    Unreadable,
}

impl Events {
    /// Opens it and waits for its first line.
    pub(super) async fn open(
        client: &Client,
        topics: &[&str],
        namespace: &str,
        index: u64,
    ) -> Result<Self, RegistryError> {
        let deadline = Instant::now() + FIRST_LINE;
        let open = timeout_at(deadline, client.events(topics, namespace, index));
        let response = open.await.map_err(|_| silent(FIRST_LINE))??;
        let status = response.status();
        if !status.is_success() {
            let message = format!("GET /v1/event/stream: {status}");
            return Err(match status.as_u16() {
                401 | 403 => RegistryError::Denied(message),
                429 => RegistryError::Overloaded(message),
                _ => RegistryError::Unreachable(message),
            });
        }
        let lines = Lines::new(client.max_line().min(MAX_LINE));
        let mut events =
            Self { body: response.into_body(), lines, patience: FIRST_LINE, silent_from: deadline };
        events.next().await?;
        Ok(events)
    }

    /// The next line. May be given up and called again.
    pub(super) async fn next(&mut self) -> Result<Line, RegistryError> {
        loop {
            if let Some(line) = self.lines.next() {
                (self.patience, self.silent_from) = (NEXT_LINE, Instant::now() + NEXT_LINE);
                return Ok(line);
            }
            let frame = timeout_at(self.silent_from, self.body.frame());
            let frame = frame.await.map_err(|_| silent(self.patience))?;
            let broken = |why: String| RegistryError::Unreachable(format!("the event stream broke off{why}"));
            let frame = frame.ok_or_else(|| broken(String::new()))?;
            let frame = frame.map_err(|error| broken(format!(": {error}")))?;
            if let Ok(bytes) = frame.into_data() {
                self.lines.push(&bytes);
            }
        }
    }
}

/// Whether it was answered in a version of HTTP that there is not, as servers before 1.11.3 do.
pub(super) fn is_of_no_version(error: &RegistryError) -> bool {
    // The client has no other sign of it than its words.
    error.to_string().contains("invalid HTTP version")
}

fn silent(after: Duration) -> RegistryError {
    RegistryError::Unreachable(format!("the event stream was silent for {} s", after.as_secs()))
}

/// Cuts bytes into lines. Keeps at most one line of at most the given length.
struct Lines {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no end of a line.
    searched: usize,
    longest: usize,
    /// Within a line that is too long, up to its end.
    passing_over: bool,
}

impl Lines {
    fn new(longest: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, longest, passing_over: false }
    }

    fn push(&mut self, bytes: &Bytes) {
        self.buffer.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<Line> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| self.searched + end) else {
            self.searched = self.buffer.len();
            if self.buffer.len() > self.longest {
                self.passing_over = true;
                self.buffer.clear();
                self.searched = 0;
            }
            return None;
        };
        let line = self.buffer.split_to(end + 1);
        self.searched = 0;
        if self.buffer.is_empty() {
            // Room for a long line is not kept.
            self.buffer = BytesMut::new();
        }
        if std::mem::take(&mut self.passing_over) || line.len() > self.longest {
            return Some(Line::Unreadable);
        }
        Some(match serde_json::from_slice::<EventLine>(&line) {
            Ok(line) if line.events.is_empty() => Line::Beat,
            Ok(line) => Line::Events(line.events),
            Err(_) => Line::Unreadable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(lines: &mut Lines) -> String {
        let mut shape = String::new();
        while let Some(line) = lines.next() {
            shape.push(match line {
                Line::Beat => '.',
                Line::Events(_) => 'e',
                Line::Unreadable => '?',
            });
        }
        shape
    }

    #[test]
    fn lines_are_cut_wherever_the_bytes_are() {
        let text = "{}\n{\"Events\":[{\"Topic\":\"Service\",\"Payload\":null}],\"Index\":3}\r\n{}\nno\n{}\n";
        for size in 1..text.len() {
            let mut lines = Lines::new(1000);
            let mut seen = String::new();
            for part in text.as_bytes().chunks(size) {
                lines.push(&Bytes::copy_from_slice(part));
                seen.push_str(&shape(&mut lines));
            }
            assert_eq!(seen, ".e.?.", "in parts of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let mut lines = Lines::new(100);
        for _ in 0..1000 {
            lines.push(&Bytes::from_static(&[b'x'; 50]));
            assert_eq!(shape(&mut lines), "");
            assert!(lines.buffer.len() <= 150);
        }
        lines.push(&Bytes::from_static(b"\n{}\n"));
        assert_eq!(shape(&mut lines), "?.");
    }
}
