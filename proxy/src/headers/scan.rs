//! Where the messages of a caller's HTTP/1 begin and end, and which of them could be read in two ways.
//!
//! Nothing is buffered but the beginning of a line that is not complete yet, and bodies are skipped without being looked
//! at. Chunk sizes are followed only to find the next head; what is wrong with them is the parser's to refuse. But a
//! request whose end is not found is the last one: were the parser to find one, the next would be refused. So nothing that
//! a caller sends ends the looking. After a switch to another protocol there are no more requests, and what is found among
//! its bytes means nothing.
//!
//! What is found does not depend on how the bytes are cut.

use memchr::memchr;

use crate::fault::Fault;

/// How much of a line is looked at. No line that matters here is longer.
const LINE: usize = 256;

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// Lines of a head.
    #[default]
    Head,
    /// A body of so many bytes.
    Body(u64),
    /// The line with a chunk's size.
    Size,
    /// A chunk of so many bytes.
    Chunk(u64),
    /// The end of line after a chunk.
    ChunkEnd,
    /// Lines after the last chunk.
    Trailer,
    /// Nothing any more: a flaw was found.
    Lost,
}

/// How far the bytes of one connection have been looked at (RFC 9112 §2.2, §6.3 and §7.1).
#[derive(Debug, Default)]
pub struct HeadScan {
    /// The number of the first request with a flaw, and the flaw.
    flaw: Option<(u64, Fault)>,
    /// How many heads have ended.
    ended: u64,
    part: Part,
    head: Head,
    /// The beginning of a line that is not complete yet, at most [`LINE`] bytes.
    line: Vec<u8>,
    /// How long that line is so far.
    length: usize,
    /// The last byte of it.
    last: u8,
}

/// What a head has said so far.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    length: Option<u64>,
    chunked: bool,
    coded: bool,
    ambiguous: bool,
}

impl HeadScan {
    /// The number of the first request, from 0, that is ambiguous or has no clear beginning, and why. It and all after it
    /// are to be refused.
    #[must_use]
    pub fn flaw(&self) -> Option<(u64, Fault)> {
        self.flaw
    }

    /// How many heads have ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ended
    }

    /// Whether all messages that were begun have ended.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.part == Part::Head && !self.is_in_head()
    }

    /// Whether the beginning of a head was read, and not its end.
    #[must_use]
    pub fn is_in_head(&self) -> bool {
        self.part == Part::Head && (self.head.begun || self.length > 0)
    }

    /// Looks at the next bytes of the stream.
    pub fn look(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.part {
                Part::Lost => return,
                Part::Body(left) => {
                    let left = skip(&mut at, bytes.len(), left);
                    self.part = if left == 0 { Part::Head } else { Part::Body(left) };
                }
                Part::Chunk(left) => {
                    let left = skip(&mut at, bytes.len(), left);
                    self.part = if left == 0 { Part::ChunkEnd } else { Part::Chunk(left) };
                }
                Part::Head | Part::Size | Part::ChunkEnd | Part::Trailer => {
                    let Some(length) = memchr(b'\n', &bytes[at..]) else { return self.keep(&bytes[at..]) };
                    let end = at + length;
                    if let Err(fault) = self.end_line(&bytes[at..end]) {
                        self.flaw = Some((self.ended, fault));
                        self.part = Part::Lost;
                        return;
                    }
                    at = end + 1;
                }
            }
        }
    }

    /// Keeps the beginning of a line.
    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(&bytes[..room]);
        self.length += bytes.len();
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// Reads the line that ends with these bytes, which are followed by LF.
    ///
    /// # Errors
    /// The flaw that it gives to the head, or to the next one if it is not a head's.
    fn end_line(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.length == 0 {
            let Some((b'\r', line)) = bytes.split_last() else { return Err(Fault::BadRequest) };
            return self.read(&line[..line.len().min(LINE)]);
        }
        self.keep(bytes);
        let length = std::mem::take(&mut self.length) - 1;
        if self.last != b'\r' {
            return Err(Fault::BadRequest);
        }
        let mut line = std::mem::take(&mut self.line);
        line.truncate(length);
        let fine = self.read(&line);
        line.clear();
        self.line = line;
        fine
    }

    /// Reads a line, or as much of it as is looked at.
    fn read(&mut self, line: &[u8]) -> Result<(), Fault> {
        match self.part {
            Part::Head if line.is_empty() && !self.head.begun => {}
            Part::Head if line.is_empty() => {
                let head = std::mem::take(&mut self.head);
                if head.ambiguous || head.coded && head.length.is_some() {
                    return Err(Fault::AmbiguousLength);
                }
                self.ended += 1;
                self.part = head.body().ok_or(Fault::BadRequest)?;
            }
            Part::Head => self.head.read(line),
            Part::Size => {
                self.part = match chunk_size(line) {
                    Some(0) => Part::Trailer,
                    Some(size) => Part::Chunk(size),
                    None => return Err(Fault::BadRequest),
                }
            }
            Part::ChunkEnd if line.is_empty() => self.part = Part::Size,
            Part::ChunkEnd => return Err(Fault::BadRequest),
            Part::Trailer if line.is_empty() => self.part = Part::Head,
            Part::Trailer | Part::Body(_) | Part::Chunk(_) | Part::Lost => {}
        }
        Ok(())
    }
}

impl Head {
    /// Reads the request line or a field.
    fn read(&mut self, line: &[u8]) {
        if !self.begun {
            self.begun = true;
            return;
        }
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
            return;
        }
        let Some(colon) = memchr(b':', line) else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            self.ambiguous |= self.length.is_some() || length.is_none() || line.len() >= LINE;
            self.length = length;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = !self.coded && value.eq_ignore_ascii_case(b"chunked");
            self.coded = true;
            // Its end may not have been kept.
            self.ambiguous |= line.len() >= LINE;
        }
    }

    /// What follows this head; nothing that is known after codings that are not one `chunked`, which are refused by
    /// whoever sees the request.
    fn body(&self) -> Option<Part> {
        match (self.coded, self.length) {
            (true, _) => self.chunked.then_some(Part::Size),
            (false, Some(length)) if length > 0 => Some(Part::Body(length)),
            (false, _) => Some(Part::Head),
        }
    }
}

/// Passes over at most `left` bytes, and says how many of them are left.
fn skip(at: &mut usize, end: usize, left: u64) -> u64 {
    let here = u64::try_from(end - *at).unwrap_or(u64::MAX).min(left);
    *at += usize::try_from(here).unwrap_or(end - *at);
    left - here
}

/// None when it is no number, or one that may not have been seen to its end.
fn chunk_size(line: &[u8]) -> Option<u64> {
    if line.len() >= LINE && !line.contains(&b';') {
        return None;
    }
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first flaw when the text comes in pieces of this length.
    fn flaw(text: &str, piece: usize) -> Option<(u64, Fault)> {
        let mut scan = HeadScan::default();
        text.as_bytes().chunks(piece).for_each(|piece| scan.look(piece));
        scan.flaw()
    }

    fn check(text: &str, wanted: Option<(u64, Fault)>) {
        for piece in 1..=text.len() {
            assert_eq!(flaw(text, piece), wanted, "{text:?} in pieces of {piece}");
        }
    }

    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    #[test]
    fn sound_requests_pass() {
        let post = "POST / HTTP/1.1\r\nContent-Length: 4\r\nhost: a\r\n\r\n\n\r\n\n";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n2;x=y\r\n\n\n\r\nA\r\n0123\n56789\r\n0\r\nt: u\r\n\r\n";
        let long = format!("GET / HTTP/1.1\r\ncookie: {}\r\n\r\n", "c".repeat(3 * LINE));
        let flawed = "GET / HTTP/1.1\n\r\n";
        let upgrade = "GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
        let connect = "CONNECT a:1 HTTP/1.1\r\n\r\n";
        for text in [GET, post, chunked, &long, upgrade, connect, "\r\nGET / HTTP/1.1\r\n\r\n"] {
            check(text, None);
            // What comes after it is found, so its end was.
            check(&format!("{text}{GET}{text}{flawed}"), Some((3, Fault::BadRequest)));
        }
    }

    #[test]
    fn ambiguous_requests_do_not() {
        use Fault::{AmbiguousLength, BadRequest};
        let long = format!("GET / HTTP/1.1\r\ncookie: {}\n\r\n", "c".repeat(3 * LINE));
        for (text, fault) in [
            ("GET / HTTP/1.1\nhost: a\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nhost: a\nb: c\r\n\r\n", BadRequest),
            ("GET / HTTP/1.1\r\nhost: a\r\n\n", BadRequest),
            ("GET / HTTP/1.1\r\n\n", BadRequest),
            ("\nGET / HTTP/1.1\r\n\r\n", BadRequest),
            (&long, BadRequest),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", AmbiguousLength),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nCONTENT-LENGTH: 3\r\n\r\n", AmbiguousLength),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n", AmbiguousLength),
            ("POST / HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\n", AmbiguousLength),
        ] {
            check(text, Some((0, fault)));
            check(&format!("{GET}{text}{GET}"), Some((1, fault)));
        }
        for field in ["Transfer-Encoding:", "content-length: 0"] {
            let padded = format!("POST / HTTP/1.1\r\n{field}{}chunked\r\n\r\n", " ".repeat(LINE));
            check(&padded, Some((0, AmbiguousLength)));
        }
    }

    #[test]
    fn after_a_request_without_a_clear_end_there_is_none() {
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        let coded = "POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n";
        for body in ["0\r\nt: u\n\r\n", "0\r\n\n", "0\n", "x\r\n", "1\r\nab\r\n"] {
            check(&format!("{head}{body}"), Some((1, Fault::BadRequest)));
        }
        check(coded, Some((1, Fault::BadRequest)));
    }

    #[test]
    fn what_is_cut_off_of_a_long_line_counts_the_same_however_it_comes() {
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        let zeros = format!("{head}{}5\r\n01234\r\n0\r\n\r\n", "0".repeat(LINE));
        check(&zeros, Some((1, Fault::BadRequest)));
        let extended = format!("{head}5;{}\r\n01234\r\n0\r\n\r\n", "x".repeat(LINE));
        check(&extended, None);
        for length in LINE - 2..=LINE + 1 {
            let field = format!("content-length: {}\r", "0".repeat(length - 17));
            let flaw = (length >= LINE).then_some((0, Fault::AmbiguousLength));
            check(&format!("POST / HTTP/1.1\r\n{}0\r\n\r\n", &field[..field.len() - 1]), flaw);
        }
    }
}
