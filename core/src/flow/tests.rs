//! A flow over scripted registries, on paused time.

mod relays;
mod successors;
mod unconfirmed;

use std::time::Duration;

use tokio::{sync::oneshot, task::JoinHandle};

use super::*;
use crate::{
    merge::{
        KEPT,
        testing::{commit, endpoint, origin_of_endpoints, ready, replace, reset, scope, service},
    },
    name::{RegistryName, ServiceKey},
    registry::{
        Capabilities, Event, RegistryError, Resume,
        scripted::{Script, scripted},
    },
    resource::{Resource, Service},
};

struct Running {
    script: Script,
    tables: Reader<Table>,
    statuses: Reader<Status>,
    handle: FlowHandle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A clock that goes with paused time.
fn paused_now() -> SystemTime {
    thread_local!(static BEGAN: std::cell::OnceCell<Instant> = const { std::cell::OnceCell::new() });
    SystemTime::UNIX_EPOCH + BEGAN.with(|began| began.get_or_init(Instant::now).elapsed())
}

fn start(state_dir: Option<PathBuf>) -> Running {
    let name = RegistryName::new("static").unwrap();
    let capabilities = Capabilities { configuration: true, resume: true, ..Capabilities::default() };
    let (registry, script) = scripted(name, capabilities);
    run(script, FlowConfig { state_dir, ..FlowConfig::new(vec![Source::new(registry)]) })
}

/// Runs a flow, of which the script is kept.
fn run(script: Script, config: FlowConfig) -> Running {
    let flow = Flow::new(config);
    let (stop, stopped) = oneshot::channel();
    Running {
        script,
        tables: flow.tables(),
        statuses: flow.statuses(),
        handle: flow.handle(),
        stop,
        task: tokio::spawn(flow.run(async move { stopped.await.unwrap_or_default() })),
    }
}

impl Running {
    async fn say(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.script.say(event).await;
        }
    }

    async fn status(&self, holds: impl Fn(&Status) -> bool) -> Arc<Status> {
        wait_for(&self.statuses, holds).await
    }

    async fn table(&self, holds: impl Fn(&Table) -> bool) -> Arc<Table> {
        wait_for(&self.tables, holds).await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

async fn wait_for<T>(reader: &Reader<T>, holds: impl Fn(&T) -> bool) -> Arc<T> {
    let mut reader = reader.clone();
    let found = async {
        loop {
            let value = reader.load_full();
            if holds(&value) {
                return value;
            }
            assert!(reader.changed().await, "the flow has ended");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.expect("the state came in time")
}

fn reviews() -> ServiceKey {
    ServiceKey { registry: RegistryName::new("static").unwrap(), service: "reviews".parse().unwrap() }
}

fn resume(text: &'static str) -> Option<Resume> {
    Some(Resume(bytes::Bytes::from_static(text.as_bytes())))
}

fn full_list(point: Option<Resume>) -> Vec<Event> {
    let scope = scope("static");
    vec![
        reset(&scope),
        replace(&scope, "reviews", "1", origin_of_endpoints("reviews", 2)),
        ready(&scope),
        Event::Commit { scope, resume: point, age: Duration::ZERO },
    ]
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_becomes_a_table_and_readiness() {
    let running = start(None);
    assert!(!running.statuses.load().is_ready(), "a cold start fails closed");
    assert!(running.tables.load().is_partial);
    let began = tokio::time::Instant::now();
    running.say(full_list(None)).await;
    let table = running.table(|table| table.destination("reviews.default.mesh").is_some()).await;
    assert!(!table.is_partial);
    let destination = table.destination("reviews").unwrap();
    assert_eq!(destination.key, reviews());
    assert_eq!(destination.ports[0].rules[0].targets[0].endpoints.first_choice, 2);
    let status = running.status(Status::is_ready).await;
    assert!(status.registries[0].connected);
    let took = began.elapsed();
    assert!(took <= STATUS_EVERY * 2, "who waits to be ready was told after {took:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_stream_goes_on_from_the_last_commit_and_a_gap_lists_anew() {
    let running = start(None);
    running.say(full_list(resume("7"))).await;
    let scope = scope("static");
    running.say([replace(&scope, "late", "1", origin_of_endpoints("late", 1))]).await;
    running.script.fail(RegistryError::Unreachable("gone".into())).await;
    running.script.watched_times(2).await;
    let down = running.status(|status| status.registries[0].down_since.is_some()).await;
    assert_eq!(down.registries[0].last_error.as_deref(), Some("unreachable: gone"));
    running.say([commit(&scope)]).await;
    running
        .status(|status| status.registries[0].connected && status.registries[0].counters.commits == 2)
        .await;
    assert!(
        running.tables.load().destination("late").is_none(),
        "what was not committed is lost with the stream"
    );
    assert!(running.tables.load().destination("reviews").is_some());
    running.say([Event::Commit { scope, resume: resume("9"), age: Duration::ZERO }]).await;
    running.script.fail(RegistryError::Gap("too old".into())).await;
    running.script.watched_times(3).await;
    assert_eq!(running.script.watched(), [None, resume("7"), None]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_begins_with_the_last_good_state_and_its_resume_point() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(Some(folder.path().to_owned()));
    first.say(full_list(resume("7"))).await;
    first.table(|table| table.destination("reviews").is_some()).await;
    first.stop().await;

    let second = start(Some(folder.path().to_owned()));
    let restored = second.tables.load_full();
    assert!(restored.destination("reviews").is_some(), "in force before any registry answers");
    assert!(!restored.is_partial);
    let status = second.statuses.load_full();
    assert!(status.is_ready() && status.registries[0].restored_age.is_some());
    second.script.watched_times(1).await;
    assert_eq!(second.script.watched(), [resume("7")]);
    second.stop().await;

    std::fs::write(folder.path().join("static.state"), "{\"head\":").unwrap();
    let third = start(Some(folder.path().to_owned()));
    let status = third.statuses.load_full();
    assert!(!status.is_ready());
    assert!(status.registries[0].state_error.as_ref().unwrap().contains("line 1"), "{status:?}");
    third.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_last_instance_went_keeps_its_names_over_a_restart_and_then_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let begin = || {
        let (registry, script) = scripted(RegistryName::new("static").unwrap(), Capabilities::default());
        let state_dir = Some(folder.path().to_owned());
        run(script, FlowConfig { state_dir, now: paused_now, ..FlowConfig::new(vec![Source::new(registry)]) })
    };
    let first = begin();
    let scope = scope("static");
    let implied = Service { declared: false, ..service("jobs") };
    let words = vec![Resource::Service(implied.into()), Resource::Endpoint(endpoint("jobs", 1).into())];
    first.say(full_list(None)).await;
    first.say([replace(&scope, "jobs", "1", words), commit(&scope)]).await;
    first.say([replace(&scope, "jobs", "2", Vec::new()), commit(&scope)]).await;
    let has_endpoint = |table: &Table| {
        let jobs = table.destination("jobs")?;
        Some(!jobs.ports[0].rules[0].targets[0].endpoints.all.is_empty())
    };
    first.table(|table| has_endpoint(table) == Some(false)).await;
    first.stop().await;
    let second = begin();
    assert_eq!(has_endpoint(&second.tables.load()), Some(false));
    tokio::time::advance(KEPT).await;
    second.table(|table| has_endpoint(table).is_none()).await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_speaks_for_no_other() {
    let running = start(None);
    let foreign = scope("consul");
    running
        .say([
            reset(&foreign),
            replace(&foreign, "web", "1", origin_of_endpoints("web", 1)),
            ready(&foreign),
            commit(&foreign),
        ])
        .await;
    running.say(full_list(None)).await;
    let table = running.table(|table| table.destination("reviews").is_some()).await;
    assert!(table.destination("web").is_none());
    running
        .status(|status| status.diagnostics.iter().any(|d| d.message.contains("speaks for another")))
        .await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_operators_word_drops_what_is_unconfirmed() {
    let running = start(None);
    let scope = scope("static");
    running.say(full_list(None)).await;
    let filtered =
        Event::Ready { scope: scope.clone(), completeness: crate::registry::Completeness::Filtered };
    running.say([reset(&scope), filtered, commit(&scope)]).await;
    let status = running.status(|status| status.registries[0].counters.commits == 2).await;
    assert_eq!(status.registries[0].scopes[0].unconfirmed.len(), 1);
    let table = running.tables.load_full();
    let endpoints = &table.destination("reviews").unwrap().ports[0].rules[0].targets[0].endpoints;
    assert_eq!((endpoints.all.len(), endpoints.first_choice), (2, 0));
    assert_eq!(running.handle.drop_unconfirmed(None).await, Some(1));
    assert!(running.tables.load().destination("reviews").is_none());
    running.stop().await;
}

fn registries(order: &[&str], fresh: Vec<Arc<dyn Registry>>) -> Registries {
    Registries {
        locality: Default::default(),
        order: order.iter().map(|name| RegistryName::new(name).unwrap()).collect(),
        fresh: fresh.into_iter().map(Source::new).collect(),
        joins: Vec::new(),
    }
}

fn list(registry: &str, name: &str) -> Vec<Event> {
    let scope = scope(registry);
    vec![
        reset(&scope),
        replace(&scope, name, "1", origin_of_endpoints(name, 2)),
        ready(&scope),
        commit(&scope),
    ]
}

#[tokio::test(start_paused = true)]
async fn registries_come_and_go_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(Some(folder.path().to_owned()));
    running.say(full_list(None)).await;
    running.table(|table| table.destination("reviews.default.mesh").is_some()).await;
    let (second, script) = scripted(RegistryName::new("second").unwrap(), Capabilities::default());
    running.handle.set_registries(registries(&["static", "second"], vec![second])).await.unwrap();
    for event in list("second", "orders") {
        script.say(event).await;
    }
    let table = running.table(|table| table.destination("orders.default.mesh").is_some()).await;
    assert!(table.destination("reviews.default.mesh").is_some(), "the first one is as it was");
    assert_eq!(running.script.watched().len(), 1, "and was not watched again");
    let state = folder.path().join("second.state");
    tokio::time::timeout(Duration::from_secs(60), async {
        while !state.exists() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("its state is kept");

    running.handle.set_registries(registries(&["static"], Vec::new())).await.unwrap();
    let table = running.tables.load_full();
    assert!(table.destination("orders.default.mesh").is_none() && table.destination("reviews").is_some());
    assert!(!state.exists(), "it would come back with old words");
    let status = running.statuses.load_full();
    assert_eq!(status.registries.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["static"]);
    for event in list("second", "orders") {
        script.say(event).await;
    }
    running
        .say([
            replace(&scope("static"), "more", "1", origin_of_endpoints("more", 1)),
            commit(&scope("static")),
        ])
        .await;
    let table = running.table(|table| table.destination("more.default.mesh").is_some()).await;
    assert!(table.destination("orders.default.mesh").is_none(), "nobody listens to it any more");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_moves_keeps_its_words_until_its_new_list_is_whole() {
    let running = start(None);
    running.say(full_list(resume("7"))).await;
    running.table(|table| table.destination("reviews.default.mesh").is_some()).await;
    let capabilities = Capabilities { configuration: true, resume: true, ..Capabilities::default() };
    let (moved, script) = scripted(RegistryName::new("static").unwrap(), capabilities);
    running.handle.set_registries(registries(&["static"], vec![moved])).await.unwrap();
    script.watched_times(1).await;
    assert_eq!(script.watched(), [None], "a point to go on from is the former registry's");
    assert!(running.tables.load().destination("reviews.default.mesh").is_some());
    running
        .say([
            replace(&scope("static"), "late", "1", origin_of_endpoints("late", 1)),
            commit(&scope("static")),
        ])
        .await;
    let mut events = list("static", "orders");
    let last = events.pop().unwrap();
    for event in events {
        script.say(event).await;
    }
    assert!(running.tables.load().destination("reviews.default.mesh").is_some(), "not committed yet");
    script.say(last).await;
    let table = running.table(|table| table.destination("orders.default.mesh").is_some()).await;
    assert!(table.destination("reviews.default.mesh").is_none(), "the new list lacks it");
    assert!(table.destination("late.default.mesh").is_none(), "the former one is not heard any more");
    running.stop().await;
}

/// Breaks at its first watch, then says what it should.
struct Brittle {
    inner: Arc<crate::registry::scripted::Scripted>,
    whole: std::sync::atomic::AtomicBool,
}

impl Registry for Brittle {
    fn name(&self) -> &RegistryName {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn watch(
        &self,
        scope: Scope,
        resume: Option<Resume>,
    ) -> futures_core::stream::BoxStream<'_, Result<Event, RegistryError>> {
        let whole = self.whole.swap(true, std::sync::atomic::Ordering::SeqCst);
        assert!(whole, "a defect");
        self.inner.watch(scope, resume)
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_breaks_is_begun_anew() {
    let running = start(None);
    let (inner, script) = scripted(RegistryName::new("second").unwrap(), Capabilities::default());
    let brittle = Arc::new(Brittle { inner, whole: false.into() });
    running.handle.set_registries(registries(&["static", "second"], vec![brittle])).await.unwrap();
    let status = running.status(|status| status.registries[1].last_error.is_some()).await;
    assert!(status.registries[1].last_error.as_ref().unwrap().contains("broke"));
    for event in list("second", "orders") {
        script.say(event).await;
    }
    running.table(|table| table.destination("orders.default.mesh").is_some()).await;
    running.status(|status| status.registries[1].connected).await;
    running.stop().await;
}

/// Asks for one origin alone.
struct Narrowed {
    inner: Arc<crate::registry::scripted::Scripted>,
    origin: &'static str,
}

impl Registry for Narrowed {
    fn name(&self) -> &RegistryName {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn asks_for(&self, origin: &crate::name::OriginName) -> bool {
        origin.as_str() == self.origin
    }

    fn watch(
        &self,
        scope: Scope,
        resume: Option<Resume>,
    ) -> futures_core::stream::BoxStream<'_, Result<Event, RegistryError>> {
        self.inner.watch(scope, resume)
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_configuration_asks_for_no_more_goes_though_its_registry_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(Some(folder.path().into()));
    let scope = scope("static");
    let said = ["kept", "removed"].map(|name| replace(&scope, name, "1", origin_of_endpoints(name, 1)));
    let [kept, removed] = said;
    running.say([reset(&scope), kept, removed, ready(&scope), commit(&scope)]).await;
    running.table(|table| table.destination("removed.default.mesh").is_some()).await;
    let status = running.status(|status| !status.registries[0].scopes.is_empty()).await;
    let committed = status.registries[0].scopes[0].committed_at;
    let narrowed = || {
        let capabilities = Capabilities { configuration: true, ..Capabilities::default() };
        let (inner, script) = scripted(RegistryName::new("static").unwrap(), capabilities);
        (Arc::new(Narrowed { inner, origin: "kept" }), script)
    };
    let (registry, _silent) = narrowed();
    running.handle.set_registries(registries(&["static"], vec![registry])).await.unwrap();
    let table = running.tables.load_full();
    assert!(table.destination("removed.default.mesh").is_none(), "its registry says nothing any more");
    assert!(table.destination("kept.default.mesh").is_some());
    let status = running.statuses.load_full();
    let age = |at: Option<SystemTime>| at.unwrap().duration_since(committed.unwrap()).unwrap_or_default();
    assert!(
        age(status.registries[0].scopes[0].committed_at) < Duration::from_millis(50),
        "it is as old as it was"
    );
    running.stop().await;

    // A process that begins with what an earlier configuration left on disk.
    let state_dir = tempfile::tempdir().unwrap();
    let running = start(Some(state_dir.path().into()));
    let said = ["kept", "removed"].map(|name| replace(&scope, name, "1", origin_of_endpoints(name, 1)));
    let [kept, removed] = said;
    running.say([reset(&scope), kept, removed, ready(&scope), commit(&scope)]).await;
    running.table(|table| table.destination("removed.default.mesh").is_some()).await;
    running.stop().await;
    let (registry, script) = narrowed();
    let config = FlowConfig::new(vec![Source::new(registry)]);
    let running = run(script, FlowConfig { state_dir: Some(state_dir.path().into()), ..config });
    let table = running.tables.load_full();
    assert!(table.destination("kept.default.mesh").is_some());
    assert!(table.destination("removed.default.mesh").is_none());
    running.stop().await;
}
