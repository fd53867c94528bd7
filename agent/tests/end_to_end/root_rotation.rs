//! One root replaces another under load, with the operator's verbs: nothing fails, nothing restarts, and who is not
//! ready for the withdrawal is named.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{
    quick_start::{Start, WEB},
    support::{Application, Load, Streams, until},
};

/// Streams that are open while the new root comes and the old one goes.
const STREAMS: usize = 10;
/// Callers, each as fast as answers come.
const CALLERS: usize = 8;

fn hub_status(start: &Start) -> Value {
    // It says so with its exit code when it is not ready.
    let output = start.sandbox.run(&["hub", "status", "-o", "json", "--socket", "hub/admin.sock"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The roots under which the nodes hold certificates.
fn roots_in_use(status: &Value) -> BTreeSet<String> {
    let certificates = status["nodes"].as_array().unwrap().iter().map(|node| &node["certificates"]);
    let held = certificates.flat_map(|held| held.as_array().unwrap());
    held.map(|held| held["root"].as_str().unwrap_or("none").to_owned()).collect()
}

fn signing_root(status: &Value) -> String {
    let roots = status["roots"].as_array().unwrap();
    roots.iter().find(|root| root["signs"] == true).unwrap()["sha256"].as_str().unwrap().to_owned()
}

fn token(start: &Start, node: &str) -> String {
    let arguments =
        ["ca", "token", "create", "--state-dir", "hub", "--hub", &start.hub.to_string(), "--node", node];
    start.sandbox.ok(&[&arguments[..], &["--identity", WEB]].concat()).trim().to_owned()
}

/// Runs a verb that must fail; gives what it complains of.
fn refused(start: &Start, arguments: &[&str]) -> String {
    let output = start.sandbox.run(arguments);
    assert_eq!(output.status.code(), Some(1), "weft {arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_root_is_replaced_under_load_and_nobody_notices() {
    let applications = [Application::start("one"), Application::start("two")];
    let mut start = Start::new();
    start.write(&applications);
    start.up();
    let outbound = start.web_outbound;
    let streams = Streams::open(outbound, "reviews.default.mesh", STREAMS, &applications);
    let load = Load::start(outbound, "reviews.default.mesh", CALLERS);
    load.go_on(50);
    let before = hub_status(&start);
    let old = signing_root(&before);
    assert_eq!(roots_in_use(&before), BTreeSet::from([old.clone()]));
    let [early, later] = ["early", "later"].map(|node| token(&start, node));

    let complaint = refused(&start, &["ca", "retire", "--state-dir", "hub"]);
    assert!(complaint.contains("weft ca rotate"), "{complaint}");
    start.sandbox.ok(&["ca", "rotate", "--state-dir", "hub"]);
    let complaint = refused(&start, &["ca", "retire", "--state-dir", "hub"]);
    assert!(complaint.contains("node web ") && complaint.contains("node reviews "), "{complaint}");
    let new = until("everybody holds certificates of the new root", || {
        let status = hub_status(&start);
        let new = signing_root(&status);
        (new != old && roots_in_use(&status) == BTreeSet::from([new.clone()])).then_some(new)
    });
    until("everybody trusts both roots, and says so", || {
        let trusts = |node: &Value| -> BTreeSet<String> {
            let trusts = node["trusts"].as_array().unwrap().iter().filter_map(Value::as_str);
            trusts.map(str::to_owned).collect()
        };
        let both = BTreeSet::from([old.clone(), new.clone()]);
        hub_status(&start)["nodes"].as_array()?.iter().all(|node| trusts(node) == both).then_some(())
    });
    load.go_on(100);

    // A token from before the rotation is good until the root that it names is withdrawn; its host is waited for.
    start.sandbox.ok(&["join", "--state-dir", "early", "--token", &early]);
    let complaint = refused(&start, &["ca", "retire", "--state-dir", "hub"]);
    assert!(complaint.contains("node early ") && !complaint.contains("node web "), "{complaint}");
    start.sandbox.ok(&["ca", "node", "remove", "--state-dir", "hub", "early"]);
    start.sandbox.ok(&["ca", "retire", "--state-dir", "hub"]);
    until("the old root is gone everywhere", || {
        let one = |node: &str| {
            let bundle = fs::read_to_string(start.sandbox.path(&format!("{node}/bundle.pem"))).unwrap();
            bundle.matches("BEGIN").count() == 1
        };
        let status = hub_status(&start);
        let roots = status["roots"].as_array().unwrap();
        (roots.len() == 1 && roots[0]["sha256"] == new.as_str() && one("web") && one("reviews")).then_some(())
    });
    load.go_on(200);
    // They were opened under the old root, and may go on for a while.
    streams.end(&applications);
    let complaint = refused(&start, &["join", "--state-dir", "later", "--token", &later]);
    assert!(complaint.contains("not the hub that made the token"), "{complaint}");
    let (answered, failures) = (load.answered(), load.end());
    assert!(failures.is_empty(), "{} of {answered} failed, such as {}", failures.len(), failures[0]);
    assert!(start.processes.iter_mut().all(|process| process.is_running()), "nothing restarted");
}

#[test]
fn a_node_that_is_removed_loses_its_stream_and_gets_no_certificate() {
    let applications = [Application::start("one"), Application::start("two")];
    let mut start = Start::new();
    start.leaf_ttl = "6s";
    start.write(&applications);
    start.up();
    let table = until("the hub says that it is ready", || {
        let output = start.sandbox.run(&["hub", "status", "--socket", "hub/admin.sock"]);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert!(table.contains("hub of quickstart.mesh") && table.contains(WEB), "{table}");
    let connected = |name: &str| {
        let status = hub_status(&start);
        let node = status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name)?;
        Some(!node["connected_for_s"].is_null())
    };
    assert_eq!((connected("web"), connected("reviews")), (Some(true), Some(true)));
    start.sandbox.ok(&["ca", "node", "remove", "--state-dir", "hub", "web"]);
    until("the agent knows that it was removed", || {
        let status = start.sandbox.json("status", "web/run/admin.sock");
        let link = status["hub"]["link"].as_str().unwrap().to_owned();
        (link.contains("removed") || link.contains("has not joined here")).then_some(())
    });
    assert_eq!((connected("web"), connected("reviews")), (None, Some(true)));
    until("its certificate ends", || {
        let status = start.sandbox.json("status", "web/run/admin.sock");
        (status["workloads"][0]["certificate_ends_in_s"].as_i64()? <= 0).then_some(())
    });
    let complaint = refused(&start, &["ca", "node", "remove", "--state-dir", "hub", "web"]);
    assert!(complaint.contains("no node web"), "{complaint}");
}

#[test]
fn a_token_that_is_revoked_buys_nothing() {
    let applications = [Application::start("one"), Application::start("two")];
    let mut start = Start::new();
    start.write(&applications);
    start.up();
    let token = token(&start, "third");
    let list = || -> Vec<Value> {
        let text = start.sandbox.ok(&["ca", "token", "list", "--state-dir", "hub", "-o", "json"]);
        serde_json::from_str(&text).unwrap()
    };
    let unused = list().into_iter().find(|token| token["used_by"].is_null()).unwrap();
    let id = unused["id"].as_str().unwrap().to_owned();
    let unknown = refused(&start, &["ca", "token", "revoke", "--state-dir", "hub", "ffffffffffffffff"]);
    assert!(unknown.contains("no token begins with"), "{unknown}");
    start.sandbox.ok(&["ca", "token", "revoke", "--state-dir", "hub", &id[..6]]);
    assert_eq!(list().len(), 2, "those of the two agents are left");
    let complaint = refused(&start, &["join", "--state-dir", "third", "--token", &token]);
    assert!(complaint.contains("unknown here"), "{complaint}");
    // Without a hub the verbs work on its store.
    start.processes[0].kill();
    let id = list()[0]["id"].as_str().unwrap().to_owned();
    start.sandbox.ok(&["ca", "token", "revoke", "--state-dir", "hub", &id]);
    assert_eq!(list().len(), 1);
}
