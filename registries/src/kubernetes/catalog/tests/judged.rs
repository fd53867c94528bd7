//! What is written into routes, and when they are judged anew.

use super::*;

fn put(catalog: &mut Catalog, kind: Kind, object: &Value) {
    catalog.put(read(kind, object).unwrap());
}

/// The conditions of the only object that there is something to say of.
fn of(catalog: &mut Catalog) -> Option<Vec<Condition>> {
    let mut verdicts = catalog.take_verdicts();
    assert!(verdicts.len() < 2, "{verdicts:?}");
    verdicts.pop().map(|verdict| verdict.conditions)
}

fn told(conditions: &[Condition]) -> Vec<String> {
    let text = |it: &Condition| format!("{} {} {} {}", it.kind, it.status, it.reason, it.message);
    conditions.iter().map(text).collect()
}

#[test]
fn a_route_says_which_of_its_backends_are_not_there() {
    let mut catalog = catalog();
    let route = |version: &str, conditions: &Value| {
        let backends = ["next", "gone.other"].map(|name| json!({"service": name, "weight": 1}));
        json!({
            "metadata": {"name": "split", "namespace": "default", "uid": "u", "resourceVersion": version, "generation": 2},
            "spec": {"service": "web", "rules": [{"backends": backends}]},
            "status": {"conditions": conditions},
        })
    };
    put(&mut catalog, Kind::Services, &service("web", "IPv4"));
    put(&mut catalog, Kind::Routes, &route("1", &json!([])));
    put(&mut catalog, Kind::Services, &service("next", "IPv4"));
    let first = of(&mut catalog).unwrap();
    assert_eq!(
        told(&first),
        [
            "Accepted True Accepted ",
            "ResolvedRefs False BackendNotFound this cluster has no service gone.other"
        ]
    );
    // As the API server has it then, there is nothing more to say.
    let written = serde_json::to_value(&first).unwrap();
    put(&mut catalog, Kind::Routes, &route("2", &written));
    assert_eq!(of(&mut catalog), None);
    catalog.remove(&read(Kind::Services, &service("next", "IPv4")).unwrap());
    let second = of(&mut catalog).unwrap();
    assert!(second[1].message.ends_with("no services gone.other, next.default"), "{second:?}");
    put(&mut catalog, Kind::Services, &service("another", "IPv4"));
    assert!(catalog.unjudged.is_empty(), "no route depends on that one");
    put(&mut catalog, Kind::Services, &service("next", "IPv4"));
    assert_eq!(catalog.unjudged.len(), 1, "told by the service itself");
    let mut other = service("gone", "IPv4");
    other["metadata"]["namespace"] = "other".into();
    put(&mut catalog, Kind::Services, &other);
    assert_eq!(told(&of(&mut catalog).unwrap())[1], "ResolvedRefs True ResolvedRefs ");
    catalog.remove(&read(Kind::Routes, &route("2", &written)).unwrap());
    catalog.take_verdicts();
    catalog.remove(&read(Kind::Services, &other).unwrap());
    assert!(catalog.unjudged.is_empty(), "the route is gone");
}

#[test]
fn what_is_for_a_service_that_is_not_there_says_so() {
    let mut catalog = catalog();
    let policy = |target: Value| {
        json!({
            "metadata": {"name": "guard", "namespace": "default", "uid": "u", "resourceVersion": "1", "generation": 1},
            "spec": {"target": target, "action": "Deny"},
        })
    };
    put(&mut catalog, Kind::Policies, &policy(json!({"service": "wbe"})));
    let missing = told(&of(&mut catalog).unwrap());
    assert_eq!(missing[0], "Accepted True Accepted ");
    assert!(
        missing[1].starts_with("ResolvedRefs False TargetNotFound this cluster has no service wbe.default:"),
        "{missing:?}"
    );
    put(&mut catalog, Kind::Services, &service("wbe", "IPv4"));
    assert_eq!(told(&of(&mut catalog).unwrap())[1], "ResolvedRefs True ResolvedRefs ");
    catalog.remove(&read(Kind::Services, &service("wbe", "IPv4")).unwrap());
    assert!(of(&mut catalog).unwrap()[1].message.contains("wbe.default"));

    // Nor is one there that cannot be called.
    let mut other_name = service("wbe", "IPv4");
    other_name["spec"] = json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"});
    put(&mut catalog, Kind::Services, &other_name);
    let missing = told(&of(&mut catalog).unwrap());
    assert!(missing[1].contains("no service wbe.default (an ExternalName for default/web):"), "{missing:?}");

    // Once it is for something else, it lacks nothing.
    put(&mut catalog, Kind::Policies, &policy(json!({"identity": "spiffe://test.mesh/ns/default/sa/web"})));
    catalog.take_verdicts();
    let mut wide = policy(json!({"mesh": true}));
    wide["metadata"]["namespace"] = "weft-system".into();
    wide["status"] = json!({"conditions": [{
        "type": "ResolvedRefs", "status": "False", "reason": "TargetNotFound", "message": "this cluster has no service wbe",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]});
    put(&mut catalog, Kind::Policies, &wide);
    assert_eq!(told(&of(&mut catalog).unwrap())[1], "ResolvedRefs True ResolvedRefs ");

    let route = json!({
        "metadata": {"name": "split", "namespace": "default", "uid": "v", "resourceVersion": "1", "generation": 1},
        "spec": {"service": "web", "rules": [{"backends": [{"service": "next"}, {"service": "web"}]}]},
    });
    put(&mut catalog, Kind::Routes, &route);
    let missing = told(&of(&mut catalog).unwrap());
    assert!(
        missing[1].contains("TargetNotFound this cluster has no services web.default, next.default:"),
        "{missing:?}"
    );
}
