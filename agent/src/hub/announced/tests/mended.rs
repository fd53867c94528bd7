//! What was lost, overtaken, not said yet or made unreadable.

use super::*;

#[tokio::test]
async fn what_the_store_lost_is_written_again_while_its_node_is_there() {
    let mut world = World::new().await;
    let desk = world.enter("a");
    announce(&desk, &world, &instance("reviews", "a.web", "reviews")).await.unwrap();
    announce(&desk, &world, &instance("reviews", "a.old", "reviews")).await.unwrap();
    desk.withdraw("reviews.default/http/a.old").await.unwrap();
    world.tells(&[WELL]).await;
    for lost in [None, Some("{\"node\": 7}"), Some("no JSON")] {
        world.meddle("announced/reviews.default/http/a.web", lost).await;
        until(|| {
            let state = world.all.lock();
            state.stored.get("reviews.default/http/a.web").is_none() || !state.stored.unreadable().is_empty()
        })
        .await;
        world.pass(overdue::LACKED).await;
        until(|| world.all.lock().stored.unreadable().is_empty()).await;
        world.tells(&[WELL]).await;
    }
    // Not of a node that was removed.
    world.all.records.remove_node("a").await.unwrap();
    world.tells(&[]).await;
    world.pass(overdue::LACKED * 2).await;
    assert_eq!(world.all.records.announced("").await.unwrap(), []);
}

#[tokio::test]
async fn a_name_stays_its_owners_while_nobody_announces_it() {
    let mut world = World::new().await;
    let (a, b) = (world.enter("a"), world.enter("b"));
    let (own, theirs) = (instance("reviews", "a.web", "reviews"), instance("reviews", "b.web", "bank"));
    let key = announcement_key(&own.endpoint);
    announce(&a, &world, &own).await.unwrap();
    a.withdraw(&key).await.unwrap();
    world.tells(&[]).await;
    world.pass(FORGET / 2).await;
    let refused = announce(&b, &world, &theirs).await.unwrap_err();
    assert!(
        refused.code() == RefusalCode::Conflict && refused.to_string().contains("by node a"),
        "{refused}"
    );
    let shown = world.all.diagnostics();
    assert!(shown.len() == 1 && shown[0].contains("node b cannot announce it as"), "{shown:?}");
    announce(&a, &world, &own).await.unwrap();
    // Who is alone may change its mind, also after a pause.
    announce(&a, &world, &instance("reviews", "a.web", "bank")).await.unwrap();
    let is = |account: &str| {
        let state = world.all.lock();
        let kept = state.stored.get(&key).and_then(|kept| kept.record.instance.endpoint.identity.clone());
        kept == Some(identity(account))
            && state.stored.owner("reviews.default").is_some_and(|owner| owner.identity == identity(account))
    };
    until(|| is("bank")).await;
    a.withdraw(&key).await.unwrap();
    world.tells(&[]).await;
    announce(&a, &world, &own).await.unwrap();
    until(|| is("reviews")).await;
    a.withdraw(&key).await.unwrap();
    world.tells(&[]).await;
    world.pass(FORGET).await;
    until(|| world.all.lock().stored.owner("reviews.default").is_none()).await;
    announce(&b, &world, &theirs).await.unwrap();
    assert_eq!(world.all.diagnostics(), Vec::<String>::new());
    world.tells(&[("b.web", Health::Healthy)]).await;
    let refused = announce(&a, &world, &own).await.unwrap_err();
    assert_eq!(refused.code(), RefusalCode::Conflict);
    // The operator's word frees it at once.
    world.all.records.remove_node("b").await.unwrap();
    world.tells(&[]).await;
    announce(&a, &world, &own).await.unwrap();
}

#[tokio::test]
async fn no_node_announces_what_is_another_ones_whatever_their_names() {
    let world = World::new().await;
    join(&world.all.records, "a.b", SystemTime::now()).await;
    let victim = world.enter("a.b");
    announce(&victim, &world, &instance("reviews", "a.b.web", "reviews")).await.unwrap();
    let other = world.enter("a");
    for account in ["bank", "reviews"] {
        let refused = announce(&other, &world, &instance("reviews", "a.b.web", account)).await.unwrap_err();
        assert!(
            refused.code() == RefusalCode::Conflict && refused.to_string().contains("node a.b"),
            "{refused}"
        );
    }
    world.tells(&[("a.b.web", Health::Healthy)]).await;
    let kept = world.all.records.announced("").await.unwrap();
    assert_eq!((kept.len(), kept[0].1.node.as_str()), (1, "a.b"));
}

#[tokio::test]
async fn what_a_node_could_not_say_yet_is_no_silence() {
    let mut world = World::new().await;
    let desk = world.enter("a");
    let (own, old) = (instance("reviews", "a.web", "reviews"), instance("reviews", "a.old", "reviews"));
    for instance in [&own, &old] {
        announce(&desk, &world, instance).await.unwrap();
    }
    let both = [("a.old", Health::Healthy), WELL];
    world.tells(&both).await;
    drop(desk);
    until(|| world.all.lock().stored.owner("reviews.default").is_some()).await;
    let desk = Arc::new(world.enter("a"));
    assert!(desk.repeat(&[identity("reviews")], &encode_announcement(&own)), "nothing is to be written");
    assert!(!desk.repeat(&[identity("bank")], &encode_announcement(&own)), "no longer granted");
    // A word waits for the store.
    let word = desk.hear();
    world.pass(GRACE * 2).await;
    world.tells(&both).await;
    // It was in vain: the store is away.
    desk.postpone(&encode_announcement(&old));
    drop(word);
    world.pass(GRACE * 2).await;
    world.tells(&both).await;
    // The store tells nothing for a while.
    desk.withdraw("reviews.default/http/none").await.unwrap();
    drop(desk);
    let _desk = world.enter("a");
    world.all.lock().stored.lose(PRESENT);
    world.pass(GRACE * 2).await;
    world.tells(&both).await;
    world.all.lock().stored.take(PRESENT, Told::All(Vec::new()));
    world.pass(GRACE * 2).await;
    world.tells(&[]).await;
}

#[tokio::test]
async fn one_record_that_cannot_be_read_is_left_out_alone() {
    let world = World::new().await;
    let desk = world.enter("a");
    announce(&desk, &world, &instance("reviews", "a.web", "reviews")).await.unwrap();
    world.tells(&[WELL]).await;
    world.meddle("announced/reviews.default/http/b.web", Some("{\"node\":\"b\",\"colour\":1}")).await;
    world.meddle("announced/bank.default/http/b.web", Some("\u{1}")).await;
    drop(desk);
    let world = world.restart().await;
    world.tells(&[WELL]).await;
    announce(&world.enter("b"), &world, &instance("more", "b.web", "reviews")).await.unwrap();
    world.tells(&[("b.web", Health::Healthy), WELL]).await;
    let listed = {
        let state = world.all.lock();
        listing::listing(&state.stored, &state.doubted).unwrap()
    };
    let faults: Vec<_> = listed.iter().flat_map(|listed| &listed.faults).collect();
    assert_eq!(
        faults.iter().map(|fault| fault.keeps_last_good).collect::<Vec<_>>(),
        [true, false],
        "{faults:?}"
    );
    assert!(faults[1].place == "reviews.default/http/b.web", "{faults:?}");
    assert_eq!(world.all.diagnostics().len(), 2);
    // The key says whose it is.
    assert!(world.all.records.remove_node("b").await.unwrap());
    world.tells(&[WELL]).await;
    until(|| world.all.diagnostics().is_empty()).await;
}

#[tokio::test]
async fn nobody_is_doubted_who_may_be_at_another_hub() {
    let mut world = World::new().await;
    announce(&world.enter("a"), &world, &instance("reviews", "a.web", "reviews")).await.unwrap();
    world.tells(&[WELL]).await;
    world.all.lock().stored.lose(PRESENT);
    world.pass(GRACE * 2).await;
    world.tells(&[WELL]).await;
    world.all.lock().stored.take(PRESENT, Told::All(Vec::new()));
    world.pass(GRACE).await;
    world.tells(&[("a.web", Health::Unhealthy)]).await;
    world.all.lock().stored.lose(PRESENT);
    world.pass(Duration::ZERO).await;
    world.tells(&[("a.web", Health::Unhealthy)]).await;
    let _desk = world.enter("a");
    world.pass(Duration::ZERO).await;
    world.tells(&[WELL]).await;
}

#[tokio::test]
async fn what_the_store_loses_at_once_stays_until_it_is_written_again() {
    let mut world = World::new().await;
    let (a, b) = (world.enter("a"), world.enter("b"));
    for (desk, name) in [(&a, "a.web"), (&a, "a.old"), (&b, "b.web")] {
        announce(desk, &world, &instance("reviews", name, "reviews")).await.unwrap();
    }
    let healthy = |name| (name, Health::Healthy);
    let lost = |name| (name, Health::Unhealthy);
    world.tells(&[healthy("a.old"), WELL, healthy("b.web")]).await;
    // The store is set back to before all that, while nobody follows it.
    world.following.abort();
    let _aborted = (&mut world.following).await;
    for name in ["a.web", "a.old", "b.web"] {
        world.meddle(&format!("announced/reviews.default/http/{name}"), None).await;
    }
    world.meddle("owners/reviews.default", None).await;
    drop(b);
    world.following = follow(&world.all);
    world.tells(&[lost("a.old"), lost("a.web"), lost("b.web")]).await;
    a.withdraw("reviews.default/http/a.old").await.unwrap();
    world.tells(&[lost("a.web"), lost("b.web")]).await;
    world.pass(overdue::LACKED).await;
    world.tells(&[lost("b.web"), WELL]).await;
    world.pass(stored::LOST_FOR).await;
    world.tells(&[WELL]).await;
}
