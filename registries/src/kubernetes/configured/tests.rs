use proptest::prelude::*;

use weft_core::resource::Action;

use super::*;

fn ground(domain: &TrustDomain) -> Ground<'_> {
    Ground { root_namespace: "weft-system", trust_domain: domain }
}

fn read(kind: Kind, namespace: &str, spec: &str) -> Meaning {
    let domain = TrustDomain::new("test.mesh").unwrap();
    let json = format!(
        r#"{{"metadata": {{"name": "it", "namespace": "{namespace}", "uid": "u", "resourceVersion": "1"}}, "spec": {spec}}}"#
    );
    let object: Configured = serde_json::from_str(&json).unwrap();
    convert(kind, &format!("{namespace}/it").into(), &object, &ground(&domain))
}

fn file(text: &str) -> Vec<Resource> {
    let outcome = read_mesh(&SourceFile::new("x.toml", text.to_owned()));
    outcome
        .value
        .unwrap_or_else(|| panic!("{:?}", outcome.faults))
        .resources
        .into_iter()
        .map(|it| it.value)
        .collect()
}

#[test]
fn a_route_means_what_the_same_file_means() {
    let spec = r#"{"service": "web", "rules": [{
        "name": "canary",
        "matches": [{"path": {"prefix": "/api"}, "method": "GET", "headers": [{"name": "x-canary", "exact": "yes"}]}],
        "backends": [{"subset": {"version": "v2"}, "weight": 90}, {"service": "next.other", "weight": 10}],
        "requestTimeout": "3s", "connectTimeout": "2s",
        "retries": {"attempts": 1, "onGatewayError": true, "allMethods": false}}]}"#;
    let same = file(
        "[[route]]\nname = \"it.shop\"\nservice = \"web.shop\"\n[[route.rule]]\nname = \"canary\"\n\
         match = [{ path = { prefix = \"/api\" }, method = \"GET\", headers = [{ name = \"x-canary\", exact = \"yes\" }] }]\n\
         backends = [{ subset = { version = \"v2\" }, weight = 90 }, { service = \"next.other\", weight = 10 }]\n\
         request_timeout = \"3s\"\nconnect_timeout = \"2s\"\n\
         retries = { attempts = 1, on_gateway_error = true, all_methods = false }\n",
    );
    let meaning = read(Kind::Routes, "shop", spec);
    assert_eq!((meaning.resources, meaning.refusal), (same, None));
    assert!(meaning.faults.is_empty(), "{:?}", meaning.faults);
}

#[test]
fn a_policy_means_what_the_same_file_means() {
    let spec = r#"{"target": {"service": "web"}, "action": "Allow", "rules": [{
        "from": [{"serviceAccount": "api"}, {"serviceAccount": "a", "namespace": "b"}, {"namespace": "c"},
                 {"namespace": "d", "trustDomain": "other.mesh"}, {"identity": "spiffe://x.mesh/ns/y/sa/z"}],
        "to": [{"methods": ["GET"], "paths": ["/api/*"], "ports": [8080]}]}]}"#;
    let same = file(
        "[[policy]]\nname = \"it.shop\"\ntarget = { service = \"web.shop\" }\naction = \"allow\"\n[[policy.rule]]\n\
         from = [{ identity = \"spiffe://test.mesh/ns/shop/sa/api\" }, { identity = \"spiffe://test.mesh/ns/b/sa/a\" }, \
         { namespace = \"c\", trust_domain = \"test.mesh\" }, { namespace = \"d\", trust_domain = \"other.mesh\" }, \
         { identity = \"spiffe://x.mesh/ns/y/sa/z\" }]\n\
         to = [{ methods = [\"GET\"], paths = [\"/api/*\"], ports = [8080] }]\n",
    );
    assert_eq!(read(Kind::Policies, "shop", spec).resources, same);
    let wide = r#"{"target": {"mesh": true}, "action": "Deny", "rules": [{"from": [{"namespace": "bad"}]}]}"#;
    let meaning = read(Kind::Policies, "weft-system", wide);
    assert!(
        matches!(&meaning.resources[..], [Resource::Policy(policy)] if policy.target == PolicyTarget::Mesh)
    );
}

#[test]
fn nobody_decides_for_another_namespace() {
    for (kind, spec) in [
        (Kind::Routes, r#"{"service": "web.other", "rules": [{}]}"#),
        (Kind::Policies, r#"{"target": {"service": "web.other"}, "action": "Allow"}"#),
        (Kind::Policies, r#"{"target": {"mesh": true}, "action": "Allow"}"#),
        (
            Kind::Policies,
            r#"{"target": {"identity": "spiffe://test.mesh/ns/other/sa/web"}, "action": "Deny"}"#,
        ),
    ] {
        let meaning = read(kind, "shop", spec);
        assert!(meaning.resources.is_empty(), "{spec}: {meaning:?}");
        assert!(meaning.refusal.as_ref().unwrap().contains("namespace"), "{meaning:?}");
    }
}

#[test]
fn a_policy_that_makes_no_sense_denies_and_says_so_in_the_words_of_objects() {
    for spec in [
        r#"{"target": {"service": "web"}, "action": "Deny", "rules": [{"to": [{"paths": ["no slash"]}]}]}"#,
        r#"{"target": {"service": "web"}, "action": "Audit"}"#,
        r#"{"target": {"service": "web"}, "action": "Allow", "rules": [{"when": []}]}"#,
    ] {
        let meaning = read(Kind::Policies, "shop", spec);
        let [Resource::Policy(policy)] = &meaning.resources[..] else { panic!("{spec}: {meaning:?}") };
        assert_eq!((policy.action, policy.rules.len()), (Action::Deny, 1));
        assert_eq!(policy.rules[0].name.as_ref().unwrap().as_str(), "not-understood");
        assert!(meaning.faults[0].keeps_last_good && meaning.faults[0].place == "meshpolicies/shop/it");
    }
    let denied = |namespace: &str, target: &str| {
        let spec = format!(r#"{{"target": {target}, "action": "Allow", "rules": [{{"when": []}}]}}"#);
        let meaning = read(Kind::Policies, namespace, &spec);
        assert!(meaning.faults[0].keeps_last_good);
        let targets = meaning.resources.into_iter().map(|resource| match resource {
            Resource::Policy(policy) if policy.action == Action::Deny => policy.target.clone(),
            other => panic!("{other:?}"),
        });
        targets.collect::<Vec<_>>()
    };
    let web = SpiffeId::parse("spiffe://test.mesh/ns/shop/sa/web").unwrap();
    let of_web = format!(r#"{{"identity": "{web}"}}"#);
    assert_eq!(denied("weft-system", r#"{"mesh": true}"#), [PolicyTarget::Mesh]);
    assert_eq!(denied("weft-system", r#"{"identity": "who?"}"#), [PolicyTarget::Mesh]);
    assert_eq!(denied("weft-system", &of_web), [PolicyTarget::Identity(web)]);
    assert_eq!(denied("shop", r#"{"mesh": true}"#), [], "it would not count");
    let slip = r#"{"service": "web", "rules": [{"requestTimeout": "soon"}]}"#;
    let meaning = read(Kind::Routes, "shop", slip);
    assert!(meaning.resources.is_empty() && meaning.refusal.is_some(), "{meaning:?}");
    let unknown = read(Kind::Routes, "shop", r#"{"service": "web", "rules": [{"timeout": "1s"}]}"#);
    let refusal = unknown.refusal.unwrap();
    assert!(refusal.contains("unknown field `timeout`") && !refusal.contains("line"), "{refusal}");
}

proptest! {
    #[test]
    fn whatever_stands_there_is_read_or_told(spec in "\\PC{0,200}", key in "[a-zA-Z]{1,12}", is_policy: bool) {
        let kind = if is_policy { Kind::Policies } else { Kind::Routes };
        let text = serde_json::to_string(&spec).unwrap();
        for json in [
            text.clone(),
            format!(r#"{{"service": {text}, "rules": [{{"name": {text}, "{key}": {text}}}]}}"#),
            format!(r#"{{"service": "web", "rules": [{{"backends": [{{"subset": {{{text}: {text}}}}}]}}]}}"#),
            format!(r#"{{"target": {{"service": {text}}}, "action": "Deny", "rules": [{{"from": [{{"namespace": {text}}}]}}]}}"#),
        ] {
            let meaning = read(kind, "shop", &json);
            for resource in &meaning.resources {
                prop_assert!(resource.check().is_ok(), "{:?}", resource);
            }
            prop_assert!(meaning.faults.iter().all(|fault| !fault.message.contains('\n')));
            prop_assert!(meaning.refusal.is_some() || !meaning.resources.is_empty());
        }
    }
}
