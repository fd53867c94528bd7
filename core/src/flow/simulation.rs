//! A registry that breaks at random, followed by a flow, on paused time and from a seed.
//!
//! The registry keeps a history of versions. At every moment the flow's snapshot must equal one version of it, whole;
//! versions never go back; and when the breaking ends, the last version arrives.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::{oneshot, watch};

use super::*;
use crate::{
    merge::testing::{origin_of_endpoints, ready, replace, reset, scope},
    name::{OriginName, RegistryName},
    registry::{Capabilities, Event, RegistryError, Resume},
};

/// Origins and how many endpoints each has.
type State = BTreeMap<String, u8>;

/// Says in every version which one it is.
const MARKER: &str = "marker";

struct Breaking {
    name: RegistryName,
    history: watch::Sender<Vec<State>>,
    random: Mutex<fastrand::Rng>,
    /// Whether streams still break.
    breaks: std::sync::atomic::AtomicBool,
    /// From which version on changes are remembered.
    oldest: usize,
}

fn words(origin: &str, count: u8, version: usize) -> Event {
    let resources =
        if origin == MARKER { origin_of_endpoints(MARKER, 1) } else { origin_of_endpoints(origin, count) };
    let resources = if count == 0 { Vec::new() } else { resources };
    replace(&scope("sim"), origin, &version.to_string(), resources)
}

impl Breaking {
    /// All events from a version on; none asks for a full list.
    fn events(&self, from: Option<usize>, to: usize) -> Vec<Event> {
        let history = self.history.borrow();
        let mut events = Vec::new();
        let state = &history[to];
        let empty = State::new();
        let before = from.map_or(&empty, |from| &history[from]);
        if from.is_none() {
            events.push(reset(&scope("sim")));
        }
        for (origin, count) in state.iter().filter(|(origin, count)| before.get(*origin) != Some(count)) {
            events.push(words(origin, *count, to));
        }
        for origin in before.keys().filter(|origin| !state.contains_key(*origin)) {
            events.push(words(origin, 0, to));
        }
        events.push(words(MARKER, 1, to));
        if from.is_none() {
            events.push(ready(&scope("sim")));
        }
        let resume = Some(Resume(to.to_string().into()));
        events.push(Event::Commit { scope: scope("sim"), resume, age: Duration::ZERO });
        events
    }

    fn draw(&self, one_in: u32) -> bool {
        let breaks = self.breaks.load(std::sync::atomic::Ordering::Relaxed);
        breaks && self.random.lock().unwrap().u32(0..one_in) == 0
    }
}

impl Registry for Breaking {
    fn name(&self) -> &RegistryName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { resume: true, ..Capabilities::default() }
    }

    fn watch(&self, _scope: Scope, resume: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        let from = resume.map(|Resume(point)| String::from_utf8_lossy(&point).parse::<usize>().unwrap());
        if from.is_some_and(|from| from < self.oldest) || self.draw(6) {
            return stream::iter([Err(RegistryError::Gap("forgotten".into()))]).boxed();
        }
        let versions =
            stream::unfold((from, self.history.subscribe()), move |(at, mut history)| async move {
                let newest =
                    history.wait_for(|history| at.is_none_or(|at| history.len() > at + 1)).await.ok()?.len()
                        - 1;
                Some((stream::iter(self.events(at, newest)), (Some(newest), history)))
            });
        let events = versions.flatten().map(move |event| {
            if self.draw(12) { Err(RegistryError::Unreachable("broken".into())) } else { Ok(event) }
        });
        events.boxed()
    }
}

fn seen(snapshot: &Snapshot) -> Option<(usize, State)> {
    let origins = &snapshot.scopes.get(&scope("sim"))?.origins;
    let marker = origins.get(&OriginName::new(MARKER).unwrap())?.version.0.parse().unwrap();
    let others = origins.iter().filter(|(name, _)| name.as_str() != MARKER);
    let count = |origin: &crate::merge::Origin| u8::try_from(origin.resources.len() - 1).unwrap();
    Some((marker, others.map(|(name, origin)| (name.to_string(), count(origin))).collect()))
}

/// Changes one to three origins. Never more than half of them go at once: those would be doubted.
fn next_version(state: &State, random: &mut fastrand::Rng) -> State {
    let mut next = state.clone();
    for _ in 0..random.u8(1..=3) {
        let origin = format!("o{}", random.u8(0..12));
        match random.u8(0..4) {
            0 => drop(next.remove(&origin)),
            count => drop(next.insert(origin, count)),
        }
    }
    next
}

async fn simulate(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (history, _) = watch::channel(vec![(0..12).map(|n| (format!("o{n}"), 1)).collect()]);
    let registry = Arc::new(Breaking {
        name: RegistryName::new("sim").unwrap(),
        history,
        random: Mutex::new(random.fork()),
        breaks: true.into(),
        oldest: random.usize(0..20),
    });
    // Shorter than it takes for more than half of the origins to go: a list without those would be doubted.
    let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(20), seed);
    let source = Source { registry: registry.clone(), limits: Limits::default(), backoff };
    let flow = Flow::new(FlowConfig::new(vec![source]));
    let (mut snapshots, tables) = (flow.snapshots(), flow.tables());
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(flow.run(async move { drop(stopped.await) }));
    let mut last = 0;
    for version in 0..60 {
        if version == 55 {
            registry.breaks.store(false, std::sync::atomic::Ordering::Relaxed);
        }
        let next = next_version(registry.history.borrow().last().unwrap(), &mut random);
        registry.history.send_modify(|history| history.push(next));
        let pause = Duration::from_millis(random.u64(0..60));
        let watching = async {
            while snapshots.changed().await {
                let Some((version, state)) = seen(&snapshots.load()) else { continue };
                assert!(version >= last, "seed {seed}: version {version} after {last}");
                assert_eq!(state, registry.history.borrow()[version], "seed {seed}: a whole version");
                last = version;
            }
        };
        let _elapsed = tokio::time::timeout(pause, watching).await;
    }
    let newest = registry.history.borrow().len() - 1;
    let arrives = async {
        while seen(&snapshots.load()).is_none_or(|(version, _)| version < newest) {
            assert!(snapshots.changed().await);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrives)
        .await
        .unwrap_or_else(|_| panic!("seed {seed}: stuck"));
    let services = registry.history.borrow()[newest].len() + 1;
    assert_eq!(tables.load().destinations().count(), services, "seed {seed}: the table follows");
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_breaking_registry_is_followed_whole_version_by_whole_version() {
    for seed in 0..40 {
        simulate(seed).await;
    }
}
