use super::*;

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

fn store() -> (tempfile::TempDir, EmbeddedStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    (folder, store)
}

#[test]
fn a_token_is_bound_to_its_first_key_for_ever_also_after_a_restart() {
    let (folder, store) = store();
    store.add_token([1; 32], &record(None)).unwrap();
    let granted = store.claim(&claim(1, "one", 7)).unwrap();
    assert_eq!(granted.identities, record(None).identities);
    let epoch = store.epoch();
    assert!(matches!(EmbeddedStore::open(folder.path()), Err(StoreError::InUse(_))), "one owner");
    drop(store);

    let store = EmbeddedStore::open(folder.path()).unwrap();
    assert_eq!(store.epoch(), epoch);
    assert_eq!(store.claim(&claim(1, "one", 7)).unwrap(), granted, "the same pair is answered again");
    assert!(matches!(store.claim(&claim(1, "one", 8)), Err(ClaimError::Used)));
    assert!(matches!(store.claim(&claim(1, "two", 7)), Err(ClaimError::Used)));
    assert_eq!(store.node("one").unwrap(), Some(granted));
    assert_eq!(store.node("two").unwrap(), None);
}

#[test]
fn the_same_pair_is_answered_for_ten_minutes_and_not_longer() {
    let (_folder, store) = store();
    store.add_token([1; 32], &record(None)).unwrap();
    let mut again = claim(1, "one", 7);
    store.claim(&again).unwrap();
    again.at += ANSWERED_AGAIN - Duration::from_secs(1);
    assert!(store.claim(&again).is_ok(), "though the token itself has expired meanwhile");
    again.at += Duration::from_secs(2);
    assert!(matches!(store.claim(&again), Err(ClaimError::Used)));
}

#[test]
fn what_a_token_does_not_buy_is_refused_by_its_reason() {
    let (_folder, store) = store();
    store.add_token([1; 32], &record(None)).unwrap();
    store.add_token([2; 32], &record(None)).unwrap();
    store.add_token([3; 32], &record(Some("three"))).unwrap();
    store.add_token([4; 32], &record(Some("one"))).unwrap();
    store.claim(&claim(1, "one", 7)).unwrap();
    assert!(matches!(store.claim(&claim(9, "two", 7)), Err(ClaimError::Unknown)));
    assert!(matches!(store.claim(&claim(2, "one", 7)), Err(ClaimError::NodeTaken(node)) if node == "one"));
    assert!(matches!(store.claim(&claim(3, "two", 7)), Err(ClaimError::OtherNode(node)) if node == "three"));
    let late = JoinClaim { at: SystemTime::now() + Duration::from_secs(61), ..claim(2, "two", 7) };
    assert!(matches!(store.claim(&late), Err(ClaimError::Unknown)));
    assert!(store.claim(&claim(4, "one", 8)).is_ok(), "a token that names the node replaces it");
}

#[test]
fn relayed_origins_are_remembered_by_registry() {
    let (_folder, store) = store();
    let at = |position| RelayRecord { version: 1, position, gone: false };
    store.remember("a", &[("x", Some(at(1))), ("y", Some(at(2)))]).unwrap();
    store.remember("ab", &[("x", Some(at(3)))]).unwrap();
    store.remember("a", &[("x", None)]).unwrap();
    assert_eq!(store.relayed("a").unwrap(), [("y".to_owned(), at(2))]);
    assert_eq!(store.relayed("ab").unwrap(), [("x".to_owned(), at(3))]);
    assert_eq!(store.relayed("b").unwrap(), []);
}

#[test]
fn a_node_that_was_removed_is_a_stranger_and_its_token_is_worthless() {
    let (_folder, store) = store();
    store.add_token([1; 32], &record(Some("one"))).unwrap();
    store.add_token([2; 32], &record(Some("two"))).unwrap();
    store.claim(&claim(1, "one", 7)).unwrap();
    store.claim(&claim(2, "two", 7)).unwrap();
    let last =
        LastReport { at: SystemTime::now(), software: "weft".to_owned(), report: NodeReport::default() };
    store.note_report("one", &last).unwrap();
    let nodes = store.nodes().unwrap();
    assert_eq!(nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((&nodes[0].last, &nodes[1].last), (&Some(last.clone()), &None));

    assert!(store.remove_node("one").unwrap() && !store.remove_node("one").unwrap());
    assert_eq!(store.node("one").unwrap(), None);
    assert!(matches!(store.claim(&claim(1, "one", 7)), Err(ClaimError::Unknown)), "not even the same pair");
    store.claim(&claim(2, "two", 7)).expect("another node's token is as it was");
    store.note_report("one", &last).unwrap();
    store.add_token([3; 32], &record(Some("one"))).unwrap();
    store.claim(&claim(3, "one", 9)).unwrap();
    assert_eq!(store.nodes().unwrap()[0].last, None, "nothing was noted while it was unknown");
}

#[test]
fn a_token_that_was_removed_buys_nothing() {
    let (_folder, store) = store();
    store.add_token([1; 32], &record(None)).unwrap();
    assert!(store.remove_token([1; 32]).unwrap() && !store.remove_token([1; 32]).unwrap());
    assert!(matches!(store.claim(&claim(1, "one", 7)), Err(ClaimError::Unknown)));
}
