//! Tokens: what they hide is not gone, and they may be renewed, revoked and restored at any time.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use data_encoding::BASE64URL_NOPAD;

use serde_json::json;
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};
use weft_core::{
    merge::Limits,
    registry::{Completeness, Right},
    resource::Health,
};
use weft_registries::probe::probe;
use weft_testbed::{Consul, ConsulOptions, Gate, GateMode};

use crate::{
    bed::{CONVERGED, SOON, put, registry, start, write},
    follower::{Follower, View},
};

const ALL: &str = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
const WEB: &str = r#"service "web" { policy = "read" } node_prefix "" { policy = "read" }"#;
const NO_NODES: &str = r#"service_prefix "" { policy = "read" }"#;
const BUT_N2: &str = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" } node "n2" { policy = "deny" }"#;
const BUT_API: &str = r#"service_prefix "" { policy = "read" } service "api" { policy = "deny" } node_prefix "" { policy = "read" }"#;

fn with_acl() -> Option<Consul> {
    let consul = start(ConsulOptions { acl: true, ..ConsulOptions::default() })?;
    for (host, service) in [(1, "web"), (2, "web"), (3, "api")] {
        write(&consul, &format!("n{host}"), host, service, json!({}));
    }
    Some(consul)
}

fn token(consul: &Consul, rules: &str) -> weft_testbed::AclToken {
    block_in_place(|| consul.create_token(rules)).unwrap()
}

/// Writes the rules of the policy `agent`, which a token may have already.
fn rule(consul: &Consul, rules: &str) {
    let known = block_in_place(|| consul.call("GET", "/v1/acl/policy/name/agent", "")).unwrap();
    let path = match known.is_success() {
        true => format!("/v1/acl/policy/{}", known.json()["ID"].as_str().unwrap()),
        false => "/v1/acl/policy".into(),
    };
    put(consul, &path, &json!({ "Name": "agent", "Rules": rules }));
}

/// A token with the policy `agent`.
fn ruled(consul: &Consul) -> String {
    let body = json!({ "Policies": [{ "Name": "agent" }] }).to_string();
    let made = block_in_place(|| consul.call("PUT", "/v1/acl/token", body)).unwrap();
    made.success("a token").unwrap().json()["SecretID"].as_str().unwrap().to_owned()
}

/// What is told of the registry as a whole.
fn notices(view: &View<'_>) -> Vec<String> {
    let origins: Vec<_> =
        view.seen.snapshot.scopes.values().flat_map(|it| it.origins.values().cloned()).collect();
    let faults = origins.iter().flat_map(|origin| &origin.faults);
    faults.filter(|fault| fault.place == "the registry").map(|fault| fault.message.clone()).collect()
}

fn deregister(consul: &Consul, host: u8, service: &str) {
    let body = json!({ "Node": format!("n{host}"), "ServiceID": format!("{service}-{host}") });
    put(consul, "/v1/catalog/deregister", &body);
}

/// Puts a file where a reader sees the old one or the new one.
fn replace(file: &Path, text: impl AsRef<[u8]>) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, file).unwrap();
}

fn with_file(consul: &Consul, file: &Path) -> Follower {
    Follower::new(registry(&consul.url(), &format!("token_file = {file:?}\nwait = \"2s\"\n")), None)
}

fn counts(view: &View<'_>) -> (usize, usize) {
    (view.count("web"), view.count("api"))
}

fn unconfirmed(view: &View<'_>, service: &str) -> bool {
    view.endpoints(service).unwrap_or_default().iter().all(|it| it.health == Health::Unconfirmed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_list_is_no_proof_whatever_shortened_it() {
    let Some(consul) = with_acl() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let all = token(&consul, ALL);
    for rules in [WEB, NO_NODES, BUT_API] {
        replace(&file, &all.secret);
        let mut follower = with_file(&consul, &file);
        follower.until("all", SOON, |view| counts(view) == (2, 1)).await.unwrap();
        assert_eq!(follower.view(|view| view.seen.completeness), Some(Completeness::Full));
        replace(&file, &token(&consul, rules).secret);
        let hides = |view: &View<'_>| {
            view.seen.completeness == Some(Completeness::Filtered) && unconfirmed(view, "api")
        };
        follower.until("that something is hidden", SOON, hides).await.unwrap();
        assert_eq!(follower.view(counts), (2, 1), "{rules}");
        replace(&file, &all.secret);
        let back =
            |view: &View<'_>| view.seen.completeness == Some(Completeness::Full) && !unconfirmed(view, "api");
        follower.until("all is shown again", CONVERGED, back).await.unwrap();
        assert_eq!(follower.view(counts), (2, 1), "{rules}");
        assert_eq!(follower.view(|view| view.seen.errors.clone()), Vec::<String>::new(), "{rules}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_narrowed_while_it_is_used_takes_nothing_away_and_the_right_is_named() {
    let Some(consul) = with_acl() else { return };
    rule(&consul, ALL);
    let file = consul.scratch().write("agent", ruled(&consul)).unwrap();
    let mut follower = with_file(&consul, &file);
    follower.until("all", SOON, |view| counts(view) == (2, 1)).await.unwrap();
    assert_eq!(follower.view(notices), Vec::<String>::new());
    for (rules, service, right) in [
        (WEB, "api", "the token lacks service_prefix \"\" read"),
        (BUT_API, "api", "service \"api\" read"),
        (NO_NODES, "web", "node_prefix \"\" read"),
        (BUT_N2, "web", "node \"n2\" read"),
    ] {
        rule(&consul, rules);
        let hides = |view: &View<'_>| {
            view.seen.completeness == Some(Completeness::Filtered)
                && unconfirmed(view, service)
                && notices(view).iter().any(|notice| notice.contains(right))
        };
        follower.until(right, SOON, hides).await.unwrap();
        assert_eq!(follower.view(counts), (2, 1), "{rules}");
        // What happens meanwhile elsewhere takes nothing away either.
        write(&consul, "n1", 9, "late", json!({}));
        let commits = follower.view(|view| view.seen.commits);
        follower.until("more words", SOON, |view| view.seen.commits > commits).await.unwrap();
        assert_eq!(follower.view(counts), (2, 1), "{rules}");
        rule(&consul, ALL);
        let back = |view: &View<'_>| {
            view.seen.completeness == Some(Completeness::Full)
                && !unconfirmed(view, service)
                && notices(view).is_empty()
        };
        follower.until("all is shown again", CONVERGED, back).await.unwrap();
        assert_eq!(follower.view(counts), (2, 1), "{rules}");
    }
    assert_eq!(follower.view(|view| view.seen.errors.clone()), Vec::<String>::new());
}

/// Waits until nobody has asked anything for a while, so that all who wait do.
async fn settled(gate: &Gate) {
    let asked = async {
        loop {
            let before = gate.counts().to_server;
            sleep(Duration::from_millis(500)).await;
            if gate.counts().to_server == before {
                return;
            }
        }
    };
    timeout(SOON, asked).await.expect("an end of questions");
}

/// A question for all services that waits is answered by the rights that it began with, which may be less than those of
/// now, and nothing in its answer says so.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_time_with_fewer_rights_takes_nothing_away() {
    let Some(consul) = with_acl() else { return };
    let policies = [("all", ALL), ("but-api", BUT_API)];
    for (name, rules) in policies {
        put(&consul, "/v1/acl/policy", &json!({ "Name": name, "Rules": rules }));
    }
    let allow = |name: &str| {
        let anonymous = "/v1/acl/token/00000000-0000-0000-0000-000000000002";
        put(&consul, anonymous, &json!({ "Policies": [{ "Name": name }] }));
    };
    allow("all");
    let gate = Gate::before(&consul.url()).unwrap();
    let mut follower = Follower::new(registry(&gate.url(), "wait = \"60s\"\n"), None);
    follower.until("all", SOON, |view| counts(view) == (2, 1)).await.unwrap();
    for round in 0..3_u8 {
        settled(&gate).await;
        // These questions have all rights; those that follow them have fewer.
        allow("but-api");
        write(&consul, "n1", 10 + round, "late", json!({}));
        let told = |number: usize| move |view: &View<'_>| view.count("late") == number;
        follower.until("a write", SOON, told(usize::from(round) * 2 + 1)).await.unwrap();
        assert_eq!(follower.view(counts), (2, 1), "round {round}");
        settled(&gate).await;
        allow("all");
        write(&consul, "n1", 20 + round, "late", json!({}));
        follower.until("another write", SOON, told(usize::from(round) * 2 + 2)).await.unwrap();
        assert_eq!(follower.view(counts), (2, 1), "round {round}");
    }
}

/// Who comes back is not shown what it was shown before, and believes it no more than if it had stayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_narrowed_during_an_outage_takes_nothing_away() {
    let Some(consul) = with_acl() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let all = token(&consul, ALL);
    let gate = Gate::before(&consul.url()).unwrap();
    for rules in [WEB, NO_NODES, BUT_API] {
        replace(&file, &all.secret);
        let section = format!("token_file = {file:?}\nwait = \"2s\"\n");
        let mut follower = Follower::new(registry(&gate.url(), &section), None);
        follower.until("all", SOON, |view| counts(view) == (2, 1)).await.unwrap();
        gate.set(GateMode::Cut).unwrap();
        follower.until("the outage", SOON, |view| !view.seen.errors.is_empty()).await.unwrap();
        replace(&file, &token(&consul, rules).secret);
        gate.set(GateMode::Open).unwrap();
        let hides = |view: &View<'_>| {
            view.seen.completeness == Some(Completeness::Filtered) && unconfirmed(view, "api")
        };
        follower.until("that something is hidden", SOON, hides).await.unwrap();
        assert_eq!(follower.view(counts), (2, 1), "{rules}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_narrow_token_may_read_is_believed_and_an_anonymous_one_proves_nothing() {
    let Some(consul) = with_acl() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    replace(&file, &token(&consul, WEB).secret);
    let mut narrow = with_file(&consul, &file);
    narrow.until("its own service", SOON, |view| counts(view) == (2, 0)).await.unwrap();
    let mut anonymous = Follower::new(registry(&consul.url(), "wait = \"2s\"\n"), None);
    anonymous.until("a list", SOON, |view| view.seen.completeness.is_some()).await.unwrap();
    for follower in [&narrow, &anonymous] {
        assert_eq!(follower.view(|view| view.seen.completeness), Some(Completeness::Filtered));
    }
    deregister(&consul, 1, "web");
    narrow.until("an instance less", SOON, |view| counts(view) == (1, 0)).await.unwrap();
    deregister(&consul, 2, "web");
    narrow.until("no service", SOON, |view| counts(view) == (0, 0)).await.unwrap();
    // What the anonymous token is shown is taken from it again.
    let policy = json!({ "Name": "anonymous", "Rules": ALL });
    put(&consul, "/v1/acl/policy", &policy);
    let anonymous_token = "/v1/acl/token/00000000-0000-0000-0000-000000000002";
    put(&consul, anonymous_token, &json!({ "Policies": [{ "Name": "anonymous" }] }));
    anonymous.until("what it may see now", SOON, |view| counts(view) == (0, 1)).await.unwrap();
    put(&consul, anonymous_token, &json!({ "Policies": [] }));
    anonymous.until("it is unconfirmed", SOON, |view| unconfirmed(view, "api")).await.unwrap();
    assert_eq!(anonymous.view(counts), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_unnoticed_and_a_revoked_one_is_told_and_restored() {
    let Some(consul) = with_acl() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let first = token(&consul, ALL);
    replace(&file, &first.secret);
    let mut follower = with_file(&consul, &file);
    follower.until("all", SOON, |view| counts(view) == (2, 1)).await.unwrap();
    let second = token(&consul, ALL);
    replace(&file, format!("{}\n", second.secret));
    block_in_place(|| consul.revoke_token(&first)).unwrap();
    write(&consul, "n4", 4, "web", json!({}));
    follower.until("an instance more", SOON, |view| counts(view) == (3, 1)).await.unwrap();
    let commits = follower.view(|view| view.seen.commits);
    follower.until("that all is true", SOON, |view| view.seen.commits > commits).await.unwrap();
    assert_eq!(follower.view(|view| view.seen.errors.clone()), Vec::<String>::new());

    block_in_place(|| consul.revoke_token(&second)).unwrap();
    let denied = |view: &View<'_>| view.seen.errors.iter().any(|it| it.contains("not allowed"));
    follower.until("that the token is refused", SOON, denied).await.unwrap();
    assert_eq!(follower.view(counts), (3, 1));
    let secrets = [first.secret, second.secret];
    let shown = follower.view(|view| view.seen.errors.join(" "));
    assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
    deregister(&consul, 4, "web");
    replace(&file, &token(&consul, ALL).secret);
    follower.until("what happened meanwhile", SOON, |view| counts(view) == (2, 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_named_in_consuls_words() {
    let Some(consul) = with_acl() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let given = |more: String| async move {
        let consul = registry(&more, "");
        let rights = consul.rights().await.unwrap();
        rights.into_iter().map(|right| (right.name, right.given)).collect::<Vec<_>>()
    };
    let anonymous = given(consul.url()).await;
    assert_eq!(anonymous[0], ("service_prefix \"\" read".into(), Some(false)));
    replace(&file, &token(&consul, NO_NODES).secret);
    let registry = registry(&consul.url(), &format!("token_file = {file:?}\n"));
    let rights = registry.rights().await.unwrap();
    let names: Vec<_> = rights.iter().map(|it| (it.name.as_str(), it.given)).collect();
    assert_eq!(names, [("service_prefix \"\" read", Some(true)), ("node_prefix \"\" read", Some(false))]);
}

/// What an auth method takes: a JSON web token signed by `key`.
fn web_token(key: &rcgen::KeyPair, ends_in: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let part = |value: serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let claims =
        json!({ "iss": "tests", "sub": "agent", "aud": "consul", "iat": now - 7200, "exp": now + ends_in });
    let text = format!("{}.{}", part(json!({ "alg": "ES256", "typ": "JWT" })), part(claims));
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der()).unwrap();
    let signature = key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
    format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_method_gives_tokens_and_another_one_when_one_ends() {
    let Some(consul) = with_acl() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwt");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let config = json!({
        "JWTValidationPubKeys": [key.public_key_pem()], "JWTSupportedAlgs": ["ES256"],
        "BoundIssuer": "tests", "BoundAudiences": ["consul"],
    });
    let method = json!({ "Name": "weft", "Type": "jwt", "MaxTokenTTL": "1m", "Config": config });
    put(&consul, "/v1/acl/auth-method", &method);
    put(&consul, "/v1/acl/policy", &json!({ "Name": "weft", "Rules": ALL }));
    let binding = json!({ "AuthMethod": "weft", "BindType": "policy", "BindName": "weft" });
    put(&consul, "/v1/acl/binding-rule", &binding);
    replace(&file, web_token(&rcgen::KeyPair::generate().unwrap(), 3600));
    let login = format!("login = {{ method = \"weft\", token_file = {file:?} }}\nwait = \"1s\"\n");
    let registry = registry(&consul.url(), &login);
    let mut follower = Follower::new(registry.clone(), None);
    let refused = |view: &View<'_>| view.seen.errors.iter().any(|it| it.contains("/v1/acl/login"));
    follower.until("that the login is refused", SOON, refused).await.unwrap();
    replace(&file, web_token(&key, -3600));
    let expired = |view: &View<'_>| {
        let is_it = |it: &String| it.starts_with("not allowed: ") && it.contains("token is expired");
        view.seen.errors.iter().any(is_it)
    };
    follower.until("that it has ended", SOON, expired).await.unwrap();
    let unreachable = |it: &String| it.starts_with("unreachable");
    assert!(
        !follower.view(|view| view.seen.errors.iter().any(unreachable)),
        "{:?}",
        follower.view(|view| view.seen.errors.clone())
    );
    replace(&file, web_token(&key, 3600));
    follower.until("all", SOON, |view| counts(view) == (2, 1)).await.unwrap();
    let errors = follower.view(|view| view.seen.errors.len());
    let given = || {
        let tokens =
            block_in_place(|| consul.call("GET", "/v1/acl/tokens?authmethod=weft", "")).unwrap().json();
        let ids = tokens.as_array().unwrap().iter().map(|it| it["AccessorID"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    let first = given();
    assert_eq!(first.len(), 1);
    block_in_place(|| consul.call("DELETE", &format!("/v1/acl/token/{}", first[0]), "")).unwrap();
    write(&consul, "n4", 4, "web", json!({}));
    follower.until("an instance more", SOON, |view| counts(view) == (3, 1)).await.unwrap();
    let commits = follower.view(|view| view.seen.commits);
    follower.until("that all is true", SOON, |view| view.seen.commits > commits).await.unwrap();
    assert!(first != given());
    assert_eq!(follower.view(|view| view.seen.errors.len()), errors);

    // Nobody follows it any more, and what was given is given back.
    drop(follower);
    registry.close().await;
    assert_eq!(given(), Vec::<String>::new());
    let again = registry.rights().await.unwrap_err().to_string();
    assert!(again.contains("given back"), "{again}");
    let other = crate::bed::registry(&consul.url(), &login);
    let probe = probe(&*other, &Limits::default(), &[], SOON).await;
    assert!(probe.is_well() && given().is_empty(), "a look leaves nothing behind: {probe:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_for_one_denies_is_a_missing_right() {
    let Some(consul) = with_acl() else { return };
    for (rules, kind) in [(BUT_N2, "node"), (BUT_API, "service")] {
        rule(&consul, rules);
        let file = consul.scratch().write("agent", ruled(&consul)).unwrap();
        let registry = registry(&consul.url(), &format!("token_file = {file:?}\n"));
        let found = probe(&*registry, &Limits::default(), &[], SOON).await;
        assert_eq!((found.is_well(), found.complete), (false, Some(false)), "{rules}: {found:?}");
        let lacks = |it: &&Right| it.given == Some(false) && it.name.contains(kind);
        let right = found.rights.iter().find(lacks).unwrap_or_else(|| panic!("{rules}: {found:?}"));
        assert!(right.name.contains("\"agent\""), "the policy is named: {right:?}");
    }
    rule(&consul, ALL);
    let file = consul.scratch().write("agent", ruled(&consul)).unwrap();
    let registry = registry(&consul.url(), &format!("token_file = {file:?}\n"));
    assert!(probe(&*registry, &Limits::default(), &[], SOON).await.is_well());
}
