use std::{path::Path, sync::Arc, time::Duration};

use weft_core::{
    control::{
        ControlError, MOST_NAMES, MOST_SCOPES, ResumePoint,
        discovery::{Relayed, read_event},
        message::{self, Discovery, ScopePosition, Subscribe},
    },
    merge::Merge,
    name::{InstanceName, OriginName, PortName, RegistryName, RuleName, ServiceName},
    registry::{Completeness, Event, Version},
    resource::{
        Action, AppProtocol, Endpoint, Health, Labels, Policy, PolicyTarget, Resource, Service, ServicePort,
        TlsMode,
    },
};

use super::*;
use crate::hub::{file::HubFile, journal::Journal};

mod restart;

fn journal(folder: &Path) -> Arc<Journal> {
    Arc::new(Journal::open(Arc::new(HubFile::open(folder).unwrap())).unwrap())
}

fn registry() -> RegistryName {
    RegistryName::new("static").unwrap()
}

fn scope() -> Scope {
    Scope::whole(registry())
}

fn endpoint(service: usize, instance: usize) -> Endpoint {
    let identity = format!("spiffe://demo.mesh/ns/default/sa/service-{service}");
    Endpoint {
        service: ServiceName::new(&format!("service-{service}.default")).unwrap(),
        port_name: PortName::new("http").unwrap(),
        instance: InstanceName::new(&format!("service-{service}-{instance}")).unwrap(),
        address: format!("10.0.{}.{}:8080", service % 256, instance % 256).parse().unwrap(),
        mesh_address: Some(format!("10.0.{}.{}:15008", service % 256, instance % 256).parse().unwrap()),
        identity: Some(weft_core::identity::SpiffeId::parse(&identity).unwrap()),
        said_by: Default::default(),
        tls: TlsMode::Required,
        labels: Labels::default(),
        weight: 1,
        locality: weft_core::locality::Locality::default(),
        health: Health::Healthy,
    }
}

fn service(service: usize) -> Resource {
    let port = ServicePort { name: PortName::new("http").unwrap(), number: 80, protocol: AppProtocol::Http };
    let name = ServiceName::new(&format!("service-{service}.default")).unwrap();
    Resource::Service(Arc::new(Service {
        name,
        ports: vec![port],
        hosts: Vec::new(),
        nearest: false,
        declared: true,
    }))
}

/// One file that says everything.
fn everything(services: usize, endpoints: usize) -> Vec<Resource> {
    let of = |number| {
        let endpoints = (0..endpoints).map(move |i| Resource::Endpoint(endpoint(number, i).into()));
        std::iter::once(service(number)).chain(endpoints)
    };
    (0..services).flat_map(of).collect()
}

/// A registry of one file, with the relay behind it.
struct Bench {
    merge: Merge,
    relay: Relay,
    journal: Arc<Journal>,
    now: SystemTime,
    version: u64,
    /// What the registry says of its lists.
    completeness: Completeness,
}

impl Bench {
    fn new(folder: &Path) -> Self {
        let journal = journal(folder);
        let mut relay = Relay::new(journal.clone());
        relay.restore([&registry()]).unwrap();
        let merge = Merge::new(std::collections::BTreeMap::new());
        Self { merge, relay, journal, now: SystemTime::now(), version: 0, completeness: Completeness::Full }
    }

    fn say(&mut self, resources: Vec<Resource>) {
        let listed = self.version == 0;
        self.version += 1;
        let origin = OriginName::new("mesh.toml").unwrap();
        let version = Version(self.version.to_string().into());
        let replace = Event::Replace { scope: scope(), origin, version, resources, faults: Vec::new() };
        let mut events = vec![replace, Event::Commit { scope: scope(), resume: None, age: Duration::ZERO }];
        if listed {
            events.insert(0, Event::Reset { scope: scope() });
            events.insert(2, Event::Ready { scope: scope(), completeness: self.completeness });
        }
        for event in events {
            self.merge.apply(event, self.now);
        }
        self.relay.take(self.merge.snapshot()).unwrap();
    }

    /// Time goes by, and the registry says that nothing changed.
    fn confirm(&mut self, later: Duration) {
        self.now += later;
        self.merge.apply(Event::Commit { scope: scope(), resume: None, age: Duration::ZERO }, self.now);
        self.relay.take(self.merge.snapshot()).unwrap();
    }

    fn follower(&self, resume: Option<&ResumePoint>) -> Result<Follower, ResumeFault> {
        let resume = resume.map(ResumePoint::to_message);
        let subscribe = Subscribe { subscription: 1, resume, ..Subscribe::default() };
        Follower::new(subscribe, self.journal.past(), &self.relay.reader().load())
    }

    fn told(&self, follower: &mut Follower) -> Vec<Discovery> {
        let reader = self.relay.reader();
        std::iter::from_fn(|| follower.next_batch(&reader.load(), self.now).unwrap()).collect()
    }
}

/// An agent that keeps what it is told.
struct Agent {
    merge: Merge,
    point: ResumePoint,
    replaced: Vec<String>,
    resets: usize,
}

impl Agent {
    fn new(hub: &Bench) -> Self {
        let past = hub.journal.past();
        let (epoch, life) = (Bytes::copy_from_slice(&past.epoch()), Bytes::copy_from_slice(&past.life()));
        let point = ResumePoint { epoch, life, ..ResumePoint::default() };
        Self { merge: Merge::new(std::collections::BTreeMap::new()), point, replaced: Vec::new(), resets: 0 }
    }

    /// Takes batches over; gives their size.
    fn hear(&mut self, batches: &[Discovery]) -> usize {
        self.replaced.clear();
        let mut size = 0;
        for batch in batches {
            size += prost::Message::encoded_len(batch);
            for event in &batch.events {
                let event = match read_event(&scope(), event).unwrap() {
                    Relayed::Commit { position, .. } => {
                        self.point.advance(&scope(), position);
                        Event::Commit { scope: scope(), resume: None, age: Duration::ZERO }
                    }
                    Relayed::Event(event) => event,
                };
                match &event {
                    Event::Replace { origin, .. } => self.replaced.push(origin.to_string()),
                    Event::Reset { .. } => self.resets += 1,
                    _ => {}
                }
                self.merge.apply(event, SystemTime::now());
            }
        }
        size
    }

    /// What it knows, in a form that can be compared.
    fn known(&self) -> Vec<String> {
        known(&self.merge)
    }
}

fn known(merge: &Merge) -> Vec<String> {
    let partitions = merge.snapshot().partitions.values();
    let mut known: Vec<_> = partitions
        .flat_map(|partition| {
            let services =
                partition.services.values().filter(|e| e.service.is_some() || !e.endpoints.is_empty());
            let services = services.map(|entry| format!("{:?} {:?}", entry.service, entry.endpoints));
            services
                .chain(partition.policies.values().map(|policy| format!("{policy:?}")))
                .collect::<Vec<_>>()
        })
        .collect();
    known.sort();
    known
}

#[test]
fn one_endpoint_of_ten_thousand_services_costs_its_own_size_also_after_a_reconnect_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Bench::new(folder.path());
    let mut resources = everything(10_000, 2);
    hub.say(resources.clone());
    let mut agent = Agent::new(&hub);
    let mut follower = hub.follower(None).unwrap();
    let full = agent.hear(&hub.told(&mut follower));
    assert_eq!(agent.known(), known(&hub.merge));
    assert!(full > 1_000_000, "the full list has {full} bytes");

    let weigh = |resources: &mut Vec<Resource>, weight| {
        let changed = Endpoint { weight, ..endpoint(5000, 1) };
        resources[5000 * 3 + 2] = Resource::Endpoint(changed.into());
        resources.clone()
    };
    hub.say(weigh(&mut resources, 2));
    let live = agent.hear(&hub.told(&mut follower));
    assert_eq!(agent.replaced, ["service/service-5000.default"]);
    assert!(live < 500, "{live} bytes for one change");

    hub.say(weigh(&mut resources, 3));
    let mut follower = hub.follower(Some(&agent.point)).unwrap();
    let after_reconnect = agent.hear(&hub.told(&mut follower));
    assert!(after_reconnect < 500, "{after_reconnect} bytes after a reconnect");

    let point = agent.point.clone();
    drop((hub, follower));
    let mut hub = Bench::new(folder.path());
    hub.say(weigh(&mut resources, 4));
    let mut follower = hub.follower(Some(&point)).unwrap();
    let after_restart = agent.hear(&hub.told(&mut follower));
    assert!(after_restart < 500, "{after_restart} bytes after a restart of the hub");
    assert_eq!(agent.known(), known(&hub.merge));
    assert_eq!(agent.resets, 1, "only the first list was full");
}

#[test]
fn what_went_while_the_agent_was_away_goes_there_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Bench::new(folder.path());
    let policy = Policy {
        name: RuleName::new("closed").unwrap(),
        target: PolicyTarget::Mesh,
        action: Action::Deny,
        rules: Vec::new(),
    };
    let mut resources = everything(3, 1);
    resources.push(Resource::Policy(policy.into()));
    hub.say(resources);
    let mut agent = Agent::new(&hub);
    agent.hear(&hub.told(&mut hub.follower(None).unwrap()));

    // It goes in the life of this hub, and the agent comes back to the next.
    hub.say(everything(2, 1));
    drop(hub);
    let mut hub = Bench::new(folder.path());
    hub.say(everything(2, 1));
    agent.hear(&hub.told(&mut hub.follower(Some(&agent.point)).unwrap()));
    agent.replaced.sort();
    assert_eq!(agent.replaced, ["policy/closed", "service/service-2.default"]);
    assert_eq!(agent.known(), known(&hub.merge));

    // It goes while no hub runs at all.
    drop(hub);
    let mut hub = Bench::new(folder.path());
    hub.say(everything(1, 1));
    agent.hear(&hub.told(&mut hub.follower(Some(&agent.point)).unwrap()));
    assert_eq!(agent.known(), known(&hub.merge));
    assert_eq!(agent.resets, 1);
}

#[test]
fn a_service_that_outgrows_one_piece_is_cut_and_grows_together_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Bench::new(folder.path());
    hub.say(everything(1, 3));
    let mut agent = Agent::new(&hub);
    let mut follower = hub.follower(None).unwrap();
    agent.hear(&hub.told(&mut follower));
    assert_eq!(agent.replaced.len(), 1);

    hub.say(everything(1, 200));
    agent.hear(&hub.told(&mut follower));
    assert_eq!(agent.known(), known(&hub.merge));
    let mut resources = everything(1, 200);
    resources[7] = Resource::Endpoint(Endpoint { health: Health::Draining, ..endpoint(0, 6) }.into());
    hub.say(resources);
    let size = agent.hear(&hub.told(&mut follower));
    assert_eq!(agent.replaced.len(), 1);
    assert!(size < 500, "{size} bytes for one of two hundred endpoints");
    assert_eq!(agent.known(), known(&hub.merge));

    hub.say(everything(1, 2));
    agent.hear(&hub.told(&mut follower));
    assert_eq!(agent.known(), known(&hub.merge));
}

#[test]
fn commits_are_passed_on_when_they_are_due_and_say_that_nothing_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Bench::new(folder.path());
    hub.say(everything(1, 1));
    let mut agent = Agent::new(&hub);
    let mut follower = hub.follower(None).unwrap();
    agent.hear(&hub.told(&mut follower));
    hub.confirm(Duration::from_secs(1));
    assert_eq!(hub.told(&mut follower), []);
    hub.confirm(Duration::from_secs(10));
    let batches = hub.told(&mut follower);
    let [batch] = &batches[..] else { panic!("{batches:?}") };
    assert_eq!(batch.events.len(), 1);
    assert!(matches!(read_event(&scope(), &batch.events[0]).unwrap(), Relayed::Commit { .. }));
}

#[test]
fn a_list_that_may_hide_something_is_no_full_one_at_the_agent_either() {
    for completeness in [Completeness::Filtered, Completeness::Full] {
        let folder = tempfile::tempdir().unwrap();
        let mut other = Bench::new(folder.path());
        other.say(everything(7, 1));
        let mut agent = Agent::new(&other);
        agent.hear(&other.told(&mut other.follower(None).unwrap()));

        // A hub without a past, whose registry tells it less than there is.
        let folder = tempfile::tempdir().unwrap();
        let mut hub = Bench { completeness, ..Bench::new(folder.path()) };
        hub.say(everything(4, 1));
        agent.hear(&hub.told(&mut hub.follower(None).unwrap()));
        let kept = if completeness == Completeness::Full { 0 } else { 3 };
        let state = &agent.merge.snapshot().scopes[&scope()];
        assert_eq!((state.origins.len(), state.unconfirmed.len()), (4 + kept, kept), "{completeness:?}");
    }
}

#[test]
fn nothing_is_relayed_before_the_registry_has_confirmed_its_list() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Bench::new(folder.path());
    hub.merge.apply(Event::Reset { scope: scope() }, hub.now);
    hub.relay.take(hub.merge.snapshot()).unwrap();
    assert_eq!(hub.told(&mut hub.follower(None).unwrap()), []);
}

#[test]
fn points_that_cannot_be_resumed_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Bench::new(folder.path());
    hub.say(everything(2 * KEPT_GONE, 0));
    let mut agent = Agent::new(&hub);
    let mut slow = hub.follower(None).unwrap();
    agent.hear(&hub.told(&mut slow));

    let other = ResumePoint { epoch: Bytes::from_static(b"other"), ..agent.point.clone() };
    assert!(matches!(hub.follower(Some(&other)), Err(ResumeFault::Epoch)));
    let mut ahead = agent.point.clone();
    ahead.advance(&scope(), 1 << 40);
    assert!(matches!(hub.follower(Some(&ahead)), Err(ResumeFault::Ahead(_))));

    // More goes than is remembered: whoever was away, or is too slow, must take the full list.
    for left in [KEPT_GONE + KEPT_GONE / 2, KEPT_GONE, 10, 9] {
        hub.say(everything(left, 0));
    }
    assert!(matches!(hub.follower(Some(&agent.point)), Err(ResumeFault::TooOld(_))));
    assert!(slow.next_batch(&hub.relay.reader().load(), hub.now).unwrap_err().needs_full_list());
    agent.hear(&hub.told(&mut hub.follower(None).unwrap()));
    drop(hub);
    let mut hub = Bench::new(folder.path());
    hub.say(everything(9, 0));
    assert!(matches!(hub.follower(Some(&ahead)), Err(ResumeFault::Ahead(_))));
    assert!(hub.follower(Some(&agent.point)).is_ok());
}

#[test]
fn a_subscription_that_names_more_than_anybody_follows_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Bench::new(folder.path());
    let follow = |subscribe| {
        let state = hub.relay.reader().load_full();
        Follower::new(subscribe, hub.journal.past(), &state)
    };
    let is_refused = |outcome: Result<Follower, ResumeFault>| {
        matches!(outcome, Err(ResumeFault::Malformed(ControlError::TooMany { .. })))
    };
    let services = |count: usize| Subscribe {
        services: (0..count).map(|number| format!("service-{number}.default")).collect(),
        ..Subscribe::default()
    };
    assert!(follow(services(MOST_NAMES)).is_ok());
    assert!(is_refused(follow(services(MOST_NAMES + 1))));

    // In the order that costs whoever puts each in its place the most.
    let point = |count: usize| {
        let position = |number| ScopePosition {
            registry: registry().to_string(),
            part: format!("{:07}", count - number),
            position: 0,
        };
        let epoch = Bytes::copy_from_slice(&hub.journal.past().epoch());
        let positions = (0..count).map(position).collect();
        let resume = message::ResumePoint { epoch, positions, ..Default::default() };
        Subscribe { resume: Some(resume), ..Subscribe::default() }
    };
    assert!(follow(point(MOST_SCOPES)).is_ok());
    let began = std::time::Instant::now();
    assert!(is_refused(follow(point(350_000))));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_point_with_a_registry_that_is_relayed_no_more_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Bench::new(folder.path());
    hub.say(everything(1, 1));
    let mut agent = Agent::new(&hub);
    agent.hear(&hub.told(&mut hub.follower(None).unwrap()));
    drop(hub);
    let hub = Bench::new(folder.path());
    assert!(hub.follower(Some(&agent.point)).is_ok(), "its registry has not spoken yet, but will");
    let mut point = agent.point.clone();
    point.advance(&Scope::whole(RegistryName::new("renamed").unwrap()), 1);
    let fault = hub.follower(Some(&point)).unwrap_err();
    assert!(matches!(fault, ResumeFault::Gone(_)) && fault.needs_full_list());
}

#[test]
fn a_slow_agent_is_owed_the_state_and_not_its_history() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Bench::new(folder.path());
    hub.say(everything(3, 1));
    let mut agent = Agent::new(&hub);
    let mut follower = hub.follower(None).unwrap();
    agent.hear(&hub.told(&mut follower));
    for weight in 2..1000 {
        let mut resources = everything(3, 1);
        resources[1] = Resource::Endpoint(Endpoint { weight, ..endpoint(0, 0) }.into());
        hub.say(resources);
    }
    let size = agent.hear(&hub.told(&mut follower));
    assert!(size < 500, "{size} bytes for a thousand changes of one endpoint");
    assert_eq!(agent.known(), known(&hub.merge));
}
