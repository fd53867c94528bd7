//! What becomes of answers, strict and logical.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use weft_core::{
    config::{SourceFile, read},
    locality::Locality,
};

use super::{
    super::answers::{Answer, Failure, Kind, Known, Said},
    *,
};

fn followed(source: Source, mode: Mode) -> Followed {
    let locality = Locality::new("eu/a").unwrap();
    Followed { service: "db.default".parse().unwrap(), source, mode, locality }
}

fn answers(all: &[(&str, Kind, Said)]) -> Answers {
    let mut known: BTreeMap<_, Known> = BTreeMap::new();
    for (name, kind, said) in all {
        known.entry(((*name).to_owned(), *kind)).or_default().take(said.clone(), Instant::now());
    }
    Answers { known }
}

fn addresses(list: &[&str]) -> Said {
    Said::Answer(Answer::Addresses(list.iter().map(|ip| ip.parse().unwrap()).collect()))
}

fn failed() -> Said {
    Said::Failed(Failure { why: "SERVFAIL".into(), is_silence: false, is_refusal: false })
}

fn says(followed: &Followed, answers: &Answers, used: &[&str]) -> Words {
    let used = used.iter().map(|ip| ip.parse().unwrap()).collect();
    let view = View { answers, used: &used, patient: false, has_its_host: true, now: Instant::now() };
    viewed(followed, &view)
}

fn viewed(followed: &Followed, view: &View<'_>) -> Words {
    match convert(followed, view, &Rules::default(), None) {
        Outcome::Says(words) => words,
        Outcome::Gone => panic!("gone"),
    }
}

fn at<'a>(answers: &'a Answers, used: &'a BTreeSet<IpAddr>) -> View<'a> {
    View { answers, used, patient: true, has_its_host: true, now: Instant::now() }
}

fn endpoints(words: &Words) -> Vec<String> {
    let of = |resource: &Resource| match resource {
        Resource::Endpoint(endpoint) => Some(format!("{} {}", endpoint.address, endpoint.weight)),
        _ => None,
    };
    words.resources.iter().filter_map(of).collect()
}

#[test]
fn strict_names_have_an_endpoint_for_each_address_and_logical_ones_one() {
    let host = Source::Host("db.example".into(), 5432);
    let known = answers(&[
        ("db.example", Kind::A, addresses(&["10.0.0.2", "10.0.0.1", "10.0.0.2"])),
        ("db.example", Kind::Aaaa, addresses(&["fd00::1"])),
    ]);
    let strict = says(&followed(host.clone(), Mode::Strict), &known, &[]);
    assert_eq!(endpoints(&strict), ["10.0.0.1:5432 1", "10.0.0.2:5432 1", "[fd00::1]:5432 1"]);
    let Resource::Service(service) = &strict.resources[0] else { panic!("{strict:?}") };
    assert_eq!((service.ports[0].number, service.hosts[0].as_str()), (5432, "db.example"));
    let logical = followed(host, Mode::Logical);
    assert_eq!(endpoints(&says(&logical, &known, &[])), ["10.0.0.2:5432 1"]);
    assert_eq!(endpoints(&says(&logical, &known, &["10.0.0.1"])), ["10.0.0.1:5432 1"], "what is used stays");
    assert_eq!(endpoints(&says(&logical, &known, &["10.0.0.9"])), ["10.0.0.2:5432 1"]);
}

#[test]
fn services_have_the_hosts_of_the_best_priority_first() {
    let offer =
        |priority, weight, target: &str| Offer { priority, weight, port: 5432, target: target.into() };
    let offers =
        vec![offer(1, 0, "a"), offer(2, 9, "b"), offer(1, 5, "c"), offer(3, 1, "a"), offer(1, 1, "")];
    let known = answers(&[
        ("_pg._tcp", Kind::Srv, Said::Answer(Answer::Offers(offers))),
        ("a", Kind::A, addresses(&["10.0.0.1"])),
        ("b", Kind::A, addresses(&["10.0.0.2"])),
        ("c", Kind::A, failed()),
        ("c", Kind::Aaaa, addresses(&["fd00::3"])),
    ]);
    let follow = followed(Source::Service("_pg._tcp".into()), Mode::Strict);
    let wanted = known.wanted(std::slice::from_ref(&follow));
    assert_eq!(wanted.len(), 7, "{wanted:?}");
    let words = says(&follow, &known, &[]);
    assert_eq!(endpoints(&words), ["10.0.0.1:5432 1", "[fd00::3]:5432 5", "10.0.0.2:5432 0"]);
    assert!(words.faults.iter().any(|fault| fault.message == "SERVFAIL"), "{:?}", words.faults);
    let none = answers(&[("_pg._tcp", Kind::Srv, Said::Answer(Answer::Offers(vec![offer(0, 0, "")])))]);
    assert_eq!(endpoints(&says(&follow, &none, &[])), Vec::<String>::new(), "not to be had");
}

#[test]
fn a_host_that_is_gone_is_told_once_however_many_ports_it_offers() {
    let offer = |port| Offer { priority: 1, weight: 1, port, target: "short.example".into() };
    let offers = (1..=6).map(offer).collect();
    let known = answers(&[
        ("_pg._tcp", Kind::Srv, Said::Answer(Answer::Offers(offers))),
        ("short.example", Kind::A, Said::Answer(Answer::NoName)),
        ("short.example", Kind::Aaaa, Said::Answer(Answer::NoName)),
    ]);
    let words = says(&followed(Source::Service("_pg._tcp".into()), Mode::Strict), &known, &[]);
    let told: Vec<&str> = words.faults.iter().map(|fault| &*fault.message).collect();
    assert_eq!(told, ["there is no such name"]);
}

#[test]
fn what_was_never_answered_keeps_what_an_earlier_process_knew() {
    let host = followed(Source::Host("db.example".into(), 5432), Mode::Strict);
    let srv = followed(Source::Service("_pg._tcp".into()), Mode::Strict);
    let offer = Offer { priority: 1, weight: 1, port: 1, target: "a".into() };
    for (follow, known) in [
        (&host, answers(&[])),
        (&host, answers(&[("db.example", Kind::A, failed()), ("db.example", Kind::Aaaa, failed())])),
        (&srv, answers(&[("_pg._tcp", Kind::Srv, failed())])),
        (
            &srv,
            answers(&[
                ("_pg._tcp", Kind::Srv, Said::Answer(Answer::Offers(vec![offer]))),
                ("a", Kind::A, failed()),
                ("a", Kind::Aaaa, failed()),
            ]),
        ),
    ] {
        let words = says(follow, &known, &[]);
        assert!(
            words.resources.is_empty() && words.faults.iter().all(|fault| fault.keeps_last_good),
            "{words:?}"
        );
        assert!(!words.faults.is_empty());
    }
}

#[test]
fn a_part_of_the_answers_takes_nothing_away_until_it_changes() {
    let offer = |target: &str| Offer { priority: 1, weight: 1, port: 1, target: target.into() };
    let srv = followed(Source::Service("_pg._tcp".into()), Mode::Strict);
    let host = followed(Source::Host("a".into(), 1), Mode::Strict);
    let mut known = answers(&[
        ("_pg._tcp", Kind::Srv, Said::Answer(Answer::Offers(vec![offer("a"), offer("b")]))),
        ("a", Kind::A, addresses(&["10.0.0.1"])),
        ("a", Kind::Aaaa, failed()),
        ("b", Kind::A, failed()),
        ("b", Kind::Aaaa, failed()),
    ]);
    let used = BTreeSet::new();
    for follow in [&srv, &host] {
        let words = viewed(follow, &at(&known, &used));
        // They are what is taken where nothing was known before.
        assert_eq!(endpoints(&words), ["10.0.0.1:1 1"]);
        // A name that is answered in one family is no part of anything.
        let is_part = matches!(follow.source, Source::Service(_));
        assert!(words.faults.iter().all(|fault| fault.keeps_last_good == is_part), "{words:?}");
        let view = View { patient: false, ..at(&known, &used) };
        assert!(viewed(follow, &view).faults.iter().all(|fault| !fault.keeps_last_good));
    }
    let a = known.known.get_mut(&("a".to_owned(), Kind::A)).unwrap();
    a.take(addresses(&["10.0.0.2"]), Instant::now());
    for follow in [&srv, &host] {
        let words = viewed(follow, &at(&known, &used));
        assert!(words.faults.iter().all(|fault| !fault.keeps_last_good), "what is new counts: {words:?}");
    }
    for (name, kind) in [("a", Kind::Aaaa), ("b", Kind::A), ("b", Kind::Aaaa)] {
        let question = known.known.get_mut(&(name.to_owned(), kind)).unwrap();
        question.take(Said::Answer(Answer::Nothing), Instant::now());
    }
    assert!(viewed(&srv, &at(&known, &used)).faults.iter().all(|fault| !fault.keeps_last_good));
}

#[test]
fn what_nobody_confirms_for_an_hour_is_asked_last() {
    let host = followed(Source::Host("a".into(), 1), Mode::Strict);
    let known = answers(&[
        ("a", Kind::A, addresses(&["10.0.0.1"])),
        ("a", Kind::A, failed()),
        ("a", Kind::Aaaa, addresses(&["fd00::1"])),
    ]);
    let health = |after: u64| {
        let used = BTreeSet::new();
        let view = View { now: Instant::now() + Duration::from_secs(after), ..at(&known, &used) };
        let of = |resource: &Resource| match resource {
            Resource::Endpoint(endpoint) => Some(endpoint.health),
            _ => None,
        };
        viewed(&host, &view).resources.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(health(3500), [Health::Healthy, Health::Healthy]);
    assert_eq!(health(3700), [Health::Unconfirmed, Health::Healthy]);
}

#[test]
fn the_addresses_of_a_host_share_its_weight() {
    let weights = |hosts: &[(u16, u8)]| {
        let offers: Vec<Offer> = (1..)
            .zip(hosts)
            .map(|(port, (weight, _))| Offer {
                priority: 0,
                weight: *weight,
                port,
                target: format!("h{port}"),
            })
            .collect();
        let mut known = answers(&[("srv", Kind::Srv, Said::Answer(Answer::Offers(offers)))]);
        for (number, (_, count)) in (1_u8..).zip(hosts) {
            let all = (1..=*count).map(|last| IpAddr::from([10, 0, number, last])).collect();
            let question = known.known.entry((format!("h{number}"), Kind::A)).or_default();
            question.take(Said::Answer(Answer::Addresses(all)), Instant::now());
        }
        let words = says(&followed(Source::Service("srv".into()), Mode::Strict), &known, &[]);
        let mut sums = vec![0_u64; hosts.len()];
        for resource in &words.resources {
            let Resource::Endpoint(endpoint) = resource else { continue };
            sums[usize::from(endpoint.address.socket().port()) - 1] += u64::from(endpoint.weight);
        }
        sums
    };
    assert_eq!(weights(&[(10, 1), (10, 4)]), [40, 40]);
    assert_eq!(weights(&[(1, 3), (2, 2)]), [6, 12]);
    assert_eq!(weights(&[(7, 1), (0, 1)]), [7, 1], "one address each: as it was said");
    for hosts in [[(65_535, 1), (65_535, 7)], [(60_000, 200), (20_000, 3)], [(65_535, 50), (1, 1)]] {
        let sums = weights(&hosts);
        let share = sums[0] as f64 / (sums[0] + sums[1]) as f64;
        let wanted = f64::from(hosts[0].0) / (f64::from(hosts[0].0) + f64::from(hosts[1].0));
        assert!(share - wanted < 0.01 && sums.iter().all(|sum| *sum > 0), "{hosts:?}: {sums:?}");
    }
}

#[test]
fn a_denied_name_is_gone_and_one_without_addresses_is_not() {
    let host = followed(Source::Host("db.example".into(), 5432), Mode::Strict);
    let both =
        |said: Said| answers(&[("db.example", Kind::A, said.clone()), ("db.example", Kind::Aaaa, said)]);
    let gone =
        convert(&host, &at(&both(Said::Answer(Answer::NoName)), &BTreeSet::new()), &Rules::default(), None);
    assert!(matches!(gone, Outcome::Gone));
    let words = says(&host, &both(Said::Answer(Answer::Nothing)), &[]);
    assert_eq!((words.resources.len(), words.faults.len()), (1, 1), "{words:?}");
    assert!(!words.faults[0].keeps_last_good);
}

#[test]
fn rules_say_who_answers_and_no_name_leads_to_this_host() {
    let source =
        SourceFile::new("weft.toml", "identity = \"spiffe://demo.mesh/ns/x/sa/{host}\"\nmesh_port = 15008");
    let rules = read(&source, |root| Rules::read(root, &["host"])).value.unwrap();
    let host = followed(Source::Host("db".into(), 5432), Mode::Strict);
    let known = answers(&[("db", Kind::A, addresses(&["10.0.0.1", "127.0.0.1", "169.254.169.254"]))]);
    let Outcome::Says(words) =
        convert(&host, &View { patient: false, ..at(&known, &BTreeSet::new()) }, &rules, None)
    else {
        panic!("gone")
    };
    let [Resource::Service(_), Resource::Endpoint(endpoint)] = &words.resources[..] else {
        panic!("{words:?}")
    };
    assert_eq!(endpoint.identity.as_ref().unwrap().as_str(), "spiffe://demo.mesh/ns/x/sa/db");
    assert_eq!(endpoint.mesh_address.as_ref().unwrap().to_string(), "10.0.0.1:15008");
    assert_eq!((endpoint.locality.to_string().as_str(), words.faults.len()), ("eu/a", 2));
}

proptest! {
    #[test]
    fn whatever_is_answered_is_taken_or_told(
        offers in prop::collection::vec((any::<u16>(), any::<u16>(), any::<u16>(), "[a-c]?|.*"), 0..6),
        addresses in prop::collection::vec((any::<bool>(), any::<std::net::IpAddr>()), 0..6),
        logical in any::<bool>(),
    ) {
        let offers: Vec<Offer> = offers
            .into_iter()
            .map(|(priority, weight, port, target)| Offer { priority, weight, port, target })
            .collect();
        let mut known = vec![("srv", Kind::Srv, Said::Answer(Answer::Offers(offers.clone())))];
        let ips: Vec<IpAddr> = addresses.iter().map(|(_, ip)| *ip).collect();
        for offer in &offers {
            known.push((&offer.target, Kind::A, Said::Answer(Answer::Addresses(ips.clone()))));
        }
        let mode = if logical { Mode::Logical } else { Mode::Strict };
        let follow = followed(Source::Service("srv".into()), mode);
        let words = says(&follow, &answers(&known), &[]);
        let mut keys = BTreeSet::new();
        for resource in &words.resources {
            prop_assert_eq!(resource.check(), Ok(()));
            prop_assert!(keys.insert(resource.key()), "{:?} twice", resource.key());
        }
        prop_assert!(!endpoints(&words).iter().any(|endpoint| endpoint.starts_with("127.") || endpoint.starts_with("[::1]")));
    }
}
