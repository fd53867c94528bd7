//! Services that are other names of one.

use super::*;

#[test]
fn an_alias_is_another_name_of_a_service_that_is_there() {
    let mut catalog = catalog();
    let put = |catalog: &mut Catalog, object: &Value| {
        catalog.put(read(Kind::Services, object).unwrap());
        let words = |name: &str| catalog.words(&Source::Service(format!("default/{name}").into()));
        let web = words("web");
        let hosts = web.resources.iter().flat_map(|resource| match resource {
            Resource::Service(service) => service.hosts.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        });
        let hosts: Vec<String> = hosts.collect();
        (hosts, words("old").faults.iter().map(|fault| fault.message.clone()).collect::<Vec<_>>())
    };
    let (_, faults) = put(&mut catalog, &alias("old", "web"));
    assert!(
        faults[0].contains("ExternalName for the service \"default/web\", which is not there"),
        "{faults:?}"
    );
    let own = ["web.default.svc.cluster.local", "web.default.svc"];
    let other = ["old.default.svc.cluster.local", "old.default.svc", "old.default"];
    let (hosts, faults) = put(&mut catalog, &service("web", "IPv4"));
    assert!(hosts == [&own[..], &other].concat() && faults.is_empty(), "{hosts:?} {faults:?}");
    let (hosts, faults) = put(&mut catalog, &alias("old", "api"));
    assert!(hosts == own && faults.len() == 1, "{hosts:?} {faults:?}");
    // Nobody is another name of itself, nor of what is another name.
    for of in ["older", "web"] {
        let (_, faults) = put(&mut catalog, &alias("old", of));
        assert_eq!(faults.len(), usize::from(of != "web"), "{of}: {faults:?}");
        put(&mut catalog, &alias("older", "old"));
        let older = catalog.words(&Source::Service("default/older".into()));
        assert!(older.faults[0].message.contains("another name itself"), "{older:?}");
    }
    put(&mut catalog, &alias("self", "self"));
    let itself = catalog.words(&Source::Service("default/self".into()));
    assert!(itself.faults[0].message.contains("skipped"), "{itself:?}");
}

/// Another name of `web.default`, in a namespace.
fn alias_in(namespace: &str, name: &str) -> Value {
    let mut object = alias(name, "web");
    object["metadata"]["namespace"] = namespace.into();
    object
}

#[test]
fn whose_place_changes_among_too_many_aliases_is_told() {
    let mut catalog = Catalog { max_aliases: (2, 3), ..catalog() };
    let mut said = BTreeMap::new();
    let mut told = |catalog: &mut Catalog| {
        let due = catalog.take_due();
        let names: Vec<String> = due.iter().map(|source| format!("{source:?}")).collect();
        said.extend(due.into_iter().map(|source| (source.clone(), catalog.words(&source))));
        let web = &said[&Source::Service("default/web".into())];
        let hosts = web.resources.iter().flat_map(|resource| match resource {
            Resource::Service(service) => service.hosts.clone(),
            _ => Vec::new(),
        });
        let short = hosts.map(|host| host.to_string()).filter(|host| host.matches('.').count() == 1);
        let left_out = said.iter().filter(|(_, words)| !words.faults.is_empty());
        let left_out = left_out.filter_map(|(source, _)| match source {
            Source::Service(key) => Some(key.replace('/', " ")),
            _ => None,
        });
        (short.collect::<Vec<_>>().join(" "), left_out.collect::<Vec<_>>().join(", "), names.len())
    };
    let is = |hosts: &str, left_out: &str, due: usize| (hosts.to_owned(), left_out.to_owned(), due);
    let put =
        |catalog: &mut Catalog, object: &Value| drop(catalog.put(read(Kind::Services, object).unwrap()));
    put(&mut catalog, &service("web", "IPv4"));
    ["c", "d"].iter().for_each(|name| put(&mut catalog, &alias_in("default", name)));
    assert_eq!(told(&mut catalog), is("c.default d.default", "", 3));
    // One that goes before another of its namespace takes its place.
    put(&mut catalog, &alias_in("default", "b"));
    assert_eq!(told(&mut catalog), is("b.default c.default", "default d", 3));
    // One that comes after it changes nothing for others.
    put(&mut catalog, &alias_in("default", "e"));
    assert_eq!(told(&mut catalog), is("b.default c.default", "default d, default e", 1));
    // Those of another namespace have places of their own, as far as there are any in all.
    ["y", "z"].iter().for_each(|name| put(&mut catalog, &alias_in("other", name)));
    let left_out = "default d, default e, other z";
    assert_eq!(told(&mut catalog), is("b.default c.default y.other", left_out, 3));
    put(&mut catalog, &alias_in("another", "x"));
    let left_out = "default d, default e, other y, other z";
    assert_eq!(told(&mut catalog), is("b.default c.default x.another", left_out, 3));
    // What goes leaves its place to the next, and no other is asked about.
    catalog.remove(&read(Kind::Services, &alias_in("default", "b")).unwrap());
    let left_out = "default e, other y, other z";
    assert_eq!(told(&mut catalog), is("c.default d.default x.another", left_out, 3));
    ["c", "d", "e"].iter().for_each(|name| {
        catalog.remove(&read(Kind::Services, &alias_in("default", name)).unwrap());
    });
    assert_eq!(told(&mut catalog), is("x.another y.other z.other", "", 6));
    // Another port of the service is nothing that they say.
    let mut moved = service("web", "IPv4");
    moved["spec"]["ports"] = json!([{ "port": 8081 }]);
    put(&mut catalog, &moved);
    assert_eq!(told(&mut catalog).2, 1);
}

#[test]
fn any_number_of_aliases_of_one_tenant_is_looked_through_in_time() {
    let mut catalog = catalog();
    let began = std::time::Instant::now();
    catalog.put(read(Kind::Services, &service("web", "IPv4")).unwrap());
    // In descending order each takes a place.
    for number in (0..20_000).rev() {
        let object = alias_in("other", &format!("a{number:05}"));
        catalog.put(read(Kind::Services, &object).unwrap());
    }
    let told = told(&mut catalog);
    let left_out = told.values().filter(|words| !words.faults.is_empty()).count();
    assert_eq!(left_out, 20_000 - 8);
    // Each looking through all others, it takes minutes.
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
}
