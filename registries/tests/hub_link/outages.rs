//! How often an outage is told: once, by the link or by who follows over it.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use tokio::time;
use tracing::subscriber::DefaultGuard;
use weft_core::{
    registry::{LocalInstance, Registry, RegistryError},
    resource::{AppProtocol, Endpoint, Health, ServicePort, TlsMode},
};
use weft_registries::hub::HubRegistry;

use crate::{
    MILLISECOND, SECOND,
    authority::identity,
    away, connected, linked, pass, registry, scope,
    scripted_hub::{DEADLINE, Mesh},
    subscribed,
};

#[tokio::test]
async fn an_outage_is_one_warning_whatever_is_tried_meanwhile() {
    outage_of(1).await;
}

#[tokio::test]
async fn of_several_hubs_an_outage_is_one_warning_too() {
    outage_of(2).await;
}

/// Hears all that this thread logs, for as long as the guard is held.
fn listening() -> (Arc<Said>, DefaultGuard) {
    let said = Arc::new(Said::default());
    let guard = tracing::subscriber::set_default(said.clone());
    (said, guard)
}

async fn outage_of(hubs: usize) {
    let (said, _guard) = listening();
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

#[tokio::test]
async fn a_hub_that_welcomes_and_breaks_again_and_again_is_warned_of_once() {
    let (said, _guard) = listening();
    let mesh = Mesh::new();
    let mut hub = mesh.hub().await;
    let link = mesh.link(&hub.address);
    let warnings = || said.0.lock().unwrap().iter().filter(|line| line.starts_with("WARN")).count();
    for _ in 0..10 {
        let mut stream = hub.stream().await;
        stream.welcome().await;
        connected(&link).await;
        pass(100 * MILLISECOND).await;
        drop(stream);
        away(&link).await;
        pass(4 * SECOND).await;
    }
    assert_eq!(warnings(), 1, "{:#?}", said.0.lock().unwrap());
    // What stood for a while is another outage when it breaks.
    let mut stream = hub.stream().await;
    stream.welcome().await;
    connected(&link).await;
    pass(10 * SECOND).await;
    drop(stream);
    hub.close().await;
    away(&link).await;
    assert_eq!(warnings(), 1, "{:#?}", said.0.lock().unwrap());
    for _ in 0..100 {
        if warnings() > 1 {
            break;
        }
        pass(10 * SECOND).await;
        // A socket that refuses does so in real time.
        time::sleep(20 * MILLISECOND).await;
    }
    assert_eq!(warnings(), 2, "{:#?}", said.0.lock().unwrap());
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
    let (said, _guard) = listening();
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
    let (said, _guard) = listening();
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
    let (said, _guard) = listening();
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
    let (said, _guard) = listening();
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
