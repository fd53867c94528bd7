//! The static registry against a real folder: each change of the folder is the right word, and nothing else is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream::BoxStream};
use weft_core::{
    merge::{Merge, Origin, SavedScope, ScopeState},
    name::RegistryName,
    registry::{Completeness, Event, OriginFault, RegistryError, Scope, conformance},
    resource::Resource,
};
use weft_registries::static_files::{StaticRegistry, StaticSettings};

const DEADLINE: Duration = Duration::from_secs(60);

fn service(name: &str) -> String {
    format!("[[service]]\nname = \"{name}\"\nports = [{{ name = \"http\", number = 80 }}]\n")
}

/// A registry that is told of changes by the kernel only: its poll comes after every deadline here.
fn registry(path: &Path) -> StaticRegistry {
    let poll = Duration::from_secs(3600);
    StaticRegistry::new(name(), StaticSettings { path: path.to_owned(), poll, allow_loopback: false })
}

fn name() -> RegistryName {
    RegistryName::new("static").unwrap()
}

type Events<'a> = BoxStream<'a, Result<Event, RegistryError>>;

fn watch(registry: &StaticRegistry) -> Events<'_> {
    conformance::held(registry, None)
}

async fn next(events: &mut Events<'_>) -> Result<Event, RegistryError> {
    tokio::time::timeout(DEADLINE, events.next()).await.expect("in time").expect("the stream goes on")
}

/// What was said of one origin.
#[derive(Debug)]
struct Word {
    origin: String,
    resources: Vec<Resource>,
    faults: Vec<OriginFault>,
}

/// The words up to the next commit, and whether they were a full list.
async fn until_commit(events: &mut Events<'_>) -> (Vec<Word>, bool) {
    let (mut words, mut full) = (Vec::new(), false);
    loop {
        match next(events).await.unwrap() {
            Event::Reset { .. } => full = true,
            Event::Ready { .. } => assert!(full),
            Event::Replace { origin, resources, faults, .. } => {
                words.push(Word { origin: origin.to_string(), resources, faults });
            }
            Event::Commit { .. } => return (words, full),
        }
    }
}

/// The words of the next commit that says anything.
async fn next_words(events: &mut Events<'_>) -> Vec<Word> {
    loop {
        let (words, full) = until_commit(events).await;
        assert!(!full, "only the first list is full");
        if !words.is_empty() {
            return words;
        }
    }
}

/// Writes as careful programs do: beside the file, then over it.
fn put(folder: &Path, name: &str, text: &str) {
    let beside = folder.join(format!(".{name}.new"));
    fs::write(&beside, text).unwrap();
    fs::rename(beside, folder.join(name)).unwrap();
}

#[tokio::test]
async fn a_folder_is_listed_in_full_and_then_followed() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "b.toml", &service("b"));
    put(folder.path(), "a.toml", &service("a"));
    for ignored in [".hidden.toml", "#edited.toml#", "a.toml~", "notes.txt", ".a.toml.swp"] {
        fs::write(folder.path().join(ignored), "not even TOML [").unwrap();
    }
    fs::create_dir(folder.path().join("folder.toml")).unwrap();
    let registry = registry(folder.path());
    let mut events = watch(&registry);
    let (words, full) = until_commit(&mut events).await;
    assert!(full);
    assert_eq!(words.iter().map(|word| word.origin.as_str()).collect::<Vec<_>>(), ["a.toml", "b.toml"]);

    put(folder.path(), "c.toml", &service("c"));
    let words = next_words(&mut events).await;
    assert_eq!((words.len(), words[0].origin.as_str(), words[0].resources.len()), (1, "c.toml", 1));

    fs::remove_file(folder.path().join("a.toml")).unwrap();
    let words = next_words(&mut events).await;
    assert_eq!((words.len(), words[0].origin.as_str()), (1, "a.toml"));
    assert!(words[0].resources.is_empty() && words[0].faults.is_empty(), "a deleted file is gone");
}

#[tokio::test]
async fn a_bad_file_keeps_its_last_good_content_and_says_where_it_is_bad() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.toml", &service("a"));
    let registry = registry(folder.path());
    let mut events = watch(&registry);
    until_commit(&mut events).await;
    for bad in [&*format!("{}\nnmae = 1\n", service("a")), "", "[[service]\n"] {
        put(folder.path(), "a.toml", bad);
        let words = next_words(&mut events).await;
        assert!(words[0].faults.iter().any(|fault| fault.keeps_last_good), "{words:?}");
        assert!(words[0].faults[0].place.contains("a.toml:"), "{words:?}");
    }
    put(folder.path(), "a.toml", &service("a"));
    let words = next_words(&mut events).await;
    assert!(words[0].faults.is_empty() && words[0].resources.len() == 1);
}

#[tokio::test]
async fn a_list_with_a_file_that_never_made_sense_is_not_full() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.toml", &service("a"));
    put(folder.path(), "policies.toml", "[[policy]]\nnmae = 1\n");
    let registry = registry(folder.path());
    let mut events = watch(&registry);
    let mut kinds = Vec::new();
    while !matches!(kinds.last(), Some(&"ready")) {
        kinds.push(match next(&mut events).await.unwrap() {
            Event::Reset { .. } => "reset",
            Event::Replace { .. } => "replace",
            Event::Ready { .. } => "ready",
            Event::Commit { .. } => {
                let policy =
                    "[[policy]]\nname = \"p\"\ntarget = \"mesh\"\naction = \"deny\"\n[[policy.rule]]\n";
                put(folder.path(), "policies.toml", policy);
                "commit"
            }
        });
    }
    assert_eq!(kinds, ["reset", "replace", "replace", "commit", "replace", "ready"]);
}

#[tokio::test]
async fn what_two_files_define_is_a_conflict_that_names_both_places() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.toml", &service("same"));
    let endpoint = "[[service.endpoint]]\naddress = \"10.0.0.1:80\"\ntls = \"off\"\n";
    put(folder.path(), "b.toml", &format!("\n{}{endpoint}", service("same")));
    let registry = registry(folder.path());
    let mut events = watch(&registry);
    let (words, _) = until_commit(&mut events).await;
    assert!(
        words[0].faults.is_empty() && words[0].resources.len() == 1,
        "the first by name has it: {words:?}"
    );
    assert!(words[1].resources.is_empty(), "not the service, nor an endpoint of it: {words:?}");
    let fault = &words[1].faults[0];
    assert!(fault.place.contains("b.toml:3") && fault.message.contains("a.toml:2"), "{fault:?}");

    // A broken file still holds what it last said; a deleted one does not.
    put(folder.path(), "a.toml", "broken");
    let words = next_words(&mut events).await;
    assert_eq!(words.iter().map(|word| word.origin.as_str()).collect::<Vec<_>>(), ["a.toml"]);
    fs::remove_file(folder.path().join("a.toml")).unwrap();
    let words = next_words(&mut events).await;
    assert_eq!((words.len(), words[1].origin.as_str(), words[1].resources.len()), (2, "b.toml", 2));
}

#[tokio::test]
async fn swapped_links_are_followed_as_kubernetes_mounts_them() {
    let folder = tempfile::tempdir().unwrap();
    let version = |name: &str, text: &str| {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("a.toml"), text).unwrap();
        std::os::unix::fs::symlink(name, folder.path().join("..data.new")).unwrap();
        fs::rename(folder.path().join("..data.new"), folder.path().join("..data")).unwrap();
    };
    version("..1", &service("old"));
    std::os::unix::fs::symlink("..data/a.toml", folder.path().join("a.toml")).unwrap();
    let registry = registry(folder.path());
    let mut events = watch(&registry);
    until_commit(&mut events).await;
    version("..2", &service("new"));
    let words = next_words(&mut events).await;
    assert_eq!(words[0].resources[0].key().describe(), "service `new.default`");
}

#[tokio::test]
async fn a_folder_that_is_missing_is_an_error_and_no_absence() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("mesh.d");
    let poll = Duration::from_millis(100);
    let settings = StaticSettings { path: path.clone(), poll, allow_loopback: false };
    let registry = StaticRegistry::new(name(), settings);
    let mut events = watch(&registry);
    assert!(matches!(next(&mut events).await, Err(RegistryError::Unreachable(_))));
    assert!(events.next().await.is_none(), "an error ends the watch");

    fs::create_dir(&path).unwrap();
    put(&path, "a.toml", &service("a"));
    let mut events = watch(&registry);
    let (words, full) = until_commit(&mut events).await;
    assert!(full && words.len() == 1);
    fs::remove_dir_all(&path).unwrap();
    loop {
        match next(&mut events).await {
            Ok(Event::Replace { resources, .. }) => {
                assert!(resources.is_empty(), "its files were deleted first")
            }
            Ok(_) => {}
            Err(error) => {
                assert!(error.to_string().contains("mesh.d"), "{error}");
                return;
            }
        }
    }
}

/// Takes a registry's words in until `holds`.
async fn merge_until(merge: &mut Merge, events: &mut Events<'_>, holds: impl Fn(&Merge) -> bool) {
    while !holds(merge) {
        merge.apply(next(events).await.unwrap(), SystemTime::now());
    }
}

fn services(merge: &Merge) -> usize {
    merge.snapshot().partitions.get(&name()).map_or(0, |partition| partition.services.len())
}

fn scope_state(merge: &Merge) -> Option<&ScopeState> {
    merge.snapshot().scopes.get(&Scope::whole(name()))
}

fn unconfirmed(merge: &Merge) -> usize {
    scope_state(merge).map_or(0, |state| state.unconfirmed.len())
}

fn completeness(merge: &Merge) -> Option<Completeness> {
    scope_state(merge)?.completeness
}

fn polled(path: &Path) -> StaticRegistry {
    let poll = Duration::from_millis(100);
    StaticRegistry::new(name(), StaticSettings { path: path.to_owned(), poll, allow_loopback: false })
}

#[tokio::test]
async fn a_file_that_is_written_in_place_counts_when_it_is_whole() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.toml", &format!("{}{}", service("a"), service("b")));
    let registry = registry(folder.path());
    let (mut events, mut merge) = (watch(&registry), Merge::default());
    merge_until(&mut merge, &mut events, |merge| services(merge) == 2).await;
    // Emptied and written anew, slower than the folder is looked at. What is left alone for 300 ms counts as whole: whoever
    // was held up for nearly that long can tell nothing any more.
    let (mut touched, mut held_up) = (std::time::Instant::now(), false);
    let mut file = fs::File::create(folder.path().join("a.toml")).unwrap();
    for name in ["a", "b", "c"] {
        let begun = std::time::Instant::now();
        file.write_all(service(name).as_bytes()).unwrap();
        held_up |= touched.elapsed() >= Duration::from_millis(250);
        touched = begun;
        let looked = tokio::time::Instant::now() + Duration::from_millis(150);
        while let Ok(event) = tokio::time::timeout_at(looked, next(&mut events)).await {
            merge.apply(event.unwrap(), SystemTime::now());
            held_up |= touched.elapsed() >= Duration::from_millis(250);
            assert!(held_up || services(&merge) >= 2, "half a file is no deletion");
        }
    }
    drop(file);
    merge_until(&mut merge, &mut events, |merge| services(merge) == 3).await;
    // What is renamed into place is whole at once.
    put(folder.path(), "a.toml", &service("a"));
    merge_until(&mut merge, &mut events, |merge| services(merge) == 1).await;
}

#[tokio::test]
async fn another_folder_under_the_name_deletes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("mesh.d");
    fs::create_dir(&path).unwrap();
    for file in ["a", "b", "c"] {
        put(&path, &format!("{file}.toml"), &service(file));
    }
    let registry = polled(&path);
    let (mut events, mut merge) = (watch(&registry), Merge::default());
    merge_until(&mut merge, &mut events, |merge| completeness(merge) == Some(Completeness::Full)).await;
    let other = parent.path().join("other");
    for (kept, present) in [("away", &[][..]), ("back", &["d"])] {
        fs::create_dir(&other).unwrap();
        for file in present {
            put(&other, &format!("{file}.toml"), &service(file));
        }
        fs::rename(&path, parent.path().join(kept)).unwrap();
        fs::rename(&other, &path).unwrap();
        // While there is none, the watch may end; a driver then watches again.
        loop {
            match next(&mut events).await {
                Ok(event) => drop(merge.apply(event, SystemTime::now())),
                Err(_) => events = watch(&registry),
            }
            if unconfirmed(&merge) == 3 && services(&merge) == 3 + present.len() {
                break;
            }
        }
        assert_eq!(completeness(&merge), Some(Completeness::Filtered));
    }
    // The first one is back.
    fs::rename(&path, parent.path().join("last")).unwrap();
    fs::rename(parent.path().join("away"), &path).unwrap();
    loop {
        match next(&mut events).await {
            Ok(event) => drop(merge.apply(event, SystemTime::now())),
            Err(_) => events = watch(&registry),
        }
        if unconfirmed(&merge) == 1 {
            break;
        }
    }
    assert_eq!(services(&merge), 4, "three are confirmed, and the fourth is not");
}

#[tokio::test]
async fn an_empty_folder_says_nothing_of_what_was_known_and_an_emptied_one_does() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.toml", &service("a"));
    let registry = polled(folder.path());
    let (mut events, mut merge) = (watch(&registry), Merge::default());
    merge_until(&mut merge, &mut events, |merge| services(merge) == 1).await;
    let state = scope_state(&merge).unwrap();
    let saved = SavedScope {
        scope: Scope::whole(name()),
        completeness: state.completeness,
        committed_at: state.committed_at.unwrap(),
        origins: state.origins.values().map(|origin| Origin::clone(origin)).collect(),
    };

    // A process that starts before the folder is mounted.
    let mount_point = tempfile::tempdir().unwrap();
    let early = polled(mount_point.path());
    let (mut words, mut restored) = (watch(&early), Merge::default());
    restored.restore(saved, SystemTime::now());
    merge_until(&mut restored, &mut words, |merge| unconfirmed(merge) == 1).await;
    assert_eq!(services(&restored), 1);

    // Deleting the last file of a folder that is watched is a word.
    fs::remove_file(folder.path().join("a.toml")).unwrap();
    merge_until(&mut merge, &mut events, |merge| services(merge) == 0).await;
}

#[tokio::test]
async fn addresses_that_lead_every_host_elsewhere_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let in_mesh = |mesh: &str| {
        let identity = "spiffe://d/ns/a/sa/b";
        format!("address = \"{mesh}:1\"\nmesh = \"{mesh}:2\"\nidentity = \"{identity}\"\n")
    };
    let plain = |address: &str| format!("address = \"{address}:1\"\ntls = \"off\"\n");
    for (name, endpoint) in [
        ("a", in_mesh("127.0.0.1")),
        ("b", plain("127.0.0.1")),
        ("group", in_mesh("224.0.0.1")),
        ("link", plain("169.254.169.254")),
        ("link6", in_mesh("[fe80::1]")),
        ("none", plain("0.0.0.0")),
    ] {
        let text = format!("{}[[service.endpoint]]\n{endpoint}", service(name));
        put(folder.path(), &format!("{name}.toml"), &text);
    }
    for (allow_loopback, faults) in [(false, 1), (true, 0)] {
        let poll = Duration::from_secs(3600);
        let settings = StaticSettings { path: folder.path().to_owned(), poll, allow_loopback };
        let registry = StaticRegistry::new(name(), settings);
        let mut events = watch(&registry);
        let (words, _) = until_commit(&mut events).await;
        let told: Vec<_> = words.iter().map(|it| (it.resources.len(), it.faults.len())).collect();
        assert_eq!(told, [(2, faults), (2, faults), (1, 1), (1, 1), (1, 1), (1, 1)]);
        let link = &words[3].faults[0].message;
        assert!(link.contains("169.254.169.254 is an address of the link"), "{link}");
    }
}
