//! Answers of name servers, whatever they say: no panic, nothing that means nothing, no fault that breaks a line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::{identity::TrustDomain, resource::Resource};
use weft_registries::dns::replay;

fuzz_target!(|bytes: &[u8]| {
    let trust_domain = TrustDomain::new("test.mesh").expect("a constant that is valid");
    for words in replay(bytes, &trust_domain).values() {
        for resource in &words.resources {
            assert!(resource.check().is_ok(), "{resource:?}");
            if let Resource::Endpoint(endpoint) = resource {
                assert!(endpoint.labels.len() <= 64 && !endpoint.address.socket().ip().is_loopback());
            }
        }
        assert!(
            words.faults.iter().all(|fault| !fault.message.contains('\n') && !fault.place.contains('\n'))
        );
    }
});
