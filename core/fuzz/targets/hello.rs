//! A hello from any bytes, cut anywhere: no panic, exactly the frame is taken, and what was read is written alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::wire::{FrameDecoder, HEADER_LENGTH, Hello};

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    if let Ok(hello) = Hello::from_payload(1, bytes) {
        // What cannot be encoded came from a payload longer than a frame.
        if let Ok(again) = hello.encode() {
            let read = Hello::decode(&mut FrameDecoder::default(), &mut again.as_slice()).unwrap().unwrap();
            assert_eq!((&read.service, read.port, &read.instance), (&hello.service, hello.port, &hello.instance));
        }
    }
    let framed = [b"WEFT\x01", bytes].concat();
    for stream in [bytes, &framed] {
        let mut whole = stream;
        let expected = Hello::decode(&mut FrameDecoder::default(), &mut whole);
        let (mut first, second) = stream.split_at(usize::from(cut).min(stream.len()));
        let mut decoder = FrameDecoder::default();
        match Hello::decode(&mut decoder, &mut first) {
            Ok(None) => {
                let mut second = second;
                assert_eq!(Hello::decode(&mut decoder, &mut second), expected);
                if matches!(expected, Ok(Some(_))) {
                    assert_eq!(second, whole);
                    let length = usize::from(u16::from_be_bytes([stream[5], stream[6]]));
                    assert_eq!(stream.len() - whole.len(), HEADER_LENGTH + length);
                }
            }
            // What is refused early names fewer of the wrong bytes.
            Err(_) => assert!(expected.is_err()),
            early => assert_eq!(early, expected),
        }
    }
});
