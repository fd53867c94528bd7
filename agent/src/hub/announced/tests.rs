mod mended;

use std::time::Duration;

use futures_util::StreamExt;
use tokio::{task::JoinHandle, time::timeout};
use weft_core::{
    control::{announcement::encode_announcement, message::RefusalCode},
    registry::{Event, LocalInstance, Registry, RegistryError, conformance::held},
    resource::{AppProtocol, Endpoint, Health, Labels, Resource, SaidBy, Sayer, ServicePort, TlsMode},
};

use super::*;
use crate::hub::{
    records::{JoinClaim, TokenRecord},
    store::{EmbeddedStore, Entry, Expected, Put, Told},
};

const GRACE: Duration = Duration::from_secs(30);
const FORGET: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(20);

/// One hub's announcements; time passes when the test says so.
struct World {
    folder: tempfile::TempDir,
    all: Arc<Announcements>,
    following: JoinHandle<()>,
    now: Instant,
    /// The same moment by two clocks.
    began: (Instant, SystemTime),
}

fn announcements(records: Records) -> Arc<Announcements> {
    let name = RegistryName::new("announced").unwrap();
    let terms = AnnouncementsConfig { name, grace: GRACE, forget_after: FORGET, allow_loopback: false };
    Arc::new(Announcements::new(records, terms))
}

fn follow(all: &Arc<Announcements>) -> JoinHandle<()> {
    let all = all.clone();
    tokio::spawn(async move {
        futures_util::future::join_all([ANNOUNCED, OWNERS, PRESENT].map(|prefix| all.follow(prefix))).await;
    })
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(Arc::new(EmbeddedStore::open(folder.path()).unwrap()));
        for node in ["a", "b"] {
            join(&records, node, SystemTime::now()).await;
        }
        let all = announcements(records);
        let following = follow(&all);
        until(|| all.lock().stored.steady(Instant::now()).is_some()).await;
        let now = Instant::now();
        Self { folder, all, following, now, began: (now, SystemTime::now()) }
    }

    /// As after `kill -9`: only what is on the disk is left.
    async fn restart(mut self) -> Self {
        self.following.abort();
        let _aborted = (&mut self.following).await;
        let Self { folder, all, now, began, .. } = self;
        drop(all);
        let store = loop {
            match EmbeddedStore::open(folder.path()) {
                Err(StoreError::InUse(_)) => tokio::task::yield_now().await,
                store => break store.unwrap(),
            }
        };
        let all = announcements(Records::new(Arc::new(store)));
        let following = follow(&all);
        until(|| all.lock().stored.steady(Instant::now()).is_some()).await;
        Self { folder, all, following, now, began }
    }

    fn enter(&self, node: &str) -> Desk {
        self.all.enter(node, self.now)
    }

    async fn pass(&mut self, time: Duration) {
        // Who went since the last look went then.
        self.look().await;
        self.now += time;
        self.look().await;
    }

    async fn look(&self) {
        self.all.look(self.now);
        self.all.mend(self.now).await;
    }

    /// Somebody writes to the store who should not.
    async fn meddle(&self, key: &str, value: Option<&'static str>) {
        let store = self.all.records.store();
        store.swap(key, Expected::Any, value.map(Put::durable)).await.unwrap();
    }

    /// Waits until instances with their health are told, and no others.
    async fn tells(&self, expected: &[(&str, Health)]) {
        let is_told = async {
            let mut changes = self.all.changed.subscribe();
            while self.told()
                != expected.iter().map(|(name, health)| ((*name).to_owned(), *health)).collect::<Vec<_>>()
            {
                changes.changed().await.unwrap();
            }
        };
        timeout(SOON, is_told).await.unwrap_or_else(|_| panic!("{:?} for {expected:?}", self.told()));
    }

    fn told(&self) -> Vec<(String, Health)> {
        let state = self.all.lock();
        let listed = listing::listing(&state.stored, &state.doubted).unwrap();
        let resources = listed.into_iter().flat_map(|listed| listed.resources);
        let endpoint = |resource| match resource {
            Resource::Endpoint(endpoint) => Some((endpoint.instance.to_string(), endpoint.health)),
            _ => None,
        };
        resources.filter_map(endpoint).collect()
    }
}

/// Waits until `condition` holds.
async fn until(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "it did not come in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn join(records: &Records, node: &str, now: SystemTime) {
    let hash = [node.as_bytes()[0]; 32];
    let expires = now + Duration::from_secs(600);
    let record = TokenRecord { identities: vec![identity("reviews")], node: None, expires, bound: None };
    records.add_token(hash, &record).await.unwrap();
    let claim = JoinClaim { secret_hash: hash, node: node.into(), key_hash: [1; 32], at: now };
    records.claim(&claim).await.unwrap();
}

fn identity(account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://demo.mesh/ns/default/sa/{account}")).unwrap()
}

fn instance(service: &str, name: &str, account: &str) -> LocalInstance {
    let endpoint = Endpoint {
        service: service.parse().unwrap(),
        port_name: "http".parse().unwrap(),
        instance: name.parse().unwrap(),
        address: ([10, 0, 0, 1], 8080).into(),
        mesh_address: Some(([10, 0, 0, 1], 15008).into()),
        identity: Some(identity(account)),
        said_by: SaidBy::all(Sayer::Metadata),
        tls: TlsMode::Required,
        labels: Labels::default(),
        weight: 1,
        locality: Default::default(),
        health: Health::Healthy,
    };
    let port = ServicePort { name: "http".parse().unwrap(), number: 80, protocol: AppProtocol::Http };
    LocalInstance { endpoint, port, note: String::new() }
}

async fn announce(desk: &Desk, world: &World, instance: &LocalInstance) -> Result<(), AnnounceRefusal> {
    let now = world.began.1 + (world.now - world.began.0);
    desk.announce(&[identity("reviews"), identity("bank")], &encode_announcement(instance), now).await
}

const WELL: (&str, Health) = ("a.web", Health::Healthy);

#[tokio::test]
async fn silence_takes_nothing_away_before_its_time() {
    let mut world = World::new().await;
    let desk = world.enter("a");
    let own = instance("reviews", "a.web", "reviews");
    announce(&desk, &world, &own).await.unwrap();
    world.pass(FORGET * 2).await;
    world.tells(&[WELL]).await;
    drop(desk);
    world.pass(GRACE / 2).await;
    world.tells(&[WELL]).await;
    world.pass(GRACE).await;
    // Kept as a last resort.
    world.tells(&[("a.web", Health::Unhealthy)]).await;
    // It comes back.
    let desk = world.enter("a");
    announce(&desk, &world, &own).await.unwrap();
    world.pass(Duration::ZERO).await;
    world.tells(&[WELL]).await;
    // The hub dies, and comes back much later: it was away, not the node.
    drop(desk);
    world.now += FORGET * 3;
    let mut world = world.restart().await;
    world.tells(&[WELL]).await;
    world.pass(GRACE / 2).await;
    world.tells(&[WELL]).await;
    world.pass(FORGET).await;
    world.tells(&[]).await;
    let world = world.restart().await;
    world.tells(&[]).await;
}

#[tokio::test]
async fn a_later_stream_takes_over_from_an_earlier_one() {
    let mut world = World::new().await;
    let (first, second) = (world.enter("a"), world.enter("a"));
    let own = instance("reviews", "a.web", "reviews");
    announce(&first, &world, &own).await.unwrap();
    announce(&second, &world, &own).await.unwrap();
    drop(first);
    world.pass(GRACE * 2).await;
    world.tells(&[WELL]).await;
}

#[tokio::test]
async fn what_a_node_does_not_repeat_goes_after_the_grace() {
    let mut world = World::new().await;
    let desk = world.enter("a");
    announce(&desk, &world, &instance("reviews", "a.web", "reviews")).await.unwrap();
    announce(&desk, &world, &instance("reviews", "a.old", "reviews")).await.unwrap();
    drop(desk);
    let desk = world.enter("a");
    announce(&desk, &world, &instance("reviews", "a.web", "reviews")).await.unwrap();
    world.pass(GRACE / 2).await;
    world.tells(&[("a.old", Health::Healthy), WELL]).await;
    world.pass(GRACE).await;
    world.tells(&[WELL]).await;
    // Nobody withdraws for another.
    let key = announcement_key(&instance("reviews", "a.web", "reviews").endpoint);
    world.enter("b").withdraw(&key).await.unwrap();
    assert_eq!(world.all.records.announced("").await.unwrap().len(), 1);
    desk.withdraw(&key).await.unwrap();
    desk.withdraw(&key).await.unwrap();
    world.tells(&[]).await;
}

#[tokio::test]
async fn a_node_announces_itself_alone_and_as_what_it_was_granted() {
    let world = World::new().await;
    let desk = world.enter("a");
    let own = || instance("reviews", "a.web", "reviews");
    let with = |change: fn(&mut Endpoint)| {
        let mut changed = own();
        change(&mut changed.endpoint);
        changed
    };
    for (instance, code, said) in [
        (instance("reviews", "b.web", "reviews"), RefusalCode::NotGranted, "`b.web` is not node a's"),
        (instance("reviews", "aa.web", "reviews"), RefusalCode::NotGranted, "`aa.web` is not node a's"),
        (
            instance("reviews", "a.web", "other"),
            RefusalCode::NotGranted,
            "node a was not granted spiffe://demo.mesh/ns/default/sa/other",
        ),
        (with(|it| it.identity = None), RefusalCode::Malformed, ""),
        (with(|it| it.mesh_address = None), RefusalCode::Malformed, ""),
        (with(|it| it.tls = TlsMode::Off), RefusalCode::Malformed, ""),
        (
            with(|it| it.mesh_address = Some(([127, 0, 0, 1], 15008).into())),
            RefusalCode::Malformed,
            "allow_loopback = true in the hub's [announcements]",
        ),
        (
            with(|it| it.address = ([169, 254, 169, 254], 80).into()),
            RefusalCode::Malformed,
            "address of the link",
        ),
        (
            with(|it| it.labels = (0..65).map(|number| (format!("k{number}"), "v")).collect()),
            RefusalCode::Malformed,
            "64 labels",
        ),
        (
            with(|it| it.instance = format!("a.{}", "x".repeat(251)).parse().unwrap()),
            RefusalCode::Malformed,
            "longer than 253 bytes",
        ),
    ] {
        let refused = announce(&desk, &world, &instance).await.expect_err(said);
        assert!(refused.code() == code && refused.to_string().contains(said), "{refused}");
    }
    let ungranted =
        desk.announce(&[], &encode_announcement(&own()), world.began.1 + (world.now - world.began.0)).await;
    assert!(matches!(ungranted, Err(AnnounceRefusal::NotGranted { .. })));
    assert_eq!(world.all.records.announced("").await.unwrap(), []);
    announce(&desk, &world, &own()).await.unwrap();
}

#[tokio::test]
async fn a_service_is_one_identitys() {
    let world = World::new().await;
    let (a, b) = (world.enter("a"), world.enter("b"));
    announce(&a, &world, &instance("reviews", "a.web", "reviews")).await.unwrap();
    let refused = announce(&b, &world, &instance("reviews", "b.web", "bank")).await.unwrap_err();
    assert_eq!(refused.code(), RefusalCode::Conflict);
    let text = refused.to_string();
    assert!(
        text.contains("`reviews.default`") && text.contains("node a") && text.contains("sa/bank"),
        "{text}"
    );
    announce(&b, &world, &instance("reviews", "b.web", "reviews")).await.unwrap();
    announce(&b, &world, &instance("bank", "b.web", "bank")).await.unwrap();
    let (own, bank) = (("b.web", Health::Healthy), ("b.web", Health::Healthy));
    world.tells(&[bank, WELL, own]).await;
    assert!(world.all.records.remove_node("a").await.unwrap());
    // What a removed node announced went with it.
    world.tells(&[bank, own]).await;
    let refused = announce(&a, &world, &instance("reviews", "a.web", "reviews")).await;
    assert!(refused.is_ok() && world.all.records.announced("reviews.default/").await.unwrap().len() == 1);
}

#[test]
fn what_two_hubs_took_is_told_apart_by_name() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let record =
        |node: &str, since, instance| AnnouncementRecord { node: node.into(), since: at(since), instance };
    let mut other_port = instance("reviews", "c.web", "reviews");
    other_port.port.number = 8080;
    let records = [
        record("b", 2, instance("reviews", "b.web", "bank")),
        record("c", 3, other_port),
        record("a", 1, instance("reviews", "a.web", "reviews")),
    ];
    let entry = |record: &AnnouncementRecord| Entry {
        key: format!("{ANNOUNCED}{}", announcement_key(&record.instance.endpoint)),
        value: serde_json::to_vec(record).unwrap().into(),
        version: Version("1".into()),
    };
    let mut stored = Stored::default();
    stored.take(ANNOUNCED, Told::All(records.iter().map(entry).collect()));
    let listed = listing::listing(&stored, &BTreeSet::new()).unwrap().remove(0);
    assert_eq!(listed.resources.len(), 2, "the service, and the oldest one's endpoint");
    let faults: Vec<_> = listed.faults.iter().map(|fault| (&*fault.place, &*fault.message)).collect();
    assert!(faults[0].0 == "reviews.default/b.web" && faults[0].1.contains("sa/bank"), "{faults:?}");
    assert!(faults[1].0 == "reviews.default/c.web" && faults[1].1.contains("8080"), "{faults:?}");
}

#[tokio::test]
async fn it_is_followed_like_any_other_registry() {
    let world = World::new().await;
    let desk = world.enter("a");
    announce(&desk, &world, &instance("reviews", "a.web", "reviews")).await.unwrap();
    world.tells(&[WELL]).await;
    let registry = AnnouncedRegistry(world.all.clone());
    let mut words = held(&registry as &dyn Registry, None);
    let mut next = async || loop {
        let word = timeout(SOON, words.next()).await.unwrap().unwrap().unwrap();
        if let Event::Replace { origin, resources, .. } = word {
            return (origin.to_string(), resources.len());
        }
    };
    assert_eq!(next().await, ("reviews.default".to_owned(), 2));
    announce(&desk, &world, &instance("reviews", "a.second", "reviews")).await.unwrap();
    assert_eq!(next().await, ("reviews.default".to_owned(), 3));
    for name in ["a.web", "a.second"] {
        desk.withdraw(&announcement_key(&instance("reviews", name, "reviews").endpoint)).await.unwrap();
    }
    let mut last = next().await;
    while last.1 != 0 {
        last = next().await;
    }
    assert_eq!(last.0, "reviews.default");
}

#[tokio::test]
async fn what_the_store_does_not_tell_is_not_confirmed() {
    let mut world = World::new().await;
    let desk = world.enter("a");
    announce(&desk, &world, &instance("reviews", "a.web", "reviews")).await.unwrap();
    world.tells(&[WELL]).await;
    world.following.abort();
    let _aborted = (&mut world.following).await;
    let registry = AnnouncedRegistry(world.all.clone());
    let mut words = held(&registry as &dyn Registry, None);
    while !matches!(words.next().await.unwrap().unwrap(), Event::Commit { .. }) {}
    world.all.lock().stored.lose(ANNOUNCED);
    tokio::time::pause();
    let said = words.next().await.unwrap();
    let store = world.all.records.store().describe();
    assert!(matches!(&said, Err(RegistryError::Unreachable(it)) if *it == store), "{said:?}");
    // It is the same for who asks then, and before anything was ever read.
    let mut words = held(&registry as &dyn Registry, None);
    assert!(words.next().await.unwrap().is_err());
    let mut words = held(&registry as &dyn Registry, None);
    let back = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.all.lock().stored.take(ANNOUNCED, Told::Gone("announced/none".into()));
        world.all.changed.send_replace(());
    };
    let (said, ()) = tokio::join!(words.next(), back);
    assert!(matches!(said, Some(Ok(Event::Reset { .. }))), "it lists anew: {said:?}");
}

#[tokio::test]
async fn hubs_that_share_a_store_share_what_is_announced_and_who_is_there() {
    let world = World::new().await;
    let other = announcements(world.all.records.clone());
    let keeping = [&world.all, &other].map(|all| tokio::spawn(all.clone().keep()));
    let desk = world.enter("a");
    announce(&desk, &world, &instance("reviews", "a.web", "reviews")).await.unwrap();
    let is_there = |all: &Arc<Announcements>| all.lock().stored.is_present("a");
    let is_at = |all: &Arc<Announcements>, hub: &Arc<Announcements>| {
        let (state, place) = (all.lock(), format!("{}/", hub.hub));
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"]
            .iter()
            .any(|part| state.stored.present_at(&format!("{place}{part}")).is_some_and(|it| it.contains("a")))
    };
    until(|| is_there(&other)).await;
    let mut late = world.now;
    let mut judged = |all: &Arc<Announcements>| {
        late += FORGET;
        let mut state = all.lock();
        state.doubt(&all.terms, late);
        state.due(&all.hub, &all.terms, late).forget.len()
    };
    judged(&other);
    assert_eq!(judged(&other), 0, "it is at the other hub");
    // It goes over to the other hub before the first one knows that it has gone.
    let moved = other.enter("a", world.now);
    announce(&moved, &world, &instance("reviews", "a.web", "reviews")).await.unwrap();
    until(|| is_at(&world.all, &other)).await;
    assert_eq!(judged(&world.all), 0, "who is at two hubs loses nothing at either");
    drop(desk);
    until(|| !is_at(&other, &world.all)).await;
    assert!(is_there(&other) && is_there(&world.all), "what the other hub wrote stays");
    judged(&world.all);
    assert_eq!(judged(&world.all), 0);
    drop(moved);
    until(|| !is_there(&other)).await;
    judged(&other);
    assert_eq!(judged(&other), 1, "it is at no hub");
    keeping.iter().for_each(JoinHandle::abort);
}
