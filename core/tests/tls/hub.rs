//! The hub's port: joining by a pinned root, then by the bundle.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::duplex;
use weft_core::{
    identity::{SpiffeId, TrustDomain},
    tls::{Credentials, Peer, PeerError, RootPin, pinned_hub_client_config},
};

use crate::{
    authority::{Authority, bundle, identity},
    meeting::{Agent, Meeting, accept, dial},
};

fn domain() -> TrustDomain {
    TrustDomain::new("td.mesh").unwrap()
}

fn hub_agent(authority: &Authority, roots: &[&Authority], who: &SpiffeId) -> Agent {
    Agent::new(
        Credentials::default()
            .with_bundle(bundle("td.mesh", roots))
            .with_identity(authority.certificate(who)),
    )
}

/// Someone who is let through unchecked; the tests look at what the handshake itself refuses.
fn unchecked(_: &[CertificateDer<'_>]) -> Result<Peer, PeerError> {
    let not_after = std::time::SystemTime::now();
    Ok(Peer { identity: SpiffeId::hub(&domain()), serial: String::new(), not_after, trust_generation: 0 })
}

async fn call(config: Arc<ClientConfig>, hub: &Agent, who: &SpiffeId) -> Meeting {
    let (near, far) = duplex(64 * 1024);
    let (client, server) = tokio::join!(
        dial(config, SpiffeId::hub(&domain()).server_name(), near, unchecked),
        accept(hub.context.hub_server_config(who), far, unchecked),
    );
    Meeting { client, server }
}

#[tokio::test]
async fn whoever_joins_knows_the_hub_by_the_pinned_root() {
    let (authority, next) = (Authority::new("td"), Authority::new("next"));
    let who = SpiffeId::hub(&domain());
    let pin = RootPin::of(&authority.root());
    assert_eq!(pin.to_string().parse(), Ok(pin));
    for roots in [&[&authority][..], &[&next, &authority]] {
        let hub = hub_agent(&authority, roots, &who);
        call(pinned_hub_client_config(pin, &domain()), &hub, &who).await.assert_spoke();
    }
}

#[tokio::test]
async fn a_hub_of_another_root_or_with_another_name_is_not_joined() {
    let (authority, stranger) = (Authority::new("td"), Authority::new("td"));
    let who = SpiffeId::hub(&domain());
    let pin = RootPin::of(&authority.root());
    let refuses = |meeting: Meeting, expected: &str| {
        meeting.assert_silent();
        let error = meeting.client.error.unwrap();
        assert!(error.contains(expected), "{error}");
    };
    let hub = hub_agent(&stranger, &[&stranger], &who);
    refuses(call(pinned_hub_client_config(pin, &domain()), &hub, &who).await, "does not hold the root");
    let forger = hub_agent(&stranger, &[&stranger, &authority], &who);
    refuses(call(pinned_hub_client_config(pin, &domain()), &forger, &who).await, "no root that we trust");
    let workload = hub_agent(&authority, &[&authority], &identity("web"));
    refuses(
        call(pinned_hub_client_config(pin, &domain()), &workload, &identity("web")).await,
        "sa/web answered",
    );
}

#[tokio::test]
async fn a_joined_agent_knows_the_hub_by_the_bundle_and_shows_who_it_is() {
    let authority = Authority::new("td");
    let who = SpiffeId::hub(&domain());
    let hub = hub_agent(&authority, &[&authority], &who);
    let node = SpiffeId::parse("spiffe://td.mesh/ns/weft-system/sa/node-1").unwrap();
    let agent = hub_agent(&authority, &[&authority], &node);
    let (near, far) = duplex(64 * 1024);
    let now = UnixTime::now();
    let (client, server) = tokio::join!(
        dial(agent.context.hub_client_config(&node).unwrap(), who.server_name(), near, |chain| {
            agent.context.check_server(chain, &who, now)
        }),
        accept(hub.context.hub_server_config(&who), far, |chain| hub.context.check_client(chain, now)),
    );
    let meeting = Meeting { client, server };
    meeting.assert_spoke();
    assert_eq!(meeting.server.peer.unwrap().identity, node);
}

#[tokio::test]
async fn a_wrong_certificate_is_refused_though_none_would_do() {
    let (authority, stranger) = (Authority::new("td"), Authority::new("td"));
    let who = SpiffeId::hub(&domain());
    let hub = hub_agent(&authority, &[&authority], &who);
    let node = SpiffeId::parse("spiffe://td.mesh/ns/weft-system/sa/node-1").unwrap();
    let forger = hub_agent(&stranger, &[&authority], &node);
    let meeting = call(forger.context.hub_client_config(&node).unwrap(), &hub, &who).await;
    meeting.assert_silent();
    assert!(meeting.server.error.unwrap().contains("no root that we trust"));
}
