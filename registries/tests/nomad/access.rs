//! Tokens: none, wrong ones, narrow ones, revoked ones; and which namespaces are seen.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::Value;
use weft_core::{
    registry::{Completeness, RegistryError},
    resource::Health,
};
use weft_testbed::{Nomad, NomadOptions};

use crate::{
    front::{Front, Stream},
    support::{Follower, Job, View, registry, start, write_token},
};

const ALL: &str = "namespace \"*\" { capabilities = [\"read-job\"] }\nnode { policy = \"read\" }\n";
const SHOP: &str = "namespace \"shop\" { capabilities = [\"read-job\"] }\n";

fn bed() -> Option<Nomad> {
    let nomad = start(NomadOptions { acl: true, ..NomadOptions::default() })?;
    nomad.nomad(&["namespace", "apply", "shop"], "").unwrap();
    Job::default().run(&nomad);
    Job { name: "cart", namespace: "shop", ..Job::default() }.run(&nomad);
    Some(nomad)
}

/// A token with a policy of that name.
fn token(nomad: &Nomad, policy: &str, rules: &str) -> (String, String) {
    nomad.nomad(&["acl", "policy", "apply", policy, "-"], rules).unwrap();
    let created =
        nomad.nomad(&["acl", "token", "create", "-json", &format!("-policy={policy}")], "").unwrap();
    let created: Value = serde_json::from_str(&created).unwrap();
    let text = |key: &str| created[key].as_str().unwrap().to_owned();
    (text("AccessorID"), text("SecretID"))
}

fn with_token(nomad: &Nomad, secret: &str, more: &str) -> (String, String) {
    let path = write_token(nomad, "agent", secret);
    (format!("token_file = \"{path}\"\n{more}"), path)
}

fn seen(view: &View) -> Vec<String> {
    let mut services = view.services();
    services.sort();
    services
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_read_nothing_is_told_so_and_hears_of_no_empty_catalog() {
    let Some(nomad) = bed() else { return };
    let secret = "00000000-0000-0000-0000-00000000beef";
    let mut settings = vec![(String::new(), false), (with_token(&nomad, secret, "").0, true)];
    settings.push((with_token(&nomad, secret, "namespaces = \"shop\"").0, true));
    let (_, nothing) = token(&nomad, "nothing", "agent { policy = \"read\" }");
    let known = write_token(&nomad, "known", &nothing);
    settings.push((format!("token_file = {known:?}\nnamespaces = \"shop\""), false));
    for (settings, is_unknown) in settings {
        let mut follower = Follower::of(registry(&nomad.url(), &settings));
        let view = follower.until("refused", |view| !view.errors.is_empty()).await;
        assert_eq!(view.lists, 0);
        let RegistryError::Denied(message) = &view.errors[0] else { panic!("{:?}", view.errors) };
        assert!(!message.contains(secret), "{message}");
        assert_eq!(message.contains("not known to this server"), is_unknown, "{settings}: {message}");
        let told = registry(&nomad.url(), &settings).rights().await;
        let told = told.err().is_some_and(|error| error.to_string().contains("not known to this server"));
        assert_eq!(told, is_unknown, "{settings}");
    }
    // Nomad itself answers 200 and an empty list here: the message must say what is missing.
    let mut follower = Follower::of(registry(&nomad.url(), ""));
    let view = follower.until("refused", |view| !view.errors.is_empty()).await;
    let message = view.errors[0].to_string();
    assert!(message.contains("read-job") && message.contains("Anonymous"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_one_namespace_sees_that_one_and_knows_that_there_may_be_more() {
    let Some(nomad) = bed() else { return };
    let (_, secret) = token(&nomad, "shop", SHOP);
    let (all, path) = with_token(&nomad, &secret, "");
    let mut follower = Follower::of(registry(&nomad.url(), &all));
    let view = follower.until("cart is seen", |view| seen(view) == ["cart.shop"]).await;
    assert_eq!(view.completeness, Some(Completeness::Filtered));
    let faults = view.faults().join("\n");
    assert!(faults.contains("namespace \"*\"") && faults.contains("node { policy"), "{faults}");

    let named = |list: &str| format!("token_file = \"{path}\"\nnamespaces = {list}\n");
    let mut one = Follower::of(registry(&nomad.url(), &named("\"shop\"")));
    let view = one.until("cart is seen", |view| seen(view) == ["cart.shop"]).await;
    assert_eq!(view.completeness, Some(Completeness::Full));
    let mut both = Follower::of(registry(&nomad.url(), &named("[\"default\", \"shop\"]")));
    let view = both.until("cart is seen", |view| seen(view) == ["cart.shop"]).await;
    assert_eq!(view.completeness, Some(Completeness::Filtered));
    assert!(view.faults().join("\n").contains("namespace \"default\""), "{:?}", view.faults());

    let rights = registry(&nomad.url(), &named("[\"default\", \"shop\"]")).rights().await.unwrap();
    let given: Vec<(&str, Option<bool>)> =
        rights.iter().map(|right| (right.name.as_str(), right.given)).collect();
    assert_eq!(
        given,
        [
            ("namespace \"default\" { capabilities = [\"read-job\"] }", Some(false)),
            ("namespace \"shop\" { capabilities = [\"read-job\"] }", Some(true)),
            ("node { policy = \"read\" }", Some(false)),
        ]
    );
    // Rights that come later are noticed.
    token(&nomad, "shop", ALL);
    let view = follower.until("all is seen", |view| seen(view) == ["cart.shop", "web.default"]).await;
    let view = match view.completeness {
        Some(Completeness::Full) => view,
        _ => follower.until("the list is whole", |view| view.completeness == Some(Completeness::Full)).await,
    };
    assert!(!view.faults().join("\n").contains("namespace \"*\""), "{:?}", view.faults());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_taken_away_takes_no_service_away() {
    let Some(nomad) = bed() else { return };
    let (_, secret) = token(&nomad, "weft", ALL);
    let mut follower = Follower::of(registry(&nomad.url(), &with_token(&nomad, &secret, "").0));
    let both = ["cart.shop", "web.default"];
    let view = follower.until("both are seen", |view| seen(view) == both).await;
    assert_eq!(view.completeness, Some(Completeness::Full));
    // A rule for one namespace goes before the one for all.
    token(&nomad, "weft", &format!("{ALL}namespace \"shop\" {{ policy = \"deny\" }}\n"));
    let view =
        follower.until("something is hidden", |view| view.completeness == Some(Completeness::Filtered)).await;
    assert_eq!(seen(&view), both);
    assert!(view.faults().join("\n").contains("namespace \"shop\""), "{:?}", view.faults());
    token(&nomad, "weft", ALL);
    let view =
        follower.until("nothing is hidden", |view| view.completeness == Some(Completeness::Full)).await;
    assert_eq!((seen(&view), view.errors), (both.map(str::to_owned).to_vec(), vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_may_not_be_read_any_more_are_told_of_with_what_hides_them_and_never_for_each_instance() {
    let Some(nomad) = bed() else { return };
    let check = "check {\n type = \"http\"\n path = \"/\"\n interval = \"1s\"\n timeout = \"1s\"\n}\n";
    Job { name: "cart", namespace: "shop", count: 3, service: check, ..Job::default() }.run(&nomad);
    let (_, secret) = token(&nomad, "weft", ALL);
    let mut follower = Follower::of(registry(&nomad.url(), &with_token(&nomad, &secret, "").0));
    let told = |view: &View| -> Vec<String> {
        view.faults().into_iter().filter(|fault| fault.contains("results of checks")).collect()
    };
    follower.until("all run", |view| view.healths("cart.shop") == [Health::Healthy; 3]).await;
    token(&nomad, "weft", &format!("{ALL}namespace \"shop\" {{ policy = \"deny\" }}\n"));
    let mut seen = BTreeSet::new();
    // Until the next look at what there is, all three are asked for every second; where that comes first, none is.
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        // A question that is late is told of too.
        let refused: Vec<_> =
            told(&follower.now()).into_iter().filter(|fault| fault.contains("403")).collect();
        seen.extend(Some(refused).filter(|refused| !refused.is_empty()));
    }
    assert!(seen.len() <= 1 && seen.iter().all(|refused| refused.len() == 1), "{seen:?}");
    let hides = |view: &View| view.faults().iter().any(|fault| fault.contains("namespace \"shop\""));
    let view =
        follower.until("nobody is asked for any more", |view| told(view).is_empty() && hides(view)).await;
    assert_eq!(view.completeness, Some(Completeness::Filtered));
    assert!(view.services().contains(&"cart.shop".to_owned()), "what is hidden is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_that_are_named_are_followed_by_their_streams_with_the_rights_for_just_them() {
    let Some(nomad) = bed() else { return };
    let both = format!("{SHOP}namespace \"default\" {{ capabilities = [\"read-job\"] }}\n");
    let named = "namespaces = [\"default\", \"shop\"]\n";
    let follow = |policy: &str, rules: &str, named: &str| {
        let (_, secret) = token(&nomad, policy, rules);
        let path = write_token(&nomad, policy, &secret);
        Follower::of(registry(&nomad.url(), &format!("token_file = \"{path}\"\n{named}")))
    };
    let (mut all, mut one) = (follow("both", &both, named), follow("one", SHOP, named));
    let mut any = follow("any", SHOP, "");
    all.until("both are seen", |view| seen(view) == ["cart.shop", "web.default"]).await;
    one.until("cart is seen", |view| seen(view) == ["cart.shop"]).await;
    any.until("and here too", |view| seen(view) == ["cart.shop"]).await;
    // Longer than a stream may say nothing, and than the next may take to begin.
    tokio::time::sleep(Duration::from_secs(45)).await;
    for follower in [&all, &one, &any] {
        let view = follower.now();
        assert!(!view.faults().join("\n").contains("event stream"), "{:?}", view.faults());
        assert_eq!(view.errors, vec![]);
    }
    let ready = |view: &View, service: &str| view.healths(service) == [Health::Healthy];
    for (name, namespace) in [("late", "default"), ("later", "shop")] {
        Job { name, namespace, ..Job::default() }.run(&nomad);
        let service = format!("{name}.{namespace}");
        all.until("what is new is seen", |view| ready(view, &service)).await;
    }
    for follower in [&mut one, &mut any] {
        follower.until("and only what may be", |view| ready(view, "later.shop")).await;
    }
    assert_eq!(seen(&one.now()), ["cart.shop", "later.shop"]);
    // A right that comes later opens its stream.
    token(&nomad, "one", &both);
    let view = one.until("all is seen", |view| view.services().len() == 4).await;
    assert!(!view.faults().join("\n").contains("event stream"), "{:?}", view.faults());
}

/// What one stream tells is no sign that the others have told all before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stream_had_not_told_when_a_right_opened_all_anew_is_read() {
    let Some(nomad) = bed() else { return };
    let both = format!("{SHOP}namespace \"default\" {{ capabilities = [\"read-job\"] }}\n");
    nomad.nomad(&["namespace", "apply", "late"], "").unwrap();
    Job { name: "last", namespace: "late", ..Job::default() }.run(&nomad);
    let (_, secret) = token(&nomad, "weft", &both);
    let front = Front::before(&nomad.url(), Stream::DeafOf("default"));
    let (settings, _) = with_token(&nomad, &secret, "namespaces = [\"default\", \"shop\", \"late\"]\n");
    let mut follower = Follower::of(registry(&front.url(), &settings));
    let began = Instant::now();
    follower.until("both are seen", |view| seen(view) == ["cart.shop", "web.default"]).await;
    Job { count: 2, ..Job::default() }.run(&nomad);
    nomad.await_service("web", 2).unwrap();
    Job { name: "next", namespace: "shop", ..Job::default() }.run(&nomad);
    let view = follower.until("what comes later is told", |view| view.services().len() == 3).await;
    // A stream that says nothing is given up after 35 s, and then all is read.
    if began.elapsed() < Duration::from_secs(25) {
        assert_eq!(view.endpoints("web.default").len(), 1, "the other stream is deaf");
    }
    token(&nomad, "weft", &format!("{both}namespace \"late\" {{ capabilities = [\"read-job\"] }}\n"));
    let view = follower.until("what may be read now", |view| view.services().len() == 4).await;
    assert_eq!((view.endpoints("web.default").len(), view.errors), (2, vec![]));
}

/// A right is taken away by a rule that says something else of the namespace, which is how it happens to people.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_came_late_is_not_gone_when_a_rule_of_its_own_hides_it() {
    let Some(nomad) = start(NomadOptions { acl: true, ..NomadOptions::default() }) else { return };
    let narrowed = format!(
        "{ALL}namespace \"shop\" {{ variables {{ path \"weft/*\" {{ capabilities = [\"list\", \"read\"] }} }} }}\n"
    );
    let (_, secret) = token(&nomad, "weft", ALL);
    let settings = with_token(&nomad, &secret, "").0;
    let watched = registry(&nomad.url(), &settings);
    let mut follower = Follower::of(watched.clone());
    let view = follower.until("nothing is there yet", |view| view.commits > 0).await;
    assert_eq!((seen(&view), view.completeness), (vec![], Some(Completeness::Full)));
    nomad.nomad(&["namespace", "apply", "shop"], "").unwrap();
    Job { name: "cart", namespace: "shop", ..Job::default() }.run(&nomad);
    let view = follower.until("cart is seen", |view| seen(view) == ["cart.shop"]).await;
    let asked = view.commits;
    follower.until("it looked at what there is", |view| view.commits > asked + 1).await;
    token(&nomad, "weft", &narrowed);
    let hidden = |view: &View| view.completeness == Some(Completeness::Filtered);
    let view =
        follower.until("something is hidden, or gone", |view| hidden(view) || seen(view).is_empty()).await;
    assert_eq!(seen(&view), ["cart.shop"]);
    assert!(view.faults().join("\n").contains("namespace \"shop\""), "{:?}", view.faults());
    // Whoever begins now never saw it: that the list is short is seen by the token's own rules.
    let mut fresh = Follower::of(registry(&nomad.url(), &settings));
    let view = fresh.until("it is listed", |view| view.lists > 0).await;
    assert!(hidden(&view), "{view:?}");
    let rights = watched.rights().await.unwrap();
    let lacking: Vec<&str> =
        rights.iter().filter(|it| it.given == Some(false)).map(|it| it.name.as_str()).collect();
    assert_eq!(lacking, ["namespace \"shop\" { capabilities = [\"read-job\"] }"]);
    token(&nomad, "weft", ALL);
    follower.until("nothing is hidden", |view| view.completeness == Some(Completeness::Full)).await;
}

/// Its first service came by an event, and nobody looked at all names since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_came_by_an_event_is_not_gone_when_it_is_hidden_before_the_next_look() {
    let Some(nomad) = start(NomadOptions { acl: true, ..NomadOptions::default() }) else { return };
    nomad.nomad(&["namespace", "apply", "shop"], "").unwrap();
    Job::default().run(&nomad);
    let (_, secret) = token(&nomad, "weft", ALL);
    let mut follower = Follower::of(registry(&nomad.url(), &with_token(&nomad, &secret, "").0));
    follower.until("web is seen alone", |view| seen(view) == ["web.default"]).await;
    Job { name: "cart", namespace: "shop", ..Job::default() }.run(&nomad);
    let both = ["cart.shop", "web.default"];
    follower.until("an event tells of cart", |view| seen(view) == both).await;
    token(
        &nomad,
        "weft",
        "namespace \"default\" { capabilities = [\"read-job\"] }\nnode { policy = \"read\" }\n",
    );
    let hidden = |view: &View| view.completeness == Some(Completeness::Filtered);
    let view = follower.until("cart is hidden, or gone", |view| hidden(view) || seen(view) != both).await;
    assert_eq!(seen(&view), both);
    assert!(view.faults().join("\n").contains("namespace \"*\""), "{:?}", view.faults());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_there_is_none_of_is_told_until_there_is() {
    let Some(nomad) = start(NomadOptions { acl: true, ..NomadOptions::default() }) else { return };
    let (_, secret) = token(&nomad, "weft", ALL);
    let more = "namespaces = [\"default\", \"shop\"]\n";
    let mut follower = Follower::of(registry(&nomad.url(), &with_token(&nomad, &secret, more).0));
    let told = |view: &View| view.faults().join("\n").contains("no namespace \"shop\"");
    let view = follower.until("it is listed", |view| view.lists > 0).await;
    assert!(told(&view) && view.completeness == Some(Completeness::Full), "{view:?}");
    nomad.nomad(&["namespace", "apply", "shop"], "").unwrap();
    Job { name: "cart", namespace: "shop", ..Job::default() }.run(&nomad);
    follower.until("there is", |view| seen(view) == ["cart.shop"] && !told(view)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_an_outage_until_the_file_holds_another() {
    let Some(nomad) = bed() else { return };
    let (accessor, secret) = token(&nomad, "weft", ALL);
    let (settings, path) = with_token(&nomad, &secret, "");
    let mut follower = Follower::of(registry(&nomad.url(), &settings));
    let both = ["cart.shop", "web.default"];
    follower.until("both are seen", |view| seen(view) == both).await;
    nomad.nomad(&["acl", "token", "delete", &accessor], "").unwrap();
    let view = follower.until("refused", |view| !view.errors.is_empty()).await;
    assert!(matches!(&view.errors[0], RegistryError::Denied(_)), "{:?}", view.errors);
    assert_eq!(seen(&view), both);
    assert!(!format!("{:?}", view.errors).contains(&secret));
    let lists = view.lists;
    let (_, secret) = token(&nomad, "weft", ALL);
    std::fs::write(path, secret).unwrap();
    let view = follower.until("it is listed again", |view| view.lists > lists).await;
    assert_eq!(
        (seen(&view), view.completeness),
        (both.map(str::to_owned).to_vec(), Some(Completeness::Full))
    );
    nomad.nomad(&["job", "stop", "-purge", "-detach", "-namespace=shop", "cart"], "").unwrap();
    follower.until("it is followed again", |view| seen(view) == ["web.default"]).await;
}
