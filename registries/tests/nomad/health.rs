//! What the catalog does not know: tasks that do not run yet or no more, checks that fail, nodes that are lost.

use std::{fs, path::PathBuf};

use weft_core::resource::Health;
use weft_testbed::{Nomad, NomadOptions};

use crate::support::{Job, View, follower, start};

const CHECK: &str = r#"
      check {
        type     = "http"
        path     = "/well"
        interval = "1s"
        timeout  = "1s"
      }
"#;

fn allocation(view: &View, service: &str) -> String {
    let endpoint = view.endpoints(service).remove(0);
    endpoint.instance.as_str().trim_start_matches("_nomad-task-").chars().take(36).collect()
}

/// The folder that an allocation's tasks share.
fn shared(nomad: &Nomad, allocation: &str) -> PathBuf {
    nomad.scratch().path().join("client-1/data/alloc").join(allocation).join("alloc")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_check_takes_an_instance_out_and_its_neighbour_not() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let mut follower = follower(&nomad, "");
    Job { service: CHECK, ..Job::default() }.run(&nomad);
    Job { name: "other", ..Job::default() }.run(&nomad);
    let view = follower
        .until("web fails and other works", |view| {
            view.healths("web.default") == [Health::Unhealthy]
                && view.healths("other.default") == [Health::Healthy]
        })
        .await;
    let mark = shared(&nomad, &allocation(&view, "web.default")).join("well");
    fs::write(&mark, "").unwrap();
    follower.until("it recovers", |view| view.healths("web.default") == [Health::Healthy]).await;
    let at = follower.now().commits;
    fs::remove_file(&mark).unwrap();
    let view = follower.until("it fails", |view| view.healths("web.default") == [Health::Unhealthy]).await;
    assert!(view.commits > at);
    assert_eq!((view.healths("other.default"), view.errors), (vec![Health::Healthy], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_registered_before_its_task_runs_and_healthy_after() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let mut follower = follower(&nomad, "identity = \"ns/{group}/sa/{task}\"\nmesh_port = 15008\n");
    let helper = |name: &str, lifecycle: &str, script: &str| {
        format!(
            "task \"{name}\" {{\n driver = \"raw_exec\"\n lifecycle {{\n {lifecycle}\n }}\n config {{\n command = \"/bin/sh\"\n \
             args = [\"-c\", \"{script}\"]\n }}\n resources {{\n cpu = 20\n memory = 20\n }}\n SERVICE\n }}\n"
        )
    };
    let own = "service {\n name = \"proxy\"\n provider = \"nomad\"\n port = \"http\"\n }\n";
    let group = helper("beside", "hook = \"prestart\"\n sidecar = true", "sleep 1000")
        .replace("SERVICE", own)
        + &helper("before", "hook = \"prestart\"", "until [ -e $NOMAD_ALLOC_DIR/go ]; do sleep 0.1; done")
            .replace("SERVICE", "")
        + &helper("after", "hook = \"poststop\"", "true").replace("SERVICE", "");
    Job { group: &group, ..Job::default() }.run(&nomad);
    let view = follower
        .until("the helper serves and the group does not", |view| {
            view.healths("proxy.default") == [Health::Healthy]
                && view.healths("web.default") == [Health::Unhealthy]
        })
        .await;
    let proxy = view.endpoints("proxy.default").remove(0);
    assert_eq!(proxy.identity.unwrap().as_str(), "spiffe://demo.mesh/ns/web/sa/beside");
    let web = view.endpoints("web.default").remove(0);
    assert_eq!(web.identity, None, "a group's service has no task");
    assert!(
        view.faults().iter().any(|fault| fault.contains("task, which is not known")),
        "{:?}",
        view.faults()
    );
    fs::write(shared(&nomad, &allocation(&view, "web.default")).join("go"), "").unwrap();
    follower.until("the main task runs", |view| view.healths("web.default") == [Health::Healthy]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_application_is_unhealthy_until_it_runs_again() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let mut follower = follower(&nomad, "");
    Job::default().run(&nomad);
    let view = follower.until("it runs", |view| view.healths("web.default") == [Health::Healthy]).await;
    let allocation = allocation(&view, "web.default");
    nomad.nomad(&["alloc", "signal", "-s", "SIGKILL", &allocation], "").unwrap();
    let view = follower.until("it is dead", |view| view.healths("web.default") == [Health::Unhealthy]).await;
    assert_eq!(view.addresses("web.default"), nomad.service("web").unwrap(), "the catalog does not know");
    follower.until("it runs again", |view| view.healths("web.default") == [Health::Healthy]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_of_a_lost_node_go_and_others_stay() {
    let clients = ["one", "two"].map(|class| format!("client {{\n node_class = \"{class}\"\n}}\n")).to_vec();
    let Some(nomad) = start(NomadOptions { clients, ..NomadOptions::default() }) else { return };
    let mut follower = follower(&nomad, "");
    let apart =
        |class: &str| format!("constraint {{\n attribute = \"${{node.class}}\"\n value = \"{class}\"\n }}\n");
    Job { name: "one", group: &apart("one"), ..Job::default() }.run(&nomad);
    Job { name: "two", group: &apart("two"), ..Job::default() }.run(&nomad);
    let runs = |view: &View, name: &str| view.healths(&format!("{name}.default")) == [Health::Healthy];
    let view = follower.until("both run", |view| runs(view, "one") && runs(view, "two")).await;
    assert_eq!(view.endpoints("two.default")[0].locality.to_string(), "global/dc1/two");
    nomad.crash_client(0).unwrap();
    let view = follower.until("one is gone", |view| view.endpoints("one.default").is_empty()).await;
    assert!(runs(&view, "two") && view.errors.is_empty(), "{view:#?}");
    nomad.restart_client(0).unwrap();
    follower.until("it is back", |view| runs(view, "one")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_is_labelled_until_it_is_promoted() {
    let Some(nomad) = start(NomadOptions::default()) else { return };
    let mut follower = follower(&nomad, "");
    let update = "update {\n canary = 1\n min_healthy_time = \"1s\"\n healthy_deadline = \"1m\"\n progress_deadline = \"2m\"\n }\n";
    let job = |version: &str| {
        let service =
            format!("tags = [\"version={version}\"]\n canary_tags = [\"version={version}\", \"fresh\"]\n");
        // Tags alone would be changed in place.
        let group = format!("{update}meta {{\n version = \"{version}\"\n }}\n");
        Job { service: &service, group: &group, ..Job::default() }.run(&nomad);
    };
    job("1");
    follower.until("the first runs", |view| view.healths("web.default") == [Health::Healthy]).await;
    job("2");
    let labels = |view: &View| {
        let of = |label: &str| {
            let endpoints = view.endpoints("web.default");
            let mut all: Vec<String> =
                endpoints.iter().map(|it| it.labels.get(label).unwrap_or("-").to_owned()).collect();
            all.sort();
            all.join(" ")
        };
        (of("version"), of("canary"), of("tag.fresh"))
    };
    let is = |view: &View, version: &str, canary: &str, fresh: &str| {
        labels(view) == (version.to_owned(), canary.to_owned(), fresh.to_owned())
    };
    follower.until("the canary is beside it", |view| is(view, "1 2", "- true", "- true")).await;
    weft_testbed::until("the deployment can be promoted", crate::support::DEADLINE, || {
        let deployment = nomad.call("GET", "/v1/job/web/deployment", "").unwrap().json();
        let id = deployment["ID"].as_str().unwrap_or_default().to_owned();
        nomad.nomad(&["deployment", "promote", "-detach", &id], "").is_ok()
    })
    .unwrap();
    follower.until("it is no canary any more", |view| is(view, "2", "-", "-")).await;
}
