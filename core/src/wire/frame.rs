//! The frame around hello and answer: `WEFT`, one byte of version, two of length (big-endian), that many of payload.

use super::WireError;

/// Bytes before the payload.
pub const HEADER_LENGTH: usize = 7;
/// The longest frame, header included.
pub const MAX_FRAME: usize = 4096;
/// The longest payload.
pub const MAX_PAYLOAD: usize = MAX_FRAME - HEADER_LENGTH;

const MAGIC: [u8; 4] = *b"WEFT";

/// Collects one frame from bytes as they come.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    collected: Vec<u8>,
}

/// How far a [`FrameDecoder`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// At least this many bytes are missing. Read no more than that: what follows the frame is not ours.
    Missing(usize),
    /// The frame is complete.
    Frame {
        /// The version it is written in, from 1.
        version: u8,
        /// Its payload.
        payload: Vec<u8>,
    },
}

impl FrameDecoder {
    /// Takes bytes from the front of `input`, as many as belong to the frame, and moves `input` past them. After a
    /// frame the decoder is as new.
    ///
    /// # Errors
    /// As soon as the bytes cannot become a frame. The connection is of no use then.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Step, WireError> {
        loop {
            let missing = self.missing()?;
            if missing == 0 {
                let version = self.collected[4];
                let payload = std::mem::take(&mut self.collected).split_off(HEADER_LENGTH);
                return Ok(Step::Frame { version, payload });
            }
            if input.is_empty() {
                return Ok(Step::Missing(missing));
            }
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.collected.extend_from_slice(taken);
            *input = rest;
        }
    }

    /// How many bytes must come next: the rest of the header, then the rest of the payload, then none.
    fn missing(&self) -> Result<usize, WireError> {
        let have = self.collected.len();
        let begun = have.min(MAGIC.len());
        if self.collected[..begun] != MAGIC[..begun] {
            let mut found = [0; 4];
            found[..begun].copy_from_slice(&self.collected[..begun]);
            return Err(WireError::Magic(found));
        }
        if have < HEADER_LENGTH {
            return Ok(HEADER_LENGTH - have);
        }
        if self.collected[4] == 0 {
            return Err(WireError::VersionZero);
        }
        let length = usize::from(u16::from_be_bytes([self.collected[5], self.collected[6]]));
        if length > MAX_PAYLOAD {
            return Err(WireError::TooLong(length));
        }
        Ok(HEADER_LENGTH + length - have)
    }
}

/// Puts a payload into a frame.
pub(super) fn encode_frame(version: u8, payload: &[u8]) -> Result<Vec<u8>, WireError> {
    let too_long = || WireError::TooLong(payload.len());
    let length = u16::try_from(payload.len()).map_err(|_| too_long())?;
    if payload.len() > MAX_PAYLOAD {
        return Err(too_long());
    }
    let mut frame = Vec::with_capacity(HEADER_LENGTH + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.push(version);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_become_a_frame_is_refused_at_once() {
        let feed = |bytes: &[u8]| FrameDecoder::default().feed(&mut { bytes });
        assert_eq!(feed(b"WE"), Ok(Step::Missing(5)));
        assert_eq!(feed(b"WX"), Err(WireError::Magic(*b"WX\0\0")));
        assert_eq!(feed(b"GET / HTTP/1.1"), Err(WireError::Magic(*b"GET ")));
        assert_eq!(feed(b"WEFT\x00\x00\x00"), Err(WireError::VersionZero));
        assert_eq!(feed(b"WEFT\x01\x0f\xf9"), Ok(Step::Missing(MAX_PAYLOAD)));
        assert_eq!(feed(b"WEFT\x01\x0f\xfa"), Err(WireError::TooLong(MAX_PAYLOAD + 1)));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_frame_and_leaves_the_rest(
            version in 1u8..,
            payload in prop::collection::vec(any::<u8>(), 0..300),
            rest in prop::collection::vec(any::<u8>(), 0..50),
            cuts in prop::collection::vec(1usize..40, 1..40),
        ) {
            let mut bytes = encode_frame(version, &payload).unwrap();
            bytes.extend_from_slice(&rest);
            let (mut decoder, mut sent, mut cuts) = (FrameDecoder::default(), 0, cuts.into_iter().cycle());
            let mut left: &[u8] = &[];
            let frame = loop {
                if left.is_empty() {
                    let next = (sent + cuts.next().unwrap()).min(bytes.len());
                    left = &bytes[sent..next];
                    sent = next;
                }
                match decoder.feed(&mut left).unwrap() {
                    Step::Missing(_) => prop_assert!(sent < bytes.len()),
                    frame => break frame,
                }
            };
            prop_assert_eq!(frame, Step::Frame { version, payload });
            prop_assert_eq!([left, &bytes[sent..]].concat(), rest);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let _ = FrameDecoder::default().feed(&mut bytes.as_slice());
            let _ = FrameDecoder::default().feed(&mut [b"WEFT\x01", bytes.as_slice()].concat().as_slice());
        }
    }
}
