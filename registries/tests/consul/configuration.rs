//! Config entries and KV, read as routes and policies.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::task::block_in_place;
use weft_core::{
    merge::Limits,
    registry::OriginFault,
    resource::{Action, PathMatch, Policy, PolicyTarget, PrincipalMatch, Route},
};
use weft_testbed::{Consul, ConsulOptions};

use crate::{
    bed::{SOON, registry, start, write},
    follower::{Follower, View},
};

const SECTION: &str = "configuration = true\nidentity = \"ns/{namespace}/sa/{service}\"\nmesh_port = 15008\n";

/// Writes an entry. A server that has just begun takes no intentions for a moment.
fn entry(consul: &Consul, entry: Value) {
    let written = || {
        let answer = consul.call("PUT", "/v1/config", entry.to_string());
        answer.is_ok_and(|answer| answer.success("an entry").is_ok())
    };
    block_in_place(|| weft_testbed::until("the entry is taken", SOON, written)).unwrap();
}

fn route(view: &View<'_>, name: &str) -> Option<Arc<Route>> {
    let partition = view.seen.snapshot.partitions.values().next()?;
    partition.routes.get(name).cloned()
}

fn policies(view: &View<'_>) -> BTreeMap<String, Arc<Policy>> {
    let partitions = view.seen.snapshot.partitions.values();
    partitions
        .flat_map(|it| it.policies.iter())
        .map(|(name, policy)| (name.to_string(), policy.clone()))
        .collect()
}

fn faults(view: &View<'_>) -> Vec<String> {
    let origins = view.seen.snapshot.scopes.values().flat_map(|state| state.origins.values().cloned());
    let faults = origins.collect::<Vec<_>>().into_iter().flat_map(|origin| origin.faults.clone());
    faults.map(|it| format!("{}: {}", it.place, it.message)).collect()
}

/// Whether the route of `web` is made of the router, the splitter and the resolver: each list of entries is heard by itself.
fn is_whole(view: &View<'_>) -> bool {
    route(view, "web").is_some_and(|route| {
        let [_, rest] = &route.rules[..] else { return false };
        rest.backends.len() == 2 && rest.connect_timeout == Duration::from_secs(3)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_splitters_and_resolvers_are_one_route() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    write(&consul, "n1", 1, "web", json!({ "Meta": { "version": "1" } }));
    write(&consul, "n1", 2, "api", json!({}));
    let mut follower = Follower::new(registry(&consul.url(), SECTION), None);
    follower.until("both", SOON, |view| view.count("web") == 1 && view.count("api") == 1).await.unwrap();
    entry(&consul, json!({ "Kind": "proxy-defaults", "Name": "global", "Config": { "protocol": "http2" } }));
    let speaks = |view: &View<'_>| view.service("web").unwrap().ports[0].protocol;
    let http2 = |view: &View<'_>| speaks(view) == weft_core::resource::AppProtocol::Http2;
    follower.until("what all speak", SOON, http2).await.unwrap();
    let subsets = json!({
        "v1": { "Filter": "Service.Meta.version == 1" },
        "v2": { "Filter": "Service.Meta.version == 2 and \"blue\" in Service.Tags" },
        "odd": { "Filter": "Service.Meta.version != 1" },
    });
    entry(
        &consul,
        json!({
            "Kind": "service-resolver", "Name": "web", "Subsets": subsets, "DefaultSubset": "v1",
            "ConnectTimeout": "3s", "RequestTimeout": "7s", "Failover": { "*": { "Service": "api" } },
        }),
    );
    entry(
        &consul,
        json!({
            "Kind": "service-splitter", "Name": "web",
            "Splits": [{ "Weight": 90.5, "ServiceSubset": "v1" }, { "Weight": 9.5, "ServiceSubset": "v2" }],
        }),
    );
    let http = |more: Value| json!({ "HTTP": more });
    let header = json!([{ "Name": "X-Debug", "Present": true }]);
    entry(
        &consul,
        json!({ "Kind": "service-router", "Name": "web", "Routes": [
        { "Match": http(json!({ "PathPrefix": "/a.b", "Methods": ["GET", "PUT"], "Header": header })),
          "Destination": { "Service": "api", "NumRetries": 4, "RequestTimeout": "2s", "RetryOnStatusCodes": [503] } },
        { "Match": http(json!({ "QueryParam": [{ "Name": "q", "Present": true }] })), "Destination": { "Service": "api" } },
        { "Match": http(json!({ "PathExact": "/odd" })), "Destination": { "ServiceSubset": "odd" } },
        { "Match": http(json!({ "PathRegex": "/(?=a)" })), "Destination": { "Service": "api" } },
    ] }),
    );
    entry(
        &consul,
        json!({
            "Kind": "service-defaults", "Name": "web", "Protocol": "http2", "MaxInboundConnections": 7,
            "UpstreamConfig": { "Defaults": { "Limits": { "MaxConnections": 3 } } },
        }),
    );
    follower.until("the route", SOON, is_whole).await.unwrap();
    let web = follower.view(|view| route(view, "web")).unwrap();
    let [first, rest] = &web.rules[..] else { panic!("{web:?}") };
    assert_eq!(first.matches[1].method.as_deref(), Some("PUT"));
    assert_eq!(first.matches[0].path, Some(PathMatch::Regex("/a\\.b.*".into())));
    assert_eq!((first.matches[0].headers[0].name.as_str(), first.retries.attempts), ("x-debug", 4));
    assert_eq!(first.backends[0].service.as_ref().unwrap().as_str(), "api.default");
    assert_eq!((first.request_timeout, first.retries.on_gateway_error), (Duration::from_secs(2), true));
    let weights: Vec<_> =
        rest.backends.iter().map(|it| (it.weight, it.subset["version"].as_str(), it.subset.len())).collect();
    assert_eq!(weights, [(9050, "1", 1), (950, "2", 2)]);
    assert_eq!(
        (rest.connect_timeout, rest.request_timeout),
        (Duration::from_secs(3), Duration::from_secs(7))
    );
    for word in [
        "Failover",
        "QueryParam",
        "subset odd",
        "service-router web, route 1",
        "service-router web, route 3",
        "\"/(?=a)\" is not valid",
        "\"service-defaults web\": \"MaxInboundConnections\", \"UpstreamConfig\" cannot be expressed",
    ] {
        // Each list of entries is heard by itself.
        let told = |view: &View<'_>| faults(view).iter().any(|fault| fault.contains(word));
        follower.until(word, SOON, told).await.unwrap();
    }
    let odd = json!([{ "Weight": 60, "ServiceSubset": "v1" }, { "Weight": 40, "ServiceSubset": "odd" }]);
    entry(&consul, json!({ "Kind": "service-splitter", "Name": "web", "Splits": odd }));
    let unsplit = |view: &View<'_>| {
        let begins = "\"service-splitter web\": left out, because the subset odd of web cannot be said";
        let ends = "go to all instances of web, without a share for anyone";
        faults(view).iter().any(|fault| fault.starts_with(begins) && fault.ends_with(ends))
    };
    follower.until("that nothing is split", SOON, unsplit).await.unwrap();
    assert_eq!(follower.view(|view| route(view, "web")).unwrap().rules.len(), 1, "the router's rule stands");
    let redirect = json!({ "Kind": "service-resolver", "Name": "api", "Redirect": { "Service": "nowhere" } });
    entry(&consul, redirect);
    let absent = |view: &View<'_>| {
        faults(view).iter().any(|fault| fault.starts_with("\"service-resolver api\": it leads to nowhere"))
    };
    follower.until("that a redirect leads nowhere", SOON, absent).await.unwrap();
    write(&consul, "n1", 3, "nowhere", json!({}));
    follower.until("that it leads somewhere now", SOON, |view| !absent(view)).await.unwrap();
    block_in_place(|| consul.call("DELETE", "/v1/config/service-router/web", "")).unwrap();
    let gone = |view: &View<'_>| route(view, "web").is_none();
    follower.until("that nothing of it is left", SOON, gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn intentions_are_policies_and_keys_are_files() {
    let options = ConsulOptions { acl: true, ..ConsulOptions::default() };
    let Some(consul) = start(options) else { return };
    for (host, service) in [(1, "web"), (2, "api"), (3, "db")] {
        write(&consul, &format!("n{host}"), host, service, json!({}));
    }
    let section = format!(
        "{SECTION}token_file = {:?}\n",
        consul.scratch().write("token", consul.token().unwrap()).unwrap()
    );
    let mut follower = Follower::new(registry(&consul.url(), &section), None);
    follower.until("all", SOON, |view| view.count("db") == 1).await.unwrap();
    assert!(follower.view(policies).is_empty(), "nothing is selected, so nothing is refused");
    entry(&consul, json!({ "Kind": "service-defaults", "Name": "db", "Protocol": "http" }));
    let permissions = json!([
        { "Action": "deny", "HTTP": { "PathPrefix": "/admin" } },
        { "Action": "allow", "HTTP": { "PathExact": "/x", "Methods": ["get"] } },
        { "Action": "allow", "HTTP": { "PathRegex": "/y.*" } },
    ]);
    entry(
        &consul,
        json!({ "Kind": "service-intentions", "Name": "db", "Sources": [
        { "Name": "web", "Action": "allow" }, { "Name": "api", "Permissions": permissions }, { "Name": "bad", "Action": "deny" },
    ] }),
    );
    follower.until("two policies", SOON, |view| policies(view).len() == 2).await.unwrap();
    let made = follower.view(policies);
    let (allow, deny) = (&made["intentions/db/allow"], &made["intentions/db/deny"]);
    let named = |policy: &Policy| {
        policy.rules.iter().map(|it| it.name.as_ref().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!((named(allow), allow.action), (vec!["web".to_owned(), "api".to_owned()], Action::Allow));
    assert_eq!((named(deny), deny.action), (vec!["api".to_owned(), "bad".to_owned()], Action::Deny));
    let web = "spiffe://test.mesh/ns/default/sa/web".parse().unwrap();
    assert_eq!(allow.rules[0].from, [PrincipalMatch::Identity(web)]);
    let operation = &allow.rules[1].to[0];
    assert_eq!(
        (allow.rules[1].to.len(), &operation.methods[0][..], &operation.paths[0][..]),
        (1, "GET", "/x")
    );
    assert_eq!(deny.rules[0].to[0].paths, ["/admin*"]);
    let told = follower.view(faults);
    assert!(told.iter().any(|fault| fault.contains("expression over the path")), "{told:#?}");
    assert!(
        told.iter().any(|fault| fault.contains("source bad") && fault.contains("taken for")),
        "{told:#?}"
    );

    // Of all destinations: each service has a policy of its own, and the named one keeps its precedence.
    entry(
        &consul,
        json!({ "Kind": "service-intentions", "Name": "*", "Sources": [{ "Name": "*", "Action": "deny" }] }),
    );
    let all = |view: &View<'_>| {
        ["web", "api"].iter().all(|name| policies(view).contains_key(&format!("intentions/{name}/allow")))
    };
    follower.until("a policy for each service", SOON, all).await.unwrap();
    let made = follower.view(policies);
    assert!(made["intentions/web/allow"].rules.is_empty() && named(&made["intentions/db/allow"]).len() == 2);

    let text = "[[route]]\nname = \"by-header\"\nservice = \"web\"\n[[route.rule]]\nname = \"all\"\n";
    let key = |text: &str| {
        block_in_place(|| consul.call("PUT", "/v1/kv/weft/web.toml", text)).unwrap().success("kv").unwrap();
    };
    key(text);
    follower.until("the route of a key", SOON, |view| route(view, "by-header").is_some()).await.unwrap();
    key("[[route]]\nname = 1\n");
    let told =
        |view: &View<'_>| faults(view).iter().any(|fault| fault.contains("consul kv weft/web.toml:2:8"));
    follower.until("that the key cannot be read", SOON, told).await.unwrap();
    assert!(follower.view(|view| route(view, "by-header")).is_some(), "its last good words stay");
    key("[[service]]\nname = \"x\"\nports = [{ name = \"http\", number = 80 }]\n");
    let told =
        |view: &View<'_>| faults(view).iter().any(|fault| fault.contains("KV holds routes and policies"));
    follower.until("that a service is left out", SOON, told).await.unwrap();
    assert!(follower.view(|view| view.service("x").is_none() && route(view, "by-header").is_none()));
    block_in_place(|| consul.call("DELETE", "/v1/kv/weft/web.toml", "")).unwrap();
    follower.until("that it is gone", SOON, |view| !told(view)).await.unwrap();
    assert_eq!(follower.view(|view| view.seen.errors.clone()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_contradict_each_other_are_told_by_a_look() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    let rule = |name: &str| format!("[[route.rule]]\nname = \"{name}\"\n");
    let route = |name: &str, rule: &str| format!("[[route]]\nname = \"{name}\"\nservice = \"web\"\n{rule}");
    let conditions = "match = [{ path = { prefix = \"/api\" } }]\n";
    for (key, text) in [
        ("a.toml", route("all", &rule("one"))),
        ("b.toml", route("all", &rule("other"))),
        ("c.toml", route("later", &(rule("api") + conditions))),
    ] {
        let path = format!("/v1/kv/weft/{key}");
        block_in_place(|| consul.call("PUT", &path, text)).unwrap().success("kv").unwrap();
    }
    let followed = registry(&consul.url(), SECTION);
    let found = weft_registries::probe::probe(&*followed, &Limits::default(), &[], SOON).await;
    assert_eq!((&found.error, found.rules), (&None, 3), "{found:?}");
    let told = |place: &str, words: &str| {
        let is_it = |it: &&OriginFault| it.place == place && it.message.contains(words);
        assert!(found.skipped.iter().filter(is_it).count() == 1, "{:?}", found.skipped);
    };
    told("consul/all", "declared differently by the origins");
    told("consul/later, consul/all", "is not used: the route all of the same registry");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_stay_when_the_token_may_not_see_them_any_more() {
    let Some(consul) = start(ConsulOptions { acl: true, ..ConsulOptions::default() }) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    entry(
        &consul,
        json!({ "Kind": "service-intentions", "Name": "web", "Sources": [{ "Name": "api", "Action": "allow" }] }),
    );
    let file = consul.scratch().write("token", consul.token().unwrap()).unwrap();
    let section = format!("{SECTION}token_file = {file:?}\nwait = \"1s\"\n");
    let mut follower = Follower::new(registry(&consul.url(), &section), None);
    let there = |view: &View<'_>| policies(view).contains_key("intentions/web/allow");
    follower.until("the policy", SOON, there).await.unwrap();
    let rules =
        r#"service_prefix "" { policy = "read" intentions = "deny" } node_prefix "" { policy = "read" }"#;
    let token = block_in_place(|| consul.create_token(rules)).unwrap();
    consul.scratch().write("token", &token.secret).unwrap();
    let filtered =
        |view: &View<'_>| view.seen.completeness == Some(weft_core::registry::Completeness::Filtered);
    follower.until("that something is hidden", SOON, filtered).await.unwrap();
    let commits = follower.view(|view| view.seen.commits);
    follower.until("two more words", SOON, |view| view.seen.commits >= commits + 2).await.unwrap();
    assert!(follower.view(there));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_as_long_as_policies_may_be_missing() {
    let Some(consul) = start(ConsulOptions { acl: true, ..ConsulOptions::default() }) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    let deny = json!({ "Kind": "service-intentions", "Name": "web", "Sources": [{ "Name": "api", "Action": "allow" }] });
    entry(&consul, deny);
    let blind =
        r#"service_prefix "" { policy = "read" intentions = "deny" } node_prefix "" { policy = "read" }"#;
    let keyless =
        r#"service_prefix "" { policy = "read" intentions = "read" } node_prefix "" { policy = "read" }"#;
    let but_one = r#"service_prefix "" { policy = "read" intentions = "read" } node_prefix "" { policy = "read" }
        service "web" { policy = "read" intentions = "deny" } key_prefix "weft/" { policy = "read" }"#;
    for (rules, named) in
        [(blind, "intentions = \"read\""), (keyless, "key_prefix"), (but_one, "service-intentions")]
    {
        let token = block_in_place(|| consul.create_token(rules)).unwrap();
        let file = consul.scratch().write("token", &token.secret).unwrap();
        let section = format!("{SECTION}token_file = {file:?}\n");
        let mut follower = Follower::new(registry(&consul.url(), &section), None);
        let refused = |view: &View<'_>| view.seen.errors.iter().any(|error| error.contains(named));
        follower.until(named, SOON, refused).await.unwrap();
        assert_eq!(follower.view(|view| view.seen.commits), 0, "{rules}");
        consul.scratch().write("token", consul.token().unwrap()).unwrap();
        let there = |view: &View<'_>| policies(view).contains_key("intentions/web/allow");
        follower.until("the policy, with a better token", SOON, there).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_never_made_sense_stops_nothing_else() {
    let Some(consul) = start(ConsulOptions::default()) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    let key = |name: &str, text: &str| {
        let path = format!("/v1/kv/weft/{name}");
        block_in_place(|| consul.call("PUT", &path, text)).unwrap().success("kv").unwrap();
    };
    key("note", "hello, this is a note");
    key("deny.toml", "[[policy]]\nname = 1\ntarget = { service = \"web\" }\n");
    key("other.mesh/tokens/580b", "{\"identities\":[]}");
    key("hubs/test.mesh/nodes/n1", "{\"identities\":[]}");
    let names = |view: &View<'_>| policies(view).into_keys().collect::<Vec<_>>();
    let told = |view: &View<'_>, key: &str| {
        let place = format!("consul kv weft/{key}");
        faults(view).iter().any(|fault| fault.starts_with(&place))
    };
    let mut running = Follower::new(registry(&consul.url(), SECTION), None);
    let denied = |view: &View<'_>| names(view) == ["not-understood/kv/deny.toml"] && view.count("web") == 1;
    running.until("the catalog, and the denial", SOON, denied).await.unwrap();
    assert!(running.view(|view| told(view, "note:1:") && told(view, "deny.toml:2:")));
    assert!(
        !running.view(|view| told(view, "other.mesh") || told(view, "hubs")),
        "{:?}",
        running.view(faults)
    );
    let policy = running.view(|view| policies(view)["not-understood/kv/deny.toml"].clone());
    let PolicyTarget::Service(service) = &policy.target else { panic!("{policy:?}") };
    assert_eq!((service.as_str(), policy.action, policy.rules.len()), ("web.default", Action::Deny, 1));
    write(&consul, "n1", 2, "web", json!({}));
    running.until("another instance", SOON, |view| view.count("web") == 2).await.unwrap();
    let found =
        weft_registries::probe::probe(&*registry(&consul.url(), SECTION), &Limits::default(), &[], SOON)
            .await;
    assert_eq!((&found.error, found.services, found.complete), (&None, 1, Some(false)), "{found:?}");
    for key in ["note", "deny.toml"] {
        let place = format!("consul kv weft/{key}:");
        assert!(found.skipped.iter().any(|it| it.place.starts_with(&place)), "{:?}", found.skipped);
    }
    key("deny.toml", "# nothing is forbidden after all\n");
    running.until("that it is mended", SOON, |view| names(view).is_empty()).await.unwrap();
    // What is new and makes no sense changes nothing for those who run.
    key("late.toml", "[[policy]\n");
    running.until("that it is told", SOON, |view| told(view, "late.toml")).await.unwrap();
    assert_eq!(running.view(names), Vec::<String>::new());
    let mut fresh = Follower::new(registry(&consul.url(), SECTION), None);
    let all = |view: &View<'_>| names(view) == ["not-understood/kv/late.toml"] && view.count("web") == 2;
    fresh.until("that a new one denies what it may be for", SOON, all).await.unwrap();
    assert!(fresh.view(|view| policies(view).values().all(|policy| policy.target == PolicyTarget::Mesh)));
    block_in_place(|| consul.call("DELETE", "/v1/kv/weft/late.toml", "")).unwrap();
    fresh.until("that it is deleted", SOON, |view| names(view).is_empty()).await.unwrap();
    assert!(fresh.view(|view| view.seen.errors.is_empty()), "{:?}", fresh.view(|it| it.seen.errors.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_no_intention_mentions_is_decided_as_consul_does() {
    // Access control is off, so that its default is to allow.
    let configuration = json!({ "default_intention_policy": "deny" });
    let Some(consul) = start(ConsulOptions { configuration, ..ConsulOptions::default() }) else { return };
    write(&consul, "n1", 1, "web", json!({}));
    let deny = json!({ "Kind": "service-intentions", "Name": "web", "Sources": [{ "Name": "api", "Action": "deny" }] });
    entry(&consul, deny);
    write(&consul, "n1", 2, "open", json!({}));
    let names = |view: &View<'_>| policies(view).into_keys().collect::<Vec<_>>();
    let told = |view: &View<'_>| {
        faults(view).iter().any(|it| it.contains("no intention is for 1 services, such as \"open\""))
    };
    for (more, allows) in [("", false), ("default_intention = \"allow\"\n", true)] {
        let mut follower = Follower::new(registry(&consul.url(), &format!("{SECTION}{more}")), None);
        let there = |view: &View<'_>| policies(view).contains_key("intentions/web/allow");
        follower.until("the policy", SOON, there).await.unwrap();
        let rules = follower.view(|view| policies(view)["intentions/web/allow"].rules.len());
        assert_eq!(rules == 1, allows, "{more}");
        let open = |view: &View<'_>| !names(view).contains(&"intentions/open/allow".to_owned());
        assert!(
            follower.view(|view| open(view) && told(view) != allows),
            "{more}: {:?}",
            follower.view(faults)
        );
    }
    // The file's own word closes what no intention is for.
    let mut follower =
        Follower::new(registry(&consul.url(), &format!("{SECTION}default_intention = \"deny\"\n")), None);
    let closed = |view: &View<'_>| {
        policies(view)
            .get("intentions/open/allow")
            .is_some_and(|it| it.action == Action::Allow && it.rules.is_empty())
    };
    follower.until("that nobody may call it", SOON, closed).await.unwrap();
    assert!(!follower.view(told));
    write(&consul, "n1", 3, "late", json!({}));
    let late = |view: &View<'_>| names(view).contains(&"intentions/late/allow".to_owned());
    follower.until("the same of a new one", SOON, late).await.unwrap();
    entry(
        &consul,
        json!({ "Kind": "service-intentions", "Name": "open", "Sources": [{ "Name": "api", "Action": "allow" }] }),
    );
    follower.until("that an intention opens it", SOON, |view| !closed(view)).await.unwrap();
    assert_eq!(follower.view(|view| policies(view)["intentions/open/allow"].rules.len()), 1);
}
