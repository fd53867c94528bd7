//! One registry in the place of another: at a start beside what is known already, and under another name while it runs.

use super::*;

fn named(name: &str) -> (Arc<dyn Registry>, Script) {
    let (registry, script) = scripted(RegistryName::new(name).unwrap(), Capabilities::default());
    (registry, script)
}

fn config(registries: Vec<Arc<dyn Registry>>, state_dir: &std::path::Path) -> FlowConfig {
    let sources = registries.into_iter().map(Source::new).collect();
    FlowConfig { state_dir: Some(state_dir.into()), ..FlowConfig::new(sources) }
}

/// Who has a name and may be called by it.
fn owner(table: &Table, host: &str) -> Option<String> {
    let destination = table.destination(host).filter(|destination| !destination.is_held)?;
    Some(destination.key.registry.to_string())
}

fn followed(status: &Status) -> Vec<&str> {
    status.registries.iter().map(|registry| registry.name.as_str()).collect()
}

async fn say(script: &Script, events: Vec<Event>) {
    for event in events {
        script.say(event).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_restored_is_called_though_a_new_registry_that_ranks_first_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, script) = named("known");
    let running = run(script, config(vec![registry], folder.path()));
    running.say(list("known", "web")).await;
    running.status(|status| status.registries[0].ready).await;
    running.stop().await;

    let ((first, script), (known, _silent), (third, tenant)) = (named("new"), named("known"), named("third"));
    let running = run(script, config(vec![first, known, third], folder.path()));
    say(&tenant, list("third", "orders")).await;
    running.status(|status| status.registries[2].ready).await;
    let table = running.table(|table| owner(table, "web").as_deref() == Some("known")).await;
    assert!(owner(&table, "orders").is_none(), "this one was not known before");
    running.say(list("new", "web")).await;
    let table = running.table(|table| owner(table, "web").as_deref() == Some("new")).await;
    assert_eq!(owner(&table, "orders").as_deref(), Some("third"));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_renamed_serves_until_it_has_spoken_under_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let ((other, _silent), (old, script)) = (named("other"), named("old"));
    let running = run(script, config(vec![old, other], folder.path()));
    running.say(list("old", "web")).await;
    running.table(|table| table.destination("web").is_some()).await;
    let join = |first: &str| Join {
        registries: [first, "other"].map(|name| RegistryName::new(name).unwrap()).to_vec(),
        services: Vec::new(),
        prefer: Default::default(),
    };
    let joined = Registries { joins: vec![join("old")], ..registries(&["old", "other"], Vec::new()) };
    running.handle.set_registries(joined).await.unwrap();

    let (new, successor) = named("new");
    let renamed = Registries { joins: vec![join("new")], ..registries(&["new", "other"], vec![new]) };
    running.handle.set_registries(renamed).await.unwrap();
    assert_eq!(owner(&running.tables.load(), "web").as_deref(), Some("old"));
    assert_eq!(running.statuses.load().joins, [join("old")]);
    say(&successor, list("new", "web")[..2].to_vec()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(owner(&running.tables.load(), "web").as_deref(), Some("old"), "its list is not whole");
    say(&successor, list("new", "web")[2..].to_vec()).await;
    running.table(|table| owner(table, "web").as_deref() == Some("new")).await;
    let status = running.status(|status| followed(status) == ["new", "other"]).await;
    assert_eq!(status.joins, [join("new")]);
    assert!(!folder.path().join("old.state").exists());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_gone_does_not_wait_long_for_one_that_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let (old, script) = named("old");
    let running = run(script, config(vec![old], folder.path()));
    running.say(list("old", "web")).await;
    running.table(|table| table.destination("web").is_some()).await;
    let (new, _silent) = named("new");
    let began = Instant::now();
    running.handle.set_registries(registries(&["new"], vec![new])).await.unwrap();
    assert!(running.tables.load().destination("web").is_some());
    running.table(|table| table.destination("web").is_none()).await;
    assert!(began.elapsed() <= Duration::from_secs(7), "{:?}", began.elapsed());
    running.status(|status| followed(status) == ["new"]).await;

    // Who comes back meanwhile goes on where it was.
    let (back, script) = named("back");
    running.handle.set_registries(registries(&["back"], vec![back])).await.unwrap();
    say(&script, list("back", "orders")).await;
    running.table(|table| table.destination("orders").is_some()).await;
    let ((next, _mute), (back, _again)) = (named("next"), named("back"));
    running.handle.set_registries(registries(&["next"], vec![next])).await.unwrap();
    running.handle.set_registries(registries(&["back"], vec![back])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(running.tables.load().destination("orders").is_some());
    assert_eq!(followed(&running.statuses.load()), ["back"]);
    running.stop().await;
}

/// Whatever else changes with it.
#[tokio::test(start_paused = true)]
async fn who_leaves_keeps_its_rank_beside_one_that_is_followed_in_another_way() {
    let folder = tempfile::tempdir().unwrap();
    let ((first, script), (old, other)) = (named("first"), named("old"));
    let running = run(script, config(vec![first, old], folder.path()));
    running.say(list("first", "web")).await;
    say(&other, list("old", "web")).await;
    running.status(|status| status.registries.iter().all(|registry| registry.ready)).await;
    let ((again, _first), (new, _new)) = (named("first"), named("new"));
    running.handle.set_registries(registries(&["first", "new"], vec![again, new])).await.unwrap();
    assert_eq!(followed(&running.statuses.load()), ["first", "old", "new"]);
    assert_eq!(owner(&running.tables.load(), "web").as_deref(), Some("first"));
    running.stop().await;
}

/// One of another kind under the same name has the new section's limits, not the old one's, nor none.
#[tokio::test(start_paused = true)]
async fn who_follows_under_the_same_name_is_held_to_its_limits() {
    let folder = tempfile::tempdir().unwrap();
    let name = || RegistryName::new("main").unwrap();
    let (relay, script) = scripted(name(), Capabilities { relay: true, ..Capabilities::default() });
    let running = run(script, config(vec![relay], folder.path()));
    running.say(list("apps", "web")).await;
    running.table(|table| table.destination("web").is_some()).await;
    let (main, successor) = named("main");
    let mut source = Source::new(main);
    source.limits.may_own = Some(vec!["orders.default".parse().unwrap()]);
    let next = Registries { fresh: vec![source], ..registries(&["main"], Vec::new()) };
    running.handle.set_registries(next).await.unwrap();
    say(&successor, [list("main", "web"), list("main", "orders")[1..].to_vec()].concat()).await;
    let table = running.table(|table| table.destination("orders").is_some()).await;
    assert!(table.destination("web").is_none());
    running.stop().await;
}
