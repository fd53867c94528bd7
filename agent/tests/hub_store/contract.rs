//! What every store keeps to.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{sync::Barrier, task::JoinSet};
use weft_agent::hub::{
    records::{ClaimError, JoinClaim, Records, TokenRecord},
    store::{Expected, Put, Store, StoreError, Told, Version},
};

use crate::support::{Bed, eventually};

/// All of it.
pub(crate) async fn all(bed: &Bed) {
    keys_are_swapped_as_expected(bed).await;
    any_text_and_any_bytes_come_back(bed).await;
    one_of_many_swaps_succeeds(bed).await;
    one_of_32_claimers_of_a_token_wins(bed).await;
    tokens_that_compete_for_a_name_make_one_node(bed).await;
    a_watch_misses_nothing(bed).await;
    keys_vanish_with_their_lease(bed).await;
    a_lease_lasts_its_time_and_as_long_as_it_is_kept_alive(bed).await;
}

async fn version(store: &dyn Store, key: &str) -> Version {
    store.get(key).await.unwrap().unwrap().version
}

async fn keys_are_swapped_as_expected(bed: &Bed) {
    let [one, two] = &bed.stores;
    let put = |value: &'static str| Some(Put::durable(value));
    assert_eq!(one.get("swap/a").await.unwrap(), None);
    assert!(one.swap("swap/a", Expected::Absent, put("1")).await.unwrap());
    let first = two.get("swap/a").await.unwrap().expect("the other hub sees it at once");
    assert_eq!((first.key.as_str(), &*first.value), ("swap/a", &b"1"[..]));
    assert!(!two.swap("swap/a", Expected::Absent, put("2")).await.unwrap());
    assert!(two.swap("swap/a", Expected::Version(first.version.clone()), put("2")).await.unwrap());
    let stale = || Expected::Version(first.version.clone());
    assert!(!one.swap("swap/a", stale(), put("3")).await.unwrap(), "it is another version by now");
    assert!(!one.swap("swap/a", stale(), None).await.unwrap());
    assert_eq!(&*one.get("swap/a").await.unwrap().unwrap().value, b"2");
    assert!(one.swap("swap/a", Expected::Any, put("4")).await.unwrap());
    let last = version(&**two, "swap/a").await;
    assert!(two.swap("swap/a", Expected::Version(last.clone()), None).await.unwrap());
    assert_eq!(one.get("swap/a").await.unwrap(), None);
    assert!(!one.swap("swap/a", Expected::Version(last.clone()), put("5")).await.unwrap(), "it is gone");
    assert!(!one.swap("swap/a", Expected::Version(last.clone()), None).await.unwrap(), "it is gone");
    assert!(one.swap("swap/a", Expected::Any, None).await.unwrap(), "to remove what is absent succeeds");
    assert!(one.swap("swap/a", Expected::Absent, put("6")).await.unwrap(), "a new life");
    assert!(!one.swap("swap/a", Expected::Version(last), None).await.unwrap(), "of an earlier life");
    assert!(one.swap("swap/a", Expected::Any, None).await.unwrap());
}

async fn any_text_and_any_bytes_come_back(bed: &Bed) {
    let [one, two] = &bed.stores;
    let long = vec![b'x'; 100_000];
    let all: Vec<u8> = (0..=255).collect();
    let mut wanted: BTreeMap<String, Vec<u8>> = BTreeMap::from([
        ("text/empty".into(), Vec::new()),
        ("text/bytes".into(), all),
        ("text/long".into(), long),
        ("text/A.b_C-9".into(), b"a name".to_vec()),
        ("text/a.b_c-9".into(), b"another".to_vec()),
        (format!("text/{}", "n".repeat(123)), b"the longest name".to_vec()),
    ]);
    for odd in ["%41", "a b", "?x=1", "#", "&recurse", "\"", "\\", "..", "/", "{}", "+"] {
        wanted.insert(format!("text/odd {odd}"), odd.into());
    }
    for (key, value) in &wanted {
        let put = Put::durable(Bytes::copy_from_slice(value));
        assert!(one.swap(key, Expected::Absent, Some(put)).await.unwrap(), "{key}");
    }
    assert!(one.swap("texts", Expected::Absent, Some(Put::durable("beside"))).await.unwrap());
    let listed = two.list("text/").await.unwrap();
    let keys: Vec<_> = listed.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, wanted.keys().cloned().collect::<Vec<_>>(), "in their order, and nothing beside");
    for entry in listed {
        assert_eq!(entry.value, wanted[&entry.key], "{}", entry.key);
        assert_eq!(two.get(&entry.key).await.unwrap(), Some(entry.clone()), "{}", entry.key);
        assert!(two.swap(&entry.key, Expected::Version(entry.version), None).await.unwrap());
    }
    assert_eq!(one.list("text/").await.unwrap(), []);
    assert_eq!(one.list("text").await.unwrap().len(), 1);
}

async fn one_of_many_swaps_succeeds(bed: &Bed) {
    let store = &bed.stores[0];
    assert!(store.swap("race", Expected::Any, Some(Put::durable("0"))).await.unwrap());
    for round in 0..5 {
        let before = version(&**store, "race").await;
        let barrier = Arc::new(Barrier::new(16));
        let mut rivals = JoinSet::new();
        for rival in 0..16 {
            let (store, barrier) = (bed.stores[rival % 2].clone(), barrier.clone());
            let expected = Expected::Version(before.clone());
            rivals.spawn(async move {
                barrier.wait().await;
                let put = Put::durable(format!("{round}-{rival}"));
                (rival, store.swap("race", expected, Some(put)).await.unwrap())
            });
        }
        let outcomes = rivals.join_all().await;
        let winners: Vec<_> = outcomes.into_iter().filter(|(_, won)| *won).map(|(rival, _)| rival).collect();
        let [winner] = winners[..] else { panic!("{winners:?} won") };
        let held = store.get("race").await.unwrap().unwrap().value;
        assert_eq!(held, format!("{round}-{winner}"));
    }
}

fn token(node: Option<&str>) -> TokenRecord {
    let expires = SystemTime::now() + Duration::from_secs(600);
    TokenRecord { identities: Vec::new(), node: node.map(str::to_owned), expires, bound: None }
}

async fn one_of_32_claimers_of_a_token_wins(bed: &Bed) {
    let hubs = bed.stores.clone().map(Records::new);
    for round in 0..3_u8 {
        let secret_hash = [round; 32];
        hubs[0].add_token(secret_hash, &token(None)).await.unwrap();
        let barrier = Arc::new(Barrier::new(32));
        let mut claimers = JoinSet::new();
        for claimer in 0..32_u8 {
            let (records, barrier) = (hubs[usize::from(claimer) % 2].clone(), barrier.clone());
            let node = format!("claimer-{round}-{claimer}");
            let claim = JoinClaim { secret_hash, node, key_hash: [claimer; 32], at: SystemTime::now() };
            claimers.spawn(async move {
                barrier.wait().await;
                (claim.node.clone(), records.claim(&claim).await)
            });
        }
        let mut winners = Vec::new();
        for (node, outcome) in claimers.join_all().await {
            match outcome {
                Ok(_) => winners.push(node),
                Err(ClaimError::Used) => {}
                Err(other) => panic!("{node}: {other}"),
            }
        }
        let [winner] = &winners[..] else { panic!("{winners:?} won") };
        let (_, kept) =
            hubs[1].tokens().await.unwrap().into_iter().find(|(hash, _)| *hash == secret_hash).unwrap();
        assert_eq!(&kept.bound.unwrap().node, winner);
        assert!(hubs[1].node(winner).await.unwrap().is_some());
        assert_eq!(hubs[0].nodes().await.unwrap().len(), 1, "and nobody else is a node");
        assert!(hubs[1].remove_node(winner).await.unwrap());
        assert_eq!(hubs[0].node(winner).await.unwrap(), None);
    }
    assert_eq!(hubs[0].tokens().await.unwrap(), [], "they went with their nodes");
}

async fn tokens_that_compete_for_a_name_make_one_node(bed: &Bed) {
    let hubs = bed.stores.clone().map(Records::new);
    let barrier = Arc::new(Barrier::new(8));
    let mut claimers = JoinSet::new();
    for claimer in 0..8_u8 {
        hubs[0].add_token([claimer; 32], &token(None)).await.unwrap();
        let (records, barrier) = (hubs[usize::from(claimer) % 2].clone(), barrier.clone());
        claimers.spawn(async move {
            let claim = || JoinClaim {
                secret_hash: [claimer; 32],
                node: "wanted".to_owned(),
                key_hash: [claimer; 32],
                at: SystemTime::now(),
            };
            barrier.wait().await;
            let first = records.claim(&claim()).await;
            // Who lost does not get in by asking again.
            (claimer, first.is_ok(), records.claim(&claim()).await.is_ok())
        });
    }
    let outcomes = claimers.join_all().await;
    let won: Vec<_> = outcomes.iter().filter(|(_, first, again)| *first || *again).collect();
    let [(winner, true, true)] = won[..] else { panic!("{outcomes:?}") };
    assert_eq!(hubs[1].node("wanted").await.unwrap().unwrap().token, [*winner; 32]);
    hubs[1].remove_node("wanted").await.unwrap();
    for (hash, _) in hubs[0].tokens().await.unwrap() {
        assert!(hubs[0].remove_token(hash).await.unwrap());
    }
}

/// Takes a watch's word over.
pub(crate) fn fold(known: &mut BTreeMap<String, Bytes>, told: Told) {
    match told {
        Told::All(entries) => *known = entries.into_iter().map(|entry| (entry.key, entry.value)).collect(),
        Told::Put(entry) => drop(known.insert(entry.key, entry.value)),
        Told::Gone(key) => drop(known.remove(&key)),
    }
}

async fn a_watch_misses_nothing(bed: &Bed) {
    const KEYS: usize = 100;
    let [one, two] = bed.stores.clone();
    for number in 0..10 {
        let put = Put::durable(number.to_string());
        assert!(one.swap(&format!("watch/before-{number}"), Expected::Absent, Some(put)).await.unwrap());
    }
    // Watches begin while keys are written, changed and removed.
    let writer = tokio::spawn(async move {
        for number in 0..KEYS {
            let key = format!("watch/{number}");
            assert!(one.swap(&key, Expected::Absent, Some(Put::durable("new"))).await.unwrap());
            assert!(one.swap("watch-not", Expected::Any, Some(Put::durable("beside"))).await.unwrap());
            let before = (number % 3 == 0)
                .then_some(None)
                .or((number % 3 == 1).then(|| Some(Put::durable("changed"))));
            if let Some(change) = before {
                assert!(one.swap(&key, Expected::Any, change).await.unwrap());
            }
        }
        assert!(one.swap("watch/before-0", Expected::Any, None).await.unwrap());
        assert!(one.swap("watch/last", Expected::Absent, Some(Put::durable("last"))).await.unwrap());
    });
    let mut watchers = JoinSet::new();
    for number in 0..4 {
        let store = bed.stores[number % 2].clone();
        watchers.spawn(async move {
            tokio::time::sleep(Duration::from_millis(20 * number as u64)).await;
            let mut known = BTreeMap::new();
            let mut watch = store.watch("watch/");
            let mut first = true;
            while !known.contains_key("watch/last") {
                let told = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
                let told = told.expect("the watch tells of the last key").unwrap().unwrap();
                assert!(matches!(told, Told::All(_)) || !first, "it begins with all there is: {told:?}");
                first = false;
                fold(&mut known, told);
            }
            known
        });
    }
    writer.await.unwrap();
    let listed = two.list("watch/").await.unwrap();
    let listed: BTreeMap<_, _> = listed.into_iter().map(|entry| (entry.key, entry.value)).collect();
    assert_eq!(listed.len(), 9 + KEYS - KEYS.div_ceil(3) + 1);
    for known in watchers.join_all().await {
        assert_eq!(known, listed);
    }
    for key in listed.keys() {
        assert!(two.swap(key, Expected::Any, None).await.unwrap());
    }
}

async fn keys_vanish_with_their_lease(bed: &Bed) {
    let [one, two] = &bed.stores;
    let lease = one.grant(Duration::from_secs(60)).await.unwrap();
    let other = two.grant(Duration::from_secs(60)).await.unwrap();
    assert_ne!(lease, other);
    let leased = |lease: &weft_agent::hub::store::LeaseId| {
        Some(Put { lease: Some(lease.clone()), ..Put::durable("leased") })
    };
    let mut watch = two.watch("lease/");
    let mut known = BTreeMap::new();
    fold(&mut known, watch.next().await.unwrap().unwrap());
    for key in ["lease/a", "lease/b", "lease/kept"] {
        assert!(one.swap(key, Expected::Absent, leased(&lease)).await.unwrap());
    }
    assert!(two.swap("lease/other", Expected::Absent, leased(&other)).await.unwrap());
    assert!(!two.swap("lease/a", Expected::Absent, leased(&other)).await.unwrap(), "it is taken");
    // Of a lease is what was last written with it.
    assert!(one.swap("lease/kept", Expected::Any, Some(Put::durable("stays"))).await.unwrap());
    assert_eq!(two.list("lease/").await.unwrap().len(), 4);
    assert!(one.keep_alive(&lease).await.unwrap() && two.keep_alive(&lease).await.unwrap());
    two.revoke(&lease).await.unwrap();
    let left: Vec<_> = one.list("lease/").await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(left, ["lease/kept", "lease/other"]);
    assert_eq!(one.get("lease/a").await.unwrap(), None);
    while known.keys().ne(&left) {
        let told = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
        fold(&mut known, told.expect("the watch tells what vanished").unwrap().unwrap());
    }
    assert!(!one.keep_alive(&lease).await.unwrap(), "it has ended");
    one.revoke(&lease).await.expect("to end what has ended is no fault");
    assert_eq!(one.swap("lease/a", Expected::Absent, leased(&lease)).await, Err(StoreError::LeaseGone));
    assert_eq!(one.get("lease/a").await.unwrap(), None, "nothing was written");
    assert!(one.swap("lease/a", Expected::Absent, leased(&other)).await.unwrap());
    two.revoke(&other).await.unwrap();
    assert_eq!(one.list("lease/").await.unwrap().len(), 1);
    assert!(one.swap("lease/kept", Expected::Any, None).await.unwrap());
}

async fn a_lease_lasts_its_time_and_as_long_as_it_is_kept_alive(bed: &Bed) {
    let [one, two] = &bed.stores;
    let (ttl, longest) = bed.lease;
    let asked = Instant::now();
    let (left, kept) = (one.grant(ttl).await.unwrap(), one.grant(ttl).await.unwrap());
    for (key, lease) in [("ends/left", &left), ("ends/kept", &kept)] {
        let put = Put { lease: Some(lease.clone()), ..Put::durable("leased") };
        assert!(one.swap(key, Expected::Absent, Some(put)).await.unwrap());
    }
    let keeper = tokio::spawn({
        let (store, kept) = (one.clone(), kept.clone());
        async move {
            loop {
                assert!(store.keep_alive(&kept).await.unwrap());
                tokio::time::sleep(ttl / 4).await;
            }
        }
    });
    eventually("the end of the lease", async || two.get("ends/left").await.unwrap().is_none()).await;
    let lasted = asked.elapsed();
    assert!((ttl..longest).contains(&lasted), "it lasted {lasted:?}");
    assert!(!two.keep_alive(&left).await.unwrap());
    assert!(two.get("ends/kept").await.unwrap().is_some(), "this one was kept alive");
    assert!(!keeper.is_finished());
    keeper.abort();
    two.revoke(&kept).await.unwrap();
}
