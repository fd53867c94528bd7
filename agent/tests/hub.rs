//! The hub and the agent's end of it, over real sockets with real TLS.
#![allow(clippy::unwrap_used)]

#[path = "support/hub.rs"]
mod hub_support;
#[path = "support/scripted_agent.rs"]
mod scripted_agent;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use hub_support::{Counter, Mesh, WorkloadList, eventually, workloads};
use scripted_agent::ScriptedAgent;
use weft_agent::{
    hub::token::Token,
    identity::{
        HubIdentity, IdentitySettings,
        join::{JoiningError, join},
    },
};
use weft_core::{
    control::{
        WINDOW,
        discovery::{self, Relayed},
        message::{Acknowledge, ClientWord, RefusalCode, Subscribe},
    },
    flow::{Flow, FlowConfig, Source},
    identity::SpiffeId,
    name::{RegistryName, ServiceName},
    publish::Reader,
    registry::{Event, Registry, RegistryError, Resume, Scope, conformance},
    resource::Resource,
    tls::Credentials,
};
use weft_registries::{
    hub::{CertificateFault, HubLink, HubRegistry, JoinError, LinkState},
    narrow::Narrow,
};

const LEAF: &str = "24h";

fn identity(account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://demo.mesh/ns/default/sa/{account}")).unwrap()
}

fn serial(credentials: &Reader<Credentials>, account: &str) -> Option<String> {
    credentials.load().identity(&identity(account)).map(|held| held.leaf().serial.clone())
}

async fn connected(link: &HubLink) {
    let mut state = link.state();
    let wait = state.wait_for(|state| matches!(state, LinkState::Connected { .. }));
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("connected in time").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_buys_one_key_and_a_second_one_nothing() {
    let mesh = Mesh::start(LEAF).await;
    let token = mesh.token("one", &["web"]).await;
    let address = mesh.address.to_string();
    let first = mesh.state("first");
    let joined = join(&first, &token, Some(&address), None).await.unwrap();
    assert_eq!(joined.node.node, "one");
    assert_eq!(joined.granted, [identity("web").to_string()]);
    let again = join(&first, &token, Some(&address), None).await;
    assert!(matches!(again, Err(JoiningError::Joined(_))), "a host joins once");
    let second = join(&mesh.state("second"), &token, Some(&address), None).await.unwrap_err();
    assert!(
        matches!(&second, JoiningError::Hub(JoinError::Refused(why)) if why.contains("used")),
        "{second}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_whose_answer_was_lost_is_answered_again_for_the_same_key() {
    let mesh = Mesh::start(LEAF).await;
    let token = mesh.token("one", &["web"]).await;
    let counter = Counter::start(mesh.address).await;
    let state = mesh.state("one");
    // The wire is cut a little later each time, until the hub has bound the token and the host does not know.
    let mut lost = false;
    for limit in (2000..12_000).step_by(200) {
        counter.cut_after(limit);
        let cut = join(&state, &token, Some(&counter.address()), None).await.unwrap_err();
        let passing = matches!(&cut, JoiningError::Hub(JoinError::Unanswered(_) | JoinError::Unreachable(_)));
        assert!(passing, "{cut}");
        lost = mesh.tokens().await[0].used_by.as_deref() == Some("one");
        if lost {
            break;
        }
    }
    assert!(lost, "an answer was lost on the way");
    counter.cut_after(u64::MAX);
    join(&state, &token, Some(&counter.address()), None).await.expect("the key was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_not_the_tokens_gets_no_secret() {
    let (mesh, other) = (Mesh::start(LEAF).await, Mesh::start(LEAF).await);
    let token = mesh.token("one", &[]).await;
    let wrong = join(&mesh.state("one"), &token, Some(&other.address.to_string()), None).await.unwrap_err();
    let JoiningError::Hub(JoinError::Unreachable(why)) = &wrong else { panic!("{wrong}") };
    assert!(why.contains("not the hub that made the token"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_what_it_was_granted_and_is_refused_the_rest_by_name() {
    let mesh = Mesh::start(LEAF).await;
    let state = mesh.join("one", &["web"]).await;
    let (_sender, workloads) = workloads(&["web", "bank"]);
    let settings = IdentitySettings { state_dir: state, hubs: vec![mesh.address.to_string()] };
    let agent = HubIdentity::start(settings, workloads).unwrap();
    let mut status = agent.status();
    let settled = status.wait_for(|status| {
        let bank = status.certificates.iter().find(|c| c.identity == identity("bank"));
        let web = status.certificates.iter().find(|c| c.identity == identity("web"));
        web.is_some_and(|web| web.held.is_some()) && bank.is_some_and(|bank| bank.fault.is_some())
    });
    let settled = tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap().unwrap().clone();
    let [fault] = settled.faults().try_into().unwrap();
    assert!(fault.contains("node one was not granted spiffe://demo.mesh/ns/default/sa/bank"), "{fault}");
    assert_eq!(serial(&agent.reader(), "bank"), None);
    assert!(settled.tolerance(SystemTime::now()).is_zero(), "one is missing");
    let system = SpiffeId::parse("spiffe://demo.mesh/ns/weft-system/sa/hub").unwrap();
    let request = hub_support::signing_request();
    let refused = agent.link().certificate(system, request).await.unwrap_err();
    assert!(matches!(refused, CertificateFault::Refused { .. }) && !refused.is_passing(), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_and_a_restarted_agent_serves_from_disk_while_the_hub_is_away() {
    let mesh = Mesh::start("3s").await;
    let state = mesh.join("one", &["web"]).await;
    let address = mesh.address.to_string();
    let start = || {
        let (sender, workloads) = workloads(&["web"]);
        let settings = IdentitySettings { state_dir: state.clone(), hubs: vec![address.clone()] };
        (sender, HubIdentity::start(settings, workloads).unwrap())
    };
    let (_sender, agent) = start();
    let credentials = agent.reader();
    let mut seen = std::collections::BTreeSet::new();
    eventually("three certificates in a row", || {
        seen.extend(serial(&credentials, "web"));
        seen.len() >= 3
    })
    .await;
    drop(agent);
    let _state = mesh.stop().await;

    let before = std::time::Instant::now();
    let (_sender, agent) = start();
    assert!(serial(&agent.reader(), "web").is_some(), "there at once, before anything was connected");
    assert!(before.elapsed() < Duration::from_secs(1));
    let mut state = agent.link().state();
    let away = state.wait_for(|state| matches!(state, LinkState::Away { .. }));
    tokio::time::timeout(Duration::from_secs(20), away).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_root_reaches_connected_agents_at_once_and_their_disks() {
    let mesh = Mesh::start(LEAF).await;
    let state = mesh.join("one", &[]).await;
    let (_sender, workloads) = workloads(&[]);
    let settings = IdentitySettings { state_dir: state.clone(), hubs: vec![mesh.address.to_string()] };
    let agent = HubIdentity::start(settings, workloads).unwrap();
    connected(agent.link()).await;
    let credentials = agent.reader();
    let domain = agent.trust_domain().clone();
    let roots = || credentials.load().bundle(&domain).map_or(0, |bundle| bundle.roots().len());
    assert_eq!(roots(), 1);
    mesh.add_root();
    eventually("the second root", || roots() == 2).await;
    eventually("both roots on disk", || {
        std::fs::read_to_string(state.join("bundle.pem")).unwrap().matches("BEGIN").count() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_a_node_of_the_mesh_gets_a_stream() {
    let (mesh, other) = (Mesh::start(LEAF).await, Mesh::start(LEAF).await);
    let state = other.join("one", &[]).await;
    let address = mesh.address;
    let refused = |why: &'static str, state: PathBuf| async move {
        let (_sender, workloads) = workloads(&[]);
        let settings = IdentitySettings { state_dir: state, hubs: vec![address.to_string()] };
        let agent = HubIdentity::start(settings, workloads).unwrap();
        let mut link = agent.link().state();
        let away = link.wait_for(|state| matches!(state, LinkState::Away { .. }));
        let away = tokio::time::timeout(Duration::from_secs(20), away).await.expect(why).unwrap().clone();
        let LinkState::Away { reason, .. } = away else { unreachable!() };
        reason
    };
    // A foreign mesh of the same name: it trusts another root, and so does the hub.
    let reason = refused("a foreign hub", state.clone()).await;
    assert!(reason.contains("no root that we trust signed it"), "{reason}");
    // With the hub's own root in the bundle, it is the hub that refuses.
    std::fs::copy(mesh.folder("hub/ca/bundle.pem"), state.join("bundle.pem")).unwrap();
    refused("a foreign node", state).await;
    // A workload's certificate is no node's, and an expired one nobody's.
    for (name, lifetime, what) in
        [("workload", Duration::from_secs(3600), "web"), ("late", Duration::ZERO, "node")]
    {
        refused(what, mesh.forge_node(name, what, lifetime)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_its_certificate_but_signs_nothing_more() {
    let mesh = Mesh::start(LEAF).await;
    mesh.join("one", &["web"]).await;
    // The same node, with a certificate that is good for some seconds and that nobody renews.
    let lifetime = Duration::from_secs(6);
    let link = mesh.link("one", lifetime);
    connected(&link).await;
    let over = SystemTime::now() + lifetime + Duration::from_secs(1);
    eventually("the end of the certificate", || SystemTime::now() > over).await;
    assert!(matches!(&*link.state().borrow(), LinkState::Connected { .. }), "age ends no stream");
    let refused = link.certificate(identity("web"), hub_support::signing_request()).await.unwrap_err();
    let stale = matches!(&refused, CertificateFault::Refused { code: RefusalCode::StaleCertificate, .. });
    assert!(stale && refused.is_passing(), "{refused}");
    let mut state = link.state();
    let away = state.wait_for(|state| matches!(state, LinkState::Away { .. }));
    tokio::time::timeout(Duration::from_secs(20), away).await.expect("it connects anew").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_one_endpoint_of_ten_thousand_services_takes_under_two_kilobytes_on_the_wire() {
    let mesh = Mesh::with_services(LEAF, 10_000).await;
    let (counter, agent, _workloads) = counted(&mesh).await;
    let weight = weight_of_service_5000(agent.link());
    eventually("all services", || weight() == Some((10_000, 1))).await;
    let (_sender, watcher) = mesh.agent("watcher", &[]).await;
    let hub_weight = weight_of_service_5000(watcher.link());
    eventually("all services", || hub_weight() == Some((10_000, 1))).await;

    counter.settled().await;
    let before = counter.sent();
    mesh.write_services(10_000, &BTreeMap::from([(5000, 2)]));
    eventually("the change", || weight() == Some((10_000, 2))).await;
    counter.settled().await;
    let live = counter.sent() - before;

    // What a reconnect costs by itself: handshake, welcome, bundle.
    let before = counter.sent();
    counter.cut(false);
    eventually("a new handshake", || counter.sent() > before + 1000).await;
    counter.settled().await;
    let reconnect = counter.sent() - before;

    // The agent is cut off, misses a change, and comes back.
    counter.cut(true);
    mesh.write_services(10_000, &BTreeMap::from([(5000, 3)]));
    eventually("the change at the hub", || hub_weight() == Some((10_000, 3))).await;
    let before = counter.sent();
    counter.cut(false);
    eventually("the change", || weight() == Some((10_000, 3))).await;
    counter.settled().await;
    let both = counter.sent() - before;

    println!("{live} bytes live; {reconnect} bytes for a reconnect, {both} with a change");
    assert!(live < 2048, "{live} bytes for one change");
    assert!(both < reconnect + 2048, "{both} bytes for a reconnect with one change, {reconnect} without");
}

/// A node without workloads, whose words to and from the hub are counted. It lives as long as what is given last.
async fn counted(mesh: &Mesh) -> (Counter, HubIdentity, tokio::sync::watch::Sender<WorkloadList>) {
    let state = mesh.join("one", &[]).await;
    let counter = Counter::start(mesh.address).await;
    let (sender, none) = workloads(&[]);
    let settings = IdentitySettings { state_dir: state, hubs: vec![counter.address()] };
    (counter, HubIdentity::start(settings, none).unwrap(), sender)
}

/// Follows the relay as an agent does; gives the number of services and the weight of one endpoint.
fn weight_of_service_5000(link: &HubLink) -> impl Fn() -> Option<(usize, u16)> + use<> {
    let registry = HubRegistry::new(RegistryName::new("hub").unwrap(), link.clone());
    let flow = Flow::new(FlowConfig::new(vec![Source::new(Arc::new(registry))]));
    let snapshots = flow.snapshots();
    tokio::spawn(flow.run(std::future::pending()));
    move || {
        let snapshot = snapshots.load();
        let partition = snapshot.partitions.get(&RegistryName::new("static").unwrap())?;
        let service = ServiceName::new("service-5000.default").unwrap();
        Some((partition.services.len(), partition.services.get(&service)?.endpoints.first()?.weight))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_part_hears_of_that_alone_and_of_all_of_it_when_it_asks_for_more() {
    let mesh = Mesh::with_services(LEAF, 1000).await;
    let (counter, agent, _workloads) = counted(&mesh).await;
    let named = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| ServiceName::new(name).unwrap()).collect();
        HubRegistry::factory(agent.link().clone())(
            &RegistryName::new("hub").unwrap(),
            Narrow::new(&[], &names).as_ref(),
        )
    };
    let services = |words: &[Event]| {
        let said = words.iter().filter_map(|word| match word {
            Event::Replace { resources, .. } => Some(resources),
            _ => None,
        });
        let names = said.flatten().filter_map(|resource| match resource {
            Resource::Service(service) => Some(service.name.to_string()),
            _ => None,
        });
        names.collect::<BTreeSet<_>>()
    };
    let some = named(&["service-5.default", "service-7.default"]);
    let (words, point) = heard(&*some, None).await;
    assert_eq!(services(&words), ["service-5.default", "service-7.default"].map(String::from).into());

    counter.settled().await;
    let before = counter.sent();
    mesh.write_services(1000, &BTreeMap::from([(4, 2), (6, 2)]));
    let (_sender, watcher) = mesh.agent("watcher", &[]).await;
    let everything = HubRegistry::new(RegistryName::new("hub").unwrap(), watcher.link().clone());
    eventually_heard(&everything, "service-6.default", 2).await;
    counter.settled().await;
    assert!(counter.sent() - before < 512, "{} bytes of what was not asked for", counter.sent() - before);

    mesh.write_services(1000, &BTreeMap::from([(4, 2), (6, 2), (7, 3)]));
    let (words, point) = heard(&*some, point).await;
    assert_eq!(services(&words), ["service-7.default".to_owned()].into(), "only what changed of that");

    let more = named(&["service-5.default", "service-6.default", "service-7.default"]);
    let mut refused = more.watch(Scope::whole(RegistryName::new("hub").unwrap()), point);
    let refused = refused.next().await.unwrap();
    assert!(matches!(refused, Err(RegistryError::Gap(_))), "what was not followed is not known: {refused:?}");
    assert_eq!(services(&heard(&*more, None).await.0).len(), 3);
}

/// Waits until a registry's words have an endpoint of that service with that weight.
async fn eventually_heard(registry: &dyn Registry, service: &str, weight: u16) {
    let mut words = conformance::held(registry, None);
    let is_it = |resource: &Resource| match resource {
        Resource::Endpoint(endpoint) => endpoint.service.as_str() == service && endpoint.weight == weight,
        _ => false,
    };
    let found = async {
        while let Some(word) = words.next().await {
            if matches!(word.unwrap(), Event::Replace { resources, .. } if resources.iter().any(is_it)) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("in time");
}

/// The words of a relay up to the first commit that says something, each held against the contract.
async fn heard(registry: &dyn Registry, resume: Option<Resume>) -> (Vec<Event>, Option<Resume>) {
    let mut stream = conformance::held(registry, resume);
    let mut words = Vec::new();
    loop {
        let word =
            tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("in time").unwrap();
        match word.unwrap() {
            Event::Commit { resume, .. } if !words.is_empty() => return (words, resume),
            Event::Commit { .. } => {}
            word => words.push(word),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_begins_anew_within_a_list_is_told_all_of_it() {
    let services = 10_000;
    let mesh = Mesh::with_services(LEAF, services).await;
    mesh.join("one", &[]).await;
    let mut agent = ScriptedAgent::open(&mesh.link_config("one", Duration::from_secs(3600))).await;
    let subscribe = |subscription| ClientWord::Subscribe(Subscribe { subscription, ..Subscribe::default() });
    agent.say(subscribe(1)).await;
    // It acknowledges nothing of the first list, and the hub waits in the middle of it.
    for number in 1..=WINDOW {
        let (_, batch) = agent.batch().await;
        assert_eq!(batch.subscription, 1, "batch {number}");
    }
    agent.say(subscribe(2)).await;
    let mut told = 0;
    loop {
        let (sequence, batch) = agent.batch().await;
        assert_eq!(batch.subscription, 2);
        agent.say(ClientWord::Acknowledge(Acknowledge { sequence })).await;
        let scope = discovery::read_scope(&batch).unwrap();
        let mut is_over = false;
        for encoded in &batch.events {
            match discovery::read_event(&scope, encoded).unwrap() {
                Relayed::Event(Event::Replace { resources, .. }) => {
                    told += resources.iter().filter(|it| matches!(it, Resource::Service(_))).count();
                }
                Relayed::Commit { .. } => is_over = told > 0,
                Relayed::Event(_) => {}
            }
        }
        if is_over {
            break;
        }
    }
    assert_eq!(told, services);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hub_relays_keeps_to_the_contract() {
    let mesh = Mesh::with_services(LEAF, 10).await;
    let (_sender, agent) = mesh.agent("one", &[]).await;
    let registry = HubRegistry::new(RegistryName::new("hub").unwrap(), agent.link().clone());
    let (words, point) = heard(&registry, None).await;
    assert!(matches!(words.first(), Some(Event::Reset { .. })) && words.len() > 10);
    assert_eq!(registry.relayed().iter().map(RegistryName::as_str).collect::<Vec<_>>(), ["static"]);
    mesh.write_services(10, &BTreeMap::from([(5, 2)]));
    let (words, _) = heard(&registry, point).await;
    assert!(matches!(&words[..], [Event::Replace { .. }]), "only what changed: {words:?}");
}

#[test]
fn a_token_names_its_node() {
    let domain = weft_core::identity::TrustDomain::new("demo.mesh").unwrap();
    let token = Token::new("127.0.0.1:1", Some("one"), &domain, b"root");
    assert_eq!(Token::parse(&token.to_text()).unwrap().node.as_deref(), Some("one"));
}
