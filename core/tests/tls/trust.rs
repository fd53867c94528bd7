//! Loading: what a file with certificates, a key or roots may hold, and what is said when it holds something else.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use weft_core::{
    identity::TrustDomain,
    publish::Publisher,
    tls::{
        Bundle, BundleError, Certificate, CertificateError, Credentials, Leaf, LeafError, PemError,
        TlsContext, TlsError,
    },
    wire::Framing,
};

use crate::authority::{Authority, HOUR, Wanted, bundle, identity};

fn pem(chain: &[CertificateDer<'_>]) -> String {
    let block = |der: &CertificateDer<'_>| {
        let body = data_encoding::BASE64.encode(der);
        let lines: Vec<_> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    chain.iter().map(block).collect()
}

#[test]
fn a_certificate_and_its_key_are_read_from_pem() {
    let authority = Authority::new("td");
    let (chain, key) = authority.sign(&Wanted::new(identity("web").as_str()));
    let text = pem(&chain);
    for text in [text.as_str(), text.trim_end(), &text.replace('\n', "\r\n")] {
        let certificate = Certificate::from_pem(text, &key.serialize_pem()).unwrap();
        assert_eq!(*certificate.identity(), identity("web"));
        assert_eq!(certificate.chain().len(), 2);
        assert!(certificate.leaf().serial.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}

#[test]
fn files_that_do_not_go_together_are_told_apart() {
    let authority = Authority::new("td");
    let (chain, key) = authority.sign(&Wanted::new(identity("web").as_str()));
    let (_, other_key) = authority.sign(&Wanted::new(identity("web").as_str()));
    let (text, key) = (pem(&chain), key.serialize_pem());
    let error = Certificate::from_pem(&text, &other_key.serialize_pem()).unwrap_err();
    assert!(
        matches!(&error, CertificateError::Mismatch { identity: whose, .. } if *whose == identity("web")),
        "{error}"
    );
    let error = Certificate::from_pem(&key, &text).unwrap_err().to_string();
    assert!(error.starts_with("certificate file: ") && error.contains("swapped"), "{error}");
    let joined = format!("{}{}", text.trim_end(), text);
    let error = Certificate::from_pem(&joined, &key).unwrap_err();
    assert!(matches!(error, CertificateError::CertificatePem(PemError::MissingNewline { .. })), "{error}");
    let error = Certificate::from_pem(&authority.root_pem(), &key).unwrap_err();
    assert!(matches!(error, CertificateError::Leaf(LeafError::Authority { .. })), "{error}");
    let garbage = PrivateKeyDer::Pkcs8(vec![1, 2, 3].into());
    assert!(matches!(Certificate::new(chain, garbage), Err(CertificateError::Key(_))));
}

#[test]
fn a_bundle_holds_authorities_only_and_each_once() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let domain = || TrustDomain::new("td.mesh").unwrap();
    let text = format!("{}{}{}", one.root_pem(), two.root_pem(), one.root_pem());
    assert_eq!(Bundle::from_pem(domain(), &text).unwrap().roots().len(), 2);
    let (chain, _) = one.sign(&Wanted::new(identity("web").as_str()));
    let error = Bundle::from_pem(domain(), &pem(&chain)).unwrap_err();
    assert!(matches!(error, BundleError::NotAuthority { position: 1, .. }), "{error}");
    assert_eq!(Bundle::new(domain(), []).unwrap_err(), BundleError::Empty(domain()));
    let broken = CertificateDer::from(vec![1, 2, 3]);
    assert_eq!(Bundle::new(domain(), [broken]).unwrap_err(), BundleError::NotX509(1));
}

#[test]
fn the_trust_generation_changes_with_the_roots_and_only_with_them() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let first = Credentials::default().with_bundle(one.bundle("td.mesh"));
    let generation = first.trust_generation();
    let same = first.with_bundle(one.bundle("td.mesh")).with_identity(one.certificate(&identity("web")));
    assert_eq!(same.trust_generation(), generation);
    let changed = same.with_bundle(two.bundle("td.mesh"));
    assert_ne!(changed.trust_generation(), generation);
    let afresh = Credentials::default().with_bundle(two.bundle("td.mesh"));
    assert_eq!(afresh.trust_generation(), changed.trust_generation());
    let both = |order: [&Authority; 2]| Credentials::default().with_bundle(bundle("td.mesh", &order));
    assert_eq!(both([&one, &two]).trust_generation(), both([&two, &one]).trust_generation());
    let elsewhere = Credentials::default().with_bundle(two.bundle("peer.mesh"));
    assert_ne!(elsewhere.trust_generation(), changed.trust_generation());
    let domain = TrustDomain::new("td.mesh").unwrap();
    assert_ne!(changed.clone().without_bundle(&domain).trust_generation(), changed.trust_generation());
}

#[test]
fn dialling_without_a_usable_certificate_is_refused_here_with_the_reason() {
    let authority = Authority::new("td");
    let since = SystemTime::now() - HOUR;
    let expired = Wanted::new(identity("web").as_str()).with(|wanted| wanted.not_after = since);
    let credentials = Credentials::default().with_identity(authority.certificate_as(&expired));
    let publisher = Publisher::new(credentials);
    let context = TlsContext::new(publisher.reader());
    let error = context.client_config(&identity("web"), Framing::Tcp).unwrap_err();
    assert!(matches!(&error, TlsError::Expired { .. }), "{error}");
    let error = context.client_config(&identity("cron"), Framing::Tcp).unwrap_err();
    assert_eq!(error, TlsError::NoCertificate(identity("cron")));
}

#[test]
fn client_configurations_are_kept_until_something_changes() {
    let authority = Authority::new("td");
    let with = |credentials: Credentials| credentials.with_identity(authority.certificate(&identity("web")));
    let again = |credentials: &Credentials| {
        let own = credentials.identity(&identity("web")).unwrap();
        credentials.clone().with_identity(own.as_ref().clone())
    };
    let mut publisher = Publisher::new(with(Credentials::default()));
    let context = TlsContext::new(publisher.reader());
    let config = |framing| context.client_config(&identity("web"), framing).unwrap();
    let first = config(Framing::Http2);
    assert!(std::sync::Arc::ptr_eq(&first, &config(Framing::Http2)));
    assert!(!std::sync::Arc::ptr_eq(&first, &config(Framing::Tcp)));
    assert_eq!(config(Framing::Tcp).alpn_protocols, [b"weft-tcp/1"]);
    assert!(!first.enable_early_data);
    let same = again(&publisher.current());
    publisher.publish(same);
    assert!(std::sync::Arc::ptr_eq(&first, &config(Framing::Http2)));
    let next = with(publisher.current().as_ref().clone());
    publisher.publish(next);
    assert!(!std::sync::Arc::ptr_eq(&first, &config(Framing::Http2)));
}

#[test]
fn a_leaf_says_when_it_is_valid() {
    let authority = Authority::new("td");
    let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let wanted = Wanted::new(identity("web").as_str()).with(|wanted| {
        wanted.not_before = begin;
        wanted.not_after = begin + HOUR;
    });
    let (chain, _) = authority.sign(&wanted);
    let leaf = Leaf::parse(&chain[0]).unwrap();
    assert_eq!((leaf.validity.not_before, leaf.validity.not_after), (begin, begin + HOUR));
    assert_eq!(leaf.validity.to_string(), "2027-01-15T08:00:00Z to 2027-01-15T09:00:00Z");
    let longer = [chain[0].as_ref(), &[0]].concat();
    assert_eq!(Leaf::parse(&longer), Err(LeafError::TrailingBytes { count: 1 }));
}

#[test]
fn a_verdict_is_remembered_no_longer_than_it_holds() {
    let (authority, next) = (Authority::new("td"), Authority::new("next"));
    let mut publisher = Publisher::new(Credentials::default().with_bundle(authority.bundle("td.mesh")));
    let context = TlsContext::new(publisher.reader());
    let (chain, _) = authority.sign(&Wanted::new(identity("web").as_str()));
    let now = UnixTime::now();
    let later = |hours| UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + HOUR * hours);
    let label =
        |chain: &[CertificateDer<'_>], at| context.check_client(chain, at).map_err(|error| error.label());
    for _ in 0..2 {
        assert_eq!(label(&chain, now).unwrap().identity, identity("web"));
    }
    assert_eq!(label(&chain, later(25)), Err("expired"));
    assert_eq!(label(&chain[..1], now), Err("not_signed"));
    assert_eq!(label(&[chain[0].clone(), next.root()], now), Err("not_signed"));
    publisher.publish(Credentials::default().with_bundle(next.bundle("td.mesh")));
    assert_eq!(label(&chain, now), Err("not_signed"));
    publisher.publish(Credentials::default().with_bundle(authority.bundle("td.mesh")));
    assert_eq!(label(&chain, now).unwrap().identity, identity("web"));
}
