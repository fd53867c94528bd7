//! Whose policies count where, and what becomes of conditions that could never hold.

use http::Method;

use super::*;
use crate::{
    context::PolicyRequest,
    resource::{Operation, PrincipalMatch, Service},
};

fn identity(account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://demo.mesh/ns/default/sa/{account}")).unwrap()
}

fn policy(name: &str, target: PolicyTarget, action: Action, rule: PolicyRule) -> Resource {
    Resource::Policy(Arc::new(Policy { name: name.parse().unwrap(), target, action, rules: vec![rule] }))
}

fn from(account: &str) -> PolicyRule {
    PolicyRule { from: vec![PrincipalMatch::Identity(identity(account))], ..PolicyRule::default() }
}

fn to_paths(paths: &[&str]) -> PolicyRule {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    PolicyRule { to: vec![Operation { paths, ..Operation::default() }], ..PolicyRule::default() }
}

fn decide(table: &Table, account: &str, path: &str) -> bool {
    let port = table.views[0].inbound.values().next().unwrap();
    let request = Some(PolicyRequest { method: &Method::GET, path });
    port.authorization.decide(&PolicyInput { identity: &identity(account), port: 8080, request }).is_allowed()
}

fn world(serves: &str) -> World {
    let workloads = vec![workload("default", Some(serves))];
    let precedence = registries(&["kubernetes", "consul"]);
    let authority = precedence.first().cloned();
    World::new(CompileConfig { workloads, precedence, authority, ..CompileConfig::default() })
}

#[test]
fn a_lesser_registry_allows_nothing_beyond_its_own_services() {
    let own_identity = PolicyTarget::Identity(identity("local"));
    for target in [PolicyTarget::Mesh, own_identity] {
        let mut world = world("web");
        let mut origin = origin_of_endpoints("web", 1);
        let friends = PolicyTarget::Service("web".parse().unwrap());
        origin.push(policy("friends", friends, Action::Allow, from("friend")));
        world.say(&scope("kubernetes"), "web", origin);
        let let_in = policy("let-in", target.clone(), Action::Allow, from("stranger"));
        let table = world.say(&scope("consul"), "wide", vec![let_in]);
        assert!(decide(&table, "friend", "/") && !decide(&table, "stranger", "/"), "{target:?}");
        assert!(world.diagnosed("kubernetes ranks before consul"));
        let keep_out = policy("keep-out", target, Action::Deny, from("friend"));
        let table = world.say(&scope("consul"), "wide", vec![keep_out]);
        assert!(!decide(&table, "friend", "/"), "to restrict is everybody's right");
        assert!(!world.diagnosed("ranks before"));
    }
}

#[test]
fn whom_a_service_lets_in_is_not_another_registrys_matter_while_its_last_instance_is_gone() {
    let mut world = world("web");
    let implied = Resource::Service(Service { declared: false, ..service("web") }.into());
    world.say(&scope("kubernetes"), "web", vec![implied, of(endpoint("web", 1))]);
    let target = || PolicyTarget::Service("web".parse().unwrap());
    let friends = policy("friends", target(), Action::Allow, from("friend"));
    world.say(&scope("kubernetes"), "rules", vec![friends]);
    let mut tenants = origin_of_endpoints("web", 9);
    tenants.push(policy("let-in", target(), Action::Allow, from("stranger")));
    world.say(&scope("consul"), "web", tenants);
    let table = world.say(&scope("kubernetes"), "web", Vec::new());
    assert!(decide(&table, "friend", "/") && !decide(&table, "stranger", "/"));
}

#[test]
fn whom_a_service_lets_in_counts_while_its_registry_is_held() {
    let mut world = world("web");
    let config = world.compiler.config().clone();
    world.compiler.configure(CompileConfig { held: registries(&["consul"]), ..config });
    let mut origin = origin_of_endpoints("web", 1);
    let target = PolicyTarget::Service("web".parse().unwrap());
    origin.push(policy("friends", target, Action::Allow, from("friend")));
    let table = world.say(&scope("consul"), "web", origin);
    assert!(decide(&table, "friend", "/") && !decide(&table, "stranger", "/"));
    assert!(!world.diagnosed("protects nothing"));
}

#[test]
fn a_policy_of_a_service_that_nobody_knows_is_told_for_as_long_as_that_is_so() {
    let mut world = world("served");
    let protect = |service: &str| {
        let target = PolicyTarget::Service(service.parse().unwrap());
        vec![policy("lock", target, Action::Deny, from("stranger"))]
    };
    world.say(&scope("kubernetes"), "policy", protect("served"));
    assert!(!world.diagnosed("protects nothing"), "a local workload serves it");
    world.say(&scope("kubernetes"), "policy", protect("web"));
    assert!(world.diagnosed("kubernetes/lock: protects web.default, which no registry declares"));
    world.say(&scope("consul"), "endpoint", vec![of(endpoint("web", 1))]);
    assert!(world.diagnosed("protects nothing"), "an endpoint declares nothing");
    world.say(&scope("consul"), "web", vec![declared("web")]);
    assert!(!world.diagnosed("protects nothing"), "any registry's word will do: whoever denies counts");
    world.say(&scope("consul"), "web", Vec::new());
    assert!(world.diagnosed("protects nothing"));
    world.say(&scope("kubernetes"), "policy", Vec::new());
    assert!(!world.diagnosed("protects nothing"));
}

#[test]
fn a_lesser_registry_does_not_shut_out_by_allowing() {
    let mut world = world("web");
    // It says nothing of policies itself: that hands its place to nobody.
    world.say(&scope("kubernetes"), "web", origin_of_endpoints("web", 1));
    let wide = policy("wide", PolicyTarget::Mesh, Action::Allow, from("stranger"));
    let table = world.say(&scope("consul"), "wide", vec![wide.clone()]);
    assert!(decide(&table, "friend", "/"), "the default of the port stays");
    // Where it owns the service, its word counts; so does the most authoritative registry's everywhere.
    world.say(&scope("kubernetes"), "web", Vec::new());
    let mut origin = origin_of_endpoints("web", 1);
    origin.push(wide.clone());
    let table = world.say(&scope("consul"), "wide", origin);
    assert!(!decide(&table, "friend", "/") && decide(&table, "stranger", "/"));
    let table = world.say(&scope("kubernetes"), "policy", vec![policy_of_all(&wide)]);
    assert!(decide(&table, "friend", "/"));
}

/// The same policy, but for everybody.
fn policy_of_all(policy: &Resource) -> Resource {
    let Resource::Policy(policy) = policy else { unreachable!("a policy was made") };
    Resource::Policy(Arc::new(Policy { rules: vec![PolicyRule::default()], ..Policy::clone(policy) }))
}

#[test]
fn a_condition_on_a_path_holds_for_its_canonical_form_or_is_told() {
    let cases = [
        ("/caf%c3%a9/*", "/caf%C3%A9/menu", "is taken as \"/caf%C3%A9/*\""),
        ("/%61dmin", "/admin", "is taken as \"/admin\""),
        ("/x|y", "/x%7Cy", "is taken as \"/x%7Cy\""),
        ("/a%2Fb", "/anything", "denied for every path"),
        ("/100%", "/anything", "denied for every path"),
    ];
    for (written, asked, told) in cases {
        let mut world = world("web");
        let keep_out = policy("keep-out", PolicyTarget::Mesh, Action::Deny, to_paths(&[written]));
        let table = world.say(&scope("kubernetes"), "file", vec![keep_out]);
        assert!(!decide(&table, "friend", asked), "{written}");
        assert!(world.diagnosed(told), "{written}: {:?}", world.compiler.diagnostics());
        let allowed = policy("keep-out", PolicyTarget::Mesh, Action::Allow, to_paths(&[written]));
        let table = world.say(&scope("kubernetes"), "file", vec![allowed]);
        assert_eq!(decide(&table, "friend", asked), asked != "/anything", "{written}");
    }
    let mut world = world("web");
    let fine = policy("fine", PolicyTarget::Mesh, Action::Deny, to_paths(&["/caf%C3%A9/*"]));
    world.say(&scope("kubernetes"), "file", vec![fine]);
    assert!(world.compiler.diagnostics().is_empty());
}

#[test]
fn a_parameter_gets_nobody_round_a_condition() {
    let mut world = world("web");
    let conditions = to_paths(&["/admin", "/admin/*"]);
    let keep_out = policy("rule", PolicyTarget::Mesh, Action::Deny, conditions.clone());
    let table = world.say(&scope("kubernetes"), "file", vec![keep_out]);
    for path in ["/admin;a=b", "/admin;/x", "/;/admin", "/admin/;x", "/admin%3Bx"] {
        assert!(!decide(&table, "friend", path), "{path}");
    }
    assert!(decide(&table, "friend", "/map;lat=50") && decide(&table, "friend", "*"));
    let let_in = policy("rule", PolicyTarget::Mesh, Action::Allow, to_paths(&["/public;v=1", "/admin/*"]));
    let table = world.say(&scope("kubernetes"), "file", vec![let_in]);
    assert!(!decide(&table, "friend", "/public;v=1"), "it may be read as /public");
    assert!(decide(&table, "friend", "/admin/x;y") && !decide(&table, "friend", "*"));
    let everything = policy("rule", PolicyTarget::Mesh, Action::Deny, to_paths(&["/*"]));
    let table = world.say(&scope("kubernetes"), "file", vec![everything]);
    assert!(!decide(&table, "friend", "*") && !decide(&table, "friend", "/x"));
}

#[test]
fn routes_of_a_relay_match_canonical_paths() {
    let mut world = World::new(CompileConfig::default());
    let with = |path: PathMatch| {
        let mut origin = origin_of_endpoints("reviews", 1);
        origin.push(route("reviews", vec![rule("one", Some(path), Vec::new())]));
        origin
    };
    let table = world.say(&scope("static"), "file", with(PathMatch::Prefix("/caf%c3%a9/".into())));
    let first = &table.destination("reviews").unwrap().ports[0].rules[0];
    assert!(first.applies("/caf%C3%A9/x", &Method::GET, &http::HeaderMap::new()));
    world.say(&scope("static"), "file", with(PathMatch::Exact("/100%".into())));
    assert!(world.diagnosed("is not a path"));
}

#[test]
fn a_join_takes_no_endpoint_that_proves_nothing() {
    let joins = vec![Join {
        registries: registries(&["kubernetes", "consul"]),
        services: Vec::new(),
        prefer: Prefer::Any,
    }];
    let precedence = registries(&["kubernetes", "consul"]);
    let mut world = World::new(CompileConfig { joins, precedence, ..CompileConfig::default() });
    world.say(&scope("kubernetes"), "web", origin_of_endpoints("web", 1));
    let plain = Endpoint {
        instance: "evil".parse().unwrap(),
        address: "10.6.6.6:80".parse().unwrap(),
        mesh_address: None,
        tls: TlsMode::Off,
        ..endpoint("web", 9)
    };
    let nameless = Endpoint { identity: None, ..plain.clone() };
    for intruder in [plain.clone(), nameless.clone()] {
        let table = world.say(&scope("consul"), "web", vec![declared("web"), of(intruder)]);
        assert_eq!(instances(table.destination("web").unwrap(), 0, 0), ["web-1"]);
        assert!(world.diagnosed("proves nothing"));
    }
    // Nor do two services outside the mesh become one by having no identity, both.
    let mut world = World::new(world.compiler.config().clone());
    world.say(
        &scope("kubernetes"),
        "web",
        vec![declared("web"), of(Endpoint { instance: "first".parse().unwrap(), ..nameless.clone() })],
    );
    let table = world.say(&scope("consul"), "web", vec![declared("web"), of(nameless)]);
    assert_eq!(instances(table.destination("web").unwrap(), 0, 0), ["first"]);
}

#[test]
fn what_a_greater_registry_allows_at_a_service_of_another_counts() {
    let mut world = world("web");
    world.say(&scope("consul"), "web", origin_of_endpoints("web", 1));
    let target = PolicyTarget::Service("web".parse().unwrap());
    let friends = policy("friends", target, Action::Allow, from("friend"));
    let table = world.say(&scope("kubernetes"), "policies", vec![friends]);
    assert!(decide(&table, "friend", "/") && !decide(&table, "stranger", "/"));
    assert_eq!(world.compiler.diagnostics(), []);
    // One that may not own the name ranks before nobody there.
    let limits = crate::merge::Limits { may_own: Some(vec!["*.shop".parse().unwrap()]), may_name: None };
    world.merge.set_limits(&"kubernetes".parse().unwrap(), limits);
    let table = world.compile();
    assert!(decide(&table, "stranger", "/"));
    assert!(world.diagnosed("kubernetes/friends: allows nothing"));
}

#[test]
fn what_a_lesser_registry_allows_at_anothers_service_is_told_to_be_idle() {
    let mut world = world("other");
    let web = || PolicyTarget::Service("web".parse().unwrap());
    world.say(
        &scope("consul"),
        "policies",
        vec![
            policy("let-in", web(), Action::Allow, from("stranger")),
            policy("keep-out", web(), Action::Deny, from("stranger")),
        ],
    );
    assert!(world.diagnosed("protects web.default, which no registry declares"));
    world.say(&scope("kubernetes"), "web", origin_of_endpoints("web", 1));
    let told = world.compiler.diagnostics();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(world.diagnosed(
        "consul/let-in: allows nothing: what is allowed at web.default is the word of kubernetes"
    ));
    world.say(&scope("kubernetes"), "web", Vec::new());
    world.say(&scope("consul"), "web", origin_of_endpoints("web", 1));
    assert_eq!(world.compiler.diagnostics(), []);
}
