use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, PKCS_ECDSA_P384_SHA384, SanType};
use weft_core::control::BACKDATE;
use x509_parser::prelude::FromDer;

use super::*;

fn domain() -> TrustDomain {
    TrustDomain::new("demo.mesh").unwrap()
}

fn identity() -> SpiffeId {
    SpiffeId::new(&domain(), "default", "web").unwrap()
}

fn authority() -> (tempfile::TempDir, AuthorityFolder, Authority) {
    let state = tempfile::tempdir().unwrap();
    let folder = AuthorityFolder::of_state(state.path());
    let now = SystemTime::now();
    folder.initialise(&domain(), now).unwrap();
    let authority = folder.open(DEFAULT_LEAF_LIFETIME, now).unwrap();
    (state, folder, authority)
}

fn request(parameters: CertificateParams, key: &KeyPair) -> Vec<u8> {
    parameters.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn a_leaf_says_what_it_should_and_nothing_the_request_asked_for() {
    let (_state, _folder, authority) = authority();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut wish = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    wish.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    wish.subject_alt_names.push(SanType::URI("spiffe://demo.mesh/ns/default/sa/bank".try_into().unwrap()));
    let request = ProvenRequest::read(&request(wish, &key)).unwrap();
    let now = SystemTime::now();
    let issued = authority.issue(&identity(), &request, now).unwrap();

    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&issued.chain[0]).unwrap();
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(
        matches!(&names[..], [x509_parser::extensions::GeneralName::URI(uri)] if *uri == identity().as_str())
    );
    assert!(!leaf.is_ca());
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && usage.flags.count_ones() == 1);
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.code_signing && !extended.any);
    assert_eq!(leaf.raw_serial().len(), 16);
    assert_eq!(data_encoding::HEXLOWER.encode(leaf.raw_serial()), issued.serial);
    let seconds = |time: SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    assert_eq!(leaf.validity().not_before.timestamp(), seconds(now - BACKDATE));
    assert_eq!(leaf.validity().not_after.timestamp(), seconds(now + DEFAULT_LEAF_LIFETIME));
    let (_, intermediate) = x509_parser::certificate::X509Certificate::from_der(&issued.chain[1]).unwrap();
    leaf.verify_signature(Some(intermediate.public_key())).unwrap();
}

#[test]
fn what_is_no_proven_p256_request_is_refused() {
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let refused = |der: &[u8]| ProvenRequest::read(der).unwrap_err().to_string();
    assert!(refused(&request(CertificateParams::default(), &other)).contains("P-256"));
    assert!(refused(b"hello").contains("refused"));
    assert!(refused(&vec![0x30; 5000]).contains("longer"));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut forged = request(CertificateParams::default(), &key);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(ProvenRequest::read(&forged).is_err(), "the signature is no longer the key's");
}

#[test]
fn identities_of_another_mesh_are_refused() {
    let (_state, _folder, authority) = authority();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = ProvenRequest::read(&request(CertificateParams::default(), &key)).unwrap();
    let foreign = SpiffeId::parse("spiffe://other.mesh/ns/default/sa/web").unwrap();
    let error = authority.issue(&foreign, &request, SystemTime::now()).unwrap_err();
    assert!(matches!(error, IssueError::TrustDomain(..)));
}

#[test]
fn a_root_is_made_once_and_an_old_intermediate_is_renewed_where_the_root_key_is() {
    let (_state, folder, first) = authority();
    let now = SystemTime::now();
    assert!(matches!(folder.initialise(&domain(), now), Err(FolderError::Exists(_))));
    let late = now + Duration::from_secs(300 * 24 * 3600);
    let renewed = folder.open(DEFAULT_LEAF_LIFETIME, late).unwrap();
    assert_ne!(renewed.above, first.above);
    assert_eq!(renewed.roots(), first.roots());
    std::fs::remove_file(folder.path().join("root.key")).unwrap();
    let later = late + Duration::from_secs(300 * 24 * 3600);
    let kept = folder.open(DEFAULT_LEAF_LIFETIME, later).unwrap();
    assert_eq!(kept.above, renewed.above, "without the root's key it stays");
}

#[test]
fn a_leaf_never_outlives_its_intermediate() {
    let (_state, _folder, authority) = authority();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = ProvenRequest::read(&request(CertificateParams::default(), &key)).unwrap();
    let near = authority.intermediate_ends() - Duration::from_secs(60);
    assert_eq!(
        authority.issue(&identity(), &request, near).unwrap().not_after,
        authority.intermediate_ends()
    );
    let over = authority.issue(&identity(), &request, authority.intermediate_ends());
    assert!(matches!(over, Err(IssueError::Expired)));
}

/// Whether a bundle of these roots bears a leaf out.
fn is_trusted(chain: &[CertificateDer<'static>], key: &KeyPair, roots: &[CertificateDer<'static>]) -> bool {
    let bundle = weft_core::tls::Bundle::new(domain(), roots.iter().cloned()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let certificate = weft_core::tls::Certificate::new(chain.to_vec(), key).unwrap();
    bundle.root_of(&certificate, SystemTime::now()).is_some()
}

#[test]
fn a_new_root_is_trusted_by_who_knows_only_the_old_one_until_that_is_withdrawn() {
    let (_state, folder, before) = authority();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = ProvenRequest::read(&request(CertificateParams::default(), &key)).unwrap();
    let now = SystemTime::now();
    let issue = |authority: &Authority| authority.issue(&identity(), &request, now).unwrap().chain;
    let (old_roots, old_leaf) = (before.roots().to_vec(), issue(&before));
    assert!(matches!(folder.retire(), Err(FolderError::NotRotating)));

    let rotation = folder.rotate(now).unwrap();
    let during = folder.open(DEFAULT_LEAF_LIFETIME, now).unwrap();
    let new_roots = [rotation.new.clone()];
    assert_eq!(during.roots(), [rotation.new.clone(), old_roots[0].clone()], "the one that signs is first");
    assert_eq!(rotation.old.as_ref(), Some(&old_roots[0]));
    let new_leaf = issue(&during);
    for (leaf, roots, trusted) in [
        (&new_leaf, &old_roots[..], true),
        (&new_leaf, &new_roots[..], true),
        (&old_leaf, during.roots(), true),
        (&old_leaf, &new_roots[..], false),
    ] {
        assert_eq!(is_trusted(leaf, &key, roots), trusted);
    }
    assert_eq!(folder.rotate(now).unwrap(), rotation, "a second call changes nothing");
    folder.renew_intermediate(now).unwrap();
    let renewed = folder.open(DEFAULT_LEAF_LIFETIME, now).unwrap();
    assert_eq!(
        renewed.roots(),
        during.roots(),
        "an intermediate that is renewed meanwhile is the new root's"
    );

    folder.retire().unwrap();
    let after = folder.open(DEFAULT_LEAF_LIFETIME, now).unwrap();
    assert_eq!(after.roots(), new_roots);
    assert!(is_trusted(&issue(&after), &key, &new_roots) && !is_trusted(&issue(&after), &key, &old_roots));
    assert_eq!(folder.rotation().unwrap(), None);
    folder.rotate(now).expect("the new root can be replaced in its turn");
}

#[test]
fn a_rotation_that_a_crash_interrupted_goes_on_where_it_was() {
    let (_state, folder, before) = authority();
    let now = SystemTime::now();
    let file = |name: &str| folder.path().join(name);
    let [bundle, intermediate] =
        ["bundle.pem", "intermediate.pem"].map(|name| std::fs::read(file(name)).unwrap());
    let rotation = folder.rotate(now).unwrap();
    // As after a crash behind the first write, and then behind the second.
    std::fs::write(file("intermediate.pem"), &intermediate).unwrap();
    assert!(matches!(folder.retire(), Err(FolderError::NotSigning)));
    let both = folder.open(DEFAULT_LEAF_LIFETIME, now).unwrap();
    assert_eq!(both.roots(), [before.roots()[0].clone(), rotation.new.clone()], "the old one still signs");
    std::fs::write(file("bundle.pem"), &bundle).unwrap();
    assert_eq!(folder.open(DEFAULT_LEAF_LIFETIME, now).unwrap().roots(), before.roots());
    assert_eq!(folder.rotate(now).unwrap(), rotation);

    // The same for the withdrawal: the root's files are the new one's, and nothing else has happened.
    std::fs::remove_file(file("root.key")).unwrap();
    assert!(matches!(folder.renew_intermediate(now), Ok(())), "the next root's key is at hand");
    folder.retire().unwrap();
    std::fs::remove_file(file("root.key")).unwrap();
    assert!(matches!(folder.rotate(now), Err(FolderError::NoRootKey(_))));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]
    #[test]
    fn no_bytes_make_the_reader_of_requests_panic(
        edits in proptest::collection::vec((0usize..400, proptest::prelude::any::<u8>()), 1..6),
        cut in 0usize..400,
    ) {
        static WISH: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let wish = WISH.get_or_init(|| {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            let mut wish = CertificateParams::new(vec!["a.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
            wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
            request(wish, &key)
        });
        let mut bytes = wish.clone();
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = ProvenRequest::read(&bytes);
        bytes.truncate(cut % bytes.len());
        proptest::prop_assert!(ProvenRequest::read(&bytes).is_err());
    }
}

/// The chain of a leaf that a hub's folder signs, checked signature by signature up to one of these roots.
fn leads_to(folder: &AuthorityFolder, roots: &[CertificateDer<'_>]) -> bool {
    let now = SystemTime::now();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let request = ProvenRequest::read(&request(CertificateParams::default(), &key)).unwrap();
    let authority = folder.open(DEFAULT_LEAF_LIFETIME, now).unwrap();
    let chain = authority.issue(&identity(), &request, now).unwrap().chain;
    let parsed = |der: &'static [u8]| x509_parser::certificate::X509Certificate::from_der(der).unwrap().1;
    let certificates: Vec<_> = chain.iter().chain(roots).map(|der| parsed(der.to_vec().leak())).collect();
    let (chain, roots) = certificates.split_at(chain.len());
    for pair in chain.windows(2) {
        pair[0].verify_signature(Some(pair[1].public_key())).unwrap();
    }
    let last = chain.last().unwrap();
    roots.iter().any(|root| last.verify_signature(Some(root.public_key())).is_ok())
}

#[test]
fn a_further_hub_signs_under_the_same_root_also_while_another_replaces_it() {
    let (_state, first, _) = authority();
    let state = tempfile::tempdir().unwrap();
    let second = AuthorityFolder::of_state(state.path());
    let now = SystemTime::now();
    first.make_hub(&second, now).unwrap();
    let old = first.roots().unwrap();
    assert_eq!(second.roots().unwrap(), old);
    assert!(leads_to(&second, &old));
    assert!(!second.file("root.key").exists() && second.root_key().is_err());
    let own = |folder: &AuthorityFolder| folder.read_intermediate().unwrap().0;
    assert_ne!(own(&first), own(&second), "an intermediate of its own");

    // Who knows only the old root trusts what the second hub signs, before and after it is renewed.
    first.rotate(now).unwrap();
    first.make_hub(&second, now).unwrap();
    assert_eq!(second.roots().unwrap().len(), 2);
    assert!(leads_to(&second, &old));
    first.retire().unwrap();
    first.make_hub(&second, now).unwrap();
    assert_eq!(second.roots().unwrap(), first.roots().unwrap());
    assert!(leads_to(&second, &first.roots().unwrap()) && !leads_to(&second, &old));

    // Neither another mesh's hub nor one that has a root is overwritten.
    let (_other_state, other, _) = authority();
    assert!(matches!(first.make_hub(&other, now), Err(FolderError::Exists(_))));
    let state = tempfile::tempdir().unwrap();
    let foreign = AuthorityFolder::of_state(state.path());
    foreign.initialise(&TrustDomain::new("other.mesh").unwrap(), now).unwrap();
    std::fs::remove_file(foreign.file("root.key")).unwrap();
    assert!(matches!(first.make_hub(&foreign, now), Err(FolderError::Exists(_))));
}
