//! Names and identities from any text: no panic, and each identity has a server name that TLS can carry.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::ServerName;
use weft_core::{
    identity::{SpiffeId, TrustDomain},
    name::{HostName, InstanceName, ServiceName, WorkloadName},
};

fuzz_target!(|text: &str| {
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert_eq!(SpiffeId::new(&id.trust_domain(), id.namespace(), id.account()).as_ref(), Ok(&id));
        let name = id.server_name();
        assert!(name.len() <= 253);
        assert!(matches!(ServerName::try_from(name), Ok(ServerName::DnsName(_))));
    }
    if let Ok(service) = ServiceName::new(text) {
        assert_eq!(ServiceName::new(&service.to_string()).as_ref(), Ok(&service));
    }
    let _ = (TrustDomain::new(text), HostName::new(text), InstanceName::new(text), WorkloadName::new(text));
});
