//! What a zone says, and what takes it away.

use weft_core::resource::{AppProtocol, Health, Sayer, TlsMode};

use crate::{
    follower::View,
    support::{DB, follower, has, knot},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_followed_as_their_time_to_live_says() {
    let Some(knot) = knot("db A 10.0.0.1\ndb AAAA fd79::1\nother CNAME db\nslow 3600 A 10.0.0.9") else {
        return;
    };
    let follow = |service: &str, host: &str| {
        format!("[[follow]]\nservice = \"{service}\"\nhost = \"{host}.test\"\nport = 80\n")
    };
    let rules = "tls = \"off\"\nprotocol = \"tcp\"\n";
    let mut follower =
        follower(&knot, &format!("{rules}{DB}{}{}", follow("other", "OTHER"), follow("slow", "slow")));
    let view = follower
        .until("they are there", |view| has(view, "db.default", &["10.0.0.1:5432", "[fd79::1]:5432"]))
        .await;
    assert_eq!(view.addresses("other.default"), ["10.0.0.1:80", "[fd79::1]:80"]);
    let service = view.service("db.default").unwrap();
    assert_eq!((service.ports[0].number, service.ports[0].protocol), (5432, AppProtocol::Tcp));
    assert_eq!(service.hosts[0].as_str(), "db.test");
    assert_eq!(view.endpoints("db.default")[0].tls, TlsMode::Off);
    knot.set("db A 10.0.0.2\ndb A 10.0.0.1\nother CNAME db\nslow A 10.0.0.8").unwrap();
    let view = follower
        .until("the change is seen", |view| {
            has(view, "db.default", &["10.0.0.1:5432", "10.0.0.2:5432"])
                && has(view, "other.default", &["10.0.0.1:80", "10.0.0.2:80"])
        })
        .await;
    assert_eq!(view.addresses("slow.default"), ["10.0.0.9:80"], "its time has not passed");
    assert_eq!((view.lists, view.errors), (1, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_zone_denies_is_gone_and_comes_again() {
    let all = "db A 10.0.0.1\nweb A 10.0.0.2";
    let Some(knot) = knot(all) else { return };
    let web = "[[follow]]\nservice = \"web\"\nhost = \"web.test\"\nport = 80\n";
    let mut follower = follower(&knot, &format!("{DB}{web}"));
    let both = |view: &View| {
        has(view, "db.default", &["10.0.0.1:5432"]) && has(view, "web.default", &["10.0.0.2:80"])
    };
    follower.until("both are there", both).await;
    knot.set("web A 10.0.0.2").unwrap();
    let view = follower.until("one is gone", |view| view.services() == ["web.default"]).await;
    assert!(view.faults().join("\n").contains("does not exist"), "{:?}", view.faults());
    knot.set("web A 10.0.0.2\ndb TXT nothing").unwrap();
    let view = follower.until("it has no addresses", |view| view.services().len() == 2).await;
    assert!(view.endpoints("db.default").is_empty());
    knot.set(all).unwrap();
    let view = follower.until("it is there again", both).await;
    assert!(view.faults().is_empty(), "{:?}", view.faults());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_name_that_fails_is_told_and_others_go_on() {
    let Some(knot) = knot("db A 10.0.0.1") else { return };
    let lost = "[[follow]]\nservice = \"lost\"\nhost = \"lost.elsewhere\"\nport = 80\n";
    let mut follower = follower(&knot, &format!("{DB}{lost}"));
    let view = follower.until("it is there", |view| has(view, "db.default", &["10.0.0.1:5432"])).await;
    let (_, faults) = &view.origins["name/lost.default"];
    assert!(faults.iter().all(|fault| fault.keeps_last_good), "{faults:?}");
    assert!(faults[0].message.to_lowercase().contains("refused"), "{faults:?}");
    knot.set("db A 10.0.0.2").unwrap();
    let view = follower.until("it is followed", |view| has(view, "db.default", &["10.0.0.2:5432"])).await;
    assert_eq!(view.errors, vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_found_with_their_hosts_ports_weights_and_priorities() {
    let records = "_pg._tcp SRV 1 7 5432 one\n_pg._tcp SRV 1 0 5433 two\n_pg._tcp SRV 2 5 5432 three\none A 10.0.0.1\ntwo A 10.0.0.2\nthree A 10.0.0.3";
    let Some(knot) = knot(records) else { return };
    let follow = "identity = \"spiffe://demo.mesh/ns/{namespace}/sa/{service}\"\nmesh_port = 15008\n[[follow]]\nservice = \"db\"\nsrv = \"_pg._tcp.test\"\nlocality = \"eu/a\"\n";
    let mut follower = follower(&knot, follow);
    let all = ["10.0.0.1:5432", "10.0.0.2:5433", "10.0.0.3:5432"];
    let view = follower.until("they are there", |view| has(view, "db.default", &all)).await;
    let mut weights: Vec<(String, u16)> =
        view.endpoints("db.default").iter().map(|it| (it.address.to_string(), it.weight)).collect();
    weights.sort();
    assert_eq!(weights.iter().map(|(_, weight)| *weight).collect::<Vec<_>>(), [7, 1, 0]);
    assert_eq!(view.healths("db.default"), [Health::Healthy; 3], "it knows no health");
    let one = view.endpoints("db.default").remove(0);
    assert_eq!(one.mesh_address.unwrap().socket().port(), 15008);
    assert_eq!(one.identity.unwrap().as_str(), "spiffe://demo.mesh/ns/default/sa/db");
    assert_eq!((one.said_by.identity, one.locality.to_string().as_str()), (Sayer::RegistryRule, "eu/a"));
    knot.set("_pg._tcp SRV 1 7 5432 one\none A 10.0.0.1\none A 10.0.0.4").unwrap();
    follower.until("they changed", |view| has(view, "db.default", &["10.0.0.1:5432", "10.0.0.4:5432"])).await;
    knot.set("_pg._tcp SRV 0 0 0 .").unwrap();
    let view = follower.until("it is not to be had", |view| has(view, "db.default", &[])).await;
    assert_eq!(view.services(), ["db.default"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logical_name_is_one_endpoint_that_stays_where_it_is() {
    let Some(knot) = knot("db A 10.0.0.5") else { return };
    let mut follower = follower(&knot, &format!("{DB}mode = \"logical\"\n"));
    let view = follower.until("it is there", |view| has(view, "db.default", &["10.0.0.5:5432"])).await;
    let instance = view.endpoints("db.default")[0].instance.clone();
    knot.set("db A 10.0.0.1\ndb A 10.0.0.9\ndb A 10.0.0.5").unwrap();
    let commits = follower.now().commits + 2;
    let view = follower.until("it was asked again", |view| view.commits >= commits).await;
    assert_eq!(view.addresses("db.default"), ["10.0.0.5:5432"]);
    knot.set("db A 10.0.0.9").unwrap();
    let view = follower.until("it has moved", |view| has(view, "db.default", &["10.0.0.9:5432"])).await;
    assert_eq!(view.endpoints("db.default")[0].instance, instance);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_long_for_a_packet_comes_whole_and_no_address_leads_here() {
    let many: Vec<String> = (1..=200).map(|number| format!("db A 10.0.1.{number}")).collect();
    let Some(knot) = knot(&format!("{}\ndb A 127.0.0.1\ndb A 169.254.169.254", many.join("\n"))) else {
        return;
    };
    let mut follower = follower(&knot, DB);
    let view = follower.until("they are there", |view| view.endpoints("db.default").len() == 200).await;
    let faults = view.faults().join("\n");
    assert!(faults.contains("127.0.0.1") && faults.contains("169.254.169.254"), "{faults}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_of_a_host_with_several_services_leads_to_the_first_that_is_written() {
    let Some(knot) = knot("many A 10.0.0.1") else { return };
    let follow = |service: &str, port: u16| {
        format!("[[follow]]\nservice = \"{service}\"\nhost = \"many.test\"\nport = {port}\n")
    };
    let mut follower = follower(&knot, &(follow("web", 80) + &follow("admin", 8080)));
    let view = follower.until("they are there", |view| view.services().len() == 2).await;
    let hosts = |service: &str| view.service(service).unwrap().hosts.len();
    assert_eq!((hosts("web.default"), hosts("admin.default")), (1, 0));
    assert!(has(&view, "web.default", &["10.0.0.1:80"]) && has(&view, "admin.default", &["10.0.0.1:8080"]));
}
