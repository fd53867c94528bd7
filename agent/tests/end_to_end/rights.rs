//! `weft check --registry` with tokens that may read and no more: what is missing is named as whoever gives it writes it.

use std::time::{Duration, Instant};

use serde_json::Value;
use weft_testbed::{Consul, ConsulOptions, Kind, Kubernetes, KubernetesOptions, installed, required};

use crate::support::Sandbox;

/// What a hub may do that shares a store in Kubernetes, as shipped.
const STORE_ROLE: &str = include_str!("../../../deploy/kubernetes/hub-store.yaml");
/// How soon an API server heeds a change of its rules.
const HEEDED: Duration = Duration::from_secs(20);
const READ: &str = "service_prefix \"\" { policy = \"read\" }\nnode_prefix \"\" { policy = \"read\" }\n";

fn with_acl() -> Option<Consul> {
    let home = required(installed(Kind::Consul))?;
    Some(Consul::start(&home, ConsulOptions { acl: true, ..ConsulOptions::default() }).unwrap())
}

/// A folder with the file of a hub whose store this is, and which has the token of the file beside it.
fn with_store(consul: &Consul) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(
        "hub.toml",
        &format!(
            "trust_domain = \"demo.mesh\"\n[store]\nkind = \"consul\"\naddresses = {:?}\ntoken_file = \"token\"\n",
            consul.url()
        ),
    );
    sandbox
}

/// What is looked at in the only registry or store of a file, and whether all is well.
fn looked(sandbox: &Sandbox, file: &str) -> (Value, bool) {
    let output = sandbox.run(&["check", "--registry", "-o", "json", file]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    (report["registries"][0].clone(), output.status.success())
}

/// The names of the rights that are missing in the only registry or store of a file, and what is said to a person.
fn missing(sandbox: &Sandbox, file: &str) -> (Vec<String>, String) {
    let (looked, is_well) = looked(sandbox, file);
    assert!(looked["error"].is_null(), "{looked}");
    let rights = looked["rights"].as_array().unwrap().iter();
    let missing = rights.filter(|right| right["given"] == false && right["optional"] == false);
    let names: Vec<String> = missing.map(|right| right["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(is_well, names.is_empty(), "{looked}");
    let told = sandbox.run(&["check", "--registry", file]);
    (names, String::from_utf8_lossy(&told.stdout).into_owned())
}

#[test]
fn who_is_to_announce_needs_the_right_to_do_so() {
    let Some(consul) = with_acl() else { return };
    let sandbox = Sandbox::new();
    sandbox.write(
        "weft.toml",
        &format!(
            "trust_domain = \"demo.mesh\"\n[inbound]\nlisten = \"127.0.0.1:15008\"\n\
             [identity]\nkind = \"files\"\ndirectory = {:?}\n[[registry]]\nkind = \"consul\"\naddress = {:?}\ntoken_file = \"token\"\n\
             [[workload]]\nname = \"web\"\nidentity = \"spiffe://demo.mesh/ns/default/sa/web\"\n\
             [[workload.port]]\nservice = \"web.default\"\nname = \"http\"\naddress = \"127.0.0.1:8080\"\n\
             announce = {{ registries = \"consul\" }}\n",
            sandbox.root(),
            consul.url()
        ),
    );
    let token = consul.create_token(READ).unwrap();
    sandbox.write("token", &token.secret);
    let (names, told) = missing(&sandbox, "weft.toml");
    assert_eq!(names, ["service \"web\" write"], "{told}");
    let line = "consul: missing right: service \"web\" write: needed for announcing instances of web.default";
    assert!(told.contains(line), "{told}");
    let token = consul.create_token(&format!("{READ}service \"web\" {{ policy = \"write\" }}\n")).unwrap();
    sandbox.write("token", &token.secret);
    let (names, told) = missing(&sandbox, "weft.toml");
    assert_eq!(names, Vec::<String>::new(), "{told}");
    let services = consul.call("GET", "/v1/catalog/services", "").unwrap().json();
    assert!(services.get("web").is_none(), "nothing is announced by who looks: {services}");
}

#[test]
fn who_shares_a_store_is_told_the_rules_that_its_token_lacks() {
    let Some(consul) = with_acl() else { return };
    let sandbox = with_store(&consul);
    let (keys, sessions) =
        ("key_prefix \"weft/\" { policy = \"write\" }", "session_prefix \"\" { policy = \"write\" }");
    for (rules, lacking) in [
        ("key_prefix \"weft/\" { policy = \"read\" }".to_owned(), vec![keys, sessions, keys]),
        (format!("key_prefix \"weft/\" {{ policy = \"read\" }}\n{sessions}"), vec![keys, keys]),
        (keys.to_owned(), vec![sessions]),
        (format!("{keys}\n{sessions}"), vec![]),
    ] {
        sandbox.write("token", &consul.create_token(&rules).unwrap().secret);
        let (names, told) = missing(&sandbox, "hub.toml");
        assert_eq!(names, lacking, "{told}");
        assert!(lacking.is_empty() || told.contains(&format!("missing right: {}", lacking[0])), "{told}");
    }
}

#[test]
fn a_token_that_a_store_does_not_know_is_no_question_of_rights() {
    let Some(consul) = with_acl() else { return };
    let sandbox = with_store(&consul);
    sandbox.write("token", "11111111-2222-3333-4444-555555555555");
    let (looked, is_well) = looked(&sandbox, "hub.toml");
    assert!(!is_well && looked["error_kind"] == "denied", "{looked}");
    assert!(looked["error"].as_str().unwrap().contains("the token is not known"), "{looked}");
    assert_eq!(looked["rights"], Value::Array(Vec::new()), "{looked}");
}

#[test]
fn each_right_that_a_hub_lacks_at_its_store_in_kubernetes_is_named() {
    let Some(home) = required(installed(Kind::Kubernetes)) else { return };
    let options = KubernetesOptions { controllers: false, ..KubernetesOptions::default() };
    let kubernetes = Kubernetes::start(&home, options).unwrap();
    kubernetes.kubectl(&["create", "namespace", "weft-system"], "").unwrap();
    let account =
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: weft-hub, namespace: weft-system}\n";
    kubernetes.apply(&format!("{STORE_ROLE}---\n{account}")).unwrap();
    let token = ["-n", "weft-system", "create", "token", "weft-hub", "--duration=1h"];
    let token = kubernetes.kubectl(&token, "").unwrap();
    let kubeconfig = kubernetes.kubeconfig_with_token("hub", token.trim()).unwrap();
    let sandbox = Sandbox::new();
    sandbox.write(
        "hub.toml",
        &format!(
            "trust_domain = \"demo.mesh\"\n[store]\nkind = \"kubernetes\"\nkubeconfig = {kubeconfig:?}\n"
        ),
    );
    let (records, leases) =
        ("[get, list, watch, create, update, delete]", "[get, list, create, patch, delete]");
    for (verbs, given, lacking) in [
        (records, "[get, list, create, update, delete]", vec!["watch configmaps"]),
        (records, "[get, list, watch, create, delete]", vec!["update configmaps"]),
        (leases, "[get, list, create, delete]", vec!["patch leases.coordination.k8s.io"]),
        (leases, "[get, create, patch, delete]", vec!["list leases.coordination.k8s.io"]),
        (leases, "[list, create, patch, delete]", vec!["get leases.coordination.k8s.io"]),
        (leases, leases, vec![]),
    ] {
        assert!(STORE_ROLE.contains(verbs), "{STORE_ROLE}");
        kubernetes.apply(&STORE_ROLE.replace(verbs, given)).unwrap();
        await_lacking(&sandbox, &lacking);
    }
    // Who may make no leases makes a record that would stay, and does not leave it there when a later step is refused.
    let records_there =
        || kubernetes.kubectl(&["-n", "weft-system", "get", "configmaps", "-o", "name"], "").unwrap();
    let before = records_there();
    let no_leases = STORE_ROLE.replace(leases, "[get, list]");
    for (given, lacking) in [
        ("[get, list, watch, create, delete]", "update configmaps"),
        ("[list, watch, create, update, delete]", "get configmaps"),
    ] {
        kubernetes.apply(&no_leases.replace(records, given)).unwrap();
        await_lacking(&sandbox, &["create leases.coordination.k8s.io", lacking]);
    }
    assert_eq!(records_there(), before);
}

/// Waits until just these rights are missing at the hub's store.
fn await_lacking(sandbox: &Sandbox, lacking: &[&str]) {
    let lacking: Vec<String> =
        lacking.iter().map(|right| format!("{right} in namespace weft-system")).collect();
    let until = Instant::now() + HEEDED;
    loop {
        let (names, told) = missing(sandbox, "hub.toml");
        if names == lacking {
            break;
        }
        assert!(Instant::now() < until, "{names:?} instead of {lacking:?}: {told}");
    }
}
