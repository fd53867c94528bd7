//! Names and identities: what is accepted, and that no two identities share a server name.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::collections::HashMap;

use proptest::prelude::*;
use rustls_pki_types::ServerName;
use weft_core::identity::{SpiffeId, TrustDomain};

/// Segments that tempt an encoder: plain labels, near misses, and its own hashed form.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?",
        "[A-Za-z0-9._-]{1,6}",
        "[a-z0-9-]{60,70}",
        "[0-9]{1,4}",
        "x[a-z2-7]{26}",
        "[A-Za-z0-9._-]{120,128}",
    ]
    .prop_filter("a path segment", |text| text != "." && text != "..")
}

fn domain() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9._-]{1,12}",
        "[a-z]{1,10}(\\.[a-z]{1,10}){0,3}",
        "[a-z0-9._-]{70,80}",
        "x[a-z2-7]{26}"
    ]
}

fn identity() -> impl Strategy<Value = SpiffeId> {
    (domain(), segment(), segment()).prop_map(|(domain, namespace, account)| {
        SpiffeId::new(&TrustDomain::new(&domain).unwrap(), &namespace, &account).unwrap()
    })
}

proptest! {
    #[test]
    fn every_identity_has_a_server_name_that_tls_can_carry(id in identity()) {
        let name = id.server_name();
        prop_assert!(name.len() <= 253);
        prop_assert_eq!(name.to_ascii_lowercase(), name.clone());
        let parsed = ServerName::try_from(name.clone()).unwrap();
        prop_assert!(matches!(parsed, ServerName::DnsName(dns) if dns.as_ref() == name));
    }

    #[test]
    fn different_identities_have_different_server_names(ids in prop::collection::vec(identity(), 2..30)) {
        let mut names: HashMap<String, SpiffeId> = HashMap::new();
        for id in ids {
            if let Some(other) = names.insert(id.server_name(), id.clone()) {
                prop_assert_eq!(other, id);
            }
        }
    }

    #[test]
    fn moving_a_dot_between_the_parts_changes_the_server_name(
        parts in prop::collection::vec("[a-z][a-z0-9]{0,3}", 3..7), first in 1usize..3, second in 1usize..3,
    ) {
        let cut = |at: usize, then: usize| {
            let (account, rest) = parts.split_at(at.min(parts.len() - 2));
            let (namespace, domain) = rest.split_at(then.min(rest.len() - 1));
            let domain = TrustDomain::new(&domain.join(".")).unwrap();
            SpiffeId::new(&domain, &namespace.join("."), &account.join(".")).unwrap()
        };
        let (one, two) = (cut(first, second), cut(second, first));
        prop_assert_eq!(one == two, one.server_name() == two.server_name());
    }

    #[test]
    fn parsing_gives_back_the_parts_and_never_panics(id in identity(), text in "\\PC{0,80}") {
        let again = SpiffeId::parse(id.as_str()).unwrap();
        prop_assert_eq!(&again, &id);
        let made = SpiffeId::new(&again.trust_domain(), again.namespace(), again.account());
        prop_assert_eq!(made.as_ref(), Ok(&id));
        let _ = SpiffeId::parse(&text);
        let _ = SpiffeId::parse(&format!("spiffe://{text}"));
    }
}

#[test]
fn what_is_no_identity_is_refused() {
    let long = "a".repeat(129);
    for wrong in [
        "",
        "spiffe://",
        "SPIFFE://td/ns/a/sa/b",
        "spiffe:///ns/a/sa/b",
        "spiffe://TD/ns/a/sa/b",
        "spiffe://td/ns/a/sa/b/",
        "spiffe://td/ns/a/sa/b?x",
        "spiffe://td/ns/a/sa/b#x",
        "spiffe://td:1/ns/a/sa/b",
        "spiffe://u@td/ns/a/sa/b",
        "spiffe://td/ns//sa/b",
        "spiffe://td/ns/../sa/b",
        "spiffe://td/ns/a/sa/%62",
        "spiffe://td/sa/a/ns/b",
        "spiffe://td/ns/a/sa/é",
        &format!("spiffe://td/ns/{long}/sa/b"),
        &format!("spiffe://{}/ns/a/sa/b", "a".repeat(81)),
    ] {
        assert!(SpiffeId::parse(wrong).is_err(), "{wrong:?} was taken");
    }
}

#[test]
fn known_encodings_stay_as_they_are() {
    for (uri, name) in [
        ("spiffe://prod.example.org/ns/default/sa/web", "web.default.prod.example.org"),
        ("spiffe://td.mesh/ns/weft-system/sa/hub", "hub.weft-system.td.mesh"),
        ("spiffe://td.mesh/ns/default/sa/Web", "xff2rar4euqa6hcaoeikvkduusd.default.td.mesh"),
        ("spiffe://td.mesh/ns/a.b/sa/42", "xondvznakk2hi3kfaixhnceatpy.xfzztnxeoxkd66rzn6vumgvecvp.td.mesh"),
        ("spiffe://td_1/ns/a/sa/b", "b.a.xqozcmmtsokfdecmmdduojxakhe"),
    ] {
        assert_eq!(SpiffeId::parse(uri).unwrap().server_name(), name);
    }
}
