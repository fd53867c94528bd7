//! What happens while the API server or its store is away, and after.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::task::block_in_place;
use weft_testbed::{Gate, GateMode, Kubernetes, KubernetesOptions};

use crate::{
    cluster::{SOON, by, by_admin, home, options, through},
    follower::{Follower, View},
};

/// How soon an outage that nobody tells of is noticed.
const NOTICED: Duration = Duration::from_secs(60);

fn start() -> Option<Kubernetes> {
    let kubernetes = Kubernetes::start(&home()?, options()).unwrap();
    kubernetes.apply(Kubernetes::WEB_OBJECTS).unwrap();
    kubernetes.patch_pod_status("web-1", Kubernetes::WEB_STATUS).unwrap();
    Some(kubernetes)
}

/// A further endpoint of `orders`.
fn another(kubernetes: &Kubernetes, number: u8) {
    let slice = format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
         metadata: {{name: orders-{number}, labels: {{kubernetes.io/service-name: orders}}}}, \
         endpoints: [{{addresses: [10.50.2.{number}]}}], ports: [{{name: http, port: 8080}}]}}"
    );
    // A server that is just back may still refuse.
    weft_testbed::until("it is written", SOON, || kubernetes.apply(&slice).is_ok()).unwrap();
}

/// A follower, and what it must pass to reach the API server.
fn behind_a_gate(kubernetes: &Kubernetes) -> (Gate, Follower) {
    let gate = Gate::before(&kubernetes.url()).unwrap();
    let kubeconfig = through(kubernetes, &kubernetes.admin_kubeconfig(), gate.address().port());
    (gate, Follower::new(by(&kubeconfig, ""), None))
}

fn both(view: &View<'_>) -> bool {
    view.count("web") == 1 && view.count("orders") == 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_with_the_server_and_all_is_seen_when_it_is_back() {
    let Some(kubernetes) = block_in_place(start) else { return };
    let mut follower = Follower::new(by_admin(&kubernetes, ""), None);
    follower.until("the first list", SOON, both).await.unwrap();
    block_in_place(|| kubernetes.kill_api_server());
    follower.until("the outage", NOTICED, |view| !view.seen.errors.is_empty()).await.unwrap();
    assert!(follower.view(both), "endpoints went with the server");
    block_in_place(|| {
        kubernetes.restart_api_server().unwrap();
        another(&kubernetes, 8);
    });
    follower.until("a change after it", SOON, |view| view.count("orders") == 2).await.unwrap();
    assert!(follower.view(|view| view.count("web") == 1));

    // Without its store the API server answers from memory, and its watches stay open: that is no "still true".
    let errors = follower.view(|view| view.seen.errors.len());
    block_in_place(|| kubernetes.kill_etcd());
    follower.until("the store's outage", NOTICED, |view| view.seen.errors.len() > errors).await.unwrap();
    assert!(follower.view(|view| view.count("orders") == 2 && view.count("web") == 1));
    // Nor is it taken for one that is back, which would be another outage each time.
    let (errors, commits) = follower.view(|view| (view.seen.errors.len(), view.seen.commits));
    follower.until("it is tried again", NOTICED, |view| view.seen.errors.len() > errors + 1).await.unwrap();
    assert_eq!(follower.view(|view| view.seen.commits), commits, "a list without the store");
    block_in_place(|| {
        kubernetes.restart_etcd().unwrap();
        another(&kubernetes, 9);
    });
    follower.until("a change after that", SOON, |view| view.count("orders") == 3).await.unwrap();

    // A server that is there and does not answer.
    let errors = follower.view(|view| view.seen.errors.len());
    kubernetes.api_server().pause();
    follower.until("the silence", NOTICED, |view| view.seen.errors.len() > errors).await.unwrap();
    kubernetes.api_server().resume();
    block_in_place(|| another(&kubernetes, 10));
    follower.until("a change after the silence", SOON, |view| view.count("orders") == 4).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_a_time_that_is_forgotten_is_listed_anew() {
    let Some(kubernetes) = block_in_place(start) else { return };
    let (gate, mut follower) = behind_a_gate(&kubernetes);
    follower.until("the first list", SOON, both).await.unwrap();
    // Nobody hears anything; meanwhile things happen, and the server forgets them.
    gate.set(GateMode::Silent).unwrap();
    let began = Instant::now();
    block_in_place(|| {
        another(&kubernetes, 8);
        kubernetes.delete("{apiVersion: v1, kind: Service, metadata: {name: web}}").unwrap();
        kubernetes.kill_api_server();
        kubernetes.restart_api_server().unwrap();
    });
    gate.set(GateMode::Open).unwrap();
    // Much more of it is an outage.
    let is_borne = began.elapsed() < Duration::from_secs(20);
    let after = |view: &View<'_>| view.count("orders") == 2 && view.endpoints("web").is_none();
    follower.until("what happened meanwhile", NOTICED, after).await.unwrap();
    follower.view(|view| {
        assert!(!is_borne || view.seen.errors.is_empty(), "all in one stream: {:?}", view.seen.errors);
    });
}

/// What a follower may see, and the binding that says so, which a test takes away: as an API server that has just begun
/// denies what it has not loaded yet.
fn limited(kubernetes: &Kubernetes, name: &str, resources: &str) -> PathBuf {
    let group = |resources: &str| {
        format!("{{apiGroups: [\"\", discovery.k8s.io], resources: [{resources}], verbs: [list, watch]}}")
    };
    let role = format!(
        "{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {{name: {name}}}, rules: [{}]}}",
        group(resources)
    );
    kubernetes.kubeconfig_for(name, name, &role).unwrap()
}

/// How many questions nobody was allowed to ask so far.
fn denied(kubernetes: &Kubernetes) -> u64 {
    let metrics = kubernetes.kubectl(&["get", "--raw", "/metrics"], "").unwrap();
    let name = "authorization_attempts_total{result=\"no-opinion\"} ";
    let counts = metrics.lines().filter_map(|line| line.strip_prefix(name)?.parse::<u64>().ok());
    counts.sum()
}

/// The same once the programs of the cluster itself, which begin before their rights are known, are denied no more.
fn settled(kubernetes: &Kubernetes) -> u64 {
    let mut before = None;
    let is_settled = || {
        let now = Some(denied(kubernetes));
        std::mem::replace(&mut before, now) == now || {
            std::thread::sleep(Duration::from_secs(1));
            false
        }
    };
    weft_testbed::until("nobody else is denied", SOON, is_settled).unwrap();
    before.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_denies_that_is_just_back_is_part_of_its_outage() {
    let Some(kubernetes) = block_in_place(start) else { return };
    let all = "services, endpointslices, pods, nodes";
    let kubeconfig = block_in_place(|| limited(&kubernetes, "late", all));
    let gate = Gate::before(&kubernetes.url()).unwrap();
    let kubeconfig = through(&kubernetes, &kubeconfig, gate.address().port());
    let mut follower = Follower::new(by(&kubeconfig, ""), None);
    follower.until("the first list", SOON, both).await.unwrap();
    // A cut is an outage after a few seconds, and so are denials: what takes time is done in a silence, which is borne longer.
    gate.set(GateMode::Silent).unwrap();
    let before = block_in_place(|| {
        kubernetes.kubectl(&["delete", "clusterrolebinding", "late"], "").unwrap();
        another(&kubernetes, 8);
        denied(&kubernetes)
    });
    gate.set(GateMode::Cut).unwrap();
    gate.set(GateMode::Open).unwrap();
    block_in_place(|| {
        // One of each kind.
        let are_denied = || denied(&kubernetes) >= before + 4;
        weft_testbed::until("questions are denied", SOON, are_denied).unwrap();
        let (role, account) = ("--clusterrole=late", "--serviceaccount=default:late");
        kubernetes.kubectl(&["create", "clusterrolebinding", "late", role, account], "").unwrap();
    });
    follower.until("what happened meanwhile", SOON, |view| view.count("orders") == 2).await.unwrap();
    follower.view(|view| assert!(view.seen.errors.is_empty(), "all in one stream: {:?}", view.seen.errors));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_denied_for_a_while_are_kept_and_soon_seen() {
    let Some(kubernetes) = block_in_place(start) else { return };
    let (all, some) = ("services, endpointslices, pods, nodes", "services, endpointslices, pods");
    let kubeconfig = block_in_place(|| limited(&kubernetes, "nodes", some));
    let gate = Gate::before(&kubernetes.url()).unwrap();
    let kubeconfig = through(&kubernetes, &kubeconfig, gate.address().port());
    let mut follower = Follower::new(by(&kubeconfig, ""), None);
    let region = |view: &View<'_>| {
        let endpoints = view.endpoints("web").unwrap_or_default();
        endpoints.first().map(|it| it.locality.region().to_owned()).unwrap_or_default()
    };
    let told = |view: &View<'_>, words: &str| {
        let origins = view.seen.snapshot.scopes.values().flat_map(|state| state.origins.values());
        origins.flat_map(|it| &it.faults).any(|fault| fault.message.contains(words))
    };
    let without = |view: &View<'_>| both(view) && told(view, "judged by zone alone");
    follower.until("all else", SOON, without).await.unwrap();
    assert_eq!(follower.view(region), "");
    block_in_place(|| limited(&kubernetes, "nodes", all));
    let seen = |view: &View<'_>| region(view) == "east" && !told(view, "not allowed");
    follower.until("the region, soon after the right was given", SOON, seen).await.unwrap();

    // An outage that ends the stream; when the server is back it denies nodes.
    gate.set(GateMode::Cut).unwrap();
    block_in_place(|| limited(&kubernetes, "nodes", some));
    follower.until("the outage", NOTICED, |view| !view.seen.errors.is_empty()).await.unwrap();
    gate.set(GateMode::Open).unwrap();
    let kept = |view: &View<'_>| told(view, "what was known of them before is kept");
    follower.until("nodes are denied", SOON, kept).await.unwrap();
    assert_eq!(follower.view(region), "east");
    block_in_place(|| limited(&kubernetes, "nodes", all));
    follower.until("nodes are seen again", SOON, seen).await.unwrap();
}

/// Where a list is a question of its own, it is answered to who may not watch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_may_be_listed_and_not_watched_are_listed_ever_less_often_and_nothing_else_is() {
    let Some(home) = block_in_place(home) else { return };
    let lists_in_pages = "--feature-gates=WatchList=false".to_owned();
    let of = KubernetesOptions { api_server: vec![lists_in_pages], ..options() };
    let kubernetes = block_in_place(|| Kubernetes::start(&home, of)).unwrap();
    let kubeconfig = block_in_place(|| {
        kubernetes.apply(Kubernetes::WEB_OBJECTS).unwrap();
        kubernetes.patch_pod_status("web-1", Kubernetes::WEB_STATUS).unwrap();
        let role = "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: unwatched}, rules: [\
                    {apiGroups: [\"\", discovery.k8s.io], resources: [services, endpointslices, pods], verbs: [list, watch]}, \
                    {apiGroups: [\"\"], resources: [nodes], verbs: [list]}]}";
        kubernetes.kubeconfig_for("unwatched", "unwatched", role).unwrap()
    });
    let mut follower = Follower::new(by(&kubeconfig, ""), None);
    let unwatched = |view: &View<'_>| {
        let origins = view.seen.snapshot.scopes.values().flat_map(|state| state.origins.values());
        both(view)
            && origins
                .flat_map(|it| &it.faults)
                .any(|fault| fault.message.contains("not allowed: watch nodes"))
    };
    follower.until("all, and that nodes cannot be watched", SOON, unwatched).await.unwrap();
    let before = block_in_place(|| settled(&kubernetes));
    // At 2, 6 and 14 s after the first time; every 2 s it would be ten times.
    let told = Instant::now();
    while told.elapsed() < Duration::from_secs(20) {
        assert!(follower.view(unwatched), "it is told, and goes on to be");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let tried = block_in_place(|| denied(&kubernetes)) - before;
    assert!((1..=5).contains(&tried), "tried {tried} times");
    follower.view(|view| assert_eq!((view.seen.resets, &view.seen.errors), (1, &Vec::new())));
}

/// Everything is the dearest question there is, and what a server that is just back needs least.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_for_a_moment_is_not_asked_for_everything_again() {
    let Some(kubernetes) = block_in_place(start) else { return };
    let (gate, mut follower) = behind_a_gate(&kubernetes);
    follower.until("the first list", SOON, both).await.unwrap();
    // What takes time is done in a silence, which is borne longer than a cut.
    gate.set(GateMode::Silent).unwrap();
    block_in_place(|| another(&kubernetes, 8));
    gate.set(GateMode::Cut).unwrap();
    gate.set(GateMode::Open).unwrap();
    follower.until("what happened meanwhile", SOON, |view| view.count("orders") == 2).await.unwrap();
    follower.view(|view| assert!(view.seen.errors.is_empty(), "all in one stream: {:?}", view.seen.errors));
    assert_eq!(follower.view(|view| view.seen.resets), 1, "everything was listed again");
}
