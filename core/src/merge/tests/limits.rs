//! Of what a registry may speak, and of what it may not.

use super::*;
use crate::{name::HostName, resource::PrincipalMatch};

#[test]
fn a_registry_names_only_identities_that_it_may() {
    let scope = scope("static");
    let domain = TrustDomain::new("demo.mesh").unwrap();
    let may_name = Some(vec![PrincipalMatch::Namespace(domain, "default".into())]);
    let limits = Limits { may_name, may_own: None };
    let mut merge = Merge::new([(scope.registry.clone(), limits)].into());
    let mut words = origin_of_endpoints("a.default", 1);
    words.extend(origin_of_endpoints("a.prod", 1));
    merge.apply(replace(&scope, "file", "1", words), START);
    merge.apply(commit(&scope), START);
    assert_eq!(entry(&merge, "a.default").unwrap().endpoints.len(), 1);
    assert!(entry(&merge, "a.prod").unwrap().endpoints.is_empty());
    let origin = merge.snapshot().scopes[&scope].origins.values().next().unwrap();
    assert!(origin.faults[0].message.contains("may not name"));
}

#[test]
fn a_registry_speaks_only_of_services_that_it_may_own() {
    let scope = scope("static");
    let may_own = Some(vec!["a.default".parse().unwrap(), "*.prod".parse().unwrap()]);
    let limits = Limits { may_own, may_name: None };
    let mut merge = Merge::new([(scope.registry.clone(), limits)].into());
    for service in ["a.default", "b.prod", "b.default"] {
        // Endpoints may come from another origin than their service.
        let (endpoints, rest): (Vec<_>, Vec<_>) =
            said(service, 2).into_iter().partition(|word| matches!(word, Resource::Endpoint(_)));
        merge.apply(replace(&scope, service, "1", rest), START);
        merge.apply(replace(&scope, &format!("{service}/endpoints"), "1", endpoints), START);
    }
    merge.apply(commit(&scope), START);
    assert_eq!(entry(&merge, "a.default").unwrap().endpoints.len(), 2);
    assert_eq!(entry(&merge, "b.prod").unwrap().endpoints.len(), 2);
    assert!(entry(&merge, "b.default").is_none());
    let state = &merge.snapshot().scopes[&scope];
    let told = |origin: &str| {
        let faults = &state.origins.get(origin).unwrap().faults;
        faults.iter().map(|fault| (fault.place.clone(), fault.message.clone())).collect::<Vec<_>>()
    };
    assert!(told("a.default").is_empty() && told("b.prod/endpoints").is_empty());
    let message = "refused: registry \"static\" may not own the service b.default";
    let both = ["service `b.default`", "route `route`"].map(|place| (place.to_owned(), message.to_owned()));
    assert_eq!(told("b.default"), both);
    let endpoints: OriginName = "b.default/endpoints".parse().unwrap();
    assert!(!state.origins.contains_key(&endpoints), "there may be thousands");
    // Nor by a host name that reads as another's.
    let foreign =
        ["b", "b.default", "b.default.mesh", "b.mesh", "b.default.svc", "b.default.svc.cluster.local"];
    let own = ["x.prod", "x.prod.mesh", "x.prod.svc.cluster.local", "b.service.consul"];
    let hosts = foreign.iter().chain(&own).map(|host| host.parse().unwrap()).collect();
    let service = Service { hosts, ..service("a") };
    merge.apply(replace(&scope, "a.default", "2", vec![Resource::Service(service.into())]), START);
    merge.apply(commit(&scope), START);
    let service = entry(&merge, "a.default").unwrap().service.clone().unwrap();
    assert_eq!(service.hosts.iter().map(HostName::as_str).collect::<Vec<_>>(), own);
    // One that is written otherwise is no host name at all.
    for other in ["b.default.", "B.default", "b.default:80", "b.default.mesh."] {
        assert!(other.parse::<HostName>().is_err(), "{other}");
    }
}

/// Last good words of a registry that is limited since are no better than new ones.
#[test]
fn what_a_fault_keeps_is_held_to_the_limits_too() {
    let scope = scope("static");
    let mut merge = Merge::new(BTreeMap::new());
    merge.apply(replace(&scope, "web.default", "1", said("web.default", 1)), START);
    merge.apply(commit(&scope), START);
    assert!(entry(&merge, "web.default").is_some());
    let limits = Limits { may_own: Some(vec!["other.default".parse().unwrap()]), may_name: None };
    merge.set_limits(&scope.registry, limits);
    let fault = OriginFault { message: "x".into(), place: "y".into(), keeps_last_good: true };
    let Event::Replace { scope: of, origin, version, .. } = replace(&scope, "web.default", "2", Vec::new())
    else {
        unreachable!()
    };
    let spoilt = Event::Replace { scope: of, origin, version, resources: Vec::new(), faults: vec![fault] };
    merge.apply(spoilt, START);
    merge.apply(commit(&scope), START);
    assert!(
        entry(&merge, "web.default")
            .is_none_or(|entry| entry.service.is_none() && entry.endpoints.is_empty())
    );
}
