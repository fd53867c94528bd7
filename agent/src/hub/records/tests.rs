use super::*;
use crate::hub::store::EmbeddedStore;

fn record(node: Option<&str>) -> TokenRecord {
    TokenRecord {
        identities: vec![SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/web").unwrap()],
        node: node.map(str::to_owned),
        expires: SystemTime::now() + Duration::from_secs(60),
        bound: None,
    }
}

fn claim(token: u8, node: &str, key: u8) -> JoinClaim {
    JoinClaim { secret_hash: [token; 32], node: node.to_owned(), key_hash: [key; 32], at: SystemTime::now() }
}

fn open(folder: &std::path::Path) -> Records {
    Records::new(Arc::new(EmbeddedStore::open(folder).unwrap()))
}

fn records() -> (tempfile::TempDir, Records) {
    let folder = tempfile::tempdir().unwrap();
    let records = open(folder.path());
    (folder, records)
}

#[tokio::test]
async fn a_token_is_bound_to_its_first_key_for_ever_also_after_a_restart() {
    let (folder, records) = records();
    records.add_token([1; 32], &record(None)).await.unwrap();
    let granted = records.claim(&claim(1, "one", 7)).await.unwrap();
    assert_eq!(granted.identities, record(None).identities);
    assert!(matches!(EmbeddedStore::open(folder.path()), Err(StoreError::InUse(_))), "one owner");
    drop(records);

    let records = open(folder.path());
    assert_eq!(records.claim(&claim(1, "one", 7)).await.unwrap(), granted, "the same pair is answered again");
    assert!(matches!(records.claim(&claim(1, "one", 8)).await, Err(ClaimError::Used)));
    assert!(matches!(records.claim(&claim(1, "two", 7)).await, Err(ClaimError::Used)));
    assert_eq!(records.node("one").await.unwrap(), Some(granted));
    assert_eq!(records.node("two").await.unwrap(), None);
}

#[tokio::test]
async fn the_same_pair_is_answered_for_ten_minutes_and_not_longer() {
    let (_folder, records) = records();
    records.add_token([1; 32], &record(None)).await.unwrap();
    let mut again = claim(1, "one", 7);
    records.claim(&again).await.unwrap();
    again.at += ANSWERED_AGAIN - Duration::from_secs(1);
    assert!(records.claim(&again).await.is_ok(), "though the token itself has expired meanwhile");
    again.at += Duration::from_secs(2);
    assert!(matches!(records.claim(&again).await, Err(ClaimError::Used)));
}

#[tokio::test]
async fn what_a_token_does_not_buy_is_refused_by_its_reason() {
    let (_folder, records) = records();
    for (token, node) in [(1, None), (2, None), (3, Some("three")), (4, Some("one"))] {
        records.add_token([token; 32], &record(node)).await.unwrap();
    }
    records.claim(&claim(1, "one", 7)).await.unwrap();
    assert!(matches!(records.claim(&claim(9, "two", 7)).await, Err(ClaimError::Unknown)));
    let taken = records.claim(&claim(2, "one", 7)).await;
    assert!(matches!(taken, Err(ClaimError::NodeTaken(node)) if node == "one"));
    let other = records.claim(&claim(3, "two", 7)).await;
    assert!(matches!(other, Err(ClaimError::OtherNode(node)) if node == "three"));
    let late = JoinClaim { at: SystemTime::now() + Duration::from_secs(61), ..claim(2, "two", 7) };
    assert!(matches!(records.claim(&late).await, Err(ClaimError::Unknown)));
    records.claim(&claim(4, "one", 8)).await.expect("a token that names the node replaces it");
    let replaced = records.claim(&claim(1, "one", 7)).await;
    assert!(matches!(replaced, Err(ClaimError::NodeTaken(_))), "what was replaced is answered no more");
}

#[tokio::test]
async fn a_claim_whose_hub_died_between_its_steps_is_completed_by_the_same_pair_only() {
    let (_folder, records) = records();
    for (token, node) in [(1, None), (2, None), (3, Some("one")), (4, Some("one"))] {
        records.add_token([token; 32], &record(node)).await.unwrap();
    }
    // Bound, and no more.
    let bind = async |claim: &JoinClaim| {
        let key = token_key(claim.secret_hash);
        let entry = records.store.get(&key).await.unwrap().unwrap();
        let mut bound: TokenRecord = parse(&entry).unwrap();
        let (node, key_hash, at) = (claim.node.clone(), claim.key_hash, claim.at);
        bound.bound = Some(Binding { node, key_hash, at });
        let put = Put::durable(encode(&bound).unwrap());
        assert!(records.store.swap(&key, Expected::Version(entry.version), Some(put)).await.unwrap());
    };
    let again = |before: &JoinClaim| JoinClaim { at: before.at + Duration::from_secs(1), ..before.clone() };
    let first = claim(1, "one", 7);
    bind(&first).await;
    assert!(matches!(records.claim(&claim(1, "one", 8)).await, Err(ClaimError::Used)), "another key");
    let node = records.claim(&again(&first)).await.unwrap();
    assert_eq!(records.node("one").await.unwrap(), Some(node));
    // Two tokens without a name, of which another one was faster with the node.
    let second = claim(2, "one", 9);
    bind(&second).await;
    assert!(matches!(records.claim(&again(&second)).await, Err(ClaimError::NodeTaken(_))));
    // A token that replaces the node, completed; and one that was overtaken by it.
    let (third, fourth) = (claim(3, "one", 10), claim(4, "one", 11));
    bind(&third).await;
    bind(&fourth).await;
    assert_eq!(records.claim(&again(&fourth)).await.unwrap().token, [4; 32]);
    assert!(matches!(records.claim(&again(&third)).await, Err(ClaimError::Used)));
    assert_eq!(records.node("one").await.unwrap().unwrap().token, [4; 32]);
}

#[tokio::test]
async fn a_node_that_was_removed_is_a_stranger_and_its_token_is_worthless() {
    let (_folder, records) = records();
    records.add_token([1; 32], &record(Some("one"))).await.unwrap();
    records.add_token([2; 32], &record(Some("two"))).await.unwrap();
    records.claim(&claim(1, "one", 7)).await.unwrap();
    records.claim(&claim(2, "two", 7)).await.unwrap();
    let last =
        LastReport { at: SystemTime::now(), software: "weft".to_owned(), report: NodeReport::default() };
    records.note_report("one", &last).await.unwrap();
    let nodes = records.nodes().await.unwrap();
    assert_eq!(nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((&nodes[0].last, &nodes[1].last), (&Some(last.clone()), &None));

    assert!(records.remove_node("one").await.unwrap() && !records.remove_node("one").await.unwrap());
    assert_eq!(records.node("one").await.unwrap(), None);
    let again = records.claim(&claim(1, "one", 7)).await;
    assert!(matches!(again, Err(ClaimError::Unknown)), "not even the same pair");
    records.claim(&claim(2, "two", 7)).await.expect("another node's token is as it was");
    records.note_report("one", &last).await.unwrap();
    records.add_token([3; 32], &record(Some("one"))).await.unwrap();
    records.claim(&claim(3, "one", 9)).await.unwrap();
    assert_eq!(records.nodes().await.unwrap()[0].last, None, "nothing was noted while it was unknown");
}

#[tokio::test]
async fn a_host_is_forgotten_although_other_records_cannot_be_read() {
    let (_folder, records) = records();
    let put = async |key: String, value: String| {
        assert!(records.store.swap(&key, Expected::Any, Some(Put::durable(value))).await.unwrap());
    };
    for (token, node) in [(1, "one"), (2, "two"), (3, "three")] {
        records.add_token([token; 32], &record(None)).await.unwrap();
        records.claim(&claim(token, node, 7)).await.unwrap();
    }
    // A newer hub's, which says who used it as ours do, and one that somebody damaged.
    let newer = r#"{"bound": {"node": "one"}, "expires": "tomorrow"}"#;
    put(token_key([4; 32]), newer.to_owned()).await;
    put(token_key([5; 32]), "\u{1}".to_owned()).await;
    put(node_key("three"), "{".to_owned()).await;
    assert!(records.remove_node("one").await.unwrap() && records.remove_node("three").await.unwrap());
    assert_eq!(records.node("one").await.unwrap(), None);
    let left = records.store.list(TOKENS).await.unwrap();
    let left: Vec<_> = left.iter().map(|entry| hash_in(&entry.key).unwrap()[0]).collect();
    assert_eq!(left, [2, 5]);
    let again = records.claim(&claim(1, "one", 7)).await;
    assert!(matches!(again, Err(ClaimError::Unknown)), "its token buys nothing");
    let old = SystemTime::now() - KEPT_AFTER_EXPIRY - Duration::from_secs(1);
    let old = encode(&TokenRecord { expires: old, ..record(None) }).unwrap();
    put(token_key([6; 32]), String::from_utf8(old).unwrap()).await;
    put(format!("{SERIALS}two"), "{".to_owned()).await;
    *records.sweep_at.lock().unwrap() = Instant::now();
    records.sweep().await.unwrap();
    assert_eq!(records.store.list(TOKENS).await.unwrap().len(), 2, "what expired goes");
}

#[tokio::test]
async fn a_token_that_was_removed_buys_nothing() {
    let (_folder, records) = records();
    records.add_token([1; 32], &record(None)).await.unwrap();
    let removed = records.remove_token([1; 32]).await.unwrap();
    assert!(removed && !records.remove_token([1; 32]).await.unwrap());
    assert!(matches!(records.claim(&claim(1, "one", 7)).await, Err(ClaimError::Unknown)));
}

#[tokio::test]
async fn what_expired_does_not_pile_up() {
    let (_folder, records) = records();
    let identity = SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/web").unwrap();
    let now = SystemTime::now();
    for number in 0..100 {
        let ends =
            if number % 10 == 0 { now + Duration::from_secs(600) } else { now - Duration::from_secs(1) };
        records.note_serial("one", &number.to_string(), &identity, ends).await.unwrap();
    }
    let kept: Vec<_> = records.signed_for("one").await.unwrap().into_iter().map(|it| it.serial).collect();
    let valid: Vec<_> = (0..100).step_by(10).chain([99]).map(|number| number.to_string()).collect();
    assert_eq!(kept, valid, "the valid ones, and the last");

    records.note_serial("two", "1", &identity, now - Duration::from_secs(1)).await.unwrap();
    let old = TokenRecord { expires: now - KEPT_AFTER_EXPIRY - Duration::from_secs(1), ..record(None) };
    let late = TokenRecord { expires: now - Duration::from_secs(1), ..record(None) };
    let keep = |hash, record: &TokenRecord| {
        let put = Put::durable(encode(record).unwrap());
        (token_key([hash; 32]), put)
    };
    for (key, put) in [keep(1, &old), keep(2, &late)] {
        assert!(records.store.swap(&key, Expected::Absent, Some(put)).await.unwrap());
    }
    records.add_token([3; 32], &record(None)).await.unwrap();
    let kept: Vec<_> = records.tokens().await.unwrap().into_iter().map(|(hash, _)| hash[0]).collect();
    assert_eq!(kept, [2, 3], "a token that expired lately is told from a mistyped one");
    assert_eq!(records.signed_for("two").await.unwrap(), []);
}

#[tokio::test]
async fn records_of_before_a_store_was_shared_are_taken_over_and_what_is_known_there_stays() {
    let ((_own_folder, own), (_folder, shared)) = (records(), records());
    let identity = SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/web").unwrap();
    for (token, node) in [(1, Some("one")), (2, None), (3, Some("both"))] {
        own.add_token([token; 32], &record(node)).await.unwrap();
    }
    let one = own.claim(&claim(1, "one", 7)).await.unwrap();
    own.claim(&claim(3, "both", 7)).await.unwrap();
    own.note_serial("one", "1", &identity, SystemTime::now() + Duration::from_secs(60)).await.unwrap();
    shared.add_token([4; 32], &record(Some("both"))).await.unwrap();
    let both = shared.claim(&claim(4, "both", 8)).await.unwrap();

    assert_eq!(shared.take_over(&**own.store()).await.unwrap(), 6, "three tokens, two nodes, a trail");
    assert_eq!(shared.take_over(&**own.store()).await.unwrap(), 0);
    assert_eq!(own.store().list("").await.unwrap(), []);
    assert_eq!(shared.node("one").await.unwrap(), Some(one.clone()));
    assert_eq!(shared.node("both").await.unwrap(), Some(both), "it was known there");
    assert_eq!(shared.signed_for("one").await.unwrap().len(), 1);
    assert_eq!(shared.claim(&claim(1, "one", 7)).await.unwrap(), one, "the same pair is answered there");
    assert!(matches!(shared.claim(&claim(1, "one", 9)).await, Err(ClaimError::Used)));
    shared.claim(&claim(2, "two", 9)).await.expect("an unused token is good there");
}

#[test]
fn every_folder_of_records_is_known_to_who_reads_configuration_beside_them() {
    let folders = [TOKENS, NODES, REPORTS, SERIALS, ANNOUNCED, OWNERS, PRESENT];
    for folder in folders.map(|folder| folder.trim_end_matches('/')) {
        assert!(weft_registries::consul::configuration::HUB_FOLDERS.contains(&folder), "{folder}");
    }
}
