//! What a section names and the cluster has not is told, until it is there.

use weft_core::name::{Namespace, ServiceName};

use super::*;

/// What is told of what the section names.
fn told(catalog: &mut Catalog) -> BTreeMap<String, String> {
    catalog.look_for_named();
    let faults = catalog.all().into_iter().flat_map(|source| catalog.words(&source).faults);
    faults.map(|fault| (fault.place.trim_matches('"').to_owned(), fault.message)).collect()
}

#[test]
fn a_name_of_the_section_that_follows_nothing_is_told_until_it_does() {
    let namespaces = [Namespace::new("default").unwrap(), Namespace::new("shpo").unwrap()];
    let services = [ServiceName::new("web.other").unwrap()];
    let mut catalog = catalog_of(Rules::default(), Narrow::new(&namespaces, &services));
    catalog.put(read(Kind::Services, &service("web", "IPv4")).unwrap());
    let missing = told(&mut catalog);
    assert_eq!(missing.keys().collect::<Vec<_>>(), ["shpo", "web.other"]);
    assert!(
        missing["shpo"].contains("`namespaces`") && missing["web.other"].contains("`services`"),
        "{missing:?}"
    );
    let mut other = service("web", "IPv4");
    other["metadata"]["namespace"] = "other".into();
    catalog.put(read(Kind::Services, &other).unwrap());
    assert_eq!(told(&mut catalog).into_keys().collect::<Vec<_>>(), ["shpo"]);
    catalog.remove(&read(Kind::Services, &service("web", "IPv4")).unwrap());
    assert_eq!(told(&mut catalog).into_keys().collect::<Vec<_>>(), ["default", "shpo"]);
}
