use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use weft_core::{
    config::{SourceFile, read},
    merge::Merge,
    name::{OriginName, ServiceKey},
    registry::{Completeness, OriginFault, Version, conformance::held},
    resource::{AppProtocol, Endpoint, Health, Resource, Service, ServicePort, TlsMode},
};

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// A registry whose words the test says.
struct Said {
    name: RegistryName,
    words: Mutex<Option<mpsc::Receiver<Event>>>,
}

impl Registry for Said {
    fn name(&self) -> &RegistryName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { resume: true, ..Capabilities::default() }
    }

    fn watch(&self, _: Scope, _: Option<Resume>) -> BoxStream<'_, Result<Event, RegistryError>> {
        let words = self.words.lock().unwrap().take().unwrap();
        stream::unfold(words, |mut words| async move { Some((Ok(words.recv().await?), words)) }).boxed()
    }
}

fn scope() -> Scope {
    Scope::whole(RegistryName::new("said").unwrap())
}

fn checked(section: &str) -> (Checked, mpsc::Sender<Event>, Findings) {
    let (say, words) = mpsc::channel(64);
    let said = Said { name: scope().registry, words: Mutex::new(Some(words)) };
    let rules =
        read(&SourceFile::new("weft.toml", section), |section| CheckRules::read(section)).value.unwrap();
    let findings = Findings::default();
    (Checked::new(Arc::new(said), rules, None, findings.clone()), say, findings)
}

fn endpoint(service: &str, instance: &str, address: SocketAddr) -> Resource {
    Resource::Endpoint(Arc::new(Endpoint {
        service: service.parse().unwrap(),
        port_name: "http".parse().unwrap(),
        instance: instance.parse().unwrap(),
        address: address.into(),
        mesh_address: None,
        identity: None,
        said_by: Default::default(),
        tls: TlsMode::Off,
        labels: Default::default(),
        weight: 1,
        locality: Default::default(),
        health: Health::Healthy,
    }))
}

fn service(name: &str) -> Resource {
    let port = ServicePort { name: "http".parse().unwrap(), number: 80, protocol: AppProtocol::Http };
    let name = name.parse().unwrap();
    Resource::Service(
        Service { name, ports: vec![port], hosts: Vec::new(), nearest: false, declared: true }.into(),
    )
}

fn replace(origin: &str, resources: Vec<Resource>) -> Event {
    let origin = OriginName::new(origin).unwrap();
    Event::Replace { scope: scope(), origin, version: Version("1".into()), resources, faults: Vec::new() }
}

fn commit() -> Event {
    Event::Commit { scope: scope(), resume: None, age: Duration::ZERO }
}

fn list(resources: Vec<Resource>) -> Vec<Event> {
    let ready = Event::Ready { scope: scope(), completeness: Completeness::Full };
    vec![Event::Reset { scope: scope() }, replace("all", resources), ready, commit()]
}

/// The next health of every endpoint that is committed, and the version of the words that say so.
async fn committed(
    words: &mut BoxStream<'_, Result<Event, RegistryError>>,
) -> (Vec<(String, Health)>, Option<Version>) {
    let (mut seen, mut last) = (Vec::new(), None);
    loop {
        match timeout(SOON, words.next()).await.expect("a word in time").unwrap().unwrap() {
            Event::Replace { resources, version, .. } => {
                last = Some(version);
                seen.extend(resources.into_iter().filter_map(|resource| match resource {
                    Resource::Endpoint(it) => Some((it.instance.to_string(), it.health)),
                    _ => None,
                }));
            }
            Event::Commit { .. } => return (seen, last),
            _ => {}
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_its_check_is_unhealthy_until_it_answers_again() {
    let (alive, dying) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (one, two) = (alive.local_addr().unwrap(), dying.local_addr().unwrap());
    let (checked, say, findings) = checked("check = { kind = \"tcp\", interval = \"100ms\" }");
    let mut words = held(&checked, None);
    let resources = vec![service("web"), endpoint("web", "one", one), endpoint("web", "two", two)];
    list(resources).into_iter().for_each(|event| say.try_send(event).unwrap());
    let told = |one, two| vec![("one".to_owned(), one), ("two".to_owned(), two)];
    let (health, first) = committed(&mut words).await;
    assert_eq!(health, told(Health::Healthy, Health::Healthy), "as the registry says");
    drop(dying);
    let second = loop {
        let (health, version) = committed(&mut words).await;
        if health == told(Health::Healthy, Health::Unhealthy) {
            break version;
        }
        assert_eq!(health, told(Health::Healthy, Health::Healthy));
    };
    assert_ne!(first, second, "other words, another version");
    let key = |instance: &str| {
        let ServiceKey { registry, service } =
            ServiceKey { registry: scope().registry, service: "web".parse().unwrap() };
        (registry, service, "http".parse().unwrap(), instance.parse().unwrap())
    };
    let finding = findings.of(&key("two")).unwrap();
    assert!(
        finding.question == format!("connection at {two}") && finding.reason.contains("refused"),
        "{finding:?}"
    );
    assert_eq!(findings.of(&key("one")), None);
    // The registry's own words carry what was found, and the last one that works is never taken away.
    drop(alive);
    loop {
        let (health, _) = committed(&mut words).await;
        if health == told(Health::Unhealthy, Health::Unhealthy) {
            break;
        }
    }
    let back = TcpListener::bind(two).await.unwrap();
    loop {
        let (health, _) = committed(&mut words).await;
        if health == told(Health::Unhealthy, Health::Healthy) {
            break;
        }
    }
    assert_eq!(findings.of(&key("two")), None);
    // What is gone is asked no more, and nothing is known of it if it comes again.
    for event in [replace("all", Vec::new()), commit()] {
        say.try_send(event).unwrap();
    }
    assert_eq!(committed(&mut words).await.0, []);
    assert_eq!(findings.of(&key("one")), None);
    for event in [replace("all", vec![service("web"), endpoint("web", "one", one)]), commit()] {
        say.try_send(event).unwrap();
    }
    assert_eq!(committed(&mut words).await.0, [("one".to_owned(), Health::Healthy)]);
    drop(back);
}

#[tokio::test]
async fn an_endpoint_that_moves_to_another_origin_is_the_same_one() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (checked, say, _) =
        checked("check = { kind = \"tcp\", interval = \"100ms\", failures = 1, successes = 1 }");
    let mut words = held(&checked, None);
    let all = vec![service("web"), endpoint("web", "one", free)];
    list(all).into_iter().for_each(|it| say.try_send(it).unwrap());
    while committed(&mut words).await.0 != [("one".to_owned(), Health::Unhealthy)] {}
    // "other" comes after "all", and takes it over in one commit.
    let moved = [replace("all", vec![service("web")]), replace("other", vec![endpoint("web", "one", free)])];
    moved.into_iter().chain([commit()]).for_each(|it| say.try_send(it).unwrap());
    assert_eq!(committed(&mut words).await.0, [("one".to_owned(), Health::Unhealthy)], "it is as it was");
    let _back = TcpListener::bind(free).await.unwrap();
    assert_eq!(committed(&mut words).await.0, [("one".to_owned(), Health::Healthy)], "it answers");
    // And back, to one that is told before.
    let moved =
        [replace("all", vec![service("web"), endpoint("web", "one", free)]), replace("other", vec![])];
    moved.into_iter().chain([commit()]).for_each(|it| say.try_send(it).unwrap());
    assert_eq!(committed(&mut words).await.0, [("one".to_owned(), Health::Healthy)]);
    drop(_back);
    assert_eq!(committed(&mut words).await.0, [("one".to_owned(), Health::Unhealthy)], "it is still asked");
}

#[tokio::test]
async fn what_is_found_while_a_list_is_under_way_waits_for_its_commit() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (checked, say, findings) = checked("check = { kind = \"tcp\", interval = \"100ms\", failures = 1 }");
    let mut words = held(&checked, None);
    list(vec![service("web"), endpoint("web", "one", gone)])
        .into_iter()
        .for_each(|it| say.try_send(it).unwrap());
    assert_eq!(committed(&mut words).await.0, [("one".to_owned(), Health::Healthy)]);
    say.try_send(Event::Reset { scope: scope() }).unwrap();
    let key = (scope().registry, "web".parse().unwrap(), "http".parse().unwrap(), "one".parse().unwrap());
    let reset = timeout(SOON, words.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(reset, Event::Reset { .. }), "{reset:?}");
    let end = tokio::time::Instant::now() + SOON;
    while findings.of(&key).is_none() {
        assert!(tokio::time::Instant::now() < end);
        tokio::select! {
            word = words.next() => panic!("{word:?} within a list"),
            () = tokio::task::yield_now() => {}
        }
    }
    for event in list(vec![service("web"), endpoint("web", "one", gone)]).into_iter().skip(1) {
        say.try_send(event).unwrap();
    }
    // It may be judged before its list is told, between that and the commit, or after both.
    let mut last = committed(&mut words).await.0.pop();
    if last == Some(("one".to_owned(), Health::Healthy)) {
        last = committed(&mut words).await.0.pop();
    }
    assert_eq!(last, Some(("one".to_owned(), Health::Unhealthy)));
}

/// The health of the one endpoint that the next aside tells of, and how old that aside says its words are.
async fn aside(asides: &mut BoxStream<'_, Vec<Event>>) -> (Health, Duration) {
    let words = timeout(SOON, asides.next()).await.expect("an aside in time").unwrap();
    let [Event::Replace { resources, .. }, Event::Commit { age, .. }] = &words[..] else {
        panic!("{words:?}");
    };
    let health = resources.iter().find_map(|resource| match resource {
        Resource::Endpoint(endpoint) => Some(endpoint.health),
        _ => None,
    });
    (health.unwrap(), *age)
}

#[tokio::test]
async fn who_dies_and_comes_back_while_the_registry_is_away_is_noticed() {
    let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = alive.local_addr().unwrap();
    let (checked, say, _) =
        checked("check = { kind = \"tcp\", interval = \"100ms\", failures = 1, successes = 1 }");
    let mut asides = checked.asides();
    let mut words = checked.watch(scope(), None);
    let said = vec![service("web"), endpoint("web", "one", place)];
    // It is committed between this and what comes out.
    let said_at = std::time::Instant::now();
    list(said).into_iter().for_each(|it| say.try_send(it).unwrap());
    assert_eq!(committed(&mut words).await.0, [("one".to_owned(), Health::Healthy)]);
    // What was not committed does not count.
    say.try_send(replace("new", vec![endpoint("web", "two", place)])).unwrap();
    let uncommitted = timeout(SOON, words.next()).await.unwrap();
    assert!(matches!(uncommitted, Some(Ok(Event::Replace { .. }))), "{uncommitted:?}");
    drop(words);
    drop(alive);
    let (health, age) = aside(&mut asides).await;
    assert_eq!(health, Health::Unhealthy);
    assert!(age > Duration::ZERO && age <= said_at.elapsed(), "as old as the registry's own words: {age:?}");
    let _back = TcpListener::bind(place).await.unwrap();
    assert_eq!(aside(&mut asides).await.0, Health::Healthy);
}

/// The words of an origin that makes no sense any more, so that what it said last stands.
fn garbled(origin: &str) -> Event {
    let fault = OriginFault { message: "no sense".into(), place: origin.into(), keeps_last_good: true };
    let (origin, version) = (OriginName::new(origin).unwrap(), Version("2".into()));
    Event::Replace { scope: scope(), origin, version, resources: Vec::new(), faults: vec![fault] }
}

/// Takes words in until the one endpoint that there is has this health.
async fn merged(
    words: &mut BoxStream<'_, Result<Event, RegistryError>>,
    merge: &mut Merge,
    expected: Health,
) {
    let now = std::time::SystemTime::now();
    let seen = |merge: &Merge| {
        let partition = merge.snapshot().partitions.get(&scope().registry)?;
        let mut endpoints = partition.services.values().flat_map(|entry| &entry.endpoints);
        endpoints.next().map(|endpoint| endpoint.health)
    };
    loop {
        let word = timeout(SOON, words.next()).await;
        let word = word.unwrap_or_else(|_| panic!("{expected:?} in time, not {:?}", seen(merge)));
        let word = word.unwrap().unwrap();
        let is_commit = matches!(word, Event::Commit { .. });
        merge.apply(word, now);
        if is_commit && seen(merge) == Some(expected) {
            return;
        }
    }
}

#[tokio::test]
async fn what_stands_because_newer_words_make_no_sense_is_looked_after_on() {
    let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = alive.local_addr().unwrap();
    let (checked, say, findings) =
        checked("check = { kind = \"tcp\", interval = \"100ms\", failures = 1, successes = 1 }");
    let (mut words, mut merge) = (held(&checked, None), Merge::default());
    list(vec![service("web"), endpoint("web", "one", place)])
        .into_iter()
        .for_each(|it| say.try_send(it).unwrap());
    merged(&mut words, &mut merge, Health::Healthy).await;
    drop(alive);
    merged(&mut words, &mut merge, Health::Unhealthy).await;
    let key = (scope().registry, "web".parse().unwrap(), "http".parse().unwrap(), "one".parse().unwrap());
    // It says what makes no sense, and what is known of the endpoint stands with what it said before.
    [garbled("all"), commit()].into_iter().for_each(|it| say.try_send(it).unwrap());
    merged(&mut words, &mut merge, Health::Unhealthy).await;
    assert!(findings.of(&key).is_some());
    let back = TcpListener::bind(place).await.unwrap();
    merged(&mut words, &mut merge, Health::Healthy).await;
    drop(back);
    merged(&mut words, &mut merge, Health::Unhealthy).await;
    let origins = &merge.snapshot().scopes[&scope()].origins;
    assert!(origins.values().all(|origin| origin.faults[0].keeps_last_good), "and the fault as well");
    // What is gone in good words is gone.
    [replace("all", Vec::new()), commit()].into_iter().for_each(|it| say.try_send(it).unwrap());
    while !matches!(timeout(SOON, words.next()).await.unwrap().unwrap().unwrap(), Event::Commit { .. }) {}
    assert_eq!(findings.of(&key), None);
}

#[tokio::test]
async fn what_stands_since_before_a_stream_broke_off_is_looked_after_on() {
    let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = alive.local_addr().unwrap();
    let (first, second) = (mpsc::channel(64), mpsc::channel(64));
    let said = Arc::new(Said { name: scope().registry, words: Mutex::new(Some(first.1)) });
    let section =
        SourceFile::new("weft.toml", "check = { kind = \"tcp\", interval = \"100ms\", failures = 1 }");
    let rules = read(&section, |section| CheckRules::read(section)).value.unwrap();
    let checked = Checked::new(said.clone(), rules, None, Findings::default());
    let mut merge = Merge::default();
    let mut words = checked.watch(scope(), None);
    let all = vec![service("web"), endpoint("web", "one", place)];
    list(all).into_iter().for_each(|it| first.0.try_send(it).unwrap());
    merged(&mut words, &mut merge, Health::Healthy).await;
    drop(words);
    *said.words.lock().unwrap() = Some(second.1);
    let mut words = held(&checked, None);
    let ready = Event::Ready { scope: scope(), completeness: Completeness::Full };
    let faulty = [Event::Reset { scope: scope() }, garbled("all"), ready, commit()];
    faulty.into_iter().for_each(|it| second.0.try_send(it).unwrap());
    merged(&mut words, &mut merge, Health::Healthy).await;
    drop(alive);
    merged(&mut words, &mut merge, Health::Unhealthy).await;
}

#[test]
fn the_first_check_that_fits_a_service_counts() {
    let read = |text: &str| read(&SourceFile::new("weft.toml", text), |section| CheckRules::read(section));
    let rules = read(
        "[[check]]\nservices = [\"web.default\", \"*.shop\"]\nkind = \"http\"\npath = \"/up\"\n\
         [[check]]\nservices = \"legacy.default\"\nkind = \"none\"\n[[check]]\nkind = \"tcp\"\n",
    );
    let rules = rules.value.unwrap();
    let of = |service: &str| rules.of(&service.parse().unwrap()).map(|check| check.question.to_string());
    assert_eq!(of("web").as_deref(), Some("GET /up"));
    assert_eq!(of("cart.shop").as_deref(), Some("GET /up"));
    assert_eq!(of("legacy"), None);
    assert_eq!(of("other").as_deref(), Some("connection"));
    assert!(read("").value.unwrap().is_empty());
    for wrong in
        ["check = 3", "check = { kind = \"ping\" }", "check = { kind = \"tcp\", services = \"a.b.c.d/\" }"]
    {
        assert!(read(wrong).value.is_none(), "{wrong}");
    }
}
