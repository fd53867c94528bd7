//! The server dies and comes back, the network is cut, the event stream is worth nothing: nothing goes, and all is found.

use std::{sync::atomic::Ordering, time::Instant};

use weft_core::resource::Health;
use weft_testbed::{Gate, GateMode, Nomad, NomadOptions};

use crate::{
    front::{Front, Stream},
    support::{Follower, Job, View, follower, registry, start},
};

fn runs(view: &View, name: &str) -> bool {
    view.healths(&format!("{name}.default")) == [Health::Healthy]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_takes_nothing_with_it() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let mut follower = follower(&nomad, "");
    Job::default().run(&nomad);
    let before = follower.until("it runs", |view| runs(view, "web")).await;
    nomad.kill_server();
    let view = follower.until("the outage is seen", |view| !view.errors.is_empty()).await;
    assert_eq!(view.origins, before.origins);
    nomad.restart_server().unwrap();
    Job { name: "late", ..Job::default() }.run(&nomad);
    nomad.await_service("late", 1).unwrap();
    let back = Instant::now();
    let view = follower.until("what is new is there", |view| runs(view, "late")).await;
    assert_eq!(view.endpoints("web.default"), before.endpoints("web.default"));
    assert!(back.elapsed().as_secs() < 20, "{:?}", back.elapsed());
    assert!(view.errors.iter().all(|error| matches!(error.label(), "unreachable")), "{:?}", view.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_network_is_noticed_and_healed_and_few_connections_are_made() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let gate = Gate::before(&nomad.url()).unwrap();
    for index in 0..12 {
        let name = format!("s{index}");
        nomad.run_job(&Nomad::WEB_JOB.replace("\"web\"", &format!("{name:?}")), &[]).unwrap();
    }
    let mut follower = Follower::of(registry(&gate.url(), ""));
    let all = |view: &View| (0..12).all(|index| runs(view, &format!("s{index}")));
    let before = follower.until("they run", all).await;
    for mode in [GateMode::Silent, GateMode::SilentFromServer, GateMode::Cut] {
        let (errors, lists) = (follower.now().errors.len(), follower.now().lists);
        gate.set(mode).unwrap();
        let view = follower.until(&format!("{mode:?} is seen"), |view| view.errors.len() > errors).await;
        assert_eq!(view.origins, before.origins);
        gate.set(GateMode::Open).unwrap();
        let view = follower.until("it is listed again", |view| view.lists > lists).await;
        assert_eq!(view.services(), before.services());
    }
    let counts = gate.counts();
    assert!(counts.most_open <= 16, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_stream_that_is_worth_anything_changes_are_found_all_the_same() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    for stream in [Stream::Nameless, Stream::Short, Stream::Empty] {
        let front = Front::before(&nomad.url(), stream);
        let mut follower = Follower::of(registry(&front.url(), ""));
        let told = |view: &View| view.faults().join("\n").contains("event stream cannot be followed");
        let view = follower.until(&format!("{stream:?} is told"), told).await;
        let is_old = view.faults().join("\n").contains("before 1.11.3");
        assert_eq!(is_old, stream == Stream::Nameless, "{:?}", view.faults());
        assert!(view.errors.is_empty(), "{:?}", view.errors);
        Job::default().run(&nomad);
        follower.until("what is new is found", |view| runs(view, "web")).await;
        nomad.stop_job("web").unwrap();
        let view = follower.until("what is gone goes", |view| view.services().is_empty()).await;
        assert_eq!(view.errors, vec![]);
        let asked = front.asked.load(Ordering::SeqCst);
        assert!((1..=2).contains(&asked), "asked for it {asked} times");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_has_gone_deaf_hides_nothing_for_long() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let front = Front::before(&nomad.url(), Stream::Deaf);
    let mut follower = Follower::of(registry(&front.url(), ""));
    follower.until("it is listed", |view| view.lists == 1).await;
    Job::default().run(&nomad);
    // Its name is in the next list, and its task in the next look at what is known.
    follower.until("what is new is found", |view| view.addresses("web.default").len() == 1).await;
    nomad.await_service("web", 1).unwrap();
    let view = follower.until("it is found to run", |view| runs(view, "web")).await;
    assert_eq!((view.errors, view.lists), (vec![], 1));
    let asked = front.asked.load(Ordering::SeqCst);
    assert!((1..=4).contains(&asked), "asked for it {asked} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_set_back_is_followed_from_there() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let mut follower = follower(&nomad, "");
    Job::default().run(&nomad);
    follower.until("it runs", |view| runs(view, "web")).await;
    let file = nomad.scratch().path().join("snapshot").display().to_string();
    nomad.nomad(&["operator", "snapshot", "save", &file], "").unwrap();
    Job { name: "late", ..Job::default() }.run(&nomad);
    follower.until("what is new is there", |view| runs(view, "late")).await;
    nomad.nomad(&["operator", "snapshot", "restore", &file], "").unwrap();
    let view = follower
        .until("what the server has forgotten is gone", |view| view.endpoints("late.default").is_empty())
        .await;
    assert_eq!(view.endpoints("web.default").len(), 1);
    Job { name: "later", ..Job::default() }.run(&nomad);
    follower.until("it is followed from there", |view| runs(view, "later")).await;
}
