//! What is found in the bytes of a connection of HTTP/1 does not depend on how they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::{fault::Fault, headers::HeadScan};

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let mut cut = HeadScan::default();
    bytes.chunks(usize::from(piece).max(1)).for_each(|piece| cut.look(piece));
    let mut whole = HeadScan::default();
    whole.look(bytes);
    assert_eq!(found(&cut), found(&whole));
});

type Found = (Option<(u64, Fault)>, u64, bool, bool);

fn found(scan: &HeadScan) -> Found {
    (scan.flaw(), scan.ended(), scan.is_between(), scan.is_in_head())
}
