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
    assert_ne!(renewed.intermediate, first.intermediate);
    assert_eq!(renewed.roots(), first.roots());
    std::fs::remove_file(folder.path().join("root.key")).unwrap();
    let later = late + Duration::from_secs(300 * 24 * 3600);
    let kept = folder.open(DEFAULT_LEAF_LIFETIME, later).unwrap();
    assert_eq!(kept.intermediate, renewed.intermediate, "without the root's key it stays");
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
