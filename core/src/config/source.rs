//! A file's text, and the way from an offset in it to a line and column.

use std::{
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    fault::{Fault, Place},
    mask::masked,
};

/// The longest file that is read, in bytes. Far above any written by hand; keeps a mistaken path from eating memory.
pub const MAX_FILE: u64 = 16 << 20;

/// The index of a line, and the line for a person.
type Shown = (usize, Arc<str>);

/// A named text, with the offsets of its lines.
#[derive(Clone, Debug)]
pub struct SourceFile {
    name: Arc<str>,
    text: String,
    line_starts: Vec<usize>,
    /// The line that was shown last, by its index: a text may have all its faults on one long line.
    shown: Arc<Mutex<Option<Shown>>>,
}

impl SourceFile {
    /// A text under the name that faults will give.
    #[must_use]
    pub fn new(name: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        let breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = [0].into_iter().chain(breaks).collect();
        Self { name: name.into(), line_starts, text, shown: Arc::default() }
    }

    /// Takes over bytes that may not be text.
    ///
    /// # Errors
    /// With the line and column of the first byte that is not UTF-8.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, Box<Fault>> {
        String::from_utf8(bytes).map(|text| Self::new(name, text)).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let fault =
                Fault::error(Self::new(name, text).place(valid..valid + 1), "the file is not UTF-8 text");
            Box::new(fault.expected("expected UTF-8 from here on"))
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is no regular file, is longer than 16 MiB or not UTF-8.
    pub fn read(path: &Path) -> Result<Self, Box<Fault>> {
        let name = path.display().to_string();
        let fault = |message: String| Box::new(Fault::error(Place::whole_file(&name), message));
        let metadata = std::fs::metadata(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
        if !metadata.is_file() {
            return Err(fault("is not a regular file".into()));
        }
        if metadata.len() > MAX_FILE {
            return Err(fault(format!("is longer than {} MiB", MAX_FILE >> 20)));
        }
        let bytes = std::fs::read(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
        Self::from_bytes(&name, bytes)
    }

    /// The name that faults give.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where a range of bytes stands. A range over several lines is cut at the end of its first; one that is out of
    /// the text is moved to its end.
    #[must_use]
    pub fn place(&self, span: Range<usize>) -> Place {
        let start = self.floor(span.start);
        let index = self.line_starts.partition_point(|&line| line <= start).saturating_sub(1);
        let line_start = self.line_starts[index];
        let line = self.text[line_start..].split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let line_end = line_start + line.len();
        let start = start.min(line_end);
        let end = self.floor(span.end).clamp(start, line_end);
        let count = |from: usize, to: usize| self.text[from..to].chars().count();
        Place {
            file: self.name.clone(),
            line: to_u32(index + 1),
            column: to_u32(count(line_start, start) + 1),
            width: to_u32(count(start, end).max(1)),
            line_text: self.shown(index, line),
        }
    }

    /// A line for a person, of which there is one copy however many faults it has.
    fn shown(&self, index: usize, line: &str) -> Arc<str> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shown {
            Some((last, text)) if *last == index => text.clone(),
            _ => shown.insert((index, masked(line).into())).1.clone(),
        }
    }

    /// The nearest boundary of a character at or before `offset`.
    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_not_bytes() {
        let source = SourceFile::new("f", "a = \"ü\"\r\n ö = 3\n");
        let place = source.place(16..17);
        assert_eq!((place.line, place.column, &*place.line_text), (2, 6, " ö = 3"));
        assert_eq!(source.place(900..901).line, 3);
        assert_eq!(source.place(4..14).width, 3);
        assert!(
            Arc::ptr_eq(&source.place(0..1).line_text, &source.place(4..5).line_text),
            "one line, one text"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_line() {
        let fault = SourceFile::from_bytes("f", b"a = 1\nb = \"\xff\"\n".to_vec()).unwrap_err();
        assert_eq!((fault.place.line, fault.place.column), (2, 6));
    }
}
