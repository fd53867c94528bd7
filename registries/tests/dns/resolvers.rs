//! Several servers: asked one after the other until one answers.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use weft_testbed::Knot;

use crate::{
    follower::{Follower, View},
    support::{DB, follow, has, knot, registry},
};

/// Two servers that say different things of `db.test`, so that it shows who was asked.
fn two() -> Option<[Knot; 2]> {
    Some([knot("db A 10.0.0.1")?, knot("db A 10.0.0.2")?])
}

fn follower(servers: &[SocketAddr], more: &str) -> Follower {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    Follower::of(registry(&servers, more))
}

fn says(number: u8) -> impl Fn(&View) -> bool {
    move |view| has(view, "db.default", &[&format!("10.0.0.{number}:5432")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_long_for_a_packet_comes_whole_with_two_servers_too() {
    let many: Vec<String> = (1..=200).map(|number| format!("db A 10.0.1.{number}")).collect();
    let Some(one) = knot(&many.join("\n")) else { return };
    let Some(other) = knot(&many.join("\n")) else { return };
    let mut follower = follower(&[one.address(), other.address()], DB);
    let view = follower.until("they are there", |view| view.endpoints("db.default").len() == 200).await;
    assert_eq!((view.errors, view.origins["name/db.default"].1.len()), (vec![], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_that_is_written_answers_and_the_next_when_it_fails_or_refuses() {
    let Some([one, other]) = two() else { return };
    let mut follower = follower(&[one.address(), other.address()], DB);
    follower.until("the first is asked", says(1)).await;
    let commits = follower.now().commits + 2;
    let view = follower.until("for some time", |view| view.commits >= commits).await;
    assert!(says(1)(&view));
    assert_eq!(other.counts().unwrap().queries, 0, "nobody asks the second while the first answers");
    one.lose_zone().unwrap();
    follower.until("the first fails", says(2)).await;
    one.set("db A 10.0.0.3").unwrap();
    follower.until("its word counts again", says(3)).await;
    one.refuse(true).unwrap();
    let view = follower.until("the first refuses", says(2)).await;
    assert_eq!((view.faults(), view.errors.len()), (vec![], 0));
    other.refuse(true).unwrap();
    let view = follower.until("both refuse", |view| !view.errors.is_empty()).await;
    assert_eq!(view.errors[0].label(), "denied");
    let said = view.errors[0].to_string();
    assert!(
        said.contains(&one.address().to_string()) && said.contains(&other.address().to_string()),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_first_server_holds_up_few_questions_and_is_asked_again_later() {
    let names: Vec<String> = (0..40).map(|number| format!("n{number}")).collect();
    let lines = |address: &str| names.iter().map(|name| format!("{name} A {address}\n")).collect::<String>();
    let Some([one, other]) = two() else { return };
    one.set(&lines("10.0.0.1")).unwrap();
    other.set(&lines("10.0.0.2")).unwrap();
    let follows: String = names.iter().map(|name| follow(name)).collect();
    let mut follower = follower(&[one.address(), other.address()], &follows);
    let all = |last: u8| {
        let names = names.clone();
        let address = format!("10.0.0.{last}:80");
        move |view: &View| names.iter().all(|name| has(view, &format!("{name}.default"), &[&address]))
    };
    follower.until("all are there", all(1)).await;
    one.process().pause();
    let began = Instant::now();
    follower.until("the second is asked", all(2)).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    other.set(&lines("10.0.0.3")).unwrap();
    let began = Instant::now();
    let view = follower.until("and goes on to be asked", all(3)).await;
    assert!(began.elapsed() < Duration::from_secs(20), "the first holds nobody up: {:?}", began.elapsed());
    assert_eq!((view.faults(), view.errors.len()), (vec![], 0));
    one.process().resume();
    follower.until("the first is back", all(1)).await;
    other.process().kill();
    let commits = follower.now().commits + 3;
    let view = follower.until("the second is not missed", |view| view.commits >= commits).await;
    assert!(all(1)(&view) && view.errors.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_at_several_ports_of_an_address_are_several() {
    let Some(knot) = knot("db A 10.0.0.1") else { return };
    // A port where nobody answers, held so that nobody else comes to.
    let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut follower = follower(&[held.local_addr().unwrap(), knot.address()], DB);
    let began = Instant::now();
    let view = follower.until("the second is asked", says(1)).await;
    // Sooner than a server that was passed over is asked again.
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!(view.errors, vec![]);
}
