//! Our own objects: what the API server takes, what they mean, what is written back.

use std::{fs, path::Path};

use serde_json::Value;
use tokio::task::block_in_place;
use weft_core::{
    merge::Limits,
    resource::{Action, Policy, PolicyTarget},
};
use weft_registries::probe::probe;
use weft_testbed::{Error, Kubernetes};

use crate::{
    cluster::{SOON, by, home, lacking, namespace, options},
    follower::{Follower, View},
};

const ON: &str = "configuration = true\nwrite_status = true\n";

fn shipped(name: &str) -> String {
    fs::read_to_string(format!("{}/../deploy/kubernetes/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The rules of the shipped roles in one.
fn role() -> String {
    let rules = |file: &str| {
        let text = shipped(file);
        let role = text.split("\n---\n").find(|it| it.contains("\nkind: ClusterRole\n")).unwrap().to_owned();
        let (_, rules) = role.split_once("\nrules:\n").unwrap();
        rules.to_owned()
    };
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: weft-all}}\nrules:\n{}\n{}\n",
        rules("read-cluster.yaml"),
        rules("configuration.yaml")
    )
}

fn route(spec: &str) -> String {
    format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: MeshRoute, metadata: {{name: canary, namespace: shop}}, spec: {spec}}}"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: MeshPolicy, metadata: {{name: {name}, namespace: shop}}, spec: {spec}}}"
    )
}

fn policies(view: &View<'_>) -> Vec<Policy> {
    let partitions = view.seen.snapshot.partitions.values();
    partitions.flat_map(|partition| partition.policies.values()).map(|policy| (**policy).clone()).collect()
}

/// A condition of an object: its status, reason, message; none while it is not of the object as it stands.
fn condition(
    kubernetes: &Kubernetes,
    kind: &str,
    name: &str,
    condition: &str,
) -> Option<(String, String, String)> {
    let arguments = ["get", kind, name, "-n", "shop", "-o", "json"];
    let object: Value = serde_json::from_str(&kubernetes.kubectl(&arguments, "").unwrap()).unwrap();
    let condition = object["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == condition)?;
    assert!(condition["lastTransitionTime"].as_str().unwrap().ends_with('Z'), "{condition}");
    if condition["observedGeneration"] != object["metadata"]["generation"] {
        return None;
    }
    let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

async fn until_accepted(kubernetes: &Kubernetes, kind: &str, name: &str, status: &str) -> (String, String) {
    until_condition(kubernetes, (kind, name), "Accepted", status).await
}

async fn until_condition(
    kubernetes: &Kubernetes,
    (kind, name): (&str, &str),
    wanted: &str,
    status: &str,
) -> (String, String) {
    let end = tokio::time::Instant::now() + SOON;
    loop {
        match block_in_place(|| condition(kubernetes, kind, name, wanted)) {
            Some((is, reason, message)) if is == status => return (reason, message),
            other => assert!(tokio::time::Instant::now() < end, "{kind} {name} is {other:?}"),
        }
    }
}

fn refused(applied: Result<(), Error>, why: &str) {
    let error = applied.unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

fn start() -> Option<(Kubernetes, std::path::PathBuf)> {
    let kubernetes = Kubernetes::start(&home()?, options()).unwrap();
    namespace(&kubernetes, "shop");
    kubernetes
        .apply("{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]}}")
        .unwrap();
    let kubeconfig = kubernetes.kubeconfig_for("weft", "weft-all", &role()).unwrap();
    Some((kubernetes, kubeconfig))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_routes_and_policies_and_say_whether_they_count() {
    let Some((kubernetes, kubeconfig)) = block_in_place(start) else { return };
    let kubernetes = &kubernetes;
    let mut follower = Follower::new(by(&kubeconfig, ON), None);
    let told =
        |view: &View<'_>| view.seen.errors.iter().any(|error| error.contains("deploy/kubernetes/crds.yaml"));
    follower.until("that they are not installed", SOON, told).await.unwrap();
    follower.view(|view| assert_eq!(view.seen.commits, 0, "policies might be missing"));
    block_in_place(|| {
        kubernetes.apply(&shipped("crds.yaml")).unwrap();
        let established = [
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd/meshroutes.weft.dev",
            "crd/meshpolicies.weft.dev",
        ];
        kubernetes.kubectl(&established, "").unwrap();
        kubernetes
            .apply(&route(
                "{service: web, rules: [{name: all, requestTimeout: 3s, connectTimeout: 1s500ms}]}",
            ))
            .unwrap();
        kubernetes
            .apply(&policy(
                "only-api",
                "{target: {service: web}, action: Allow, rules: [{from: [{serviceAccount: api}]}]}",
            ))
            .unwrap();
    });
    follower
        .until("both", SOON * 2, |view| view.has_route("canary.shop") && policies(view).len() == 1)
        .await
        .unwrap();
    let only_api = follower.view(|view| policies(view).remove(0));
    assert_eq!(only_api.target, PolicyTarget::Service("web.shop".parse().unwrap()));
    assert!(format!("{:?}", only_api.rules).contains("spiffe://test.mesh/ns/shop/sa/api"), "{only_api:?}");
    assert_eq!(until_accepted(kubernetes, "meshroute", "canary", "True").await.0, "Accepted");
    until_accepted(kubernetes, "meshpolicy", "only-api", "True").await;

    // Another one takes all that it would.
    let later =
        route("{service: web, rules: [{matches: [{path: {prefix: /b}}]}]}").replace("canary", "later");
    block_in_place(|| kubernetes.apply(&later).unwrap());
    let (reason, message) = until_accepted(kubernetes, "meshroute", "later", "False").await;
    assert!(reason == "Conflicted" && message.contains("the route canary.shop"), "{reason}: {message}");
    block_in_place(|| kubernetes.kubectl(&["delete", "meshroute", "-n", "shop", "later"], "").unwrap());

    // What makes no sense to us, though it does to the API server: what it said before stands, and the object says so.
    block_in_place(|| {
        kubernetes.apply(&route("{service: web, rules: [{matches: [{path: {regex: \"(\"}}]}]}")).unwrap();
        kubernetes
            .apply(&policy(
                "no-path",
                "{target: {service: web}, action: Deny, rules: [{to: [{paths: [\"/a/../b\"]}]}]}",
            ))
            .unwrap();
    });
    let (reason, message) = until_accepted(kubernetes, "meshroute", "canary", "False").await;
    assert!(reason == "Invalid" && !message.is_empty(), "{reason}: {message}");
    until_accepted(kubernetes, "meshpolicy", "no-path", "False").await;
    let denies = |policy: &Policy| policy.action == Action::Deny && policy.rules[0].to.is_empty();
    follower.until("denied meanwhile", SOON, |view| policies(view).iter().any(denies)).await.unwrap();
    follower.view(|view| assert!(view.has_route("canary.shop"), "what it said before stands"));
    block_in_place(|| {
        kubernetes.apply(&route("{service: web, rules: [{matches: [{path: {regex: \"/a\"}}]}]}")).unwrap();
        kubernetes.kubectl(&["delete", "meshpolicy", "-n", "shop", "--all"], "").unwrap();
    });
    until_accepted(kubernetes, "meshroute", "canary", "True").await;
    follower.until("they are gone", SOON, |view| policies(view).is_empty()).await.unwrap();

    // A backend that is not there.
    let resolved = async |status: &str| {
        until_condition(kubernetes, ("meshroute", "canary"), "ResolvedRefs", status).await
    };
    resolved("True").await;
    let next = "{apiVersion: v1, kind: Service, metadata: {name: next, namespace: shop}, spec: {ports: [{port: 80}]}}";
    block_in_place(|| {
        kubernetes.apply(&route("{service: web, rules: [{backends: [{service: next}]}]}")).unwrap();
    });
    let (reason, message) = resolved("False").await;
    assert!(reason == "BackendNotFound" && message.contains("next.shop"), "{reason}: {message}");
    until_accepted(kubernetes, "meshroute", "canary", "True").await;
    block_in_place(|| kubernetes.apply(next).unwrap());
    resolved("True").await;

    // A mesh-wide policy of a tenant is none.
    block_in_place(|| kubernetes.apply(&policy("wide", "{target: {mesh: true}, action: Deny}")).unwrap());
    let (_, message) = until_accepted(kubernetes, "meshpolicy", "wide", "False").await;
    assert!(message.contains("weft-system"), "{message}");
    follower.view(|view| assert!(policies(view).is_empty() && view.has_route("canary.shop")));

    block_in_place(|| not_taken(kubernetes));
    without_the_right_to_write(kubernetes, &kubeconfig).await;
}

/// What the API server itself refuses.
fn not_taken(kubernetes: &Kubernetes) {
    for (spec, why) in [
        ("{service: web, rules: []}", "rules"),
        ("{service: web, rules: [{name: a}, {name: a}]}", "the names of rules are unique"),
        (
            "{service: web, rules: [{matches: [{path: {exact: /a, prefix: /a}}]}]}",
            "expected one of exact, prefix and regex",
        ),
        (
            "{service: web, rules: [{matches: [{headers: [{name: a}]}]}]}",
            "expected one of exact, prefix, regex and present",
        ),
        ("{service: web, rules: [{backends: [{weight: 0}]}]}", "at least one weight is above 0"),
        ("{service: web, rules: [{requestTimeout: soon}]}", "requestTimeout"),
        ("{service: web, rules: [{connectTimeout: 0s}]}", "connectTimeout"),
        ("{service: web, rules: [{matches: [{method: get}]}]}", "method"),
        ("{service: web, rules: [{timeout: 1s}]}", "unknown field"),
    ] {
        refused(kubernetes.apply(&route(spec)), why);
    }
    for (spec, why) in [
        ("{target: {}, action: Allow}", "expected one of service, identity and mesh"),
        ("{target: {service: web, mesh: true}, action: Allow}", "expected one of service, identity and mesh"),
        ("{target: {service: web}, action: Audit}", "Unsupported value"),
        (
            "{target: {service: web}, action: Allow, rules: [{from: [{}]}]}",
            "expected identity, serviceAccount",
        ),
        (
            "{target: {service: web}, action: Allow, rules: [{from: [{identity: \"spiffe://a/ns/b/sa/c\", namespace: d}]}]}",
            "an identity names",
        ),
        ("{target: {service: web}, action: Allow, rules: [{to: [{ports: [0]}]}]}", "ports"),
        ("{target: {service: web}, action: Allow, rules: [{to: [{methods: [get]}]}]}", "methods"),
    ] {
        refused(kubernetes.apply(&policy("refused", spec)), why);
    }
}

/// Objects count although it cannot be written into them, which is told.
async fn without_the_right_to_write(kubernetes: &Kubernetes, whole: &Path) {
    let registry = by(whole, ON);
    lacking(&*registry, &[]).await;
    let seen = probe(&*registry, &Limits::default(), &[], SOON).await;
    assert!(seen.is_well() && seen.rights.len() == 14, "{seen:?}");
    let role = role().replace("weft-all", "weft-no-status").replace("verbs: [patch]", "verbs: [get]");
    let kubeconfig = block_in_place(|| kubernetes.kubeconfig_for("reader", "weft-no-status", &role).unwrap());
    let patched = ["patch meshroutes.weft.dev/status", "patch meshpolicies.weft.dev/status"];
    lacking(&*by(&kubeconfig, ON), &patched).await;
    let mut follower = Follower::new(by(&kubeconfig, ON), None);
    follower.until("the route", SOON, |view| view.has_route("canary.shop")).await.unwrap();
    block_in_place(|| kubernetes.apply(&route("{service: web, rules: [{name: new}]}")).unwrap());
    let told = |view: &View<'_>| {
        let origins = view.seen.snapshot.scopes.values().flat_map(|state| state.origins.values());
        let mut faults = origins.flat_map(|origin| origin.faults.iter());
        faults.any(|fault| {
            fault.place.contains("conditions") && fault.message.contains("patch the status of meshroutes")
        })
    };
    follower.until("that it cannot be written", SOON, told).await.unwrap();
}
