//! Nothing but the types of empty DATA frames is changed, however the bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::frames::EmptyFrames;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, sent) = input;
    let hide = |piece: usize| {
        let (mut frames, mut seen) = (EmptyFrames::default(), sent.to_vec());
        seen.chunks_mut(piece).for_each(|piece| frames.hide(piece));
        seen
    };
    let (whole, cut) = (hide(sent.len().max(1)), hide(usize::from(piece).max(1)));
    for (at, (after, before)) in whole.iter().zip(sent).enumerate() {
        if after != before {
            assert_eq!(sent[at - 3..=at], [0; 4]);
            assert_eq!(sent[at + 1] & 0x9, 0);
        }
        assert!(cut[at] == *after || cut[at] == *before);
    }
});
