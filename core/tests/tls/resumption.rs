//! Resumed handshakes run no verifier, so everything is checked again.

use std::time::Duration;

use rustls::{NamedGroup, ProtocolVersion};
use rustls_pki_types::UnixTime;
use weft_core::{identity::TrustDomain, tls::Credentials, wire::Framing};

use crate::{
    authority::{Authority, Wanted, bundle, identity},
    meeting::{Agent, Meeting, meet, meet_at},
};

fn agents(authority: &Authority) -> (Agent, Agent) {
    let trusting = || Credentials::default().with_bundle(authority.bundle("td.mesh"));
    let client = trusting()
        .with_identity(authority.certificate(&identity("web")))
        .with_identity(authority.certificate(&identity("cron")));
    (Agent::new(client), Agent::new(trusting().with_identity(authority.certificate(&identity("reviews")))))
}

async fn call(client: &Agent, server: &Agent) -> Meeting {
    meet(client, &identity("web"), &identity("reviews"), server).await
}

/// Two calls, the second of them resumed.
async fn warm(client: &Agent, server: &Agent) {
    let first = call(client, server).await;
    first.assert_spoke();
    assert!(!first.client.resumed());
    assert_eq!(first.client.group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(first.client.version, Some(ProtocolVersion::TLSv1_3));
    assert_eq!(first.server.framing, Some(Framing::Http2));
    let second = call(client, server).await;
    second.assert_spoke();
    assert!(second.client.resumed() && second.server.resumed());
    assert_eq!(second.server.peer.unwrap().identity, identity("web"));
    assert_eq!(second.client.peer.unwrap().identity, identity("reviews"));
}

#[tokio::test]
async fn a_renewed_client_leaf_is_seen_at_once() {
    let authority = Authority::new("td");
    let (mut client, server) = agents(&authority);
    warm(&client, &server).await;
    let renewed = authority.certificate(&identity("web"));
    let serial = renewed.leaf().serial.clone();
    client.change(|credentials| credentials.with_identity(renewed));
    let meeting = call(&client, &server).await;
    meeting.assert_spoke();
    assert!(!meeting.server.resumed());
    assert_eq!(meeting.server.peer.unwrap().serial, serial);
    assert!(call(&client, &server).await.client.resumed());
}

#[tokio::test]
async fn a_renewed_neighbour_leaves_sessions_alone() {
    let authority = Authority::new("td");
    let (mut client, server) = agents(&authority);
    warm(&client, &server).await;
    let renewed = authority.certificate(&identity("cron"));
    client.change(|credentials| credentials.with_identity(renewed));
    assert!(call(&client, &server).await.client.resumed());
}

#[tokio::test]
async fn one_workload_never_resumes_anothers_session() {
    let authority = Authority::new("td");
    let (client, server) = agents(&authority);
    warm(&client, &server).await;
    let meeting = meet(&client, &identity("cron"), &identity("reviews"), &server).await;
    meeting.assert_spoke();
    assert!(!meeting.server.resumed());
    assert_eq!(meeting.server.peer.unwrap().identity, identity("cron"));
}

#[tokio::test]
async fn a_root_removed_at_the_server_ends_resumption() {
    let (authority, next) = (Authority::new("td"), Authority::new("next"));
    let (client, mut server) = agents(&authority);
    warm(&client, &server).await;
    server.change(|credentials| credentials.with_bundle(next.bundle("td.mesh")));
    let meeting = call(&client, &server).await;
    meeting.assert_silent();
    assert!(meeting.server.error.as_ref().unwrap().contains("no root that we trust"), "{meeting:?}");
}

#[tokio::test]
async fn a_root_removed_at_the_client_ends_resumption() {
    let (authority, next) = (Authority::new("td"), Authority::new("next"));
    let (mut client, server) = agents(&authority);
    warm(&client, &server).await;
    client.change(|credentials| credentials.with_bundle(next.bundle("td.mesh")));
    let meeting = call(&client, &server).await;
    meeting.assert_silent();
    assert!(meeting.client.error.as_ref().unwrap().contains("no root that we trust"), "{meeting:?}");
}

#[tokio::test]
async fn a_trust_domain_forgotten_while_the_handshake_is_under_way_is_caught_by_the_check() {
    let authority = Authority::new("td");
    let (client, mut server) = agents(&authority);
    warm(&client, &server).await;
    let meeting = call(&client, &server).await;
    let before = meeting.server.peer.unwrap().trust_generation;
    server.change(|credentials| credentials.without_bundle(&TrustDomain::new("td.mesh").unwrap()));
    assert_ne!(server.publisher.current().trust_generation(), before);
    let chain = client.publisher.current().identity(&identity("web")).unwrap().chain().to_vec();
    let error = server.context.check_client(&chain, UnixTime::now()).unwrap_err();
    assert_eq!(error.label(), "unknown_trust_domain");
}

#[tokio::test]
async fn a_session_that_outlives_its_certificates_is_refused_by_both_sides() {
    let authority = Authority::new("td");
    let (client, server) = agents(&authority);
    warm(&client, &server).await;
    let now = UnixTime::now();
    let in_two_days = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 172_800));
    let (web, reviews) = (identity("web"), identity("reviews"));
    let meeting = meet_at(&client, &web, &reviews, &server, [now, in_two_days]).await;
    assert!(meeting.client.resumed() && meeting.server.resumed(), "{meeting:?}");
    meeting.assert_silent();
    assert!(meeting.server.error.as_ref().unwrap().contains("sa/web expired on"), "{meeting:?}");
    call(&client, &server).await.assert_spoke();
    let meeting = meet_at(&client, &web, &reviews, &server, [in_two_days, now]).await;
    assert!(meeting.client.resumed(), "{meeting:?}");
    meeting.assert_silent();
    assert!(meeting.client.error.as_ref().unwrap().contains("sa/reviews expired on"), "{meeting:?}");
    client.context.forget_sessions(&identity("web"));
    let meeting = call(&client, &server).await;
    assert!(!meeting.client.resumed());
}

#[tokio::test]
async fn tickets_do_not_outlive_the_servers_own_certificate() {
    let authority = Authority::new("td");
    let (client, mut server) = agents(&authority);
    let short = Wanted::new(identity("reviews").as_str())
        .with(|wanted| wanted.not_after = std::time::SystemTime::now() + Duration::from_secs(40));
    server.change(|credentials| credentials.with_identity(authority.certificate_as(&short)));
    let lifetime = server.context.server_config().ticketer.lifetime();
    assert!((30..=40).contains(&lifetime), "{lifetime}");
    warm(&client, &server).await;
}

#[tokio::test]
async fn two_roots_work_at_once_while_one_replaces_the_other() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = || Credentials::default().with_bundle(bundle("td.mesh", &[&old, &new]));
    let mut client = Agent::new(both().with_identity(old.certificate(&identity("web"))));
    let mut server = Agent::new(both().with_identity(new.certificate(&identity("reviews"))));
    call(&client, &server).await.assert_spoke();
    client.change(|credentials| credentials.with_identity(new.certificate(&identity("web"))));
    call(&client, &server).await.assert_spoke();
    for agent in [&mut client, &mut server] {
        agent.change(|credentials| credentials.with_bundle(new.bundle("td.mesh")));
    }
    let meeting = call(&client, &server).await;
    meeting.assert_spoke();
    assert!(!meeting.server.resumed());
}
