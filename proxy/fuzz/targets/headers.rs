//! Any bytes are read or refused as a host and as a trace context.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::headers::{Host, TraceContext};

fuzz_target!(|bytes: &[u8]| {
    if let Some(context) = TraceContext::parse(bytes) {
        assert_eq!(TraceContext::parse(&context.to_text()), Some(context));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Host::parse(text);
    }
});
