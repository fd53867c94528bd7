//! Servers that are gone, in whole or in part, and come back.

use std::time::{Duration, Instant};

use crate::{
    follower::View,
    support::{DB, follow, follower, has, knot},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_refuses_or_is_silent_takes_nothing_away() {
    let Some(knot) = knot("db A 10.0.0.1") else { return };
    let mut follower = follower(&knot, DB);
    let before = follower.until("it is there", |view| has(view, "db.default", &["10.0.0.1:5432"])).await;
    for (number, outage) in ["SERVFAIL", "REFUSED", "killed", "silent"].into_iter().enumerate() {
        let errors = follower.now().errors.len();
        match outage {
            "SERVFAIL" => knot.lose_zone().unwrap(),
            "REFUSED" => knot.refuse(true).unwrap(),
            "killed" => knot.process().kill(),
            _ => knot.process().pause(),
        }
        let view = follower.until(&format!("{outage} is seen"), |view| view.errors.len() > errors).await;
        assert_eq!(view.addresses("db.default"), before.addresses("db.default"));
        let label = if outage == "REFUSED" { "denied" } else { "unreachable" };
        assert_eq!(view.errors.last().unwrap().label(), label, "{:?}", view.errors.last());
        match outage {
            "REFUSED" => knot.refuse(false).unwrap(),
            "killed" => knot.restart().unwrap(),
            "silent" => knot.process().resume(),
            _ => {}
        }
        let records = format!("db A 10.0.0.{}", number + 2);
        knot.set(&records).unwrap();
        let address = format!("10.0.0.{}:5432", number + 2);
        follower.until("what is new is seen", |view| has(view, "db.default", &[&address])).await;
        knot.set("db A 10.0.0.1").unwrap();
        follower.until("and what is newer", |view| has(view, "db.default", &["10.0.0.1:5432"])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_many_names_that_is_gone_is_missed_by_the_first_that_is_asked_for_and_no_name_is_told_of()
{
    let names: Vec<String> = (0..40).map(|number| format!("n{number}")).collect();
    let records: Vec<String> = names.iter().map(|name| format!("{name} 3600 A 10.0.0.1")).collect();
    let Some(knot) = knot(&format!("db 1 A 10.0.0.1\n{}", records.join("\n"))) else { return };
    let follows: String = names.iter().map(|name| follow(name)).collect();
    let mut follower = follower(&knot, &format!("max_ttl = \"1h\"\n{DB}{follows}"));
    let all = |view: &View| view.services().len() == 41;
    let before = follower.until("all are there", all).await;
    for is_killed in [true, false] {
        let errors = follower.now().errors.len();
        let began = Instant::now();
        if is_killed {
            knot.process().kill()
        } else {
            knot.process().pause()
        }
        let view = follower.until("it is missed", |view| view.errors.len() > errors).await;
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
        assert_eq!(view.services(), before.services());
        assert_eq!(view.faults(), Vec::<String>::new(), "that the server is lost says it all");
        if is_killed {
            knot.restart().unwrap()
        } else {
            knot.process().resume()
        }
        let (commits, lists) = (view.commits, view.lists);
        follower.until("it is back", |view| view.commits > commits && view.lists > lists).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_known_outlives_an_outage_after_which_not_all_is_answered() {
    let srv = "_pg._tcp SRV 1 7 5432 one\n_pg._tcp SRV 1 7 5432 two.sub\n";
    let Some(knot) = knot(&format!("{srv}one A 10.0.0.1\ntwo.sub A 10.0.0.2")) else { return };
    let mut follower = follower(&knot, "[[follow]]\nservice = \"db\"\nsrv = \"_pg._tcp.test\"\n");
    let all = ["10.0.0.1:5432", "10.0.0.2:5432"];
    follower.until("both are there", |view| has(view, "db.default", &all)).await;
    knot.lose_zone().unwrap();
    follower.until("the server is lost", |view| !view.errors.is_empty()).await;
    // The zone sends on to somebody who is not there: nobody denies anything.
    knot.set(&format!("{srv}one A 10.0.0.3\nsub NS ns.elsewhere.")).unwrap();
    let view = follower.until("it is back", |view| view.addresses("db.default") != all).await;
    assert_eq!(view.addresses("db.default"), ["10.0.0.2:5432", "10.0.0.3:5432"]);
    assert!(view.faults().join("\n").contains("no SOA"), "{:?}", view.faults());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_nothing_but_failures_is_lost_although_most_names_were_not_asked_lately() {
    let names: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
    let records = |address: &str| {
        let lines = names.iter().map(|name| format!("{name} 3600 A {address}\n"));
        format!("db 1 A {address}\n{}", lines.collect::<String>())
    };
    let Some(knot) = knot(&records("10.0.0.1")) else { return };
    let follows: String = names.iter().map(|name| follow(name)).collect();
    let mut follower = follower(&knot, &format!("max_ttl = \"1h\"\n{DB}{follows}"));
    follower.until("all are there", |view| view.services().len() == 11).await;
    knot.lose_zone().unwrap();
    let began = Instant::now();
    let view = follower.until("it is lost", |view| !view.errors.is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(view.faults(), Vec::<String>::new(), "that the server is lost says it all");
    knot.set(&records("10.0.0.2")).unwrap();
    let began = Instant::now();
    let all = |view: &View| names.iter().all(|name| has(view, &format!("{name}.default"), &["10.0.0.2:80"]));
    let view = follower.until("all is read anew", all).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(view.faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_fail_together_come_back_together() {
    let names: Vec<String> = (0..12).map(|number| format!("n{number}.sub")).collect();
    let records = |address: &str| {
        let lines = names.iter().map(|name| format!("{name} A {address}\n"));
        format!("db A 10.0.0.1\n{}", lines.collect::<String>())
    };
    let Some(knot) = knot(&records("10.0.0.1")) else { return };
    let follows: String = names.iter().map(|name| follow(name)).collect();
    let mut follower = follower(&knot, &format!("{DB}{follows}"));
    follower.until("all are there", |view| view.services().len() == 13).await;
    // Sent on to somebody who is not there, nobody denies anything.
    knot.set("db A 10.0.0.1\nsub NS ns.elsewhere.").unwrap();
    follower.until("all fail", |view| view.faults().len() >= 12).await;
    tokio::time::sleep(Duration::from_secs(16)).await;
    knot.set(&records("10.0.0.2")).unwrap();
    let began = Instant::now();
    let all = |view: &View| {
        let service = |name: &str| format!("{}.default", name.replace('.', "-"));
        names.iter().all(|name| has(view, &service(name), &["10.0.0.2:80"]))
    };
    let view = follower.until("all are back", all).await;
    // Up to some four seconds until one of them is asked, and two for the others. Each for itself, some would be asked after
    // the pause of sixteen seconds that they have just begun.
    assert!(began.elapsed() < Duration::from_secs(13), "{:?}", began.elapsed());
    assert_eq!(view.errors, vec![]);
}
