//! Services whose last instance is gone: whose names and whose measure stand meanwhile.

use std::time::Duration;

use super::{
    joins::{START, joined, leads, named, ranked, target},
    *,
};
use crate::{
    merge::{Departed, KEPT},
    resource::Service,
};

/// A service that is known by its instances alone.
fn by_instances(name: &str, numbers: &[u8]) -> Vec<Resource> {
    let service = Service { declared: false, hosts: vec!["web.alias".parse().unwrap()], ..service(name) };
    let endpoints = numbers.iter().map(|number| of(endpoint(name, *number)));
    [Resource::Service(service.into())].into_iter().chain(endpoints).collect()
}

fn foreign(number: u8) -> Resource {
    let identity = SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/other").ok();
    of(Endpoint { identity, ..endpoint("web", number) })
}

#[test]
fn a_service_whose_last_instance_is_gone_keeps_its_names_for_a_while() {
    let precedence = registries(&["consul", "eureka"]);
    let mut world = World::new(CompileConfig { precedence, ..CompileConfig::default() });
    world.say(&scope("consul"), "web", by_instances("web", &[1]));
    let tenants = vec![declared("web"), foreign(9)];
    world.say(&scope("eureka"), "web", tenants.clone());
    let owner = |table: &Table| {
        let destination = table.destination("web.default.mesh").unwrap();
        (destination.key.registry.to_string(), instances(destination, 0, 0))
    };
    let table = world.say(&scope("consul"), "web", Vec::new());
    assert_eq!(owner(&table), ("consul".into(), Vec::new()));
    assert!(table.destination("web.alias").is_some());
    // Who was not there at the time gets it no more than who was.
    world.say(&scope("eureka"), "web", Vec::new());
    assert_eq!(owner(&world.say(&scope("eureka"), "web", tenants)).0, "consul");
    // However often everything is compiled anew.
    world.compiler.configure(CompileConfig {
        locality: Locality::new("eu/a").unwrap(),
        ..world.compiler.config().clone()
    });
    assert_eq!(owner(&world.compile()).0, "consul");
    // It comes back, and goes again.
    assert_eq!(owner(&world.say(&scope("consul"), "web", by_instances("web", &[2]))).1, ["web-2"]);
    world.say(&scope("consul"), "web", Vec::new());
    assert!(!world.merge.free_names(START + KEPT - Duration::from_secs(1)));
    assert_eq!(owner(&world.compile()).0, "consul");
    assert!(world.merge.free_names(START + KEPT));
    assert_eq!(owner(&world.compile()), ("eureka".into(), vec!["web-9".into()]));
    // What an operator deletes is gone at once.
    let mut world = World::new(world.compiler.config().clone());
    world.say(&scope("consul"), "web", origin_of_endpoints("web", 1));
    world.say(&scope("eureka"), "web", origin_of_endpoints("web", 1));
    assert_eq!(owner(&world.say(&scope("consul"), "web", Vec::new())).0, "eureka");
}

#[test]
fn a_joined_service_keeps_its_names_and_its_measure_when_the_first_registrys_last_instance_goes() {
    let mut world = joined(Prefer::Any, "");
    world.say(&scope("kubernetes"), "web", by_instances("web", &[1]));
    let others = vec![declared("web"), of(endpoint("web", 2)), foreign(9)];
    let table = world.say(&scope("consul"), "web", others);
    assert_eq!(
        ranked(&table).0,
        named(&[("web-1", 0), ("web-2", 0)]),
        "one odd endpoint costs the others nothing"
    );
    assert!(world.diagnosed("not joined with kubernetes/web.default: its endpoint web-9 names"));
    for gone in [by_instances("web", &[]), Vec::new()] {
        let table = world.say(&scope("kubernetes"), "web", gone);
        assert_eq!(ranked(&table).0, named(&[("web-2", 0)]));
    }
    let table = world.compile();
    assert!(table.destination("web.alias").is_some());
    world.merge.free_names(START + KEPT);
    assert_eq!(ranked(&world.compile()).0, named(&[("web-2", 0), ("web-9", 0)]));
}

#[test]
fn a_declared_service_keeps_its_measure_while_it_has_no_endpoints() {
    let mut world = joined(Prefer::Any, "");
    let whole = [declared("web"), of(endpoint("web", 1))];
    world.say(&scope("kubernetes"), "web", whole.to_vec());
    world.say(&scope("consul"), "web", vec![declared("web"), of(endpoint("web", 2)), foreign(9)]);
    let unready = of(Endpoint { identity: None, ..endpoint("web", 1) });
    for none in [vec![declared("web")], vec![declared("web"), unready], vec![declared("web")]] {
        let table = world.say(&scope("kubernetes"), "web", none);
        assert_eq!(ranked(&table).0, named(&[("web-2", 0)]));
        assert!(world.diagnosed(
            "the last ones of kubernetes, which cannot be called now, proved spiffe://demo.mesh/"
        ));
        assert!(!world.merge.free_names(START + KEPT), "it is declared, however long that lasts");
    }
    assert_eq!(ranked(&world.compile()).0, named(&[("web-2", 0)]));
    // It is back with its own; then its operator has it forgotten, and the next one's word is the measure.
    assert_eq!(ranked(&world.say(&scope("kubernetes"), "web", whole.to_vec())).0.len(), 2);
    world.say(&scope("kubernetes"), "web", vec![declared("web")]);
    let kubernetes = "kubernetes".parse().unwrap();
    world.merge.free_names_of(&kubernetes);
    assert_eq!(ranked(&world.compile()).0, named(&[("web-2", 0)]), "it is still declared");
    assert_eq!(world.merge.drop_unconfirmed(Some(&kubernetes)), 1);
    assert_eq!(ranked(&world.compile()).0, named(&[("web-2", 0), ("web-9", 0)]));
}

/// It proved nothing, and whoever waits for its only instance to restart proves nothing to it either.
#[test]
fn a_join_keeps_its_measure_for_a_while_when_the_first_declaration_is_taken_away() {
    let mut world = joined(Prefer::Any, "");
    let own = || vec![declared("web"), of(endpoint("web", 1))];
    world.say(&scope("kubernetes"), "web", own());
    world.say(&scope("consul"), "web", vec![declared("web"), of(endpoint("web", 2)), foreign(9)]);
    let table = world.say(&scope("kubernetes"), "web", Vec::new());
    assert_eq!(ranked(&table).0, named(&[("web-2", 0)]), "who waits elsewhere gets no calls by it");
    assert!(world.diagnosed("not joined with kubernetes/web.default: its endpoint web-9 names"));
    let web = ServiceKey { registry: "kubernetes".parse().unwrap(), service: "web".parse().unwrap() };
    let kept = world.merge.snapshot().departed(&web).unwrap().clone();
    // As it was kept over a restart.
    let mut restarted = joined(Prefer::Any, "");
    restarted.say(&scope("consul"), "web", vec![declared("web"), of(endpoint("web", 2)), foreign(9)]);
    restarted.merge.restore_departed([(web, Departed::clone(&kept))]);
    assert_eq!(ranked(&restarted.compile()).0, named(&[("web-2", 0)]));
    // Declared and taken away again, it is no other one's meanwhile either.
    world.say(&scope("kubernetes"), "web", vec![declared("web")]);
    let table = world.say(&scope("kubernetes"), "web", Vec::new());
    assert_eq!(ranked(&table).0, named(&[("web-2", 0)]));
    world.merge.free_names(START + KEPT);
    assert_eq!(ranked(&world.compile()).0, named(&[("web-2", 0), ("web-9", 0)]));
    // With nobody left to join with, there is no such service, and a route for it makes none.
    world.say(&scope("kubernetes"), "web", own());
    world.say(&scope("consul"), "web", Vec::new());
    for left in [Vec::new(), vec![leads("web", "other")]] {
        let table = world.say(&scope("kubernetes"), "web", left);
        assert!(table.destination("web.default.mesh").is_none());
    }
}

#[test]
fn a_declared_service_in_plaintext_hands_its_part_of_a_join_to_nobody_while_it_has_no_endpoints() {
    let mut world = joined(Prefer::Any, "");
    let plain = of(Endpoint { tls: TlsMode::Off, identity: None, mesh_address: None, ..endpoint("web", 1) });
    world.say(&scope("kubernetes"), "web", vec![declared("web"), plain.clone()]);
    let table = world.say(&scope("consul"), "web", vec![declared("web"), of(endpoint("web", 2))]);
    assert_eq!(ranked(&table).0, named(&[("web-1", 0)]));
    let table = world.say(&scope("kubernetes"), "web", vec![declared("web")]);
    assert_eq!(ranked(&table).0, named(&[]));
    let table = world.say(&scope("kubernetes"), "web", vec![declared("web"), plain]);
    assert_eq!(ranked(&table).0, named(&[("web-1", 0)]));
    // One that nobody could ever call keeps nothing.
    let mut world = joined(Prefer::Any, "");
    world.say(&scope("kubernetes"), "web", vec![declared("web")]);
    let table = world.say(&scope("consul"), "web", vec![declared("web"), of(endpoint("web", 2))]);
    assert_eq!(ranked(&table).0, named(&[("web-2", 0)]));
}

#[test]
fn a_route_for_a_service_whose_last_instance_is_gone_counts_at_once() {
    let precedence = registries(&["kubernetes", "consul"]);
    let mut world = World::new(CompileConfig { precedence, ..CompileConfig::default() });
    world.say(&scope("consul"), "next", origin_of_endpoints("next", 1));
    world.say(&scope("consul"), "web", by_instances("web", &[1]));
    world.say(&scope("consul"), "web", Vec::new());
    let led = Some("consul/next.default".to_owned());
    let table = world.say(&scope("kubernetes"), "routes", vec![leads("web", "next")]);
    assert_eq!(target(&table, "web"), led);
    assert_eq!(target(&world.say(&scope("kubernetes"), "routes", Vec::new()), "web"), None);
}
