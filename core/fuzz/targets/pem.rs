//! PEM from any text: no panic, and each block has content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::tls::read_pem;

fuzz_target!(|text: &str| {
    match read_pem(text) {
        Ok(blocks) => assert!(blocks.iter().all(|block| !block.content.is_empty())),
        Err(error) => drop(error.to_string()),
    }
});
