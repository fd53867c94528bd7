//! Any text is refused or brought into a form that a second pass leaves alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::normalise::{EncodedSlash, normalise};

fuzz_target!(|path: &str| {
    for slashes in [EncodedSlash::Keep, EncodedSlash::Refuse] {
        if let Ok(once) = normalise(path, slashes) {
            assert_eq!(normalise(&once, slashes).as_ref(), Ok(&once));
            assert!(!once.split('/').any(|segment| segment == "." || segment == ".."));
            assert!(!once.contains("//") && !once.contains('\\'));
        }
    }
});
