//! An answer from any payload: no panic, a rule for each, and what was read is written alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::wire::{Answer, FrameDecoder, Retry};

fuzz_target!(|input: (u8, &[u8])| {
    let (version, payload) = input;
    let Ok(answer) = Answer::from_payload(version.max(1), payload) else { return };
    assert_eq!(answer.retry() == Retry::Proceed, matches!(answer, Answer::Accepted { .. }));
    let bytes = answer.encode();
    let again = Answer::decode(&mut FrameDecoder::default(), &mut bytes.as_slice()).unwrap().unwrap();
    assert_eq!((again.code(), again.retry()), (answer.code(), answer.retry()));
});
