//! Certificates that are not what they should be, shown by either side.

use std::time::SystemTime;

use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use tokio::io::AsyncWriteExt;
use weft_core::{identity::SpiffeId, tls::Credentials};

use crate::{
    authority::{Authority, HOUR, Wanted, identity},
    meeting::{Agent, Meeting, accept, meet},
    rogue::{client_config, rogue_answers, rogue_dials},
};

const WEB: &str = "spiffe://td.mesh/ns/default/sa/web";

/// An agent with the workloads `web` and `reviews` in `td.mesh`, which also knows the federated `peer.mesh`.
fn agent(authority: &Authority, peer: &Authority) -> Agent {
    Agent::new(
        Credentials::default()
            .with_identity(authority.certificate(&identity("web")))
            .with_identity(authority.certificate(&identity("reviews")))
            .with_bundle(authority.bundle("td.mesh"))
            .with_bundle(peer.bundle("peer.mesh")),
    )
}

fn wrong_certificates() -> Vec<(&'static str, Wanted, &'static str)> {
    let now = SystemTime::now();
    let web = || Wanted::new(WEB);
    vec![
        (
            "unknown trust domain",
            Wanted::new("spiffe://other.mesh/ns/default/sa/web"),
            "no bundle for its trust domain other.mesh",
        ),
        (
            "signed by another domain's root",
            Wanted::new("spiffe://peer.mesh/ns/default/sa/web"),
            "the bundle of peer.mesh does not bear it out",
        ),
        ("expired", web().with(|w| w.not_after = now - HOUR), "60 minutes ago"),
        ("not yet valid", web().with(|w| w.not_before = now + HOUR), "is not valid before"),
        ("no URI", web().with(|w| w.uris.clear()), "holds no SPIFFE URI"),
        ("two URIs", web().with(|w| w.uris.push(identity("reviews").to_string())), "holds 2 URIs"),
        ("the same URI twice", web().with(|w| w.uris.push(WEB.to_owned())), "holds 2 URIs"),
        ("a URI of another scheme", Wanted::new("https://td.mesh/ns/default/sa/web"), "does not begin with"),
        ("a path of another form", Wanted::new("spiffe://td.mesh/web"), "not of the form"),
        ("a CA", web().with(|w| w.is_authority = true), "certificate authority"),
        (
            "a key that may sign certificates",
            web().with(|w| w.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            "certificate authority",
        ),
        (
            "a key that may sign revocations",
            web().with(|w| w.key_usages.push(KeyUsagePurpose::CrlSign)),
            "certificate authority",
        ),
        (
            "made for e-mail",
            web().with(|w| w.purposes = vec![ExtendedKeyUsagePurpose::EmailProtection]),
            "extended key usage",
        ),
        (
            "without the intermediate",
            web().with(|w| w.without_intermediate = true),
            "no root that we trust signed it",
        ),
    ]
}

#[track_caller]
fn assert_refused(case: &str, meeting: &Meeting, error: Option<&String>, expected: &str) {
    meeting.assert_silent();
    let error = error.unwrap_or_else(|| panic!("{case}: our side let it pass: {meeting:?}"));
    assert!(error.contains(expected), "{case}: {error:?} does not say {expected:?}");
}

#[tokio::test]
async fn a_client_with_a_wrong_certificate_gets_and_gives_nothing() {
    let (authority, peer) = (Authority::new("td"), Authority::new("peer"));
    let server = agent(&authority, &peer);
    for (case, wanted, expected) in wrong_certificates() {
        let config = client_config(Some(authority.raw(&wanted)), &["weft-h2/1"]);
        let meeting = rogue_dials(config, &identity("reviews"), &server).await;
        assert_refused(case, &meeting, meeting.server.error.as_ref(), expected);
    }
    let control = client_config(Some(authority.raw(&Wanted::new(WEB))), &["weft-h2/1"]);
    rogue_dials(control, &identity("reviews"), &server).await.assert_spoke();
}

#[tokio::test]
async fn a_server_with_a_wrong_certificate_gets_and_gives_nothing() {
    let (authority, peer) = (Authority::new("td"), Authority::new("peer"));
    let client = agent(&authority, &peer);
    for (case, wanted, expected) in wrong_certificates() {
        let meeting =
            rogue_answers(&client, &identity("reviews"), &identity("web"), authority.raw(&wanted)).await;
        assert_refused(case, &meeting, meeting.client.error.as_ref(), expected);
    }
}

#[tokio::test]
async fn a_certificate_of_a_root_that_nobody_named_is_refused_on_both_sides() {
    let (authority, peer, stranger) = (Authority::new("td"), Authority::new("peer"), Authority::new("td"));
    let ours = agent(&authority, &peer);
    let expected = "no root that we trust signed it; we have ";
    let config = client_config(Some(stranger.raw(&Wanted::new(WEB))), &["weft-h2/1"]);
    let meeting = rogue_dials(config, &identity("reviews"), &ours).await;
    assert_refused("client", &meeting, meeting.server.error.as_ref(), expected);
    let raw = stranger.raw(&Wanted::new(WEB));
    let meeting = rogue_answers(&ours, &identity("reviews"), &identity("web"), raw).await;
    assert_refused("server", &meeting, meeting.client.error.as_ref(), expected);
}

#[tokio::test]
async fn another_workloads_valid_certificate_does_not_answer_for_the_one_that_was_dialled() {
    let (authority, peer) = (Authority::new("td"), Authority::new("peer"));
    let client = agent(&authority, &peer);
    let other = authority.raw(&Wanted::new(identity("reviews").as_str()));
    let meeting = rogue_answers(&client, &identity("web"), &identity("ratings"), other).await;
    let expected = "expected ratings.default.td.mesh, but spiffe://td.mesh/ns/default/sa/reviews answered";
    assert_refused("neighbour", &meeting, meeting.client.error.as_ref(), expected);
    let foreign = peer.raw(&Wanted::new("spiffe://peer.mesh/ns/default/sa/ratings"));
    let meeting = rogue_answers(&client, &identity("web"), &identity("ratings"), foreign).await;
    assert_refused(
        "namesake of another domain",
        &meeting,
        meeting.client.error.as_ref(),
        "expected ratings.default.td",
    );
}

#[tokio::test]
async fn a_federated_peer_is_known_by_its_own_roots() {
    let (authority, peer) = (Authority::new("td"), Authority::new("peer"));
    let here = agent(&authority, &peer);
    let there_id = SpiffeId::parse("spiffe://peer.mesh/ns/shop/sa/cart").unwrap();
    let there = Agent::new(
        Credentials::default()
            .with_identity(peer.certificate(&there_id))
            .with_bundle(peer.bundle("peer.mesh"))
            .with_bundle(authority.bundle("td.mesh")),
    );
    let meeting = meet(&here, &identity("web"), &there_id, &there).await;
    meeting.assert_spoke();
    assert_eq!(meeting.server.peer.unwrap().identity, identity("web"));
    assert_eq!(meeting.client.peer.unwrap().identity, there_id);
}

#[tokio::test]
async fn who_shows_nothing_or_dials_nobody_is_refused() {
    let (authority, peer) = (Authority::new("td"), Authority::new("peer"));
    let server = agent(&authority, &peer);
    let meeting = rogue_dials(client_config(None, &["weft-h2/1"]), &identity("web"), &server).await;
    assert_refused("nothing", &meeting, meeting.server.error.as_ref(), "showed no certificate");
    let config = client_config(Some(authority.raw(&Wanted::new(WEB))), &["weft-h2/1"]);
    let meeting = rogue_dials(config, &identity("nobody"), &server).await;
    assert_refused("nobody", &meeting, meeting.server.error.as_ref(), "no workload of this agent has");
    let config = client_config(Some(authority.raw(&Wanted::new(WEB))), &["h2"]);
    let meeting = rogue_dials(config, &identity("web"), &server).await;
    meeting.assert_silent();
    let meeting = meet(&server, &identity("web"), &identity("ratings"), &server).await;
    assert_refused("not there", &meeting, meeting.client.error.as_ref(), "no certificate for the identity");
}

#[tokio::test]
async fn a_handshake_without_alpn_is_no_mesh_peers() {
    let (authority, peer) = (Authority::new("td"), Authority::new("peer"));
    let server = agent(&authority, &peer);
    let config = client_config(Some(authority.raw(&Wanted::new(WEB))), &[]);
    let meeting = rogue_dials(config, &identity("reviews"), &server).await;
    assert_eq!(meeting.server.framing, None);
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let (authority, peer) = (Authority::new("td"), Authority::new("peer"));
    let server = agent(&authority, &peer);
    // A ClientHello of TLS 1.2 (RFC 5246 §7.4.1.2): one cipher suite, one signature scheme, one group.
    let extensions = b"\x00\x0d\x00\x04\x00\x02\x04\x03\x00\x0a\x00\x04\x00\x02\x00\x17";
    let mut hello =
        [b"\x03\x03".as_slice(), &[7; 32], b"\x00\x00\x02\xc0\x2b\x01\x00\x00\x10", extensions].concat();
    let length = |count: usize| u8::try_from(count).unwrap();
    hello.splice(0..0, [1, 0, 0, length(hello.len())]);
    hello.splice(0..0, [22, 3, 1, 0, length(hello.len())]);
    let (mut near, far) = tokio::io::duplex(4096);
    near.write_all(&hello).await.unwrap();
    let outcome =
        accept(server.context.server_config(), far, |_| panic!("the handshake was completed")).await;
    assert!(outcome.error.as_ref().unwrap().contains("TLS 1.3 only"), "{outcome:?}");
}
