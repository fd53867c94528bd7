//! The API server's objects, whatever they say: no panic, nothing that means nothing, no fault that breaks a line.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use weft_core::{identity::TrustDomain, resource::Resource};
use weft_registries::kubernetes::replay;

fuzz_target!(|text: &str| {
    let trust_domain = TrustDomain::new("test.mesh").expect("a constant that is valid");
    let told = replay(text, &trust_domain);
    let origins: BTreeSet<_> = told.iter().map(|(origin, _)| origin).collect();
    assert_eq!(origins.len(), told.len());
    for (_, words) in &told {
        for resource in &words.resources {
            assert!(resource.check().is_ok());
            if let Resource::Endpoint(endpoint) = resource {
                assert!(endpoint.labels.len() <= 64 && !endpoint.address.socket().ip().is_loopback());
            }
        }
        assert!(
            words.faults.iter().all(|fault| !fault.message.contains('\n') && fault.message.len() < 2_000)
        );
    }
});
