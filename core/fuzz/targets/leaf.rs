//! A certificate from any bytes: no panic, and what passes names one identity.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::{identity::SpiffeId, tls::Leaf};

fuzz_target!(|der: &[u8]| {
    match Leaf::parse(der) {
        Ok(leaf) => {
            assert_eq!(SpiffeId::parse(leaf.identity.as_str()), Ok(leaf.identity));
            let _ = leaf.validity.to_string();
        }
        Err(error) => drop(error.to_string()),
    }
});
