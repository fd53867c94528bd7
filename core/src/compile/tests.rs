//! Tables of what compiles to what; random histories are in `properties`.

mod changes;
mod departed;
mod joins;
mod policies;

use std::net::SocketAddr;

use super::*;
use crate::{
    context::PolicyInput,
    identity::SpiffeId,
    locality::Locality,
    merge::{
        Merge,
        testing::{commit, endpoint, origin_of_endpoints, replace, scope, service},
    },
    name::WorkloadName,
    registry::Scope,
    resource::{
        Action, AppProtocol, Backend, Endpoint, Health, PathMatch, Policy, PolicyRule, PolicyTarget,
        Resource, Retries, Route, RouteMatch, RouteRule, TlsMode,
    },
    table::{Decision, Destination},
    workload::WorkloadPort,
};

struct World {
    merge: Merge,
    compiler: Compiler,
}

impl World {
    fn new(config: CompileConfig) -> Self {
        Self { merge: Merge::default(), compiler: Compiler::new(config) }
    }

    fn say(&mut self, scope: &Scope, origin: &str, resources: Vec<Resource>) -> Table {
        let now = std::time::SystemTime::UNIX_EPOCH;
        self.merge.apply(replace(scope, origin, "1", resources), now);
        self.merge.apply(commit(scope), now);
        self.compile()
    }

    fn compile(&mut self) -> Table {
        let changes = self.merge.take_changes();
        self.compiler.compile(self.merge.snapshot(), &changes)
    }

    fn diagnosed(&self, text: &str) -> bool {
        self.compiler.diagnostics().iter().any(|diagnostic| diagnostic.to_string().contains(text))
    }
}

fn registries(names: &[&str]) -> Vec<RegistryName> {
    names.iter().map(|name| RegistryName::new(name).unwrap()).collect()
}

fn workload(namespace: &str, serves: Option<&str>) -> Arc<Workload> {
    let port = |service: &str| WorkloadPort {
        service: service.parse().unwrap(),
        name: "http".parse().unwrap(),
        address: SocketAddr::from(([127, 0, 0, 1], 8080)),
        protocol: AppProtocol::Http,
    };
    Arc::new(Workload {
        name: WorkloadName::new("local").unwrap(),
        identity: SpiffeId::parse(&format!("spiffe://demo.mesh/ns/{namespace}/sa/local")).unwrap(),
        labels: Default::default(),
        locality: Locality::default(),
        ports: serves.into_iter().map(port).collect(),
    })
}

fn rule(name: &str, path: Option<PathMatch>, backends: Vec<Backend>) -> RouteRule {
    let matches =
        path.into_iter().map(|path| RouteMatch { path: Some(path), ..RouteMatch::default() }).collect();
    RouteRule {
        name: name.parse().unwrap(),
        matches,
        backends,
        request_timeout: std::time::Duration::from_secs(1),
        connect_timeout: std::time::Duration::from_secs(1),
        retries: Retries::default(),
    }
}

fn route(service: &str, rules: Vec<RouteRule>) -> Resource {
    Resource::Route(Arc::new(Route {
        name: "split".parse().unwrap(),
        service: service.parse().unwrap(),
        rules,
    }))
}

fn named_route(name: &str, service: &str, rules: Vec<RouteRule>) -> Resource {
    Resource::Route(Arc::new(Route { name: name.parse().unwrap(), service: service.parse().unwrap(), rules }))
}

fn backend(service: Option<&str>, version: Option<&str>, weight: u32) -> Backend {
    let subset = version.into_iter().map(|version| ("version".to_owned(), version.to_owned())).collect();
    Backend { service: service.map(|name| name.parse().unwrap()), subset, weight }
}

fn of(endpoint: Endpoint) -> Resource {
    Resource::Endpoint(Arc::new(endpoint))
}

fn declared(name: &str) -> Resource {
    Resource::Service(Arc::new(service(name)))
}

fn instances(destination: &Destination, rule: usize, target: usize) -> Vec<String> {
    let endpoints = &destination.ports[0].rules[rule].targets[target].endpoints;
    endpoints.all.iter().map(|upstream| upstream.endpoint.instance.to_string()).collect()
}

#[test]
fn a_route_that_another_one_of_its_registry_hides_is_told_with_both_places() {
    let mut world = World::new(CompileConfig::default());
    let path = |path: &str| Some(PathMatch::Prefix(path.into()));
    let mut say = |first: Vec<RouteRule>, later: Vec<RouteRule>| {
        let routes = [named_route("a", "reviews", first), named_route("b", "reviews", later)];
        world.say(&scope("static"), "file", [declared("reviews")].into_iter().chain(routes).collect());
        let said = world.compiler.diagnostics().into_iter().filter(|it| it.message.contains("not used"));
        said.map(|it| (it.places.join(" "), it.message)).collect::<Vec<_>>()
    };
    let rules = |names: &[(&str, &str)]| {
        names.iter().map(|(name, of)| rule(name, path(of), Vec::new())).collect::<Vec<_>>()
    };
    for all in [rule("all", None, Vec::new()), rule("all", path("/"), Vec::new())] {
        let told = say(vec![all], rules(&[("x", "/x")]));
        let [(places, message)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(places, "static/b static/a");
        assert!(message.starts_with("is not used: the route a of the same registry"), "{message}");
    }
    let told = say(rules(&[("one", "/x")]), rules(&[("x", "/x"), ("y", "/y")]));
    assert!(told.len() == 1 && told[0].1.starts_with("its rule x is not used"), "{told:?}");
    assert_eq!(say(rules(&[("one", "/x")]), rules(&[("y", "/y")])), [], "each gets its own");
    assert_eq!(
        say(rules(&[("one", "/x")]), vec![rule("rest", None, Vec::new())]),
        [],
        "the rest is the later one's"
    );
}

#[test]
fn a_split_chooses_by_label_and_ends_with_a_default() {
    let mut world = World::new(CompileConfig::default());
    let scope = scope("static");
    let labelled = |number, version: &str| {
        let labels = [("version", version)].into_iter().collect();
        of(Endpoint { labels, ..endpoint("reviews", number) })
    };
    let backends = vec![backend(None, Some("v1"), 90), backend(None, Some("v2"), 10)];
    let rules = vec![rule("all", Some(PathMatch::Prefix("/api/".into())), backends)];
    let origin = vec![declared("reviews"), labelled(1, "v1"), labelled(2, "v2"), route("reviews", rules)];
    let table = world.say(&scope, "file", origin);
    let destination = table.destination("reviews.default").unwrap();
    assert_eq!(instances(destination, 0, 0), ["reviews-1"]);
    assert_eq!(instances(destination, 0, 1), ["reviews-2"]);
    let port = &destination.ports[0];
    assert_eq!(port.rules[0].targets.iter().map(|t| t.cumulative_weight).collect::<Vec<_>>(), [90, 100]);
    assert_eq!(
        port.rules.iter().map(|rule| rule.name.to_string()).collect::<Vec<_>>(),
        ["split/all", "default"]
    );
    let applies = |path| port.rules[0].applies(path, &http::Method::GET, &http::HeaderMap::new());
    assert!(applies("/api/x") && applies("/api") && !applies("/apis"));
}

#[test]
fn a_share_of_which_nobody_is_left_is_told_with_its_subset_until_somebody_is() {
    let mut world = World::new(CompileConfig::default());
    let labelled = |service: &str, number, version: &str| {
        let labels = [("version", version)].into_iter().collect();
        of(Endpoint { labels, ..endpoint(service, number) })
    };
    let backends = vec![
        backend(None, Some("v1"), 1),
        backend(None, Some("v2"), 2),
        backend(Some("ratings"), None, 5),
        backend(Some("nobody"), None, 0),
    ];
    let split = route("reviews", vec![rule("all", None, backends)]);
    let mut told = |service: &str, endpoints: Vec<Resource>| {
        let own = (service == "reviews").then(|| split.clone());
        world.say(
            &scope("static"),
            service,
            std::iter::once(declared(service)).chain(endpoints).chain(own).collect(),
        );
        let all = world.compiler.diagnostics().into_iter();
        let left = all.filter(|it| it.message.contains("nobody is left"));
        left.map(|it| format!("{}: {}", it.places.join(" "), it.message)).collect::<Vec<_>>()
    };
    told("nobody", Vec::new());
    told("ratings", vec![of(endpoint("ratings", 9))]);
    let both = || vec![labelled("reviews", 1, "v1"), labelled("reviews", 2, "v2")];
    assert_eq!(told("reviews", both()), [""; 0]);
    let said = "static/split/all: nobody is left of static/reviews.default with version = v2 for port http: that share \
                of requests, 25 %, fails";
    assert_eq!(told("reviews", vec![labelled("reviews", 1, "v1")]), [said]);
    assert_eq!(told("reviews", both()), [""; 0]);
    let said = "static/split/all: nobody is left of static/ratings.default for port http: that share of requests, 62.5 \
                %, fails";
    assert_eq!(told("ratings", Vec::new()), [said], "also where only the other service has changed");
    assert_eq!(
        told("reviews", Vec::new()),
        [""; 0],
        "where nobody is left at all, no share is another one's"
    );
}

#[test]
fn endpoints_are_ranked_by_health_and_weighed() {
    let mut world = World::new(CompileConfig::default());
    let unlike = |number, health, weight| of(Endpoint { health, weight, ..endpoint("reviews", number) });
    let origin = vec![
        declared("reviews"),
        unlike(1, Health::Unhealthy, 1),
        unlike(2, Health::Healthy, 3),
        unlike(3, Health::Draining, 1),
        unlike(4, Health::Healthy, 1),
    ];
    let table = world.say(&scope("static"), "file", origin);
    let destination = table.destination("reviews").unwrap();
    assert_eq!(instances(destination, 0, 0), ["reviews-2", "reviews-4", "reviews-3", "reviews-1"]);
    let set = &destination.ports[0].rules[0].targets[0].endpoints;
    assert_eq!((set.first_choice, set.cumulative_weights.as_slice()), (2, &[3, 4][..]));
}

#[test]
fn what_must_be_tls_and_cannot_be_is_withheld() {
    let mut world = World::new(CompileConfig::default());
    let origin = vec![
        declared("reviews"),
        of(Endpoint { identity: None, ..endpoint("reviews", 1) }),
        of(Endpoint { mesh_address: None, ..endpoint("reviews", 2) }),
        of(Endpoint { identity: None, mesh_address: None, tls: TlsMode::Off, ..endpoint("reviews", 3) }),
    ];
    let table = world.say(&scope("static"), "file", origin);
    assert_eq!(instances(table.destination("reviews").unwrap(), 0, 0), ["reviews-3"]);
    assert!(world.diagnosed("no identity is named") && world.diagnosed("no mesh address"));
}

#[test]
fn state_follows_an_endpoint_through_changes_and_not_to_another_address() {
    let mut world = World::new(CompileConfig::default());
    let scope = scope("static");
    let table = world.say(&scope, "file", origin_of_endpoints("reviews", 2));
    let upstreams = |table: &Table| {
        table.destination("reviews").unwrap().ports[0].rules[0].targets[0].endpoints.all.clone()
    };
    let before = upstreams(&table);
    let changed = Endpoint { weight: 7, ..endpoint("reviews", 1) };
    let mut moved = endpoint("reviews", 2);
    moved.address = "10.0.0.1:9".parse().unwrap();
    let origin = vec![declared("reviews"), of(changed), of(moved)];
    let after = upstreams(&world.say(&scope, "file", origin));
    assert!(Arc::ptr_eq(&before[0].state, &after[0].state) && after[0].endpoint.weight == 7);
    assert!(!Arc::ptr_eq(&before[1].state, &after[1].state));
    // A new order of registries compiles everything anew, and endpoints keep their state all the same.
    world.compiler.configure(CompileConfig { precedence: registries(&["x"]), ..CompileConfig::default() });
    let anew = upstreams(&world.compile());
    assert!(Arc::ptr_eq(&after[0].state, &anew[0].state));
}

#[test]
fn one_changed_endpoint_leaves_all_other_services_as_they_are() {
    let mut world = World::new(CompileConfig::default());
    let scope = scope("static");
    world.say(&scope, "ratings", origin_of_endpoints("ratings", 2));
    let split = rule("all", None, vec![backend(Some("reviews"), None, 1)]);
    let mut front = origin_of_endpoints("front", 1);
    front.push(route("front", vec![split]));
    world.say(&scope, "front", front);
    let before = world.say(&scope, "reviews", origin_of_endpoints("reviews", 1));
    let after = world.say(&scope, "reviews", origin_of_endpoints("reviews", 2));
    let same = |host| Arc::ptr_eq(before.destination(host).unwrap(), after.destination(host).unwrap());
    assert!(same("ratings") && !same("reviews") && !same("front"));
    assert_eq!(instances(after.destination("front").unwrap(), 0, 0), ["reviews-1", "reviews-2"]);
    assert!(before.hosts.names.ptr_eq(&after.hosts.names), "no name changed");
}

#[test]
fn a_faulty_route_keeps_its_last_good_form() {
    let mut world = World::new(CompileConfig::default());
    let scope = scope("static");
    let with = |pattern: &str| {
        let mut origin = origin_of_endpoints("reviews", 1);
        origin.push(route("reviews", vec![rule("one", Some(PathMatch::Regex(pattern.into())), Vec::new())]));
        origin
    };
    world.say(&scope, "file", with("/a+"));
    let table = world.say(&scope, "file", with("/(b"));
    let rules = &table.destination("reviews").unwrap().ports[0].rules;
    assert!(rules[0].applies("/aaa", &http::Method::GET, &http::HeaderMap::new()));
    assert!(world.diagnosed("regular expression") && world.diagnosed("last good form"));
    let table = world.say(&scope, "file", with("/c"));
    let rules = &table.destination("reviews").unwrap().ports[0].rules;
    assert!(rules[0].applies("/c", &http::Method::GET, &http::HeaderMap::new()));
    assert!(world.compiler.diagnostics().is_empty());
    // Never good: it applies to nothing, and the default rule serves.
    let mut fresh = World::new(CompileConfig::default());
    let table = fresh.say(&scope, "file", with("a)|(b"));
    assert_eq!(table.destination("reviews").unwrap().ports[0].rules.len(), 1);
}

#[test]
fn precedence_decides_who_has_a_name_and_a_join_makes_one_of_two() {
    let (kubernetes, consul) = (scope("kubernetes"), scope("consul"));
    let precedence = registries(&["kubernetes", "consul"]);
    let mut world = World::new(CompileConfig { precedence, ..CompileConfig::default() });
    let elsewhere = Endpoint {
        address: "10.9.9.9:80".parse().unwrap(),
        instance: "other".parse().unwrap(),
        ..endpoint("web", 1)
    };
    let table = world.say(&consul, "web", vec![declared("web"), of(elsewhere)]);
    assert_eq!(table.destination("web").unwrap().key.registry.as_str(), "consul");
    let table = world.say(&kubernetes, "web", origin_of_endpoints("web", 1));
    assert_eq!(table.destination("web").unwrap().key.registry.as_str(), "kubernetes");
    assert_eq!(
        instances(table.destination("web").unwrap(), 0, 0),
        ["web-1"],
        "no endpoint of another registry"
    );
    assert!(world.diagnosed("both claim"));
    let joins = vec![Join {
        registries: registries(&["kubernetes", "consul"]),
        services: Vec::new(),
        prefer: Prefer::Any,
    }];
    world.compiler.configure(CompileConfig { joins, ..world.compiler.config().clone() });
    let table = world.compile();
    assert_eq!(instances(table.destination("web").unwrap(), 0, 0), ["other", "web-1"]);
    assert!(world.compiler.diagnostics().is_empty());
    let foreign = SpiffeId::parse("spiffe://demo.mesh/ns/evil/sa/web").ok();
    let intruder = Endpoint { identity: foreign, instance: "evil".parse().unwrap(), ..endpoint("web", 9) };
    let table = world.say(&consul, "web", vec![declared("web"), of(intruder)]);
    assert_eq!(
        instances(table.destination("web").unwrap(), 0, 0),
        ["web-1"],
        "a join needs equal identities"
    );
    assert!(world.diagnosed("equal identities"));
    world.say(&kubernetes, "web", Vec::new());
    let table = world.say(&consul, "web", Vec::new());
    assert!(table.destination("web").is_none() && table.destinations().next().is_none());
}

#[test]
fn bare_names_mean_the_callers_namespace_first() {
    let workloads = vec![workload("prod", None)];
    let mut world = World::new(CompileConfig { workloads, ..CompileConfig::default() });
    let scope = scope("static");
    world.say(&scope, "a", origin_of_endpoints("reviews.default", 1));
    let table = world.say(&scope, "b", origin_of_endpoints("reviews.prod", 1));
    let key =
        |table: &Table| table.destination_for(&table.views[0], "reviews").unwrap().key.service.to_string();
    assert_eq!(key(&table), "reviews.prod");
    assert_eq!(table.destination("reviews").unwrap().key.service.to_string(), "reviews.default");
    let table = world.say(&scope, "b", Vec::new());
    assert_eq!(key(&table), "reviews.default");
}

#[test]
fn policies_protect_what_they_select() {
    let workloads = vec![workload("default", Some("web"))];
    let precedence = registries(&["kubernetes", "consul"]);
    let mut world = World::new(CompileConfig { workloads, precedence, ..CompileConfig::default() });
    let friend = SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/friend").unwrap();
    let policy = |name: &str, action, from: &SpiffeId| {
        let rule = PolicyRule {
            from: vec![crate::resource::PrincipalMatch::Identity(from.clone())],
            ..PolicyRule::default()
        };
        let target = PolicyTarget::Service("web".parse().unwrap());
        Resource::Policy(Arc::new(Policy { name: name.parse().unwrap(), target, action, rules: vec![rule] }))
    };
    let decide = |table: &Table, identity: &SpiffeId| {
        let port = table.views[0].inbound.values().next().unwrap();
        port.authorization.decide(&PolicyInput { identity, port: 8080, request: None })
    };
    let mut origin = origin_of_endpoints("web", 1);
    origin.push(policy("friends", Action::Allow, &friend));
    let first = world.say(&scope("kubernetes"), "web", origin);
    let stranger = SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/stranger").unwrap();
    assert!(decide(&first, &friend).is_allowed());
    assert_eq!(decide(&first, &stranger), Decision::NotAllowed("kubernetes/friends".parse().unwrap()));
    // Another registry's service of the same name: it may restrict, never permit.
    let mut origin = origin_of_endpoints("web", 1);
    origin.push(policy("let-in", Action::Allow, &stranger));
    let second = world.say(&scope("consul"), "web", origin.clone());
    assert_eq!(decide(&second, &stranger), Decision::NotAllowed("kubernetes/friends".parse().unwrap()));
    let port = |table: &Table| table.views[0].inbound.values().next().unwrap().clone();
    assert!(Arc::ptr_eq(&port(&first), &port(&second)), "nothing changed for this port");
    origin.push(policy("keep-out", Action::Deny, &friend));
    let third = world.say(&scope("consul"), "web", origin);
    assert!(!decide(&third, &friend).is_allowed());
}
