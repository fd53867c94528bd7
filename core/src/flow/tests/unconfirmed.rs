//! The ways out of "unconfirmed" and of "TLS stays required".

use super::*;
use crate::{
    merge::{BELIEVED_AFTER, testing::endpoint},
    registry::Completeness,
    resource::{Endpoint, Resource, TlsMode},
};

fn timed(state_dir: Option<PathBuf>) -> Running {
    let capabilities = Capabilities { configuration: true, resume: true, ..Capabilities::default() };
    let (registry, script) = scripted(RegistryName::new("static").unwrap(), capabilities);
    let config = FlowConfig::new(vec![Source::new(registry)]);
    run(script, FlowConfig { state_dir, now: paused_now, ..config })
}

/// A list of ten origins, or of the first few of them.
fn ten(count: usize) -> Vec<Event> {
    let scope = scope("static");
    let mut events = vec![reset(&scope)];
    events.extend((0..count).map(|number| {
        let name = format!("s{number}");
        replace(&scope, &name, "1", origin_of_endpoints(&name, 1))
    }));
    events.extend([ready(&scope), commit(&scope)]);
    events
}

fn unconfirmed(status: &Status) -> usize {
    status.registries[0].scopes.iter().map(|scope| scope.unconfirmed.len()).sum()
}

#[tokio::test(start_paused = true)]
async fn a_full_list_is_asked_for_when_it_would_be_believed() {
    let running = timed(None);
    running.say(ten(10)).await;
    running.status(Status::is_ready).await;
    running.script.fail(RegistryError::Gap("anew".into())).await;
    running.script.watched_times(2).await;
    let doubted_at = Instant::now();
    running.say(ten(4)).await;
    running.status(|status| unconfirmed(status) == 6).await;
    running.script.watched_times(3).await;
    let waited = doubted_at.elapsed();
    assert!((BELIEVED_AFTER..BELIEVED_AFTER * 2).contains(&waited), "{waited:?}");
    assert_eq!(running.script.watched()[2], None);
    let status = running.statuses.load_full();
    assert!(status.registries[0].last_error.is_none(), "nothing broke: {status:?}");
    running.say(ten(4)).await;
    running.status(|status| unconfirmed(status) == 0).await;
    assert!(running.tables.load().destination("s9").is_none());
    assert!(running.tables.load().destination("s3").is_some());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_always_filters_is_asked_once_in_a_while_only() {
    let running = timed(None);
    running.say(full_list(None)).await;
    let scope = scope("static");
    let filtered = || Event::Ready { scope: scope.clone(), completeness: Completeness::Filtered };
    let empty = || [reset(&scope), filtered(), commit(&scope)];
    running.say(empty()).await;
    running.status(|status| unconfirmed(status) == 1).await;
    running.script.watched_times(2).await;
    let asked = Instant::now();
    running.say(empty()).await;
    running.script.watched_times(3).await;
    assert!(asked.elapsed() >= BELIEVED_AFTER);
    assert!(running.tables.load().destination("reviews").is_some());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_operators_word_about_what_is_gone_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let running = timed(Some(folder.path().to_owned()));
    running.say(ten(10)).await;
    running.say(ten(4)).await;
    running.status(|status| unconfirmed(status) == 6).await;
    let other = RegistryName::new("other").unwrap();
    assert_eq!(running.handle.drop_unconfirmed(Some(other)).await, Some(0));
    assert_eq!(running.handle.drop_unconfirmed(Some(reviews().registry)).await, Some(6));
    assert!(running.tables.load().destination("s9").is_none());
    running.stop().await;
    let running = timed(Some(folder.path().to_owned()));
    assert!(running.tables.load().destination("s9").is_none());
    assert!(running.tables.load().destination("s3").is_some());
    running.stop().await;
}

fn plaintext() -> Vec<Resource> {
    let mut origin = origin_of_endpoints("reviews", 0);
    let plain = Endpoint { tls: TlsMode::Off, identity: None, mesh_address: None, ..endpoint("reviews", 1) };
    origin.push(Resource::Endpoint(Arc::new(plain)));
    origin
}

fn plaintext_endpoints(table: &Table) -> usize {
    let Some(destination) = table.destination("reviews") else { return 0 };
    let endpoints = &destination.ports[0].rules[0].targets[0].endpoints;
    endpoints.all.iter().filter(|endpoint| endpoint.endpoint.tls == TlsMode::Off).count()
}

#[tokio::test(start_paused = true)]
async fn plaintext_is_allowed_again_by_the_operators_word_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let scope = scope("static");
    let list =
        || [reset(&scope), replace(&scope, "reviews", "2", plaintext()), ready(&scope), commit(&scope)];
    let running = timed(Some(folder.path().to_owned()));
    running.say(full_list(resume("1"))).await;
    running.status(Status::is_ready).await;
    running.say([replace(&scope, "reviews", "2", plaintext()), commit(&scope)]).await;
    let status = running.status(|status| !status.registries[0].scopes[0].faults.is_empty()).await;
    assert_eq!(plaintext_endpoints(&running.tables.load()), 0, "{status:?}");
    let other_port = "admin".parse().unwrap();
    assert_eq!(running.handle.allow_plaintext(reviews(), Some(other_port)).await, Some(false));
    assert_eq!(running.handle.allow_plaintext(reviews(), Some("http".parse().unwrap())).await, Some(true));
    assert_eq!(running.handle.allow_plaintext(reviews(), None).await, Some(false));
    running.script.watched_times(2).await;
    assert_eq!(running.script.watched()[1], None, "its words are asked for again");
    running.stop().await;

    // The process ended before the registry answered.
    let running = timed(Some(folder.path().to_owned()));
    running.say(list()).await;
    running.table(|table| plaintext_endpoints(table) == 1).await;
    running.stop().await;
    let running = timed(Some(folder.path().to_owned()));
    assert_eq!(plaintext_endpoints(&running.tables.load()), 1);
    running.stop().await;
}
