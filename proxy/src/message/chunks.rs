//! The chunked coding (RFC 9112 §7.1), taken apart.
//!
//! Lines end with CRLF and nothing else. Data is passed on where it lies; only trailers are copied.

use bytes::{Buf, Bytes};
use http::HeaderMap;

use super::{Malformed, response};

/// How many bytes of chunk extensions one body may have (as much as hyper takes); they are dropped.
const EXTENSIONS: usize = 16 << 10;
/// How many bytes the trailers may have.
const TRAILERS: usize = 16 << 10;

/// How far a chunked body was read.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    /// The size of the chunk, then how much of it is left.
    left: u64,
    extensions: usize,
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Begin,
    /// Among the digits.
    Digits,
    /// In blanks after the digits: there are servers that pad.
    Padding,
    /// In extensions.
    Extensions,
    /// After the CR of the line with the size.
    SizeEnd,
    /// In data.
    Data,
    /// After data, before CR.
    DataEnd,
    /// After data and CR.
    DataLine,
    /// After the last chunk.
    Trailers,
    /// After it all.
    End,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// More bytes are needed.
    More,
    /// Data.
    Data(Bytes),
    /// The end, with trailers.
    Trailers(HeaderMap),
    /// The end.
    End,
}

impl Chunks {
    /// Takes the next piece from the front of `bytes`.
    ///
    /// # Errors
    /// That it is no chunked body.
    pub fn next(&mut self, bytes: &mut Bytes) -> Result<Piece, Malformed> {
        loop {
            match self.state {
                State::End => return Ok(Piece::End),
                _ if bytes.is_empty() => return Ok(Piece::More),
                State::Data => {
                    let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                    self.left -= here as u64;
                    if self.left == 0 {
                        self.state = State::DataEnd;
                    }
                    return Ok(Piece::Data(bytes.split_to(here)));
                }
                State::Trailers => {
                    if let Some(end) = self.read_trailers(bytes)? {
                        return Ok(end);
                    }
                }
                _ => {
                    let byte = bytes.get_u8();
                    self.state = self.after(byte)?;
                }
            }
        }
    }

    /// Whether the body ends here, after data, as most do: then there is no need to wait for its end.
    #[must_use]
    pub fn ends(&mut self, bytes: &mut Bytes) -> bool {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        let ends = self.state == State::DataEnd && bytes.starts_with(END);
        if ends {
            bytes.advance(END.len());
            self.state = State::End;
        }
        ends
    }

    /// The state after one byte of what frames the data.
    fn after(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match (self.state, byte) {
            (State::Begin | State::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                let size = self.left.checked_mul(16).and_then(|size| size.checked_add(u64::from(digit)));
                self.left = size.ok_or(Malformed("a chunk's size is too large"))?;
                State::Digits
            }
            (State::Digits | State::Padding, b' ' | b'\t') => State::Padding,
            (State::Digits | State::Padding, b';') => State::Extensions,
            (State::Digits | State::Padding | State::Extensions, b'\r') => State::SizeEnd,
            (State::Extensions, byte) if byte != b'\n' => {
                self.extensions += 1;
                if self.extensions > EXTENSIONS {
                    return Err(Malformed("there are too many chunk extensions"));
                }
                State::Extensions
            }
            (State::SizeEnd, b'\n') if self.left == 0 => State::Trailers,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataEnd, b'\r') => State::DataLine,
            (State::DataLine, b'\n') => State::Begin,
            _ => return Err(Malformed("a chunk is not framed as one")),
        })
    }

    fn read_trailers(&mut self, bytes: &mut Bytes) -> Result<Option<Piece>, Malformed> {
        while !bytes.is_empty() {
            self.trailers.push(bytes.get_u8());
            if self.trailers == b"\r\n" {
                self.state = State::End;
                return Ok(Some(Piece::End));
            }
            if self.trailers.ends_with(b"\r\n\r\n") {
                self.state = State::End;
                let fields = response::fields(&Bytes::from(std::mem::take(&mut self.trailers)))?;
                return Ok(Some(if fields.is_empty() { Piece::End } else { Piece::Trailers(fields) }));
            }
            if self.trailers.len() >= TRAILERS {
                return Err(Malformed("the trailers are too long"));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of the text when it arrives in pieces of this length: data, names of trailers, whether it ended, and
    /// what is left over.
    fn decode(text: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<String>, bool, usize), String> {
        let mut chunks = Chunks::default();
        let (mut data, mut names, mut rest) = (Vec::new(), Vec::new(), Bytes::new());
        let mut taken = 0;
        for piece in text.chunks(piece) {
            rest = Bytes::copy_from_slice(piece);
            taken += piece.len();
            loop {
                match chunks.next(&mut rest).map_err(|error| error.to_string())? {
                    Piece::More => break,
                    Piece::Data(bytes) => data.extend_from_slice(&bytes),
                    Piece::Trailers(fields) => names.extend(fields.keys().map(ToString::to_string)),
                    Piece::End => return Ok((data, names, true, text.len() - taken + rest.len())),
                }
            }
        }
        Ok((data, names, false, rest.len()))
    }

    #[test]
    fn bodies_are_read_however_they_are_cut() {
        for (text, data, names, left) in [
            ("0\r\n\r\n", "", "", 0),
            ("3\r\nabc\r\n0\r\n\r\nHTTP", "abc", "", 4),
            ("3;a=\"b\"\r\na\r\n\r\nA \t\r\n0123456789\r\n00\r\n\r\n", "a\r\n0123456789", "", 0),
            ("1\r\na\r\n0\r\nX-Sum: 1\r\nx-b:\r\n\r\nz", "a", "x-sum,x-b", 1),
        ] {
            for piece in 1..=text.len() {
                let found = decode(text.as_bytes(), piece).unwrap();
                assert_eq!(found, (data.into(), words(names), true, left), "{text:?} by {piece}");
            }
        }
    }

    fn words(names: &str) -> Vec<String> {
        names.split(',').filter(|name| !name.is_empty()).map(String::from).collect()
    }

    #[test]
    fn what_is_not_chunked_is_refused_however_it_is_cut() {
        let long = format!("1;{}\r\na\r\n", "x".repeat(EXTENSIONS + 1));
        let trailers = format!("0\r\na: {}\r\n\r\n", "x".repeat(TRAILERS));
        for text in [
            "\r\n",
            "g\r\n",
            " 1\r\na\r\n",
            "+1\r\na\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "1\r\na\n0\r\n\r\n",
            "1;x\ny\r\na\r\n",
            "ffffffffffffffff1\r\n",
            "0\r\n : x\r\n\r\n",
            "0\r\na b\r\n\r\n",
            "0\r\na: b\n\nHTTP/1.1 200 OK\r\n\r\n",
            &long,
            &trailers,
        ] {
            for piece in [1, 2, 3, 7, text.len()] {
                assert!(decode(text.as_bytes(), piece).is_err(), "{text:?} by {piece}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_data_comes_back(chunks: Vec<Vec<u8>>, piece in 1_usize..40) {
            let mut text = Vec::new();
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&text, piece), Ok((chunks.concat(), Vec::new(), true, 0)));
        }

        #[test]
        fn how_it_is_cut_makes_no_difference(text in "[0-9a-f;:x \r\n]{0,40}", piece in 1_usize..8) {
            let whole = decode(text.as_bytes(), text.len().max(1));
            let cut = decode(text.as_bytes(), piece);
            prop_assert_eq!(whole.is_err(), cut.is_err());
            if let (Ok(whole), Ok(cut)) = (whole, cut) {
                prop_assert_eq!(whole.0, cut.0);
                prop_assert_eq!(whole.2, cut.2);
            }
        }
    }
}
