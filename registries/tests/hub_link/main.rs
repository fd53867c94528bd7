//! The agent's end of the control stream against a hub that says what a test wants, over real sockets with real TLS: what
//! a hub that is slow, silent or unreadable may hold up, and for how long.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../core/tests/tls/authority.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod authority;
#[path = "support/scripted_hub.rs"]
mod scripted_hub;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

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
    registry::{Event, LocalInstance, Registry, RegistryError, Scope},
    resource::{AppProtocol, Endpoint, Health, ServicePort, TlsMode},
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
    pass(9 * SECOND).await;
    assert_eq!(*link.state().borrow(), LinkState::Connecting, "it may take its time");
    assert!(!asked.is_finished());
    pass(SECOND + MILLISECOND).await;
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
    pass(29 * SECOND).await;
    assert!(!forgotten.is_finished());
    pass(SECOND + MILLISECOND).await;
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
async fn an_outage_is_one_warning_whatever_is_tried_meanwhile() {
    outage_of(1).await;
}

#[tokio::test]
async fn of_several_hubs_an_outage_is_one_warning_too() {
    outage_of(2).await;
}

async fn outage_of(hubs: usize) {
    let said = Arc::new(Said::default());
    let _guard = tracing::subscriber::set_default(said.clone());
    let mesh = Mesh::new();
    let mut addresses = Vec::new();
    for _ in 0..hubs {
        addresses.push(mesh.hub().await.close().await);
    }
    let link = mesh.link_to(&addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let registry = registry(&link);
    let leases: Vec<_> = (1..4).map(|number| registry.register(instance(number)).unwrap()).collect();
    away(&link).await;
    let tries = || said.0.lock().unwrap().iter().filter(|line| line.contains("no stream to the hub")).count();
    for _ in 0..100 {
        if tries() > 3 {
            break;
        }
        pass(10 * SECOND).await;
        // A socket that refuses does so in real time.
        time::sleep(20 * MILLISECOND).await;
    }
    assert!(tries() > 3, "it was tried again");
    let lines = said.0.lock().unwrap().clone();
    let warnings: Vec<_> = lines.iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{lines:#?}");
    drop(leases);
}

/// Follows as a driver does, until it is told that the hub is away.
async fn follow_in_vain(registry: &HubRegistry) {
    let mut watch = registry.watch(scope(), None);
    let (told, ()) = tokio::join!(time::timeout(DEADLINE, watch.next()), async {
        tokio::task::yield_now().await;
        pass(2 * SECOND + MILLISECOND).await;
    });
    assert!(
        matches!(told, Ok(Some(Err(RegistryError::Unreachable(_))))),
        "the driver warns by this: {told:?}"
    );
}

/// Lets the link try again and again, and shows that it warns of nothing.
async fn tries_without_a_warning(said: &Said) {
    for _ in 0..10 {
        pass(5 * SECOND).await;
        // A socket that refuses does so in real time.
        time::sleep(20 * MILLISECOND).await;
    }
    let lines = said.0.lock().unwrap().clone();
    assert!(lines.iter().filter(|line| line.contains("no stream to the hub")).count() > 3, "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("WARN")), "{lines:#?}");
}

#[tokio::test]
async fn who_begins_to_follow_while_the_hub_is_away_is_told_and_nobody_else_warns() {
    let said = Arc::new(Said::default());
    let _guard = tracing::subscriber::set_default(said.clone());
    let mesh = Mesh::new();
    let link = mesh.link(&mesh.hub().await.close().await);
    // It was tried before anybody could say that he follows.
    away(&link).await;
    let registry = registry(&link);
    follow_in_vain(&registry).await;
    tries_without_a_warning(&said).await;
}

#[tokio::test]
async fn a_hub_that_is_lost_between_two_watches_is_told_to_the_next_and_nobody_else_warns() {
    let said = Arc::new(Said::default());
    let _guard = tracing::subscriber::set_default(said.clone());
    let (hub, link, mut stream) = linked().await;
    let registry = registry(&link);
    {
        let mut watch = registry.watch(scope(), None);
        tokio::select! {
            word = watch.next() => panic!("{word:?}"),
            _ = subscribed(&mut stream) => {}
        }
    }
    drop(stream);
    hub.close().await;
    away(&link).await;
    follow_in_vain(&registry).await;
    tries_without_a_warning(&said).await;
}

#[tokio::test]
async fn who_follows_a_hub_that_is_lost_is_told_and_it_is_not_warned_of_twice() {
    let said = Arc::new(Said::default());
    let _guard = tracing::subscriber::set_default(said.clone());
    let (hub, link, mut stream) = linked().await;
    let registry = registry(&link);
    let following = tokio::spawn(async move { registry.watch(scope(), None).next().await });
    subscribed(&mut stream).await;
    drop(stream);
    hub.close().await;
    away(&link).await;
    let told = time::timeout(DEADLINE, following).await.expect("in time").unwrap();
    assert!(matches!(told, Some(Err(_))), "the driver warns by this: {told:?}");
    let lines = said.0.lock().unwrap().clone();
    assert!(!lines.iter().any(|line| line.starts_with("WARN")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("no stream to the hub")), "{lines:#?}");
}

#[tokio::test]
async fn who_follows_is_told_that_the_next_hub_goes_on_and_nobody_is_warned() {
    let said = Arc::new(Said::default());
    let _guard = tracing::subscriber::set_default(said.clone());
    let mesh = Mesh::new();
    let (mut first, mut second) = (mesh.hub().await, mesh.hub().await);
    let link = mesh.link_to(&[&first.address, &second.address]);
    let mut stream = first.stream().await;
    stream.welcome().await;
    connected(&link).await;
    let registry = registry(&link);
    let following = tokio::spawn(async move { registry.watch(scope(), None).next().await });
    subscribed(&mut stream).await;
    drop(stream);
    first.close().await;
    away(&link).await;
    pass(SECOND).await;
    let mut stream = second.stream().await;
    stream.welcome().await;
    let told = time::timeout(DEADLINE, following).await.expect("in time").unwrap();
    assert!(matches!(told, Some(Err(RegistryError::Moved(_)))), "{told:?}");
    let lines = said.0.lock().unwrap().clone();
    assert!(!lines.iter().any(|line| line.starts_with("WARN")), "{lines:#?}");
}

fn instance(number: u8) -> Arc<LocalInstance> {
    let endpoint = Endpoint {
        service: "web".parse().unwrap(),
        port_name: "http".parse().unwrap(),
        instance: format!("one.web-{number}").parse().unwrap(),
        address: ([10, 9, 9, number], 8080).into(),
        mesh_address: Some(([10, 9, 9, number], 15008).into()),
        identity: Some(identity("web")),
        said_by: Default::default(),
        tls: TlsMode::Required,
        labels: Default::default(),
        weight: 1,
        locality: Default::default(),
        health: Health::Healthy,
    };
    let port = ServicePort { name: endpoint.port_name.clone(), number: 80, protocol: AppProtocol::Http };
    Arc::new(LocalInstance { endpoint, port, note: String::new() })
}

/// What was logged by this crate on this thread: level, then message.
#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl tracing::Subscriber for Said {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("weft_")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = event.metadata().level().to_string();
        let mut note = |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            line += &format!(" {}={value:?}", field.name());
        };
        event.record(&mut note);
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
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
    pass(29 * SECOND).await;
    assert!(!joining.is_finished());
    pass(SECOND + MILLISECOND).await;
    let fault = time::timeout(DEADLINE, joining).await.expect("in time").unwrap().unwrap_err();
    assert!(matches!(fault, JoinError::Unanswered(_)) && fault.to_string().contains("30 s"), "{fault}");
}
