//! Configuration from any text: no panic, every fault has a place that can be shown, and nothing with an error is used.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::config::{Fault, SourceFile, Style, read_mesh, render};

fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = SourceFile::from_bytes("mesh.toml", bytes.to_vec()) else { return };
    let outcome = read_mesh(&source);
    assert_eq!(outcome.value.is_none(), outcome.faults.iter().any(Fault::is_error));
    for fault in &outcome.faults {
        assert!(fault.place.line >= 1 && fault.place.column >= 1);
        assert!(!render(fault, Style::Plain).is_empty());
    }
});
