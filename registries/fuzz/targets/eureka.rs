//! Any list of a Eureka server: no panic, what comes out means something, and no fault can write a log's lines.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(listing) = weft_registries::eureka::listing(bytes) else { return };
    for words in listing.values() {
        for resource in &words.resources {
            resource.check().unwrap_or_else(|fault| panic!("{fault}: {resource:?}"));
        }
        for fault in &words.faults {
            assert!(!fault.message.contains('\n') && !fault.place.contains('\n'), "{fault:?}");
        }
    }
});
