//! Where frames end does not depend on how the bytes are cut, and nothing is put into what is no WebSocket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::tcp::websocket::{Frames, Sender};

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_client, piece, bytes) = input;
    let sender = if is_client { Sender::Client } else { Sender::Server };
    let (mut cut, mut whole, mut followed) = (Frames::new(sender), Frames::new(sender), Frames::new(sender));
    let mut seen = Vec::new();
    for (number, piece_of) in bytes.chunks(usize::from(piece).max(1)).enumerate() {
        boundaries(&mut cut, number * usize::from(piece).max(1), piece_of, &mut seen);
    }
    let mut all = Vec::new();
    boundaries(&mut whole, 0, bytes, &mut all);
    assert_eq!(seen, all);
    followed.follow(bytes);
    for frames in [&cut, &whole] {
        assert_eq!(frames.is_between(), followed.is_between());
        assert_eq!(frames.is_known(), followed.is_known());
    }
    if followed.is_between() {
        followed.follow(&followed.close());
        assert!(!followed.is_known() && !followed.is_between());
    }
});

/// Follows the bytes, the first of which is number `offset`, from boundary to boundary.
fn boundaries(frames: &mut Frames, offset: usize, bytes: &[u8], found: &mut Vec<usize>) {
    let mut at = 0;
    while let Some(length) = frames.follow_to_boundary(&bytes[at..]) {
        at += length;
        found.push(offset + at);
    }
}
