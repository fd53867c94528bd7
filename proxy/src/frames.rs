//! Empty DATA frames of HTTP/2, hidden from h2.
//!
//! Who sends a body may flush with a DATA frame that has no data and ends nothing (RFC 9113 §6.1). h2 bears a hundred of them in
//! the life of a connection and then ends it, with the requests of all who share it. A frame of a type that nobody knows
//! is ignored (§5.5), so such a frame is given one on its way: nothing is moved, and nothing is kept.

/// What a client says before its first frame (RFC 9113 §3.4): so many bytes.
const PREFACE: u32 = 24;
/// The length of a frame's header.
const HEADER: u8 = 9;
/// Where the type stands in it; the length stands before it.
const TYPE: u8 = 3;
/// Where the flags stand.
const FLAGS: u8 = 4;
/// The flags of DATA that say more than nothing: `END_STREAM` and `PADDED`.
const TELLING: u8 = 0x1 | 0x8;
/// A type of frame that does not exist, and is not reserved for trying out that others cope with it (RFC 8701).
const UNKNOWN: u8 = 0xf7;

/// How far the frames of one side of a connection have been followed, from the first on: a server's by default.
#[derive(Debug, Default)]
pub struct EmptyFrames {
    /// How much of a header is known.
    known: u8,
    /// The length that it tells, and what is left of the payload behind it.
    payload: u32,
    is_data: bool,
}

impl EmptyFrames {
    /// To follow a client's, which come behind its preface.
    #[must_use]
    pub fn behind_preface() -> Self {
        Self { known: HEADER, payload: PREFACE, is_data: false }
    }

    /// Looks at the next bytes, and gives empty DATA frames that end nothing another type. One that is cut between type
    /// and flags passes as it is.
    pub fn hide(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if self.known == HEADER {
                let here = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len() - at);
                // At most the payload, which is of that size.
                self.payload -= u32::try_from(here).unwrap_or(self.payload);
                at += here;
            } else {
                self.read(bytes, at);
                at += 1;
            }
            if self.known == HEADER && self.payload == 0 {
                *self = Self::default();
            }
        }
    }

    /// Reads the byte of a header that stands there.
    fn read(&mut self, bytes: &mut [u8], at: usize) {
        let byte = bytes[at];
        match self.known {
            0..TYPE => self.payload = self.payload << 8 | u32::from(byte),
            TYPE => self.is_data = byte == 0,
            FLAGS if self.is_data && self.payload == 0 && byte & TELLING == 0 && at > 0 => {
                bytes[at - 1] = UNKNOWN
            }
            _ => {}
        }
        self.known += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What comes before the first frame, and who follows it.
    type Side = (&'static [u8], fn() -> EmptyFrames);

    #[test]
    fn only_empty_data_that_ends_nothing_is_hidden() {
        // A payload that looks like an empty frame, one of three bytes of length, and all that is not to be hidden.
        let others = [
            frame(0, 0, &frame(0, 0, b"")),
            frame(0, 0, &vec![0; 70_000]),
            frame(0, 1, b""),
            frame(0, 8, b""),
            frame(1, 4, b""),
            frame(4, 0, b""),
        ];
        let mut sent = Vec::new();
        let mut wanted = Vec::new();
        for other in &others {
            sent.extend([&frame(0, 0, b""), other.as_slice()].concat());
            wanted.extend([&frame(UNKNOWN, 0, b""), other.as_slice()].concat());
        }
        let sides: [Side; 2] =
            [(b"", EmptyFrames::default), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", EmptyFrames::behind_preface)];
        let pieces = [sent.len(), 1000, 10, 5];
        for ((before, frames), piece) in sides.into_iter().flat_map(|side| pieces.map(|piece| (side, piece)))
        {
            let (mut frames, mut seen) = (frames(), [before, &sent].concat());
            let wanted = [before, &wanted].concat();
            seen.chunks_mut(piece).for_each(|piece| frames.hide(piece));
            for (at, (seen, wanted)) in seen.iter().zip(&wanted).enumerate() {
                // What is cut between type and flags passes.
                assert!(seen == wanted || *wanted == UNKNOWN && (at + 1) % piece == 0, "{piece} {at}");
            }
        }
    }
}
