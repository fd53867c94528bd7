//! The agent's end of the control stream against a hub that says what a test wants, over real sockets with real TLS: what
//! a hub that is slow, silent or unreadable may hold up, and for how long.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../core/tests/tls/authority.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod authority;
mod outages;
#[path = "../support/scripted_hub.rs"]
mod scripted_hub;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{task::JoinHandle, time};
use weft_core::{
    control::{
        VERSIONS, discovery,
        message::{
            Certificate, ClientWord, Discovery, JoinRequest, RegistryState, RegistryStates, ServerWord,
            Subscribe,
        },
    },
    name::RegistryName,
    registry::{Event, Registry, RegistryError, Scope},
};
use weft_registries::hub::{
    CertificateFault, HubLink, HubRegistry, JoinError, LinkState, RelayedStates, join,
};

use authority::identity;
use scripted_hub::{Call, DEADLINE, Hub, Mesh, Stream};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Lets time pass at once, and everybody act on it. Who waits for a socket waits in real time.
async fn pass(span: Duration) {
    time::pause();
    time::advance(span).await;
    time::resume();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn until(link: &HubLink, is_so: impl FnMut(&LinkState) -> bool) -> LinkState {
    let mut state = link.state();
    let state = time::timeout(DEADLINE, state.wait_for(is_so)).await.expect("in time").unwrap();
    state.clone()
}

async fn connected(link: &HubLink) {
    until(link, |state| matches!(state, LinkState::Connected { .. })).await;
}

/// Why the link is away, once it is.
async fn away(link: &HubLink) -> String {
    match until(link, |state| matches!(state, LinkState::Away { .. })).await {
        LinkState::Away { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// A hub, a link that it has welcomed, and their stream.
async fn linked() -> (Hub, HubLink, Stream) {
    let mesh = Mesh::new();
    let mut hub = mesh.hub().await;
    let link = mesh.link(&hub.address);
    let mut stream = hub.stream().await;
    stream.welcome().await;
    connected(&link).await;
    (hub, link, stream)
}

type Asked = JoinHandle<Result<Vec<Bytes>, CertificateFault>>;

fn ask(link: &HubLink, account: &str) -> Asked {
    let (link, identity) = (link.clone(), identity(account));
    tokio::spawn(async move { link.certificate(identity, Bytes::from_static(b"a request")).await })
}

/// What became of a request.
async fn answered(asked: Asked) -> Result<Vec<Bytes>, CertificateFault> {
    time::timeout(DEADLINE, asked).await.expect("in time").unwrap()
}

/// The number of the next request for a certificate, and whose it is to be.
async fn asked_for(stream: &mut Stream) -> (u64, String) {
    stream
        .hear(|word| match word {
            ClientWord::CertificateRequest(request) => Some((request.request, request.identity)),
            _ => None,
        })
        .await
}

async fn give(stream: &mut Stream, request: u64, certificate: &'static [u8]) {
    let chain = vec![Bytes::from_static(certificate)];
    stream.say(ServerWord::Certificate(Certificate { request, chain })).await;
}

async fn subscribed(stream: &mut Stream) -> Subscribe {
    stream
        .hear(|word| match word {
            ClientWord::Subscribe(subscribe) => Some(subscribe),
            _ => None,
        })
        .await
}

async fn relay(stream: &mut Stream, subscription: u64, event: Bytes) -> u64 {
    let (registry, part) = ("static".to_owned(), String::new());
    stream.say(ServerWord::Discovery(Discovery { subscription, registry, part, events: vec![event] })).await
}

fn registry(link: &HubLink) -> HubRegistry {
    HubRegistry::new(RegistryName::new("hub").unwrap(), link.clone())
}

fn scope() -> Scope {
    Scope::whole(RegistryName::new("hub").unwrap())
}

#[tokio::test]
async fn a_hub_that_never_welcomes_holds_nobody_up_for_longer_than_its_time() {
    let mesh = Mesh::new();
    let mut hub = mesh.hub().await;
    let link = mesh.link(&hub.address);
    let mut stream = hub.stream().await;
    let hello =
        stream.hear(|word| if let ClientWord::Hello(hello) = word { Some(hello) } else { None }).await;
    assert_eq!((hello.node.as_str(), hello.highest_version), ("one", VERSIONS.1));
    let asked = ask(&link, "web");
    pass(5 * SECOND).await;
    assert_eq!(*link.state().borrow(), LinkState::Connecting, "it may take its time");
    assert!(!asked.is_finished());
    pass(5 * SECOND + MILLISECOND).await;
    let reason = away(&link).await;
    assert!(reason.contains("did not welcome us within 10 s"), "{reason}");
    assert_eq!(answered(asked).await, Err(CertificateFault::Away(reason)));

    let mut stream = hub.stream().await;
    stream.welcome().await;
    connected(&link).await;
}

#[tokio::test]
async fn a_certificate_that_does_not_come_is_given_up_and_the_stream_goes_on() {
    let (mut hub, link, mut stream) = linked().await;
    let forgotten = ask(&link, "web");
    let (first, _) = asked_for(&mut stream).await;
    pass(20 * SECOND).await;
    assert!(!forgotten.is_finished());
    pass(10 * SECOND + MILLISECOND).await;
    let fault = answered(forgotten).await.unwrap_err();
    assert!(fault.is_passing() && fault.to_string().contains("no answer within 30 s"), "{fault}");

    let asked = ask(&link, "reviews");
    let (second, whose) = asked_for(&mut stream).await;
    assert_eq!(whose, identity("reviews").to_string());
    give(&mut stream, first, b"too late").await;
    give(&mut stream, second, b"in time").await;
    assert_eq!(answered(asked).await, Ok(vec![Bytes::from_static(b"in time")]));
    assert!(hub.is_alone(), "there was one stream all along");
}

#[tokio::test]
async fn discovery_that_cannot_be_read_ends_nothing_but_itself() {
    let (mut hub, link, mut stream) = linked().await;
    let asked = ask(&link, "web");
    let (request, _) = asked_for(&mut stream).await;

    let registry = registry(&link);
    let mut watch = registry.watch(scope(), None);
    let say = async {
        let subscription = subscribed(&mut stream).await.subscription;
        (relay(&mut stream, subscription, Bytes::from_static(b"\xff")).await, subscription)
    };
    let ((sequence, first), word) = tokio::join!(say, time::timeout(DEADLINE, watch.next()));
    assert!(matches!(word, Ok(Some(Err(RegistryError::Malformed(_))))), "{word:?}");
    let through = |word| if let ClientWord::Acknowledge(ack) = word { Some(ack.sequence) } else { None };
    assert_eq!(stream.hear(through).await, sequence, "the hub's window is not used up");
    give(&mut stream, request, b"nevertheless").await;
    assert_eq!(answered(asked).await, Ok(vec![Bytes::from_static(b"nevertheless")]));

    let mut watch = registry.watch(scope(), None);
    let say = async {
        let subscription = subscribed(&mut stream).await.subscription;
        assert_ne!(subscription, first);
        relay(&mut stream, first, Bytes::from_static(b"\xff")).await;
        relay(&mut stream, subscription, discovery::encode_reset()).await;
    };
    let ((), word) = tokio::join!(say, time::timeout(DEADLINE, watch.next()));
    assert!(matches!(word, Ok(Some(Ok(Event::Reset { .. })))), "{word:?}");
    assert!(hub.is_alone(), "there was one stream all along");
}

#[tokio::test]
async fn what_waits_for_a_watch_that_ends_does_not_use_up_the_hubs_window() {
    for is_replaced in [false, true] {
        let (_hub, link, mut stream) = linked().await;
        let registry = registry(&link);
        let mut watch = registry.watch(scope(), None);
        // More than anybody takes who has stopped to ask.
        let events = vec![discovery::encode_reset(); 1000];
        let say = async {
            let subscription = subscribed(&mut stream).await.subscription;
            let (registry, part) = ("static".to_owned(), String::new());
            stream.say(ServerWord::Discovery(Discovery { subscription, registry, part, events })).await
        };
        let (sequence, word) = tokio::join!(say, time::timeout(DEADLINE, watch.next()));
        assert!(matches!(word, Ok(Some(Ok(Event::Reset { .. })))), "{word:?}");
        let former = is_replaced.then_some(watch);
        let mut watch = registry.watch(scope(), None);
        let say = async {
            let through =
                |word| if let ClientWord::Acknowledge(ack) = word { Some(ack.sequence) } else { None };
            assert_eq!(stream.hear(through).await, sequence);
            let subscription = subscribed(&mut stream).await.subscription;
            relay(&mut stream, subscription, discovery::encode_reset()).await;
        };
        let ((), word) = tokio::join!(say, time::timeout(DEADLINE, watch.next()));
        assert!(matches!(word, Ok(Some(Ok(Event::Reset { .. })))), "{word:?}");
        drop(former);
    }
}

#[tokio::test]
async fn a_watch_says_once_that_the_hub_is_away_and_then_comes_back_with_it() {
    let mesh = Mesh::new();
    let address = mesh.hub().await.close().await;
    let link = mesh.link(&address);
    away(&link).await;
    let registry = registry(&link);
    let mut watch = registry.watch(scope(), None);
    let (word, ()) = tokio::join!(time::timeout(DEADLINE, watch.next()), async {
        tokio::task::yield_now().await;
        pass(2 * SECOND + MILLISECOND).await;
    });
    assert!(matches!(word, Ok(Some(Err(RegistryError::Unreachable(_))))), "{word:?}");

    // From here on it waits for the link, and in no pause of its own.
    let mut watch = registry.watch(scope(), None);
    let returns = async {
        tokio::task::yield_now().await;
        pass(30 * SECOND).await;
        let mut hub = mesh.hub_at(&address).await;
        // The link's own pause is four seconds at most.
        pass(4 * SECOND).await;
        let mut stream = hub.stream().await;
        stream.welcome().await;
        let subscription = subscribed(&mut stream).await.subscription;
        relay(&mut stream, subscription, discovery::encode_reset()).await;
        (hub, stream)
    };
    let (_hub, word) = tokio::join!(returns, time::timeout(DEADLINE, watch.next()));
    assert!(matches!(word, Ok(Some(Ok(Event::Reset { .. })))), "{word:?}");
}

/// Says how the hub's one registry is.
async fn tell_state(stream: &mut Stream, down_for_ms: Option<u64>) {
    let state = RegistryState { registry: "static".to_owned(), down_for_ms, ..RegistryState::default() };
    stream.say(ServerWord::RegistryStates(RegistryStates { registries: vec![state] })).await;
}

/// Waits until the link knows whether the hub hears of its registry.
async fn told(link: &HubLink, is_away: bool) {
    let mut relayed = link.relayed();
    let is_so = |known: &Option<Arc<RelayedStates>>| {
        known.as_ref().is_some_and(|known| known.registries[0].down_for.is_some() == is_away)
    };
    time::timeout(DEADLINE, relayed.wait_for(is_so)).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_hub_that_sees_nothing_is_left_for_another_one_and_that_one_is_kept() {
    let mesh = Mesh::new();
    let (mut blind, mut seeing) = (mesh.hub().await, mesh.hub().await);
    let link = mesh.link_to(&[&blind.address, &seeing.address]);
    let mut stream = blind.stream().await;
    stream.welcome().await;
    tell_state(&mut stream, Some(3_600_000)).await;
    told(&link, true).await;
    pass(20 * SECOND).await;
    assert!(seeing.is_alone(), "what is short is borne");
    tell_state(&mut stream, None).await;
    told(&link, false).await;
    pass(120 * SECOND).await;
    assert!(seeing.is_alone(), "it sees again");
    tell_state(&mut stream, Some(1)).await;
    told(&link, true).await;
    pass(301 * SECOND).await;
    assert!(away(&link).await.contains("hears of none of its registries"));
    pass(SECOND).await;
    let mut next = seeing.stream().await;
    next.welcome().await;
    tell_state(&mut next, None).await;
    told(&link, false).await;
    pass(3600 * SECOND).await;
    assert!(blind.is_alone(), "who sees is not left");
}

#[tokio::test]
async fn an_only_hub_is_kept_whatever_it_sees() {
    let (_hub, link, mut stream) = linked().await;
    tell_state(&mut stream, Some(1)).await;
    told(&link, true).await;
    pass(3600 * SECOND).await;
    assert!(matches!(*link.state().borrow(), LinkState::Connected { .. }));
}

#[tokio::test]
async fn a_join_that_is_not_answered_is_given_up_and_may_be_asked_again() {
    let mesh = Mesh::new();
    let mut hub = mesh.hub().await;
    let request = JoinRequest {
        secret: Bytes::from_static(b"a secret"),
        node: "one".to_owned(),
        signing_request: Bytes::from_static(b"a request"),
        lowest_version: VERSIONS.0,
        highest_version: VERSIONS.1,
    };
    let (address, pin) = (hub.address.clone(), mesh.pin());
    let joining =
        tokio::spawn(async move { join(&address, pin, &scripted_hub::domain(), request).await.map(drop) });
    assert!(matches!(hub.call().await, Call::Join));
    pass(20 * SECOND).await;
    assert!(!joining.is_finished());
    pass(10 * SECOND + MILLISECOND).await;
    let fault = time::timeout(DEADLINE, joining).await.expect("in time").unwrap().unwrap_err();
    assert!(matches!(fault, JoinError::Unanswered(_)) && fault.to_string().contains("30 s"), "{fault}");
}
