//! Services of several registries that are one: whose endpoints are preferred, which are the same, what contradicts.

use std::time::SystemTime;

use super::*;
use crate::{
    merge::KEPT,
    resource::{FOR_ZONES, Service, ServicePort},
};

/// When everything is said here.
pub(super) const START: SystemTime = SystemTime::UNIX_EPOCH;

pub(super) fn joined(prefer: Prefer, here: &str) -> World {
    let joins =
        vec![Join { registries: registries(&["kubernetes", "consul"]), services: Vec::new(), prefer }];
    let locality = Locality::new(here).unwrap();
    World::new(CompileConfig { joins, locality, ..CompileConfig::default() })
}

/// The endpoints of the first port in their order, each with its tier, and how many are the first choice.
pub(super) fn ranked(table: &Table) -> (Vec<(String, u8)>, usize) {
    let destination = table.destination("web").unwrap();
    let set = &destination.ports[0].rules.last().unwrap().targets[0].endpoints;
    let all = set.all.iter().map(|it| (it.endpoint.instance.to_string(), it.tier));
    (all.collect(), set.first_choice)
}

pub(super) fn named(names: &[(&str, u8)]) -> Vec<(String, u8)> {
    names.iter().map(|(name, tier)| ((*name).to_owned(), *tier)).collect()
}

fn at(number: u8, locality: &str, health: Health) -> Resource {
    of(Endpoint { locality: Locality::new(locality).unwrap(), health, ..endpoint("web", number) })
}

#[test]
fn the_preferred_registry_serves_while_one_of_its_endpoints_can() {
    let mut world = joined(Prefer::Registries(registries(&["consul"])), "");
    world.say(&scope("kubernetes"), "web", vec![declared("web"), at(1, "", Health::Healthy)]);
    let both = [at(2, "", Health::Healthy), at(3, "", Health::Unhealthy)];
    let table = world.say(&scope("consul"), "web", [declared("web")].into_iter().chain(both).collect());
    assert_eq!(ranked(&table), (named(&[("web-2", 0), ("web-1", 3), ("web-3", 0)]), 1));
    let table = world.say(&scope("consul"), "web", vec![declared("web"), at(2, "", Health::Unhealthy)]);
    assert_eq!(ranked(&table), (named(&[("web-1", 3), ("web-2", 0)]), 1), "the other registry takes over");
}

#[test]
fn a_stand_by_takes_nothing_while_one_of_any_tier_can() {
    let mut world = joined(Prefer::Registries(registries(&["kubernetes"])), "");
    let weighing = |number, weight| of(Endpoint { weight, ..endpoint("web", number) });
    let drained = vec![declared("web"), weighing(1, 0), weighing(2, 0)];
    world.say(&scope("kubernetes"), "web", drained);
    let table = world.say(&scope("consul"), "web", vec![declared("web"), weighing(3, 1), weighing(4, 0)]);
    assert_eq!(ranked(&table), (named(&[("web-3", 3), ("web-1", 0), ("web-2", 0), ("web-4", 3)]), 1));
    let table = world.say(&scope("consul"), "web", vec![declared("web"), weighing(4, 0)]);
    assert_eq!(ranked(&table), (named(&[("web-1", 0), ("web-2", 0), ("web-4", 3)]), 2), "none has a weight");
}

#[test]
fn the_nearest_serve_while_one_of_them_can() {
    for asked_by_the_service in [false, true] {
        let mut world =
            joined(if asked_by_the_service { Prefer::Any } else { Prefer::Nearest }, "eu/a/rack-1");
        let service = Service { nearest: asked_by_the_service, ..service("web") };
        world.say(
            &scope("kubernetes"),
            "web",
            vec![
                Resource::Service(service.into()),
                at(1, "us/a", Health::Healthy),
                at(2, "eu/a/rack-9", Health::Healthy),
                at(3, "", Health::Healthy),
                at(4, "eu/b", Health::Healthy),
                at(5, "eu/a", Health::Draining),
            ],
        );
        let order = [("web-2", 0), ("web-4", 1), ("web-1", 2), ("web-3", 2), ("web-5", 0)];
        assert_eq!(ranked(&world.compile()), (named(&order), 1));
        world
            .compiler
            .configure(CompileConfig { locality: Locality::default(), ..world.compiler.config().clone() });
        assert_eq!(ranked(&world.compile()).1, 4, "who does not know where he is has nobody near");
    }
}

#[test]
fn those_meant_for_a_zone_serve_it_wherever_they_run() {
    let meant = |number: u8, locality: &str, zones: &str, health| {
        let labels = [(FOR_ZONES, zones)].into_iter().filter(|(_, zones)| !zones.is_empty()).collect();
        let locality = Locality::new(locality).unwrap();
        of(Endpoint { locality, labels, health, ..endpoint("web", number) })
    };
    let order = |here: &str, prefer: Prefer, third: &str, third_is: Health| {
        let mut world = joined(prefer, here);
        let endpoints = [
            meant(1, "eu/a", "b", Health::Healthy),
            meant(2, "eu/b", "b,c", Health::Healthy),
            meant(3, "us/d", third, third_is),
        ];
        world.say(&scope("kubernetes"), "web", [declared("web")].into_iter().chain(endpoints).collect());
        let (order, first) = ranked(&world.compile());
        (order.into_iter().map(|(name, tier)| format!("{name} {tier}")).collect::<Vec<_>>().join(" "), first)
    };
    let any = |here: &str, third: &str| order(here, Prefer::Any, third, Health::Healthy);
    assert_eq!(any("eu/b", "d"), ("web-1 0 web-2 0 web-3 2".into(), 2));
    assert_eq!(any("eu/c", "d"), ("web-2 0 web-1 1 web-3 2".into(), 1));
    for (here, third) in [("eu/e", "d"), ("eu/b", ""), ("", "d"), ("eu", "d")] {
        assert_eq!(any(here, third).1, 3, "{here} {third}: as without");
    }
    let draining = order("eu/b", Prefer::Any, "", Health::Draining);
    assert_eq!(draining, ("web-1 0 web-2 0 web-3 2".into(), 2), "what takes no calls says nothing");
    let nearest = order("eu/b", Prefer::Nearest, "d", Health::Healthy);
    assert_eq!(nearest, ("web-1 0 web-2 0 web-3 2".into(), 2), "its registry knows better than distance");
}

#[test]
fn zones_of_one_name_are_near_where_a_region_is_unknown() {
    for (here, order) in [
        ("eu/b", [("web-2", 0), ("web-1", 1), ("web-3", 2), ("web-4", 2)]),
        ("/b", [("web-2", 0), ("web-4", 0), ("web-1", 2), ("web-3", 2)]),
        ("eu", [("web-1", 1), ("web-2", 2), ("web-3", 2), ("web-4", 2)]),
    ] {
        let mut world = joined(Prefer::Nearest, here);
        let endpoints = [(1, "eu/a"), (2, "/b"), (3, "/a"), (4, "us/b")];
        let endpoints = endpoints.map(|(number, locality)| at(number, locality, Health::Healthy));
        world.say(&scope("kubernetes"), "web", [declared("web")].into_iter().chain(endpoints).collect());
        assert_eq!(ranked(&world.compile()).0, named(&order), "{here}");
    }
}

#[test]
fn one_workload_that_two_registries_tell_of_is_one_endpoint() {
    let mut world = joined(Prefer::Any, "");
    world.say(&scope("kubernetes"), "web", origin_of_endpoints("web", 2));
    let again = |health| of(Endpoint { instance: "node/web".parse().unwrap(), health, ..endpoint("web", 1) });
    let table = world.say(&scope("consul"), "web", vec![declared("web"), again(Health::Healthy)]);
    assert_eq!(ranked(&table), (named(&[("web-1", 0), ("web-2", 0)]), 2));
    let table = world.say(&scope("consul"), "web", vec![declared("web"), again(Health::Unhealthy)]);
    assert_eq!(ranked(&table), (named(&[("web-2", 0), ("web-1", 0)]), 1), "what one of them knows counts");
    let table = world.say(&scope("consul"), "web", vec![declared("web"), again(Health::Unconfirmed)]);
    assert_eq!(ranked(&table).1, 2, "what one of them no longer knows does not");
    let other = SpiffeId::parse("spiffe://demo.mesh/ns/default/sa/other").ok();
    let taken = of(Endpoint { identity: other, instance: "x".parse().unwrap(), ..endpoint("web", 1) });
    let table = world.say(&scope("consul"), "web", vec![declared("web"), taken]);
    assert_eq!(ranked(&table).0.len(), 2, "an address alone joins nothing");
    assert!(world.diagnosed("equal identities"));
}

#[test]
fn ports_of_platforms_that_name_them_differently_are_matched_or_told() {
    let mut world = joined(Prefer::Any, "");
    world.say(&scope("kubernetes"), "web", origin_of_endpoints("web", 1));
    let port = |name: &str, number, protocol| ServicePort { name: name.parse().unwrap(), number, protocol };
    let says = |ports: Vec<ServicePort>, served: &str| {
        let service = Resource::Service(Service { ports, ..service("web") }.into());
        let served = Endpoint { port_name: served.parse().unwrap(), ..endpoint("web", 2) };
        vec![service, of(served)]
    };
    let http = AppProtocol::Http;
    for ports in [vec![port("other", 80, http), port("more", 81, http)], vec![port("other", 8080, http)]] {
        let table = world.say(&scope("consul"), "web", says(ports, "other"));
        assert_eq!(ranked(&table).1, 2);
    }
    let told = "registry \"consul\" says that callers find port other at 8080, registry \"kubernetes\" says at 80, which stands";
    assert!(world.diagnosed(told));
    // Where instances listen is not how callers call them.
    let listening = endpoint("web", 2).address.socket().port();
    for number in [listening, listening + 1] {
        let ports = vec![port("other", number, http)];
        let implied = Service { ports, declared: false, ..service("web") };
        let served = of(Endpoint { port_name: "other".parse().unwrap(), ..endpoint("web", 2) });
        world.say(&scope("consul"), "web", vec![Resource::Service(implied.into()), served]);
        assert_eq!(world.diagnosed("callers find port other"), number != listening);
    }
    let table = world.say(&scope("consul"), "web", says(vec![port("a", 1, http), port("b", 2, http)], "a"));
    assert_eq!(ranked(&table).1, 1);
    assert!(world.diagnosed("registry \"consul\" says that it has a port a:1"));
    world.say(&scope("consul"), "web", says(vec![port("http", 80, AppProtocol::Tcp)], "http"));
    assert!(world.diagnosed("port http speaks tcp, registry \"kubernetes\" says http, which stands"));
}

#[test]
fn whoever_writes_to_one_registry_takes_over_no_name_of_another() {
    let precedence = registries(&["kubernetes", "consul"]);
    let mut world = World::new(CompileConfig { precedence, ..CompileConfig::default() });
    world.say(&scope("kubernetes"), "web", origin_of_endpoints("web", 1));
    let mut claims = service("evil");
    claims.hosts = ["web", "web.default", "web.default.mesh", "web.default.svc.cluster.local"]
        .map(|host| host.parse().unwrap())
        .into();
    let mut same = origin_of_endpoints("web", 9);
    same.push(Resource::Service(claims.into()));
    same.push(of(Endpoint { service: "evil".parse().unwrap(), ..endpoint("evil", 9) }));
    let table = world.say(&scope("consul"), "web", same);
    for host in ["web", "web.default", "web.default.mesh"] {
        let destination = table.destination(host).unwrap();
        assert_eq!(destination.key.registry.as_str(), "kubernetes", "{host}");
        assert_eq!(instances(destination, 0, 0), ["web-1"]);
    }
}

#[test]
fn no_list_of_host_names_takes_the_own_name_of_another_registrys_service() {
    let precedence = registries(&["consul", "kubernetes"]);
    let mut world = World::new(CompileConfig { precedence, ..CompileConfig::default() });
    let mut claims = Service { declared: false, ..service("evil") };
    claims.hosts = ["web.default", "web.default.mesh", "web.alias"].map(|host| host.parse().unwrap()).into();
    world.say(
        &scope("consul"),
        "evil",
        vec![Resource::Service(claims.into()), of(Endpoint { ..endpoint("evil", 9) })],
    );
    let mut said = origin_of_endpoints("web", 1);
    let mut own = Service { declared: false, ..service("web") };
    own.hosts = vec!["web.alias".parse().unwrap()];
    said[0] = Resource::Service(own.into());
    let table = world.say(&scope("kubernetes"), "web", said);
    for host in ["web.default", "web.default.mesh"] {
        assert_eq!(table.destination(host).unwrap().key.registry.as_str(), "kubernetes", "{host}");
    }
    assert_eq!(
        table.destination("web.alias").unwrap().key.registry.as_str(),
        "consul",
        "an alias by the order"
    );
    assert!(world.diagnosed("kubernetes/web.default has it, by its own name"));
    assert!(world.diagnosed("consul/evil.default has it, by the order of registries"));
}

#[test]
fn of_two_services_of_a_registry_with_one_host_name_the_first_by_name_has_it_and_so_it_is_told() {
    let mut world = World::new(CompileConfig::default());
    let claims = |name: &str| {
        let mut claims = service(name);
        claims.hosts = vec!["many.example".parse().unwrap()];
        let mut said = origin_of_endpoints(name, 1);
        said[0] = Resource::Service(claims.into());
        said
    };
    world.say(&scope("dns"), "b", claims("b"));
    let table = world.say(&scope("dns"), "a", claims("a"));
    assert_eq!(table.destination("many.example").unwrap().key.service.as_str(), "a.default");
    assert!(
        world.diagnosed("both claim many.example: dns/a.default has it, as the first of the two by name")
    );
}

#[test]
fn a_host_name_that_an_operator_declares_is_not_another_services_own() {
    let holder = |order: &[&str], host: &str| {
        let precedence = registries(order);
        let mut world = World::new(CompileConfig { precedence, ..CompileConfig::default() });
        let hosts = ["app.test", "app.test.mesh"].map(|host| host.parse().unwrap()).into();
        let declared = Service { hosts, ..service("legacy") };
        world.say(&scope("files"), "legacy", vec![Resource::Service(declared.into())]);
        let table = world.say(&scope("hub"), "app", origin_of_endpoints("app.test", 1));
        table.destination(host).unwrap().key.to_string()
    };
    assert_eq!(holder(&["files", "hub"], "app.test"), "files/legacy.default");
    assert_eq!(holder(&["hub", "files"], "app.test"), "hub/app.test", "by the order");
    assert_eq!(holder(&["files", "hub"], "app.test.mesh"), "hub/app.test", "a mesh host name is its own");
}

#[test]
fn a_host_name_that_an_operator_declares_is_no_instances_alias() {
    let mut world = World::new(CompileConfig::default());
    for (registry, name, declared) in [("consul", "taker", false), ("files", "legacy", true)] {
        let service = Service { hosts: vec!["app.test".parse().unwrap()], declared, ..service(name) };
        world.say(&scope(registry), name, vec![Resource::Service(service.into())]);
    }
    assert!(world.diagnosed("files/legacy.default has it, as it declares that host"));
}

#[test]
fn endpoints_that_nobody_can_call_measure_nothing() {
    let mut world = joined(Prefer::Any, "");
    let nameless = of(Endpoint { identity: None, ..endpoint("web", 1) });
    world.say(&scope("kubernetes"), "web", vec![declared("web"), nameless]);
    let table = world.say(&scope("consul"), "web", origin_of_endpoints("web", 2));
    assert_eq!(ranked(&table).0, named(&[("web-1", 0), ("web-2", 0)]));
}

#[test]
fn who_is_joined_after_the_measure_leads_no_calls_to_another_service() {
    let mut world = joined(Prefer::Any, "");
    world.say(&scope("kubernetes"), "web", vec![declared("web"), of(endpoint("web", 1))]);
    world.say(&scope("consul"), "evil", origin_of_endpoints("evil", 1));
    let joined = [declared("web"), of(endpoint("web", 2))];
    let mut say = |route: Resource| {
        let table = world.say(&scope("consul"), "web", joined.iter().cloned().chain([route]).collect());
        (target(&table, "web"), world.diagnosed("consul/split: is not used: it leads calls for web.default"))
    };
    let own = Some("kubernetes/web.default".to_owned());
    assert_eq!(say(leads("web", "evil")), (own.clone(), true));
    assert_eq!(say(route("web", vec![rule("all", None, Vec::new())])), (own, false));
    say(leads("web", "evil"));
    let table = world.say(&scope("kubernetes"), "web", Vec::new());
    assert_eq!(
        target(&table, "web").as_deref(),
        Some("kubernetes/web.default"),
        "its measure stands for a while"
    );
    world.merge.free_names(START + KEPT);
    assert_eq!(target(&world.compile(), "web").as_deref(), Some("kubernetes/evil.default"), "it is alone");
    assert!(!world.diagnosed("is not used"));
}

#[test]
fn what_two_registries_know_of_one_workload_is_put_together() {
    let mut world = joined(Prefer::Registries(registries(&["consul"])), "");
    let told = |labels: &[(&str, &str)], locality: &str| {
        let labels = labels.iter().copied().collect();
        of(Endpoint { labels, locality: Locality::new(locality).unwrap(), ..endpoint("web", 1) })
    };
    let first = told(&[("version", "v1"), ("a", "1")], "");
    let other = told(&[("version", "v2"), ("tag", "blue")], "eu/a");
    world.say(&scope("kubernetes"), "web", vec![declared("web"), first, at(2, "", Health::Healthy)]);
    let table = world.say(&scope("consul"), "web", vec![declared("web"), other]);
    assert_eq!(
        ranked(&table).0,
        named(&[("web-1", 0), ("web-2", 3)]),
        "the preferred registry tells of it too"
    );
    let set = &table.destination("web").unwrap().ports[0].rules.last().unwrap().targets[0].endpoints;
    let one = &set.all[0].endpoint;
    let labels: Vec<_> = one.labels.iter().collect();
    assert_eq!(labels, [("a", "1"), ("tag", "blue"), ("version", "v1")]);
    assert_eq!(one.locality.to_string(), "eu/a");
}

pub(super) fn leads(service: &str, to: &str) -> Resource {
    route(service, vec![rule("all", None, vec![backend(Some(to), None, 1)])])
}

/// Which registry's service the first rule of a destination leads to; none where it leads nowhere.
pub(super) fn target(table: &Table, host: &str) -> Option<String> {
    let destination = table.destination(host).unwrap();
    let target = destination.ports[0].rules[0].targets.first()?;
    (!target.endpoints.all.is_empty()).then(|| target.service.to_string())
}

#[test]
fn a_route_counts_for_services_of_registries_that_rank_after_its_own() {
    let precedence = registries(&["static", "consul", "eureka"]);
    let mut world = World::new(CompileConfig { precedence, ..CompileConfig::default() });
    for name in ["web", "next"] {
        world.say(&scope("eureka"), name, origin_of_endpoints(name, 1));
    }
    assert_eq!(target(&world.compile(), "web").as_deref(), Some("eureka/web.default"));
    let table = world.say(&scope("static"), "routes", vec![leads("web", "next")]);
    assert_eq!(target(&table, "web").as_deref(), Some("eureka/next.default"));
    assert_eq!(world.compiler.diagnostics(), []);

    // A backend is its own registry's before any other's, and one that ranks before is found before.
    let table = world.say(&scope("consul"), "next", origin_of_endpoints("next", 2));
    assert_eq!(target(&table, "web").as_deref(), Some("consul/next.default"));
    let table = world.say(&scope("static"), "next", origin_of_endpoints("next", 3));
    assert_eq!(target(&table, "web").as_deref(), Some("static/next.default"));
    let table = world.say(&scope("static"), "next", Vec::new());
    assert_eq!(target(&table, "web").as_deref(), Some("consul/next.default"));

    // The service gets another owner, for whom the route counts as well, and goes back to the first.
    let table = world.say(&scope("consul"), "web", origin_of_endpoints("web", 4));
    assert_eq!(target(&table, "web").as_deref(), Some("consul/next.default"));
    world.say(&scope("consul"), "web", Vec::new());
    let table = world.say(&scope("static"), "routes", Vec::new());
    assert_eq!(target(&table, "web").as_deref(), Some("eureka/web.default"));
}

#[test]
fn routes_that_do_not_count_are_told() {
    let precedence = registries(&["static", "consul", "eureka"]);
    let mut world = World::new(CompileConfig { precedence, ..CompileConfig::default() });
    let mut said = origin_of_endpoints("web", 1);
    said.push(leads("web", "own"));
    world.say(&scope("consul"), "web", said);
    world.say(&scope("consul"), "own", origin_of_endpoints("own", 1));
    let table = world.say(&scope("static"), "routes", vec![leads("web", "other")]);
    assert_eq!(target(&table, "web"), None, "what ranks before counts, though it leads nowhere");
    assert!(world.diagnosed("consul/split, static/split: is not used: the routes of static"));
    assert!(world.diagnosed("its backend static/other.default is not declared"));
    world.say(&scope("static"), "routes", Vec::new());
    assert_eq!(world.compiler.diagnostics(), []);

    let table = world.say(&scope("eureka"), "routes", vec![leads("web", "own")]);
    assert_eq!(target(&table, "web").as_deref(), Some("consul/own.default"));
    assert!(world.diagnosed("eureka/web.default, consul/web.default: its routes are not used"));
    world.say(&scope("consul"), "web", Vec::new());
    assert!(world.diagnosed("nothing declares the service"));
}

/// Until the first registry has spoken nobody has its names, and nobody is called in its place: neither by a join nor by a
/// route.
#[test]
fn nothing_of_a_registry_that_is_held_is_called() {
    let mut world = joined(Prefer::Any, "");
    let config = world.compiler.config().clone();
    let held = registries(&["consul"]);
    world.compiler.configure(CompileConfig {
        held,
        precedence: registries(&["kubernetes", "files", "consul"]),
        ..config
    });
    world.say(&scope("consul"), "web", origin_of_endpoints("web", 1));
    world.say(&scope("consul"), "pay", origin_of_endpoints("pay", 1));
    let table = world.say(&scope("files"), "api", vec![declared("api"), leads("api", "pay")]);
    assert_eq!(ranked(&table).0, named(&[]));
    let pay = table.destination("pay.default.mesh").unwrap();
    assert!(pay.is_held && instances(pay, 0, 0).is_empty() && target(&table, "api").is_none());
    // Nor has anybody else whom a restart has left in force.
    let table = world.say(&scope("tenants"), "web", origin_of_endpoints("web", 9));
    assert_eq!(ranked(&table).0, named(&[]));
    let config = world.compiler.config().clone();
    world.compiler.configure(CompileConfig { held: Vec::new(), ..config });
    let table = world.compile();
    assert_eq!(ranked(&table).0, named(&[("web-1", 0)]));
    assert_eq!(target(&table, "api").as_deref(), Some("kubernetes/pay.default"));
}

/// A name that it lists lends no registry of a join the rank of the first one.
#[test]
fn a_listed_host_name_ranks_as_who_lists_it() {
    let precedence = registries(&["first", "consul", "tenants"]);
    let joins = vec![Join {
        registries: registries(&["first", "tenants"]),
        services: Vec::new(),
        prefer: Prefer::Any,
    }];
    let mut world = World::new(CompileConfig { precedence, joins, ..CompileConfig::default() });
    world.say(&scope("first"), "web", origin_of_endpoints("web", 1));
    let host: crate::name::HostName = "pay.example".parse().unwrap();
    let listing =
        |name: &str| Resource::Service(Service { hosts: vec![host.clone()], ..service(name) }.into());
    world.say(&scope("tenants"), "web", vec![listing("web"), of(endpoint("web", 2))]);
    let holder = |table: &Table| table.destination("pay.example").unwrap().key.to_string();
    let table = world.say(&scope("consul"), "pay", vec![listing("pay"), of(endpoint("pay", 3))]);
    assert_eq!(holder(&table), "consul/pay.default");
    let table = world.say(&scope("first"), "web", vec![listing("web"), of(endpoint("web", 1))]);
    assert_eq!(holder(&table), "first/web.default");
}
