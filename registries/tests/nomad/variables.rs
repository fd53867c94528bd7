//! Routes and policies in Nomad Variables.

use weft_core::{
    registry::RegistryError,
    resource::{Action, Resource},
};
use weft_testbed::{Nomad, NomadOptions};

use crate::support::{Follower, Job, View, registry, start, write_token};

const ROUTE: &str = "[[route]]\nname = \"NAME\"\nservice = \"web\"\n[[route.rule]]\nname = \"all\"\n";
const VARIABLES: &str = "variables = \"weft\"\n";

fn put(nomad: &Nomad, path: &str, items: &[(&str, &str)]) {
    let items: serde_json::Map<String, serde_json::Value> =
        items.iter().map(|(key, text)| ((*key).to_owned(), (*text).into())).collect();
    let body = serde_json::json!({ "Items": items }).to_string();
    nomad.call("PUT", &format!("/v1/var/{path}"), body).unwrap().success("write a variable").unwrap();
}

fn routes(view: &View) -> Vec<String> {
    let all = view.origins.values().flat_map(|(resources, _)| resources);
    let of = |resource: &Resource| match resource {
        Resource::Route(route) => Some(route.name.to_string()),
        _ => None,
    };
    all.filter_map(of).collect()
}

fn denials(view: &View) -> Vec<String> {
    let all = view.origins.values().flat_map(|(resources, _)| resources);
    let of = |resource: &Resource| match resource {
        Resource::Policy(policy) if policy.action == Action::Deny => Some(policy.name.to_string()),
        _ => None,
    };
    all.filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_are_read_as_files_are() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let one = ROUTE.replace("NAME", "one");
    put(&nomad, "weft/routes", &[("web", &one)]);
    put(&nomad, "other/routes", &[("web", &ROUTE.replace("NAME", "elsewhere"))]);
    let registry = registry(&nomad.url(), VARIABLES);
    assert!(registry.capabilities().configuration);
    let mut follower = Follower::of(registry);
    follower.until("it is there", |view| routes(view) == ["one"]).await;
    Job::default().run(&nomad);
    put(&nomad, "weft/zzz/routes", &[("web", &ROUTE.replace("NAME", "two")), ("twice", &one)]);
    let view = follower.until("another is there", |view| routes(view) == ["one", "two"]).await;
    assert!(view.faults().join("\n").contains("is defined by two"), "{:?}", view.faults());
    put(&nomad, "weft/routes", &[("web", "[[route]]\nname = 7\n")]);
    let slip = |view: &View| view.faults().into_iter().find(|fault| fault.contains("weft/routes web:2:8"));
    let view = follower.until("the slip is told", |view| slip(view).is_some()).await;
    assert!(routes(&view).contains(&"one".to_owned()), "{:?}", routes(&view));
    nomad.call("DELETE", "/v1/var/weft/routes", "").unwrap().success("delete a variable").unwrap();
    let view = follower.until("it is gone", |view| view.faults().is_empty()).await;
    let mut left = routes(&view);
    left.sort();
    assert_eq!(left, ["one", "two"], "what was defined twice is now defined once");
    assert_eq!((view.errors, view.lists), (vec![], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_read_or_never_made_sense_is_no_empty_configuration() {
    let Some(nomad) = start(NomadOptions { acl: true, ..NomadOptions::default() }) else { return };
    put(&nomad, "weft/routes", &[("web", &ROUTE.replace("NAME", "one"))]);
    let rules = "namespace \"*\" {\n capabilities = [\"read-job\"]\n}\nnode {\n policy = \"read\"\n}\n";
    let more = "namespace \"default\" {\n capabilities = [\"read-job\"]\n variables {\n path \"weft/*\" {\n capabilities = [\"list\", \"read\"]\n }\n }\n}\n";
    let apply = |rules: &str| drop(nomad.nomad(&["acl", "policy", "apply", "weft", "-"], rules).unwrap());
    apply(rules);
    let created = nomad.nomad(&["acl", "token", "create", "-json", "-policy=weft"], "").unwrap();
    let created: serde_json::Value = serde_json::from_str(&created).unwrap();
    let path = write_token(&nomad, "agent", created["SecretID"].as_str().unwrap());
    let registry = registry(&nomad.url(), &format!("{VARIABLES}token_file = \"{path}\"\n"));
    let missing =
        registry.rights().await.unwrap().into_iter().find(|right| right.given == Some(false)).unwrap();
    assert!(missing.name.contains("path \"weft/*\""), "{missing:?}");
    let mut follower = Follower::of(registry);
    let view = follower.until("refused", |view| !view.errors.is_empty()).await;
    assert!(
        matches!(&view.errors[0], RegistryError::Denied(text) if text.contains("weft/*")),
        "{:?}",
        view.errors
    );
    assert_eq!(view.lists, 0);
    apply(&format!("{rules}{more}"));
    follower.until("it is read", |view| routes(view) == ["one"]).await;
    let errors = follower.now().errors.len();
    apply(rules);
    put(&nomad, "weft/routes", &[("web", &ROUTE.replace("NAME", "two"))]);
    let view = follower.until("refused again", |view| view.errors.len() > errors).await;
    assert_eq!(routes(&view), ["one"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_never_made_sense_stops_nothing_else() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    put(&nomad, "weft/note", &[("text", "hello, this is a note"), ("web", &ROUTE.replace("NAME", "one"))]);
    put(&nomad, "weft/deny", &[("web", "[[policy]]\nname = 1\ntarget = { service = \"web\" }\n")]);
    let mut running = Follower::of(registry(&nomad.url(), VARIABLES));
    let denied =
        |view: &View| routes(view) == ["one"] && denials(view) == ["not-understood/variable/weft%2Fdeny/web"];
    let view = running.until("the route, and the denial", denied).await;
    for item in ["weft/note text:1:", "weft/deny web:2:"] {
        assert!(view.faults().iter().any(|fault| fault.contains(item)), "{item}: {:?}", view.faults());
    }
    Job::default().run(&nomad);
    let serves = |view: &View| {
        view.origins.values().flat_map(|it| &it.0).any(|it| matches!(it, Resource::Endpoint(_)))
    };
    running.until("an instance", serves).await;
    put(&nomad, "weft/deny", &[("web", "# nothing is forbidden after all\n")]);
    running.until("that it is mended", |view| denials(view).is_empty()).await;
    // What is new and makes no sense changes nothing for those who run.
    put(&nomad, "weft/late", &[("web", "[[policy]\n")]);
    let told = |view: &View| view.faults().iter().any(|fault| fault.contains("weft/late web"));
    let view = running.until("that it is told", told).await;
    assert_eq!((denials(&view), view.errors, view.lists), (Vec::new(), vec![], 1));
    let mut fresh = Follower::of(registry(&nomad.url(), VARIABLES));
    let closed = |view: &View| denials(view) == ["not-understood/variable/weft%2Flate/web"] && serves(view);
    fresh.until("that a new one denies what it may be for", closed).await;
}
