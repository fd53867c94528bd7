//! Any bytes are read or refused as a response, and where its body ends does not depend on how they are cut.
#![no_main]

use bytes::Bytes;
use http::Method;
use libfuzzer_sys::fuzz_target;
use weft_proxy::message::{Chunks, Framing, Piece, parse_head};

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_head, piece, bytes) = input;
    let method = if is_head { Method::HEAD } else { Method::GET };
    let bytes = Bytes::copy_from_slice(bytes);
    let body = match parse_head(&bytes, &method) {
        Ok(Some(head)) if matches!(head.framing, Framing::Chunked(_)) => bytes.slice(head.length..),
        Ok(Some(head)) => return assert!(head.length <= bytes.len()),
        Ok(None) => return,
        // The rest is more often a body than what follows a head that happens to be one.
        Err(_) => bytes,
    };
    assert_eq!(decode(&body, usize::from(piece).max(1)), decode(&body, body.len().max(1)));
});

/// What comes of a chunked body: its data, and whether it ended; nothing if it is none.
fn decode(body: &Bytes, piece: usize) -> Option<(Vec<u8>, bool)> {
    let (mut chunks, mut data) = (Chunks::default(), Vec::new());
    for piece in body.chunks(piece) {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match chunks.next(&mut piece).ok()? {
                Piece::More => break,
                Piece::Data(bytes) => data.extend_from_slice(&bytes),
                Piece::Trailers(_) | Piece::End => return Some((data, true)),
            }
        }
    }
    Some((data, false))
}
