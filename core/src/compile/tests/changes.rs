//! What a change of the rules, or of who declares something, must not lose.

use super::*;

#[test]
fn a_reload_keeps_the_last_good_form_of_a_faulty_route() {
    let mut world = World::new(CompileConfig::default());
    let words = |pattern: &str, service: &str| {
        let labels = [("version", "v1")].into_iter().collect();
        let first = of(Endpoint { labels, ..endpoint(service, 1) });
        let to_first = vec![backend(None, Some("v1"), 1)];
        let rules = vec![rule("all", Some(PathMatch::Regex(pattern.into())), to_first)];
        vec![declared(service), first, of(endpoint(service, 2)), route(service, rules)]
    };
    let applies = |table: &Table, service: &str| {
        let rules = &table.destination(service).unwrap().ports[0].rules;
        rules[0].applies("/any", &http::Method::GET, &http::HeaderMap::new())
    };
    let scope = scope("static");
    assert!(applies(&world.say(&scope, "file", words("/.*", "reviews")), "reviews"));
    assert!(applies(&world.say(&scope, "file", words("/(", "reviews")), "reviews"));
    assert!(world.diagnosed("its last good form stays"));
    let joins = vec![Join { registries: registries(&["a", "b"]), services: Vec::new(), prefer: Prefer::Any }];
    world.compiler.configure(CompileConfig { joins, ..CompileConfig::default() });
    assert!(applies(&world.compile(), "reviews"), "another order of registries is no reason");
    assert!(applies(&world.say(&scope, "file", words("/(", "orders")), "orders"), "nor is another service");

    // What was never good has no last good form.
    let mut world = World::new(CompileConfig::default());
    world.say(&scope, "file", words("/(", "reviews"));
    world.say(&scope, "file", words("/[", "reviews"));
    assert!(!world.diagnosed("its last good form stays"));
    assert!(applies(&world.say(&scope, "file", words("/.*", "reviews")), "reviews"));
}

#[test]
fn who_declares_decides_about_the_name_also_when_what_is_declared_is_equal() {
    let joins = vec![Join {
        registries: registries(&["kubernetes", "consul"]),
        services: Vec::new(),
        prefer: Prefer::Any,
    }];
    let precedence = registries(&["kubernetes", "nomad", "consul"]);
    let config = CompileConfig { joins, precedence, ..CompileConfig::default() };
    let mut world = World::new(config.clone());
    world.say(&scope("kubernetes"), "web", vec![declared("web")]);
    world.say(&scope("nomad"), "web", vec![declared("web")]);
    let now = std::time::SystemTime::UNIX_EPOCH;
    for (registry, words) in [("kubernetes", Vec::new()), ("consul", vec![declared("web")])] {
        world.merge.apply(replace(&scope(registry), "web", "2", words), now);
        world.merge.apply(commit(&scope(registry)), now);
    }
    let owner = |table: &Table| table.destination("web.default.mesh").unwrap().key.registry.clone();
    assert_eq!(owner(&world.compile()).as_str(), "nomad");
    let mut at_once = Compiler::new(config);
    assert_eq!(owner(&at_once.compile(world.merge.snapshot(), &Changes::default())).as_str(), "nomad");
}
