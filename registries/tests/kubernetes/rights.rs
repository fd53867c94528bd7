//! Who asks, what that one may see, and what a person is told when it is not enough.

use std::{fs, path::PathBuf};

use futures_util::future::join_all;
use tokio::task::block_in_place;
use weft_core::{merge::Limits, registry::RegistryError};
use weft_registries::probe::probe;
use weft_testbed::Kubernetes;

use crate::{
    cluster::{SOON, by, lacking, namespace, shared},
    follower::Follower,
};

const READ_CLUSTER: &str = include_str!("../../../deploy/kubernetes/read-cluster.yaml");
const READ_NAMESPACE: &str = include_str!("../../../deploy/kubernetes/read-namespace.yaml");
const READ_SERVICES: &str = include_str!("../../../deploy/kubernetes/read-services.yaml");

/// The documents of a file that are of a kind.
fn documents<'a>(file: &'a str, kind: &str) -> Vec<&'a str> {
    file.split("\n---\n").filter(|document| document.contains(&format!("\nkind: {kind}\n"))).collect()
}

/// The shipped role under another name, without one verb on one resource.
fn role_without(name: &str, resource: &str, verb: &str) -> String {
    let role = documents(READ_CLUSTER, "ClusterRole")[0].replace("weft-read-cluster", name);
    let (whole, kept) =
        ("verbs: [list, watch]", if verb == "list" { "verbs: [watch]" } else { "verbs: [list]" });
    let at = role.find(&format!("resources: [{resource}]")).unwrap();
    let (before, after) = role.split_at(at);
    format!("{before}{}", after.replacen(whole, kept, 1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_role_is_enough_and_a_missing_right_is_named() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    let whole = documents(READ_CLUSTER, "ClusterRole")[0];
    let kubeconfig =
        block_in_place(|| kubernetes.kubeconfig_for("reader", "weft-read-cluster", whole).unwrap());
    let registry = by(&kubeconfig, "");
    lacking(&*registry, &[]).await;
    let seen = probe(&*registry, &Limits::default(), &[], SOON).await;
    assert!(seen.is_well() && seen.complete == Some(true) && seen.rights.len() == 8, "{seen:?}");
    let resources = [
        ("services", "services"),
        ("endpointslices", "endpointslices.discovery.k8s.io"),
        ("pods", "pods"),
        ("nodes", "nodes"),
    ];
    // A right that is missing is waited for, as long as one that is new may take: all at once.
    let lacking = resources.into_iter().flat_map(|known| ["list", "watch"].map(|verb| (known, verb)));
    join_all(lacking.map(|((resource, full), verb)| is_named(kubernetes, resource, full, verb))).await;
}

/// Who lacks one right is told so, by the questions about rights and by what is followed.
async fn is_named(kubernetes: &Kubernetes, resource: &str, full: &str, verb: &str) {
    let name = format!("without-{verb}-{resource}");
    let role = role_without(&name, resource, verb);
    let kubeconfig = block_in_place(|| kubernetes.kubeconfig_for(&name, &name, &role).unwrap());
    let registry = by(&kubeconfig, "");
    lacking(&*registry, &[&format!("{verb} {full}")]).await;
    let mut follower = Follower::new(registry, None);
    let place = if resource == "nodes" { String::new() } else { " in all namespaces".into() };
    let words = format!("not allowed: {verb} {full}{place}");
    let is_told = |view: &crate::follower::View<'_>| {
        let scopes = view.seen.snapshot.scopes.values();
        let origins = scopes.flat_map(|state| state.origins.values());
        let faults = origins.flat_map(|origin| origin.faults.iter()).map(|fault| &fault.message);
        faults.chain(&view.seen.errors).any(|message| message.contains(&words))
    };
    follower.until(&words, SOON * 4, is_told).await.unwrap();
    // What has no nodes is still told.
    assert!(follower.view(|view| view.seen.commits > 0) || resource != "nodes");
}

/// A kubeconfig of somebody who has in a namespace, and is called as that, the only role of a file and nothing else.
fn bound_in(kubernetes: &Kubernetes, space: &str, file: &str, role: &str) -> PathBuf {
    kubernetes.kubectl(&["apply", "-n", space, "-f", "-"], documents(file, "Role")[0]).unwrap();
    kubernetes.kubectl(&["create", "serviceaccount", space], "").unwrap();
    let (role, account) = (format!("--role={role}"), format!("--serviceaccount=default:{space}"));
    kubernetes.kubectl(&["create", "rolebinding", space, "-n", space, &role, &account], "").unwrap();
    let token = kubernetes.token(space).unwrap();
    kubernetes.kubeconfig_with_token(space, &token).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrow_registry_needs_no_right_outside() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    let kubeconfig = block_in_place(|| {
        ["narrow", "wide"].iter().for_each(|name| namespace(kubernetes, name));
        for (name, space) in [("web", "narrow"), ("api", "narrow"), ("web", "wide")] {
            kubernetes
                .apply(&format!(
                    "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {space}}}, spec: {{ports: [{{port: 80}}]}}}}\n---\n\
                     {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
                     metadata: {{name: {name}-1, namespace: {space}, labels: {{kubernetes.io/service-name: {name}}}}}, \
                     endpoints: [{{addresses: [10.50.7.1], zone: east-7}}], ports: [{{name: \"\", port: 8080}}]}}"
                ))
                .unwrap();
        }
        bound_in(kubernetes, "narrow", READ_NAMESPACE, "weft-read-namespace")
    });
    let seen = probe(&*by(&kubeconfig, ""), &Limits::default(), &[], SOON).await;
    assert_eq!(seen.error_kind, Some("denied"), "{seen:?}");
    let registry = by(&kubeconfig, "namespaces = [\"narrow\"]");
    lacking(&*registry, &["list nodes", "watch nodes"]).await;
    let mut follower = Follower::new(registry, None);
    follower
        .until("both services", SOON, |view| view.count("web.narrow") == 1 && view.count("api.narrow") == 1)
        .await
        .unwrap();
    follower.view(|view| {
        assert_eq!(view.endpoints("web.narrow").unwrap()[0].locality.zone(), "east-7");
        assert!(view.endpoints("web.wide").is_none());
        let scopes = view.seen.snapshot.scopes.values();
        let faults: Vec<_> =
            scopes.flat_map(|state| state.origins.values()).flat_map(|it| it.faults.iter()).collect();
        assert!(faults.len() == 1 && faults[0].message.contains("watch nodes"), "told once: {faults:?}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_are_named_are_all_that_is_asked_for() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    let kubeconfig = block_in_place(|| {
        namespace(kubernetes, "named");
        for name in ["web", "api", "other"] {
            kubernetes
                .apply(&format!(
                    "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: named}}, spec: {{ports: [{{port: 80}}]}}}}\n---\n\
                     {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
                     metadata: {{name: {name}-1, namespace: named, labels: {{kubernetes.io/service-name: {name}}}}}, \
                     endpoints: [{{addresses: [10.50.7.2]}}], ports: [{{name: \"\", port: 8080}}]}}"
                ))
                .unwrap();
        }
        let role = READ_SERVICES.replace("[web]", "[web, api]");
        bound_in(kubernetes, "named", &role, "weft-read-services")
    });
    let lacks = async |section: &str, rights: &[&str]| {
        let nodes = ["list nodes", "watch nodes"];
        lacking(&*by(&kubeconfig, section), &[&nodes, rights].concat()).await;
    };
    // The role allows the services that it names, and no list of all.
    lacks("services = [\"web.named\", \"api.named\"]", &[]).await;
    let more = ["list services other in namespace named", "watch services other in namespace named"];
    lacks("services = [\"web.named\", \"other.named\"]", &more).await;
    let many: Vec<String> = (0..17).map(|number| format!("\"s{number}.named\"")).collect();
    let many = format!("services = [{}]", many.join(", "));
    lacks(&many, &["list services in namespace named", "watch services in namespace named"]).await;
    let mut follower = Follower::new(by(&kubeconfig, "services = [\"web.named\", \"api.named\"]"), None);
    follower
        .until("both services", SOON, |view| view.count("web.named") == 1 && view.count("api.named") == 1)
        .await
        .unwrap();
    assert!(follower.view(|view| view.endpoints("other.named").is_none() && view.seen.errors.is_empty()));
    // What is heard of one says nothing of the other.
    block_in_place(|| kubernetes.kubectl(&["delete", "service", "api", "-n", "named"], "").unwrap());
    follower.until("one is gone", SOON, |view| view.endpoints("api.named").is_none()).await.unwrap();
    assert!(follower.view(|view| view.count("web.named") == 1));
}

/// A kubeconfig that names a file with a token, and that file.
fn with_token_file(kubernetes: &Kubernetes, name: &str) -> (PathBuf, PathBuf) {
    let kubeconfig = kubernetes.kubeconfig_with_token(name, "inline").unwrap();
    let text = fs::read_to_string(&kubeconfig).unwrap();
    let file = kubernetes.scratch().path().join(format!("{name}.token"));
    fs::write(&kubeconfig, text.replace("token: inline", &format!("tokenFile: {}", file.display()))).unwrap();
    (kubeconfig, file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_file_is_read_again_and_never_shown() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    let whole = documents(READ_CLUSTER, "ClusterRole")[0];
    let (kubeconfig, file) = block_in_place(|| {
        kubernetes.kubeconfig_for("rotated", "weft-read-cluster", whole).unwrap();
        with_token_file(kubernetes, "rotating")
    });
    let registry = by(&kubeconfig, "");
    let missing = registry.rights().await.unwrap_err();
    assert!(matches!(&missing, RegistryError::Denied(why) if why.contains("rotating.token")), "{missing}");
    fs::write(&file, "stale-secret-token").unwrap();
    let mut follower = Follower::new(registry, None);
    follower.until("the stale token is refused", SOON, |view| !view.seen.errors.is_empty()).await.unwrap();
    follower.view(|view| {
        assert!(view.seen.errors.iter().all(|it| it.contains("not allowed")), "{:?}", view.seen.errors);
        assert!(!view.seen.errors.iter().any(|it| it.contains("stale-secret")), "{:?}", view.seen.errors);
    });
    // As an editor writes it.
    fs::write(&file, block_in_place(|| kubernetes.token("rotated").unwrap()) + "\r\n").unwrap();
    follower.until("the fresh token is taken", SOON, |view| view.seen.commits > 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_plugin_is_asked_and_what_it_says_is_never_shown() {
    let Some(kubernetes) = block_in_place(shared) else { return };
    let whole = documents(READ_CLUSTER, "ClusterRole")[0];
    let (kubeconfig, answer) = block_in_place(|| {
        kubernetes.kubeconfig_for("plugged", "weft-read-cluster", whole).unwrap();
        let kubeconfig = kubernetes.kubeconfig_with_token("plugin", "inline").unwrap();
        let answer = kubernetes.scratch().path().join("plugin.json");
        let exec = format!(
            "exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, 'cat {0}; grep -q token {0}']}}",
            answer.display()
        );
        let text = fs::read_to_string(&kubeconfig).unwrap();
        fs::write(&kubeconfig, text.replace("token: inline", &exec)).unwrap();
        (kubeconfig, answer)
    });
    let credential = |token: &str, expires: &str| {
        format!(
            "{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\
             \"status\":{{\"token\":\"{token}\",\"expirationTimestamp\":\"{expires}\"}}}}"
        )
    };
    let registry = by(&kubeconfig, "");
    for wrong in ["secret-that-is-no-answer", "token: secret-that-is-no-answer"] {
        fs::write(&answer, wrong).unwrap();
        let error = registry.rights().await.unwrap_err().to_string();
        assert!(error.contains("the credential plugin") && !error.contains("secret"), "{error}");
    }
    fs::remove_file(&answer).unwrap();
    let error = registry.rights().await.unwrap_err().to_string();
    for words in ["the credential plugin \"sh\" failed: exit status: 2: ", "No such file or directory"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let token = block_in_place(|| kubernetes.token("plugged").unwrap());
    fs::write(&answer, credential(&token, "2000-01-01T00:00:00Z")).unwrap();
    let mut follower = Follower::new(registry, None);
    follower.until("the plugin's token is taken", SOON, |view| view.seen.commits > 0).await.unwrap();
    // It has expired by what the plugin said of it, so the plugin is asked before the next question.
    fs::write(&answer, credential("another-secret", "2000-01-01T00:00:00Z")).unwrap();
    let refused = |view: &crate::follower::View<'_>| view.seen.errors.iter().any(|it| it.contains("401"));
    follower.until("the plugin's next token is used", SOON, refused).await.unwrap();
    assert!(!follower.view(|view| view.seen.errors.iter().any(|it| it.contains("secret"))));
}
