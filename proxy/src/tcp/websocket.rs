//! Where frames begin in a stream of WebSocket (RFC 6455 §5.2), so that a Close can be put between two of them.
//!
//! Payloads are passed over without being looked at. A stream that is not what it should be is followed no further: then
//! no boundary is known, and nothing is ever put into it.

/// The longest header: two bytes, eight of length, four of mask.
const LONGEST: usize = 14;
/// The opcode of Close.
const CLOSE: u8 = 8;
/// The status of an endpoint that goes away (RFC 6455 §7.4.1).
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// Who sends the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The client, which masks them.
    Client,
    /// The server, which does not.
    Server,
}

/// How far one direction of a connection has been followed.
#[derive(Debug)]
pub struct Frames {
    sender: Sender,
    header: [u8; LONGEST],
    /// How much of `header` is known.
    known: usize,
    /// What is left of the payload of the frame whose header is known.
    payload: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The beginning of a frame comes next, or the rest of its header.
    Header,
    /// A payload.
    Payload,
    /// Close was sent; nothing may follow.
    Closed,
    /// Not known.
    Lost,
}

impl Frames {
    /// A stream of which nothing was sent.
    #[must_use]
    pub fn new(sender: Sender) -> Self {
        Self { sender, header: [0; LONGEST], known: 0, payload: 0, stage: Stage::Header }
    }

    /// Looks at the next bytes.
    pub fn follow(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() && self.is_known() {
            at += self.step(&bytes[at..]);
        }
    }

    /// Looks at the next bytes up to the first boundary between two frames, and says how many they are; none if there is
    /// no boundary in them.
    pub fn follow_to_boundary(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() && self.is_known() {
            at += self.step(&bytes[at..]);
            if self.is_between() || self.stage == Stage::Closed {
                return Some(at);
            }
        }
        None
    }

    /// Whether the next byte begins a frame.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.stage == Stage::Header && self.known == 0
    }

    /// Whether a boundary may come.
    #[must_use]
    pub fn is_known(&self) -> bool {
        matches!(self.stage, Stage::Header | Stage::Payload)
    }

    /// A Close that says that the sender goes away; only between two frames.
    #[must_use]
    pub fn close(&self) -> Vec<u8> {
        match self.sender {
            Sender::Server => [&[0x80 | CLOSE, 2][..], &GOING_AWAY].concat(),
            Sender::Client => {
                let mask = fastrand::u32(..).to_be_bytes();
                let masked = [GOING_AWAY[0] ^ mask[0], GOING_AWAY[1] ^ mask[1]];
                [&[0x80 | CLOSE, 0x80 | 2][..], &mask, &masked].concat()
            }
        }
    }

    /// Takes at least one of the bytes, none of them of a further frame. Returns how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.stage == Stage::Payload {
            let here = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= here as u64;
            self.end_frame_if_whole();
            return here;
        }
        self.header[self.known] = bytes[0];
        self.known += 1;
        if self.known >= 2 && self.known == self.header_length() {
            self.read_header();
        }
        1
    }

    fn header_length(&self) -> usize {
        let length = match self.header[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        length + if self.header[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn read_header(&mut self) {
        let masked = self.header[1] & 0x80 != 0;
        let [_, _, rest @ ..] = &self.header;
        self.payload = match self.header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([rest[0], rest[1]])),
            127 => rest[..8].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
            short => u64::from(short),
        };
        let known_opcode = matches!(self.header[0] & 0x0f, 0..=2 | 8..=10);
        self.stage = Stage::Payload;
        if masked != (self.sender == Sender::Client) || !known_opcode || self.payload > i64::MAX as u64 {
            self.stage = Stage::Lost;
        }
        self.end_frame_if_whole();
    }

    fn end_frame_if_whole(&mut self) {
        if self.stage == Stage::Payload && self.payload == 0 {
            self.stage = if self.header[0] & 0x0f == CLOSE { Stage::Closed } else { Stage::Header };
            self.known = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sender: Sender, opcode: u8, length: usize) -> Vec<u8> {
        let mask = if sender == Sender::Client { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match length {
            0..126 => frame.push(mask | length as u8),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![7; length + if mask == 0 { 0 } else { 4 }]);
        frame
    }

    #[test]
    fn boundaries_are_found_however_the_bytes_come() {
        for sender in [Sender::Client, Sender::Server] {
            let frames = [0, 1, 125, 126, 65_535, 65_536].map(|length| frame(sender, 2, length));
            for piece in [1, 2, 3, 1000, 1 << 20] {
                let mut followed = Frames::new(sender);
                for frame in &frames {
                    assert!(followed.is_between());
                    let (last, most) = frame.split_last().unwrap();
                    for bytes in most.chunks(piece) {
                        assert_eq!(followed.follow_to_boundary(bytes), None);
                        assert!(!followed.is_between() && followed.is_known());
                    }
                    assert_eq!(followed.follow_to_boundary(&[*last, 0x81]), Some(1));
                }
            }
            let all = frames.concat();
            let mut followed = Frames::new(sender);
            followed.follow(&all);
            assert!(followed.is_between());
            assert_eq!(Frames::new(sender).follow_to_boundary(&all), Some(frames[0].len()));
        }
    }

    #[test]
    fn nothing_follows_a_close_or_what_is_no_frame() {
        for sender in [Sender::Client, Sender::Server] {
            let mut closed = Frames::new(sender);
            closed.follow(&closed.close());
            assert!(!closed.is_between() && !closed.is_known() && closed.stage == Stage::Closed);
            let other = if sender == Sender::Client { Sender::Server } else { Sender::Client };
            for wrong in [frame(other, 1, 5), frame(sender, 3, 5)] {
                let mut lost = Frames::new(sender);
                lost.follow(&wrong);
                lost.follow(&frame(sender, 1, 5));
                assert!(!lost.is_between() && lost.stage == Stage::Lost);
            }
        }
    }

    #[test]
    fn a_close_says_1001() {
        assert_eq!(Frames::new(Sender::Server).close(), [0x88, 2, 0x03, 0xe9]);
        let close = Frames::new(Sender::Client).close();
        let [0x88, 0x82, mask @ .., high, low] = close.as_slice() else { panic!("{close:?}") };
        assert_eq!([high ^ mask[0], low ^ mask[1]], [0x03, 0xe9]);
    }
}
